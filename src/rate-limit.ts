// How often is too often: token buckets, one for each peer, without timers and in bounded memory.

import { performance } from 'node:perf_hooks';

/** `burst` at once, `perSecond` in the long run. */
export interface Rate {
  readonly burst: number;
  readonly perSecond: number;
}

/** Milliseconds of a clock that never goes back. */
export type MonotonicClock = () => number;

const monotonic: MonotonicClock = () => performance.now();

export class TokenBucket {
  readonly #intervalMs: number;
  readonly #burstMs: number;
  readonly #now: MonotonicClock;
  /** When it would be full again: one number says all, and rounding cannot pile up in it. */
  #fullAt = Number.NEGATIVE_INFINITY;

  constructor({ burst, perSecond }: Rate, now: MonotonicClock = monotonic) {
    if (!(burst >= 1) || !(perSecond > 0)) throw new RangeError('a rate needs a burst of at least 1 and more than 0 a second');
    this.#intervalMs = 1000 / perSecond;
    this.#burstMs = burst * this.#intervalMs;
    this.#now = now;
  }

  /** 0 when allowed, and then it counts; otherwise the milliseconds until it would be, and nothing is counted. */
  take(): number {
    const now = this.#now();
    const fullAt = Math.max(this.#fullAt, now) + this.#intervalMs;
    const waitMs = fullAt - now - this.#burstMs;
    if (waitMs > 0) return Math.ceil(waitMs);
    this.#fullAt = fullAt;
    return 0;
  }

  /** Milliseconds until nothing is left to remember of what was taken. */
  msUntilFull(): number {
    return Math.max(0, Math.ceil(this.#fullAt - this.#now()));
  }
}

const MAX_KEYS = 10_000;

/** A bucket for each key. A key is forgotten when its bucket is full again, never earlier: forgetting gives nobody more than their share. */
export class KeyedLimits {
  readonly #rate: Rate;
  readonly #now: MonotonicClock;
  readonly #maxKeys: number;
  /** The longest unused first. */
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(rate: Rate, options: { now?: MonotonicClock; maxKeys?: number } = {}) {
    this.#rate = rate;
    this.#now = options.now ?? monotonic;
    this.#maxKeys = options.maxKeys ?? MAX_KEYS;
  }

  /** 0 when allowed, otherwise the milliseconds to wait. A new key is refused while the map is full of keys that are in use. */
  take(key: string): number {
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      const waitMs = this.#makeRoom();
      if (waitMs > 0) return waitMs;
      bucket = new TokenBucket(this.#rate, this.#now);
    }
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    return bucket.take();
  }

  #makeRoom(): number {
    for (const [key, bucket] of this.#buckets) {
      if (this.#buckets.size < this.#maxKeys) return 0;
      const waitMs = bucket.msUntilFull();
      if (waitMs > 0) return waitMs;
      this.#buckets.delete(key);
    }
    return 0;
  }
}
