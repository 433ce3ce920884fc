// Counters by their labels, in bounded number: none is ever taken back, because a counter must not go down; what finds no room is counted together.

import type { Labels } from './metrics-text.ts';

interface Series<C> {
  readonly labels: Labels;
  readonly counts: C;
}

export class BoundedSeries<C extends object> {
  readonly #max: number;
  readonly #fresh: () => C;
  readonly #kept = new Map<string, Series<C>>();
  /** By the little that is still told apart of what found no room. */
  readonly #others = new Map<string, Series<C>>();

  constructor(max: number, fresh: () => C) {
    this.#max = max;
    this.#fresh = fresh;
  }

  /** The counters of a key. Labels are made when there are none yet; `other` must come to few different ones. */
  of(key: string, labels: { readonly own: () => Labels; readonly other: () => Labels }): C {
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept.counts;
    if (this.#kept.size < this.#max) return this.#add(this.#kept, key, labels.own());
    const other = labels.other();
    const otherKey = Object.values(other).join('\n');
    return this.#others.get(otherKey)?.counts ?? this.#add(this.#others, otherKey, other);
  }

  *values(): IterableIterator<Series<C>> {
    yield* this.#kept.values();
    yield* this.#others.values();
  }

  #add(to: Map<string, Series<C>>, key: string, labels: Labels): C {
    const counts = this.#fresh();
    to.set(key, { labels, counts });
    return counts;
  }
}
