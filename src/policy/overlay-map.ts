// A map that is never changed but followed by another: what a change touches lies over a base that both share, so that a change costs what it touches.

/** Look-ups cost two of a Map. */
export class OverlayMap<K, V> {
  readonly #base: ReadonlyMap<K, V>;
  /** A key that lies here with undefined is gone. */
  readonly #over: ReadonlyMap<K, V | undefined>;

  constructor(entries: Iterable<readonly [K, V]> = [], over: ReadonlyMap<K, V | undefined> = new Map()) {
    this.#base = entries instanceof Map ? entries : new Map(entries);
    this.#over = over;
  }

  get(key: K): V | undefined {
    return this.#over.has(key) ? this.#over.get(key) : this.#base.get(key);
  }

  /** A key with undefined is removed. This map stays as it is. */
  with(changes: ReadonlyMap<K, V | undefined>): OverlayMap<K, V> {
    if (changes.size === 0) return this;
    const over = new Map(this.#over);
    for (const [key, value] of changes) over.set(key, value);
    // Copying the base is paid for by the changes that have gathered since it was made.
    return over.size * SHARE < this.#base.size ? new OverlayMap(this.#base, over) : new OverlayMap(merged(this.#base, over));
  }

  *values(): Iterable<V> {
    for (const [key, value] of this.#base) if (!this.#over.has(key)) yield value;
    for (const value of this.#over.values()) if (value !== undefined) yield value;
  }
}

/** The overlay is copied with every change, the base when the overlay has grown to this part of it. */
const SHARE = 64;

function merged<K, V>(base: ReadonlyMap<K, V>, over: ReadonlyMap<K, V | undefined>): Map<K, V> {
  const all = new Map(base);
  for (const [key, value] of over) {
    if (value === undefined) all.delete(key);
    else all.set(key, value);
  }
  return all;
}
