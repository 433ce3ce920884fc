// Names that are to be asked for: those that somebody waits with, and then the rest, each in the order in which they came.

export class WantedNames {
  readonly #held = new Set<string>();
  readonly #others = new Set<string>();

  get size(): number {
    return this.#held.size + this.#others.size;
  }

  /** How many of them are held. */
  get held(): number {
    return this.#held.size;
  }

  has(name: string): boolean {
    return this.#held.has(name) || this.#others.has(name);
  }

  add(name: string, { isHeld }: { isHeld: boolean }): void {
    if (isHeld) this.hold(name);
    else if (!this.#held.has(name)) this.#others.add(name);
  }

  /** It is held from now on. */
  hold(name: string): void {
    this.#others.delete(name);
    this.#held.add(name);
  }

  delete(name: string): boolean {
    return this.#held.delete(name) || this.#others.delete(name);
  }

  /** So many at most, which are wanted no longer. */
  take(count: number): string[] {
    const taken: string[] = [];
    for (const names of [this.#held, this.#others]) {
      for (const name of names) {
        if (taken.length >= count) return taken;
        names.delete(name);
        taken.push(name);
      }
    }
    return taken;
  }
}
