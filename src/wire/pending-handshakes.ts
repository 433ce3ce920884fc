// TLS handshakes under way, which cost us more than the other side: few for each address, and in all no more than we can bear.

import type { Socket } from 'node:net';
import { networkOf } from './caller.ts';

export interface HandshakeLimits {
  /** All addresses together; default 4,096. */
  readonly maxHandshakes?: number;
  /** One address (of IPv6, one /64); default 256. */
  readonly maxHandshakesPerAddress?: number;
  /** From this age on a handshake may have to go for another; default 3 s. */
  readonly heldMs?: number;
}

const MAX_HANDSHAKES = 4_096;
const MAX_PER_ADDRESS = 256;
/** A handshake that is meant takes milliseconds, and a second where hundreds of nodes come back at once. */
const HELD_MS = 3_000;

export class PendingHandshakes {
  readonly #max: number;
  readonly #maxPerAddress: number;
  /** The oldest first. */
  readonly #sockets = new Map<Socket, { readonly address: string; readonly since: number }>();
  readonly #heldMs: number;
  readonly #perAddress = new Map<string, number>();

  constructor({ maxHandshakes = MAX_HANDSHAKES, maxHandshakesPerAddress = MAX_PER_ADDRESS, heldMs = HELD_MS }: HandshakeLimits) {
    this.#heldMs = heldMs;
    this.#max = maxHandshakes;
    this.#maxPerAddress = maxHandshakesPerAddress;
  }

  /**
   * Counts the handshake. Where there are too many, of its address or in all, the oldest goes if somebody holds it, so that whoever shares an address
   * with him (pods behind their node's) gets through; where all are young there is just much to do, and the new one is `refused`.
   */
  begin(socket: Socket): Socket | 'refused' | undefined {
    const address = networkOf(socket.remoteAddress);
    const oldest = this.#oldestTooMany(address);
    if (oldest === 'none held') return 'refused';
    if (oldest !== undefined) this.end(oldest);
    this.#sockets.set(socket, { address, since: performance.now() });
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    return oldest;
  }

  /** One that is not under way is no error. */
  end(socket: Socket): void {
    const address = this.#sockets.get(socket)?.address;
    if (address === undefined) return;
    this.#sockets.delete(socket);
    const left = (this.#perAddress.get(address) ?? 1) - 1;
    if (left === 0) this.#perAddress.delete(address);
    else this.#perAddress.set(address, left);
  }

  get all(): readonly Socket[] {
    return [...this.#sockets.keys()];
  }

  #oldestTooMany(address: string): Socket | 'none held' | undefined {
    const ofOne = (this.#perAddress.get(address) ?? 0) >= this.#maxPerAddress;
    if (!ofOne && this.#sockets.size < this.#max) return undefined;
    for (const [socket, { address: whose, since }] of this.#sockets) {
      if (ofOne && whose !== address) continue;
      return performance.now() - since >= this.#heldMs ? socket : 'none held';
    }
    return undefined;
  }
}
