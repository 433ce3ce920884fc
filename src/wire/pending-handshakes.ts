// TLS handshakes under way, which cost us more than the other side: few for each address, and in all no more than we can bear.

import type { Socket } from 'node:net';
import { networkOf } from './caller.ts';

export interface HandshakeLimits {
  /** All addresses together; default 256. */
  readonly maxHandshakes?: number;
  /** One address; default 8. */
  readonly maxHandshakesPerAddress?: number;
}

const MAX_HANDSHAKES = 256;
const MAX_PER_ADDRESS = 8;

export class PendingHandshakes {
  readonly #max: number;
  readonly #maxPerAddress: number;
  /** The oldest first. */
  readonly #sockets = new Map<Socket, string>();
  readonly #perAddress = new Map<string, number>();

  constructor({ maxHandshakes = MAX_HANDSHAKES, maxHandshakesPerAddress = MAX_PER_ADDRESS }: HandshakeLimits) {
    this.#max = maxHandshakes;
    this.#maxPerAddress = maxHandshakesPerAddress;
  }

  /**
   * The handshake that has to go for this one, if there are too many: the oldest of the same address, or else of all. Handshakes that are meant
   * take milliseconds, so what is old is what somebody holds, and whoever shares an address with him (pods behind their node's) gets through.
   */
  begin(socket: Socket): Socket | undefined {
    const address = networkOf(socket.remoteAddress);
    const evicted = this.#oldestTooMany(address);
    if (evicted !== undefined) this.end(evicted);
    this.#sockets.set(socket, address);
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    return evicted;
  }

  /** One that is not under way is no error. */
  end(socket: Socket): void {
    const address = this.#sockets.get(socket);
    if (address === undefined) return;
    this.#sockets.delete(socket);
    const left = (this.#perAddress.get(address) ?? 1) - 1;
    if (left === 0) this.#perAddress.delete(address);
    else this.#perAddress.set(address, left);
  }

  get all(): readonly Socket[] {
    return [...this.#sockets.keys()];
  }

  #oldestTooMany(address: string): Socket | undefined {
    const ofOne = (this.#perAddress.get(address) ?? 0) >= this.#maxPerAddress;
    if (!ofOne && this.#sockets.size < this.#max) return undefined;
    for (const [socket, whose] of this.#sockets) if (!ofOne || whose === address) return socket;
    return undefined;
  }
}
