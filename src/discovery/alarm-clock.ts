// A wait that can be cut short: for renewals that are due later, unless something changes before.

import { setTimeout as delay } from 'node:timers/promises';

const MAX_TIMER_MS = 2 ** 31 - 1;

export class AlarmClock {
  #ring = new AbortController();

  /** Resolves after the time, when `ring` is called, or when the signal aborts. Whether it was rung. */
  async wait(ms: number, signal: AbortSignal): Promise<boolean> {
    await delay(Math.min(MAX_TIMER_MS, Math.max(0, ms)), undefined, {
      signal: AbortSignal.any([signal, this.#ring.signal]),
      ref: false,
    }).catch(() => undefined);
    const rung = this.#ring.signal.aborted;
    if (rung) this.#ring = new AbortController();
    return rung;
  }

  /** Ends the wait that is under way, or the next one at once. */
  ring(): void {
    this.#ring.abort();
  }
}
