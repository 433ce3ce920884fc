// Work on somebody else's server: so much of it at once, so much waiting for its turn, and no longer than that is worth it.

import { HandfastError } from './errors.ts';

export interface TurnLimits {
  readonly atOnce: number;
  readonly waiting: number;
  readonly waitMs: number;
}

export class Turns {
  readonly #name: string;
  readonly #limits: TurnLimits;
  /** In the order they came. */
  readonly #waiting = new Set<() => void>();
  #running = 0;

  constructor(name: string, limits: TurnLimits) {
    this.#name = name;
    this.#limits = limits;
  }

  /** Throws UNAVAILABLE when too many wait already, or its turn does not come in time. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limits.atOnce) await this.#turn();
    else this.#running++;
    try {
      return await work();
    } finally {
      // Handed on, not given back: nobody who comes just now gets in before those who wait.
      const [next] = this.#waiting;
      if (next === undefined) this.#running--;
      else next();
    }
  }

  async #turn(): Promise<void> {
    const { waiting, waitMs } = this.#limits;
    if (this.#waiting.size >= waiting) throw new HandfastError('UNAVAILABLE', `${this.#name}: ${waiting} requests are waiting already`);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = () => {
      clearTimeout(timer);
      this.#waiting.delete(mine);
    };
    const mine = () => {
      leave();
      resolve();
    };
    const timer = setTimeout(() => {
      leave();
      reject(new HandfastError('UNAVAILABLE', `${this.#name}: its turn did not come within ${waitMs} ms`));
    }, waitMs).unref();
    this.#waiting.add(mine);
    await promise;
  }
}
