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

/** The clock has fractions, and sums of those miss by less than this: nobody is refused for it. */
const ROUNDING_MS = 0.001;

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
    const waitMs = this.#waitMs(now);
    if (waitMs === 0) this.#fullAt = Math.max(this.#fullAt, now) + this.#intervalMs;
    return waitMs;
  }

  /** What `take` would answer now; nothing is counted. */
  look(): number {
    return this.#waitMs(this.#now());
  }

  /** Milliseconds until nothing is left to remember of what was taken. */
  msUntilFull(): number {
    return Math.max(0, Math.ceil(this.#fullAt - this.#now()));
  }

  #waitMs(now: number): number {
    const waitMs = Math.max(this.#fullAt, now) + this.#intervalMs - now - this.#burstMs;
    return waitMs > ROUNDING_MS ? Math.ceil(waitMs) : 0;
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

  /** What `take` would answer for a key that is known; nothing is counted, and 0 for any other. */
  look(key: string): number {
    return this.#buckets.get(key)?.look() ?? 0;
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
