// What the registry has at a caller's address, where that is asked for only when the caller comes: no connection waits for it, only its line in the ledger does.

import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Known } from './connection.ts';

/** An agent answers within milliseconds; without its answer a caller has its address alone. */
const WITHIN_MS = 2_000;
/** Whoever comes from more addresses at once is noted without names. */
const MAX_WAITING = 1_000;

type Named = (known: Known) => void;

export class CallerNames {
  readonly #mesh: Snapshot<MeshSnapshot>;
  readonly #withinMs: number;
  readonly #waiting = new Map<string, { readonly timer: NodeJS.Timeout; readonly all: [Known, Named][] }>();
  #count = 0;
  #isClosed = false;

  constructor(mesh: Snapshot<MeshSnapshot>, withinMs = WITHIN_MS) {
    this.#mesh = mesh;
    this.#withinMs = withinMs;
    mesh.subscribe((next) => {
      for (const address of this.#waiting.keys()) if (next.knows(address)) this.#settle(address);
    });
  }

  /** Calls back with what is known, and with the name as soon as it is: at once where there is nothing to wait for. */
  name(known: Known, then: Named): void {
    const { address } = known.downstream;
    if (known.isUnasked !== true || this.#isClosed || this.#count >= MAX_WAITING || this.#mesh.current?.knows(address) === true) {
      then(this.#named(known));
      return;
    }
    const waiting = this.#waiting.get(address) ?? { timer: this.#timer(address), all: [] };
    this.#waiting.set(address, waiting);
    waiting.all.push([known, then]);
    this.#count++;
  }

  /** Nothing is waited for any more. */
  close(): void {
    this.#isClosed = true;
    for (const address of this.#waiting.keys()) this.#settle(address);
  }

  #timer(address: string): NodeJS.Timeout {
    return setTimeout(() => this.#settle(address), this.#withinMs).unref();
  }

  #settle(address: string): void {
    const waiting = this.#waiting.get(address);
    if (waiting === undefined) return;
    this.#waiting.delete(address);
    clearTimeout(waiting.timer);
    this.#count -= waiting.all.length;
    for (const [known, then] of waiting.all) then(this.#named(known));
  }

  #named(known: Known): Known {
    if (known.isUnasked !== true) return known;
    const registered = this.#mesh.current?.registry.workloadAt(known.downstream.address);
    return registered === undefined ? known : { ...known, registered };
  }
}
