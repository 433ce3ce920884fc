// What operators' commands print: the words of workloads, without what a terminal would obey.

import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';
import { print, table } from '../../src/commands/operator-flags.ts';
import { refusalText } from '../../src/discovery/answer.ts';

const EVIL = '\u001b[2Jx\u009b31m\u202e\r\n\u2028\u{e0001}y';
const UNSEEN = /[^\P{C}\n]|[\p{Zl}\p{Zp}]/u;

function printed(output: 'text' | 'json', answer: unknown, text: string): string {
  const write = mock.method(process.stdout, 'write', () => true);
  try {
    print(output, answer, () => text);
    return String(write.mock.calls[0]?.arguments[0]);
  } finally {
    write.mock.restore();
  }
}

describe('the words of others', () => {
  test('in a table: one line each, nothing to obey, and other words as they are', () => {
    const text = table(['A', 'B'], [[EVIL, 'größer 例']]);
    assert.doesNotMatch(text, UNSEEN);
    assert.equal(text.split('\n').length, 3);
    assert.match(text, /größer 例/);
  });

  test('in text and in JSON, which stays the same JSON', () => {
    assert.doesNotMatch(printed('text', {}, `node: ${EVIL}\nnext\n`), UNSEEN);
    const json = printed('json', { reason: EVIL, good: 'größer 例' }, '');
    assert.doesNotMatch(json, UNSEEN);
    assert.match(json, /größer 例/);
    assert.deepEqual(JSON.parse(json), { reason: EVIL, good: 'größer 例' });
    assert.equal(printed('text', {}, 'a\nb\n'), 'a\nb\n');
  });

  test('as the reason of a NACK is kept', () => {
    assert.doesNotMatch(refusalText({ code: 3, message: EVIL, details: [] }), /[\p{C}\p{Zl}\p{Zp}]/u);
    assert.equal(refusalText({ code: 3, message: 'no good', details: [] }), 'no good');
  });
});
