// So many at once, and of those so many for each: one who takes all that he can get leaves the others theirs.

export interface Shares {
  readonly all: number;
  readonly each: number;
}

export class FairShare {
  readonly #shares: Shares;
  readonly #held = new Map<string, number>();
  #all = 0;

  constructor(shares: Shares) {
    this.#shares = shares;
  }

  /** The way to give it back, which again does nothing; undefined where there is none to have. */
  take(who: string): (() => void) | undefined {
    const held = this.#held.get(who) ?? 0;
    if (held >= this.#shares.each || this.#all >= this.#shares.all) return undefined;
    this.#held.set(who, held + 1);
    this.#all++;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = (this.#held.get(who) ?? 1) - 1;
      if (left > 0) this.#held.set(who, left);
      else this.#held.delete(who);
      this.#all--;
    };
  }
}
