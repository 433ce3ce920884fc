// Entries in bounded memory: what is easy to spare goes first, and of that what nobody has touched for longest; what is hard to spare never goes for it.

import type { Tier } from './ledger-entry.ts';

export class BoundedEntries<E> {
  /** By tier; in each, the longest untouched first. */
  readonly #tiers: Readonly<Record<Tier, Map<string, E>>> & readonly Map<string, E>[] = [new Map(), new Map(), new Map(), new Map()];
  /** May be set anew: what is there then stays. */
  max: number;
  readonly #onEvicted: (entry: E, key: string) => void;

  constructor(max: number, onEvicted: (entry: E, key: string) => void) {
    this.max = max;
    this.#onEvicted = onEvicted;
  }

  get size(): number {
    let size = 0;
    for (const tier of this.#tiers) size += tier.size;
    return size;
  }

  get(key: string, tier: Tier): E | undefined {
    return this.#tiers[tier].get(key);
  }

  /** Adds an entry, or replaces it and counts it as touched. False when there is no room that it may have. */
  put(key: string, entry: E, tier: Tier): boolean {
    const own = this.#tiers[tier];
    if (!own.delete(key) && this.size >= this.max && !this.#makeRoom(tier)) return false;
    own.set(key, entry);
    return true;
  }

  /** Every tier: the hardest to spare first. */
  *values(): IterableIterator<E> {
    for (const tier of [...this.#tiers].reverse()) yield* tier.values();
  }

  delete(key: string, tier: Tier): void {
    this.#tiers[tier].delete(key);
  }

  /** The lower tiers go first; one's own follows, but for the highest: a newcomer there is no better than who is there. */
  #makeRoom(tier: Tier): boolean {
    for (const candidates of this.#tiers.slice(0, tier === 3 ? 3 : tier + 1)) {
      for (const [key, entry] of candidates) {
        candidates.delete(key);
        this.#onEvicted(entry, key);
        return true;
      }
    }
    return false;
  }
}
