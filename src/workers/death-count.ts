// When to give up on workers that die: a few deaths are replaced, many in a short time have a cause that stays.

const WITHIN_MS = 60_000;
const TOO_MANY = 5;

export class DeathCount {
  #deaths: number[] = [];

  /** Counts one. `now` in milliseconds of any clock that only goes forward. */
  add(now: number): { readonly count: number; readonly isTooMany: boolean } {
    this.#deaths = [...this.#deaths.filter((at) => now - at < WITHIN_MS), now];
    return { count: this.#deaths.length, isTooMany: this.#deaths.length >= TOO_MANY };
  }
}
