// How many certificates one identity may have on one node: generous for whoever rotates every few seconds, an end for whoever loops.

import { HandfastError } from '../errors.ts';
import { KeyedLimits, type MonotonicClock } from '../rate-limit.ts';

export interface IssuanceLimitOptions {
  readonly burst?: number;
  readonly perMinute?: number;
  readonly now?: MonotonicClock;
  readonly maxKeys?: number;
}

export const issuanceLimitDefaults = { burst: 600, perMinute: 1200 } as const;
const MAX_KEYS = 50_000;

export class IssuanceLimit {
  readonly #limits: KeyedLimits;
  readonly #perMinute: number;

  constructor({
    burst = issuanceLimitDefaults.burst,
    perMinute = issuanceLimitDefaults.perMinute,
    now,
    maxKeys,
  }: IssuanceLimitOptions = {}) {
    this.#perMinute = perMinute;
    this.#limits = new KeyedLimits(
      { burst, perSecond: perMinute / 60 },
      { maxKeys: maxKeys ?? MAX_KEYS, ...(now === undefined ? {} : { now }) },
    );
  }

  /** Counts one. Throws RATE_LIMITED, saying how long to wait. `what` is for the message. */
  take(of: { spiffeId: string; node: string; what: string }): void {
    // A line break stands in no SPIFFE ID, so no two pairs share a key.
    const waitMs = this.#limits.take(`${of.spiffeId}\n${of.node}`);
    if (waitMs === 0) return;
    const where = of.node === '' ? '' : ` on node ${of.node}`;
    throw new HandfastError(
      'RATE_LIMITED',
      `${of.spiffeId}${where} has asked for more than ${this.#perMinute} ${of.what} a minute: try again in ${Math.ceil(waitMs / 1000)} s`,
    );
  }
}
