// Exponential back-off with full jitter, so that a thousand proxies do not come back in the same millisecond.

export class Backoff {
  readonly #baseMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(options: { baseMs: number; maxMs: number; random?: () => number }) {
    this.#baseMs = options.baseMs;
    this.#maxMs = options.maxMs;
    this.#random = options.random ?? Math.random;
  }

  /** Milliseconds to wait now: at least the half, at most the whole of the step. */
  next(): number {
    const step = Math.min(this.#maxMs, this.#baseMs * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    return step / 2 + (step / 2) * this.#random();
  }

  reset(): void {
    this.#failures = 0;
  }
}
