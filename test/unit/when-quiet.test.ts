// When a connection may be ended without anybody missing a byte: never between a question and its answer. The clock is the test's.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, mock, test } from 'node:test';
import { whenQuiet } from '../../src/proxy/when-quiet.ts';

const LOOK_MS = 10;
const timing = { lookEveryMs: LOOK_MS, lateMs: 1_000, quietFirstMs: 100, quietLastMs: 20 };
let clock: number;

beforeEach(() => {
  clock = 0;
  mock.timers.enable({ apis: ['setInterval'] });
});
afterEach(() => mock.timers.reset());

function rig() {
  const sides = { downstream: new PassThrough(), upstream: new PassThrough() };
  for (const side of Object.values(sides)) side.resume();
  const ended: { how: string; at: number }[] = [];
  const stop = whenQuiet(
    () => sides,
    { onQuiet: () => ended.push({ how: 'quiet', at: clock }), onLate: () => ended.push({ how: 'late', at: clock }) },
    { ...timing, now: () => clock },
  );
  /** Time goes by; with what the client or the server says at every look. */
  const pass = async (ms: number, says?: 'client' | 'server') => {
    for (let passed = 0; passed < ms; passed += LOOK_MS) {
      if (says !== undefined) sides[says === 'client' ? 'downstream' : 'upstream'].write('x');
      await new Promise((resolve) => setImmediate(resolve));
      clock += LOOK_MS;
      mock.timers.tick(LOOK_MS);
    }
  };
  return { sides, stop, ended, pass };
}

describe('a connection is ended', () => {
  test('when the server has answered and nobody has spoken for a while', async () => {
    const { ended, pass } = rig();
    await pass(LOOK_MS, 'client');
    await pass(300);
    assert.deepEqual(ended, [], 'not between question and answer, however long that takes');
    await pass(LOOK_MS, 'server');
    await pass(40);
    assert.deepEqual(ended, [], 'not at once');
    await pass(100);
    assert.deepEqual(
      ended.map(({ how }) => how),
      ['quiet'],
    );
  });

  test('question and answer between two looks are told apart', async () => {
    const { sides, ended, pass } = rig();
    sides.downstream.write('question');
    await new Promise((resolve) => setImmediate(resolve));
    sides.upstream.write('answer');
    await pass(150);
    assert.deepEqual(
      ended.map(({ how }) => how),
      ['quiet'],
    );
  });

  test('sooner near the end of the time', async () => {
    const { ended, pass } = rig();
    await pass(900, 'server');
    assert.deepEqual(ended, []);
    await pass(40);
    assert.deepEqual(
      ended.map(({ how }) => how),
      ['quiet'],
    );
  });

  test('when nobody speaks at all, at the end of the time: a slow answer may be on its way', async () => {
    const { ended, pass } = rig();
    await pass(2_000);
    assert.deepEqual(ended, [{ how: 'quiet', at: timing.lateMs }]);
  });

  test('by force when it is never quiet', async () => {
    const { ended, pass } = rig();
    await pass(2_000, 'client');
    assert.deepEqual(ended, [{ how: 'late', at: timing.lateMs }]);
  });
});

test('it can be taken back', async () => {
  const { stop, ended, sides, pass } = rig();
  stop();
  await pass(2_000, 'server');
  assert.deepEqual(ended, []);
  assert.equal(sides.downstream.listenerCount('data') + sides.upstream.listenerCount('data'), 0);
});
