// How many tokens one caller may have verified: each costs us a signature check, or an API server a review.

import { HandfastError } from '../errors.ts';
import { KeyedLimits, type MonotonicClock, type Rate } from '../rate-limit.ts';
import { callerKey, callerOf } from '../wire/caller.ts';

/** Thousands of workloads of a node renew at once after a change of root. */
const AGENTS: Rate = { burst: 20_000, perSecond: 1_000 };
/** By address, and only where tokens are enough (--tokens-alone). */
const ANONYMOUS: Rate = { burst: 100, perSecond: 10 };

export interface AttemptRates {
  readonly agents: Rate;
  readonly anonymous: Rate;
}

export class AttemptLimits {
  readonly #agents: KeyedLimits;
  readonly #anonymous: KeyedLimits;

  constructor({ agents, anonymous }: AttemptRates = { agents: AGENTS, anonymous: ANONYMOUS }, options: { now?: MonotonicClock } = {}) {
    this.#agents = new KeyedLimits(agents, options);
    this.#anonymous = new KeyedLimits(anonymous, options);
  }

  /** Counts one. Throws RATE_LIMITED, saying how long to wait. */
  take(call: { getPeer(): string }): void {
    const caller = callerOf(call);
    const limits = caller === undefined || caller.kind === 'anonymous' ? this.#anonymous : this.#agents;
    const waitMs = limits.take(caller === undefined ? '' : callerKey(caller));
    if (waitMs > 0) throw new HandfastError('RATE_LIMITED', `too many tokens to verify: try again in ${Math.ceil(waitMs / 1000)} s`);
  }
}
