// Those who wait for a snapshot of the mesh that knows an address.

import type { Socket } from 'node:net';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Snapshot } from '../snapshot.ts';

export class KnownAddresses {
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(mesh: Snapshot<MeshSnapshot>) {
    mesh.subscribe((next) => {
      for (const [address, waiting] of this.#waiting) {
        if (!next.knows(address)) continue;
        this.#waiting.delete(address);
        for (const goOn of [...waiting]) goOn();
      }
    });
  }

  /** Resolves when a snapshot knows the address, the time is over, or the client is gone. */
  wait(address: string, { socket, leftMs }: { socket: Socket; leftMs: number }): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(address) ?? new Set();
      this.#waiting.set(address, waiting);
      const goOn = () => {
        clearTimeout(timer);
        socket.removeListener('close', goOn);
        waiting.delete(goOn);
        if (waiting.size === 0 && this.#waiting.get(address) === waiting) this.#waiting.delete(address);
        resolve();
      };
      const timer = setTimeout(goOn, leftMs);
      socket.once('close', goOn);
      waiting.add(goOn);
      if (socket.destroyed) goOn();
    });
  }
}
