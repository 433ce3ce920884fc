// Whatever a test throws, the report survives it.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { TestEvent } from 'node:test/reporters';
import quietReporter from '../../tools/quiet-reporter.ts';

async function reportOf(cause: unknown): Promise<string> {
  const failure = { type: 'test:fail', data: { name: 'x', file: 'x.test.ts', details: { error: new Error('the message', { cause }) } } };
  async function* source(): AsyncGenerator<TestEvent> {
    yield failure as TestEvent;
  }
  let text = '';
  for await (const part of quietReporter(source())) text += part;
  return text;
}

for (const [name, cause, shown] of [
  ['an-error', new Error('the cause'), /the cause/],
  ['a-string', 'in words', /in words/],
  ['nothing', undefined, /the message/],
  ['an-object-without-a-prototype', Object.assign(Object.create(null), { code: 'ODD' }), /ODD/],
  ['a-symbol', Symbol('odd'), /odd/],
] as const)
  it(`a-failure-by-${name}-is-reported`, async () => {
    const report = await reportOf(cause);
    assert.match(report, shown);
    assert.match(report, /0 passed, 1 failed, 0 skipped/);
  });
