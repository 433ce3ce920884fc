import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { WatchEvents } from '../../src/kube/watch-events.ts';

const LINE = '{"type":"ADDED","object":{"metadata":{"name":"ä"}}}\n';

test('events come out whole, however their bytes are cut, in the middle of a character too', () => {
  const bytes = Buffer.from(LINE.repeat(3));
  for (let size = 1; size < bytes.length; size++) {
    const events = new WatchEvents('watch');
    const found = [];
    for (let at = 0; at < bytes.length; at += size) found.push(...events.push(bytes.subarray(at, at + size)));
    assert.deepEqual(
      found.map(({ object }) => object),
      Array(3).fill({ metadata: { name: 'ä' } }),
    );
  }
});

for (const [what, text] of [
  ['no JSON', 'hello\n'],
  ['no type', '{"object":{}}\n'],
  ['an unknown type', '{"type":"SURPRISE","object":{}}\n'],
  ['no object', '{"type":"ADDED"}\n'],
  ['a list', '[]\n'],
] as const)
  test(`refused: ${what}`, () => {
    assert.throws(() => new WatchEvents('watch /api/v1/pods').push(Buffer.from(text)), {
      code: 'UNAVAILABLE',
      message: /watch \/api\/v1\/pods/,
    });
  });

test('of what is no JSON nothing is quoted, not in a cause either', () => {
  assert.throws(
    () => new WatchEvents('watch').push(Buffer.from('{"sesame\n')),
    (error) => !inspect(error).includes('sesame'),
  );
});

test('an event without an end is refused before it fills the memory', () => {
  const events = new WatchEvents('watch');
  const piece = Buffer.alloc(1024 * 1024, 0x20);
  assert.throws(() => {
    for (let i = 0; i < 9; i++) events.push(piece);
  }, /longer than/);
});
