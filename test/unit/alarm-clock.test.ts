// Waits that can be cut short, and one answer to each response.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AlarmClock } from '../../src/discovery/alarm-clock.ts';
import { answer, shortened } from '../../src/discovery/answer.ts';
import type { Status } from '../../src/wire/gen/google/rpc/status.ts';

const HOUR = 3_600_000;

describe('the alarm clock', () => {
  it('ends-a-wait-that-is-under-way-or-the-next-one-once', async () => {
    const clock = new AlarmClock();
    const { signal } = new AbortController();
    const waiting = clock.wait(HOUR, signal);
    clock.ring();
    assert.equal(await waiting, true);
    clock.ring();
    assert.equal(await clock.wait(HOUR, signal), true);
    assert.equal(await clock.wait(0, signal), false, 'it rings once');
  });

  it('ends-with-the-signal-and-after-its-time', async () => {
    const stop = new AbortController();
    const waiting = new AlarmClock().wait(Number.MAX_SAFE_INTEGER, stop.signal);
    stop.abort();
    assert.equal(await waiting, false);
    assert.equal(await new AlarmClock().wait(-1, new AbortController().signal), false);
  });

  it('until-a-time-of-day-notices-a-clock-that-was-set', async (test) => {
    test.mock.timers.enable({ apis: ['setTimeout'] });
    let now = 0;
    const stop = new AbortController();
    let over = false;
    const waiting = new AlarmClock().waitUntil(10 * HOUR, { now: () => now, signal: stop.signal }).then((rung) => {
      over = true;
      return rung;
    });
    test.mock.timers.tick(30_000);
    await Promise.resolve();
    assert.equal(over, false);
    // The machine slept: ten hours passed, and the timers had a minute of it.
    now = 10 * HOUR;
    for (let i = 0; i < 3; i++) {
      test.mock.timers.tick(30_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(over, true);
    assert.equal(await waiting, false);
  });
});

describe('an answer', () => {
  const answers = async (take: () => void | Promise<void>) => {
    const said: (Status | undefined)[] = [];
    answer(take, (refusal) => said.push(refusal));
    await new Promise((resolve) => setImmediate(resolve));
    return said;
  };

  it('is-given-once-whether-it-is-taken-now-later-or-not-at-all', async () => {
    assert.deepEqual(await answers(() => undefined), [undefined]);
    assert.deepEqual(await answers(async () => undefined), [undefined]);
    const refuse = () => {
      throw new Error('no good');
    };
    for (const take of [refuse, async () => refuse()])
      assert.deepEqual(
        (await answers(take)).map((refusal) => refusal?.message),
        ['no good'],
      );
  });

  it('is-never-longer-than-a-line', async () => {
    const [refusal] = await answers(() => {
      throw new Error('x'.repeat(5_000_000));
    });
    assert.equal(refusal?.message.length, 1_001);
    assert.equal(shortened('short'), 'short');
  });
});
