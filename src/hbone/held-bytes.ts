// What a stream has received and its reader has not taken: counted against what all peers of this process may have waiting.

import type { ReceiveBudget } from './receive-budget.ts';

export class HeldBytes {
  readonly #budget: ReceiveBudget;
  #bytes = 0;
  #cost = 0;

  constructor(budget: ReceiveBudget) {
    this.#budget = budget;
  }

  /** False when too much waits already. */
  add(bytes: number): boolean {
    const cost = this.#budget.hold(bytes);
    if (cost === undefined) return false;
    this.#bytes += bytes;
    this.#cost += cost;
    return true;
  }

  /** The reader has taken so many bytes; a part of what waits leaves the whole of it counted. */
  taken(bytes: number): void {
    if (this.#bytes > 0 && bytes >= this.#bytes) this.release();
  }

  /** Nothing waits any more. */
  release(): void {
    this.#budget.release(this.#cost);
    this.#bytes = 0;
    this.#cost = 0;
  }
}
