// How late the event loop is: what waits for it waits so much longer.

import { monitorEventLoopDelay } from 'node:perf_hooks';

/** Ten looks a second cost nothing, and find what a client would notice. */
const RESOLUTION_MS = 100;

/** Seconds, since it was asked last. */
export interface Lag {
  readonly mean: number;
  readonly max: number;
}

export class EventLoopLag {
  readonly #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });

  constructor() {
    this.#histogram.enable();
  }

  /** Undefined where nobody has looked yet. */
  take(): Lag | undefined {
    const { count, mean, max } = this.#histogram;
    this.#histogram.reset();
    return count === 0 ? undefined : { mean: late(mean), max: late(max) };
  }

  close(): void {
    this.#histogram.disable();
  }
}

/** The histogram holds how long a timer took, its own time included, in nanoseconds. */
function late(nanoseconds: number): number {
  return Math.max(0, nanoseconds / 1e9 - RESOLUTION_MS / 1000);
}
