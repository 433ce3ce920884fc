// What an authority is opened with, and the bounds of its lifetimes.

import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { IssuanceLimitOptions } from './issuance-limit.ts';
import { MAX_JWT_TTL_MS } from './jwt-keys.ts';
import type { KeyStore } from './signer.ts';

const SECOND = 1000;
const DAY = 86_400 * SECOND;

/** Bounds of `--svid-ttl`, in milliseconds. */
export const svidTtlBounds = { min: 10 * SECOND, max: DAY } as const;
export const jwtTtlBounds = { min: 10 * SECOND, max: MAX_JWT_TTL_MS } as const;
export const crlTtlBounds = { min: 60 * SECOND, max: 30 * DAY } as const;

export interface AuthorityOptions {
  readonly dir: string;
  readonly trustDomain: string;
  /** The longest a certificate can live. */
  readonly svidTtlMs: number;
  readonly now: () => number;
  readonly log?: Log;
  /** Where keys live; default PKCS#8 in `dir`. */
  readonly keys?: KeyStore;
  readonly limit?: IssuanceLimitOptions;
  /** How long a CRL may be used; default a day. It is signed anew at half of it. */
  readonly crlTtlMs?: number;
  /** How long a JWT-SVID can be used; default 5 minutes. */
  readonly jwtTtlMs?: number;
  /** The `iss` of JWT-SVIDs; without it they have none. */
  readonly jwtIssuer?: string | undefined;
  readonly jwtKeys?: { readonly lifetimeMs?: number; readonly publishAheadMs?: number };
  /** How often `maintain` is called without anybody asking; default 30 s, 0 for never. */
  readonly maintainEveryMs?: number;
}

/** The options with every lifetime there. Throws CONFIG_INVALID for one out of bounds. */
export function withLifetimes<T extends AuthorityOptions>(options: T): T & { readonly crlTtlMs: number; readonly jwtTtlMs: number } {
  const { svidTtlMs, crlTtlMs = DAY, jwtTtlMs = 300 * SECOND } = options;
  checkTime('SVID lifetime', svidTtlMs, svidTtlBounds);
  checkTime('JWT-SVID lifetime', jwtTtlMs, jwtTtlBounds);
  checkTime('CRL lifetime', crlTtlMs, crlTtlBounds);
  return { ...options, crlTtlMs, jwtTtlMs };
}

function checkTime(what: string, ms: number, { min, max }: { min: number; max: number }): void {
  if (ms >= min && ms <= max) return;
  const end = max % DAY === 0 && max > DAY ? `${max / DAY} days` : `${max / 3_600_000} h`;
  throw new HandfastError('CONFIG_INVALID', `${what} ${ms / SECOND} s: from ${min / SECOND} s to ${end} is accepted`);
}
