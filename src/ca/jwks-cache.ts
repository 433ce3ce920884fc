// An issuer's keys, fetched when they are needed: again for a key that is not known, but not for everybody who makes one up.

import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { Jwks } from '../spiffe/jwt.ts';

interface JwksCacheOptions {
  /** For the log. */
  readonly name: string;
  readonly fetch: () => Promise<Jwks>;
  readonly now: () => number;
  readonly log?: Log;
  /** Not asked again before; default 10 s. */
  readonly minIntervalMs?: number;
  /** Asked again after, so that withdrawn keys go; default 5 minutes. */
  readonly maxAgeMs?: number;
}

export class JwksCache {
  readonly #options: JwksCacheOptions;
  #keys: Jwks | undefined;
  #fetchedAt = 0;
  #triedAt: number | undefined;
  #failure: unknown;
  #fetching: Promise<void> | undefined;

  constructor(options: JwksCacheOptions) {
    this.#options = options;
  }

  /** The keys, with `kid` among them if the issuer has it. When the issuer is away, those it had last. Throws UNAVAILABLE when that is not enough. */
  async keysFor(kid: string | undefined): Promise<Jwks> {
    const { now, maxAgeMs = 300_000, minIntervalMs = 10_000, name } = this.#options;
    const isStale = this.#keys === undefined || !this.#has(kid) || Math.abs(now() - this.#fetchedAt) > maxAgeMs;
    if (isStale && (this.#fetching !== undefined || this.#triedAt === undefined || Math.abs(now() - this.#triedAt) >= minIntervalMs)) {
      this.#fetching ??= this.#fetch().finally(() => {
        this.#fetching = undefined;
      });
      await this.#fetching;
    }
    // A key that nobody knows may be the new one of an issuer that cannot be asked: that is no refusal.
    if (this.#keys === undefined || (this.#failure !== undefined && !this.#has(kid))) {
      throw new HandfastError('UNAVAILABLE', `the keys of ${name} cannot be had: ${messageOf(this.#failure)}`, { cause: this.#failure });
    }
    return this.#keys;
  }

  #has(kid: string | undefined): boolean {
    return this.#keys?.keys.some((key) => key.kid === kid) ?? false;
  }

  async #fetch(): Promise<void> {
    const { now, fetch, log, name } = this.#options;
    this.#triedAt = now();
    try {
      this.#keys = await fetch();
      this.#fetchedAt = now();
      this.#failure = undefined;
    } catch (error) {
      this.#failure = error;
      log?.warn({ issuer: name, reason: messageOf(error), kept: this.#keys?.keys.length ?? 0 }, 'keys of the issuer not refreshed');
    }
  }
}
