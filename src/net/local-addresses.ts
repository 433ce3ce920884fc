// The addresses of this network namespace: a redirected inbound connection must have been for one of them.

import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';

const REFRESH_AFTER_MS = 1_000;

/** Canonical text. A miss looks again (at most once a second), because a pod may get a further address while it runs. */
export class LocalAddresses {
  readonly #now: () => number;
  #known: ReadonlySet<string> = new Set();
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  has(address: string): boolean {
    if (isIP(address) === 4 && address.startsWith('127.')) return true;
    if (this.#known.has(address)) return true;
    if (this.#now() - this.#readAt < REFRESH_AFTER_MS) return false;
    this.#readAt = this.#now();
    this.#known = new Set(Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((entry) => entry.address)));
    return this.#known.has(address);
  }
}
