// Token buckets: what is allowed at once, in the long run, and what is remembered of whom.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KeyedLimits, TokenBucket } from '../../src/rate-limit.ts';

class Clock {
  ms = 1_000;
  readonly now = () => this.ms;
}

describe('a bucket', () => {
  it('a-burst-is-allowed-and-the-next-is-told-how-long-to-wait', () => {
    const bucket = new TokenBucket({ burst: 3, perSecond: 2 }, new Clock().now);
    assert.deepEqual([bucket.take(), bucket.take(), bucket.take(), bucket.take()], [0, 0, 0, 500]);
  });

  it('after-the-wait-it-was-told-it-is-allowed-and-a-moment-earlier-not', () => {
    const clock = new Clock();
    const bucket = new TokenBucket({ burst: 1, perSecond: 2 }, clock.now);
    bucket.take();
    clock.ms += 499;
    assert.equal(bucket.take(), 1);
    clock.ms += 1;
    assert.equal(bucket.take(), 0);
  });

  it('fractions-of-the-clock-refuse-nobody-and-allow-nobody-more', () => {
    for (let i = 1; i < 20_000; i++) {
      const clock = new Clock();
      clock.ms = i * 1234.567_891_3;
      const bucket = new TokenBucket({ burst: 3, perSecond: 7 }, clock.now);
      assert.deepEqual([bucket.take(), bucket.take(), bucket.take(), bucket.take() > 0], [0, 0, 0, true], `at ${clock.ms}`);
    }
  });

  it('a-refusal-costs-nothing', () => {
    const clock = new Clock();
    const bucket = new TokenBucket({ burst: 1, perSecond: 1 }, clock.now);
    bucket.take();
    for (let i = 0; i < 10; i++) assert.equal(bucket.take(), 1000);
    clock.ms += 1000;
    assert.equal(bucket.take(), 0);
  });

  it('a-long-rest-gives-no-more-than-the-burst', () => {
    const clock = new Clock();
    const bucket = new TokenBucket({ burst: 2, perSecond: 100 }, clock.now);
    clock.ms += 3_600_000;
    assert.deepEqual([bucket.take(), bucket.take(), bucket.take() > 0], [0, 0, true]);
  });

  it('a-clock-that-goes-back-gives-nothing', () => {
    const clock = new Clock();
    const bucket = new TokenBucket({ burst: 1, perSecond: 1 }, clock.now);
    bucket.take();
    clock.ms -= 500;
    assert.equal(bucket.take(), 1500);
  });

  for (const rate of [
    { burst: 0, perSecond: 1 },
    { burst: 1, perSecond: 0 },
    { burst: Number.NaN, perSecond: 1 },
    { burst: 1, perSecond: Number.NaN },
  ]) {
    it(`refused: a rate of ${JSON.stringify(rate)}`, () => assert.throws(() => new TokenBucket(rate), RangeError));
  }
});

describe('a bucket for each key', () => {
  it('one-key-does-not-use-up-the-share-of-another', () => {
    const limits = new KeyedLimits({ burst: 1, perSecond: 1 }, { now: new Clock().now });
    assert.equal(limits.take('a'), 0);
    assert.equal(limits.take('a'), 1000);
    assert.equal(limits.take('b'), 0);
  });

  it('a-key-that-is-in-use-is-never-forgotten-for-a-new-one', () => {
    const clock = new Clock();
    const limits = new KeyedLimits({ burst: 1, perSecond: 1 }, { now: clock.now, maxKeys: 2 });
    limits.take('a');
    limits.take('b');
    assert.equal(limits.take('c'), 1000, 'there is no room for it yet');
    assert.equal(limits.take('a'), 1000, 'nobody gets a new bucket by pushing the old one out');
  });

  it('a-key-whose-bucket-is-full-again-makes-room', () => {
    const clock = new Clock();
    const limits = new KeyedLimits({ burst: 1, perSecond: 1 }, { now: clock.now, maxKeys: 2 });
    limits.take('a');
    limits.take('b');
    clock.ms += 1000;
    assert.equal(limits.take('c'), 0);
    assert.equal(limits.take('a'), 0);
  });
});
