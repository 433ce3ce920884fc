// Things found by the labels they ask for: nobody is held against what cannot be theirs, so a namespace may have thousands.

export class LabelIndex<T> {
  readonly #items: readonly T[];
  /** Positions, by the label that fewest others ask for. */
  readonly #byPair = new Map<string, number[]>();
  readonly #forAnyLabels: number[] = [];

  /** `pairsOf`: the `key=value` that whoever is selected must have; more may be asked of them than that. */
  constructor(items: readonly T[], pairsOf: (item: T) => readonly string[]) {
    this.#items = items;
    const pairs = items.map(pairsOf);
    const frequency = new Map<string, number>();
    for (const own of pairs) for (const pair of own) frequency.set(pair, (frequency.get(pair) ?? 0) + 1);
    pairs.forEach((own, position) => {
      let rarest: string | undefined;
      for (const pair of own) if (rarest === undefined || (frequency.get(pair) ?? 0) < (frequency.get(rarest) ?? 0)) rarest = pair;
      const others = rarest === undefined ? this.#forAnyLabels : this.#byPair.get(rarest);
      if (others !== undefined) others.push(position);
      else if (rarest !== undefined) this.#byPair.set(rarest, [position]);
    });
    Object.freeze(this);
  }

  /** In the order of the items, each once. */
  candidates(pairs: readonly string[]): readonly T[] {
    let lists: (readonly number[])[] | undefined;
    if (this.#byPair.size > 0) {
      for (const pair of pairs) {
        const positions = this.#byPair.get(pair);
        if (positions === undefined) continue;
        lists ??= this.#forAnyLabels.length > 0 ? [this.#forAnyLabels] : [];
        lists.push(positions);
      }
    }
    const [positions = this.#forAnyLabels, ...others] = lists ?? [];
    if (others.length === 0) return this.#at(positions);
    // A pod's real label may repeat one that is made up for it.
    return this.#at([...new Set([positions, ...others].flat())].sort((a, b) => a - b));
  }

  /** Most often there is nothing. */
  #at(positions: readonly number[]): readonly T[] {
    if (positions.length === 0) return NONE;
    const found: T[] = [];
    for (const position of positions) {
      const item = this.#items[position];
      if (item !== undefined) found.push(item);
    }
    return found;
  }
}

const NONE: readonly never[] = Object.freeze([]);
