// How many connections there are: in all, of each caller, and of each user whatever namespaces it has made for itself.

import { type Caller, callerKey } from './caller.ts';

export interface ConnectionLimits {
  /** All callers together; default 16,384, and never more than the process has descriptors for. */
  readonly maxConnections?: number;
  /** One caller; default 256. */
  readonly maxPerCaller?: number;
  /** One local user in all its network namespaces, of which anybody may make more; default 1,024. */
  readonly maxPerUser?: number;
  /** One address whose callers have no certificate; default 32. */
  readonly maxPerAnonymousAddress?: number;
  /** All callers without a certificate together; default 256, so that they cannot take the places of nodes. */
  readonly maxAnonymous?: number;
}

export const MAX_CONNECTIONS = 16_384;
const MAX_PER_CALLER = 256;
const MAX_PER_USER = 1_024;
const MAX_PER_ANONYMOUS_ADDRESS = 32;
const MAX_ANONYMOUS = 256;

export class ConnectionCounts {
  readonly #limits: Required<ConnectionLimits>;
  readonly #counts = new Map<string, number>();
  #size = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = {
      maxConnections: limits.maxConnections ?? MAX_CONNECTIONS,
      maxPerCaller: limits.maxPerCaller ?? MAX_PER_CALLER,
      maxPerUser: limits.maxPerUser ?? MAX_PER_USER,
      maxPerAnonymousAddress: limits.maxPerAnonymousAddress ?? MAX_PER_ANONYMOUS_ADDRESS,
      maxAnonymous: limits.maxAnonymous ?? MAX_ANONYMOUS,
    };
  }

  /** Why there is no room for anybody; undefined when there is. */
  full(): string | undefined {
    return this.#size >= this.#limits.maxConnections ? `${this.#size} connections are open` : undefined;
  }

  /** Why there is no room for this caller; undefined when there is. */
  fullFor(caller: Caller): string | undefined {
    for (const { key, max, whose } of this.#shares(caller)) {
      const held = this.#counts.get(key) ?? 0;
      if (held >= max) return `${held} connections of this ${whose} are open`;
    }
    return this.full();
  }

  add(caller: Caller): void {
    this.#size++;
    for (const { key } of this.#shares(caller)) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  remove(caller: Caller): void {
    this.#size--;
    for (const { key } of this.#shares(caller)) {
      const left = (this.#counts.get(key) ?? 1) - 1;
      if (left === 0) this.#counts.delete(key);
      else this.#counts.set(key, left);
    }
  }

  #shares(caller: Caller): { key: string; max: number; whose: string }[] {
    const { maxPerCaller, maxPerUser, maxPerAnonymousAddress, maxAnonymous } = this.#limits;
    const key = callerKey(caller);
    if (caller.kind === 'anonymous') {
      return [
        { key, max: maxPerAnonymousAddress, whose: 'address' },
        { key: 'anonymous', max: maxAnonymous, whose: 'kind, without a certificate,' },
      ];
    }
    const own = { key, max: maxPerCaller, whose: 'caller' };
    return caller.kind === 'unix' ? [own, { key: `uid ${caller.peer.uid}`, max: maxPerUser, whose: 'user' }] : [own];
  }
}
