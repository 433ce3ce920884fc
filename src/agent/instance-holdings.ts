// What the streams of one workload instance hold, each by its own answers: it has a version as long as one of them has it, and is heard of until the last has ended.

import type { Instance, ReceiptBook } from '../discovery/receipt-book.ts';

/** One stream's. */
export interface StreamHoldings {
  /** What it has under a name from now on. */
  hold(name: string, of: { readonly key: string; readonly versions: readonly string[] }): void;
  /** It has let go of the name. */
  drop(name: string): void;
  end(): void;
}

/** By secret, then by the name under which it was asked for: a secret and single values of it are names of one secret. */
type Held = Map<string, Map<string, readonly string[]>>;

export class InstanceHoldings {
  readonly #receipts: ReceiptBook;
  readonly #now: () => number;
  readonly #instances = new Map<string, Set<Held>>();

  constructor({ receipts, now }: { receipts: ReceiptBook; now: () => number }) {
    this.#receipts = receipts;
    this.#now = now;
  }

  open(instance: Instance): StreamHoldings {
    const id = `${instance.reporter} ${instance.pod}`;
    const streams = this.#instances.get(id) ?? new Set();
    this.#instances.set(id, streams);
    const held: Held = new Map();
    const keys = new Map<string, string>();
    streams.add(held);
    const heldOf = (key: string) => [...streams].flatMap((stream) => [...(stream.get(key)?.values() ?? [])].flat());
    const book = (key: string) => this.#receipts.holds(instance, { secret: key, versions: heldOf(key), at: this.#now() });
    return {
      hold: (name, { key, versions }) => {
        const names = held.get(key) ?? new Map<string, readonly string[]>();
        held.set(key, names.set(name, versions));
        keys.set(name, key);
        book(key);
      },
      drop: (name) => {
        const key = keys.get(name);
        if (key === undefined || !streams.has(held)) return;
        keys.delete(name);
        held.get(key)?.delete(name);
        if (held.get(key)?.size === 0) held.delete(key);
        book(key);
      },
      end: () => {
        if (!streams.delete(held)) return;
        if (streams.size === 0) this.#instances.delete(id);
        // Not that it was dropped: nobody knows what becomes of it.
        this.#receipts.leaves(instance, { at: this.#now(), isHeld: ({ secret, version }) => heldOf(secret).includes(version) });
      },
    };
  }
}
