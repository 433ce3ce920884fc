// A wait that can be cut short: for renewals that are due later, unless something changes before.

const MAX_TIMER_MS = 2 ** 31 - 1;
const LOOK_EVERY_MS = 30_000;

export class AlarmClock {
  /** Ends the wait that is under way. */
  #wake: (() => void) | undefined;
  #rung = false;

  /** Resolves after the time, when `ring` is called, or when the signal aborts. Whether it was rung. */
  async wait(ms: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#rung && !signal.aborted) {
      // Without a signal of its own for each wait: thousands of these are made and forgotten.
      await new Promise<void>((resolve) => {
        const end = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', end);
          this.#wake = undefined;
          resolve();
        };
        const timer = setTimeout(end, Math.min(MAX_TIMER_MS, Math.max(0, ms)));
        timer.unref();
        signal.addEventListener('abort', end, { once: true });
        this.#wake = end;
      });
    }
    const rung = this.#rung;
    this.#rung = false;
    return rung;
  }

  /**
   * The same, until a time of day (Unix milliseconds by `now`). Looked at again and again: timers count running time alone, and neither a machine
   * that slept nor a clock that was set right may put off a renewal.
   */
  async waitUntil(due: number, { now, signal }: { now: () => number; signal: AbortSignal }): Promise<boolean> {
    while (!signal.aborted) {
      const left = due - now();
      if (left <= 0) return false;
      if (await this.wait(Math.min(left, LOOK_EVERY_MS), signal)) return true;
    }
    return false;
  }

  /** Ends the wait that is under way, or the next one at once. */
  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }
}
