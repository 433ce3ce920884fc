// How much the peers of this process may send ahead of their readers, all together.

/** Of window, beyond what every stream has at first. */
const WINDOW_BYTES = 32 * 1024 * 1024;
/** Of what has come and waits for its reader. */
const HELD_BYTES = 128 * 1024 * 1024;
/** What a piece costs beside its bytes: a peer may send them one by one. */
const PIECE_BYTES = 256;

export class ReceiveBudget {
  #left: number;
  #holdable: number;

  constructor({ windows = WINDOW_BYTES, held = HELD_BYTES }: { windows?: number; held?: number } = {}) {
    this.#left = windows;
    this.#holdable = held;
  }

  /** The cost of a piece that waits for its reader; undefined when too much waits already, and its stream has to go. */
  hold(bytes: number): number | undefined {
    const cost = bytes + PIECE_BYTES;
    if (cost > this.#holdable) return undefined;
    this.#holdable -= cost;
    return cost;
  }

  /** The reader has taken it, or it is gone. */
  release(cost: number): void {
    this.#holdable += cost;
  }

  /** Takes window. What is not there stays as it is: nobody waits for it. */
  take(bytes: number): boolean {
    if (bytes > this.#left) return false;
    this.#left -= bytes;
    return true;
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}
