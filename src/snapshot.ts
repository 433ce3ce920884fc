// One value, replaced whole: readers take `current` once and keep it, subscribers hear of each replacement.

/** A frozen value that is replaced, never changed. `undefined` until the first `replace`. */
export class Snapshot<T> {
  #current: T | undefined;
  readonly #subscribers = new Set<(next: T, previous: T | undefined) => void>();

  constructor(initial?: T) {
    this.#current = initial;
  }

  get current(): T | undefined {
    return this.#current;
  }

  replace(next: T): void {
    const previous = this.#current;
    this.#current = next;
    for (const subscriber of [...this.#subscribers]) subscriber(next, previous);
  }

  /** The value, as soon as there is one; undefined when the signal aborts first. */
  async first(signal: AbortSignal): Promise<T | undefined> {
    if (this.#current !== undefined || signal.aborted) return this.#current;
    return new Promise((resolve) => {
      const done = () => {
        unsubscribe();
        signal.removeEventListener('abort', done);
        resolve(this.#current);
      };
      const unsubscribe = this.subscribe(done);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  /** Calls back on every later replacement. Returns the way to stop. */
  subscribe(subscriber: (next: T, previous: T | undefined) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }
}
