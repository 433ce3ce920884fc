// JWT-SVIDs (https://spiffe.io/docs/latest/spiffe-specs/jwt-svid/): a token speaks for one SPIFFE ID, to the audiences it names, for a while.

import { messageOf } from '../errors.ts';
import { type Jwks, readJws, verifyJws } from './jwt.ts';
import { JwtRefusal } from './jwt-refusal.ts';
import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts';

/** `expiresAt` is Unix milliseconds. */
export interface VerifiedJwtSvid {
  readonly id: SpiffeId;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly expiresAt: number;
}

/** Clocks differ: a token may come from a little ahead of us. It gets no second more at its end. */
const LEEWAY_MS = 30_000;

/** `bundles` are key sets by trust domain, `now` is Unix milliseconds. Throws JWT_INVALID with the reason. */
export function verifyJwtSvid(
  token: string,
  options: { audience: string; bundles: ReadonlyMap<string, Jwks>; now: number },
): VerifiedJwtSvid {
  const unverified = readJws(token);
  // The subject is believed only as far as to choose the keys that may have signed it: those of its own trust domain.
  const id = subjectOf(unverified.claims);
  const keys = options.bundles.get(id.trustDomain);
  if (keys === undefined) throw new JwtRefusal('TRUST_DOMAIN_UNKNOWN', `${id.uri}: no keys of trust domain ${id.trustDomain} are known`);
  const { claims } = verifyJws(unverified, keys);
  refuseForeignAudience(claims.aud, options.audience);
  return Object.freeze({ id, claims: Object.freeze(claims), expiresAt: judgeTimes(claims, options.now) });
}

function subjectOf({ sub }: Readonly<Record<string, unknown>>): SpiffeId {
  if (typeof sub !== 'string') throw new JwtRefusal('SUBJECT_INVALID', 'it has no subject (sub)');
  let id: SpiffeId;
  try {
    id = parseSpiffeId(sub);
  } catch (cause) {
    throw new JwtRefusal('SUBJECT_INVALID', `subject: ${messageOf(cause)}`, { cause });
  }
  if (id.path === '') throw new JwtRefusal('SUBJECT_INVALID', `subject ${id.uri} names a trust domain, not a workload`);
  return id;
}

function refuseForeignAudience(aud: unknown, audience: string): void {
  const audiences: unknown = typeof aud === 'string' ? [aud] : aud;
  if (!Array.isArray(audiences) || audiences.length === 0 || !audiences.every((each) => typeof each === 'string' && each !== ''))
    throw new JwtRefusal('AUDIENCE_MISSING', 'it has no audience (aud)');
  if (audience === '' || !audiences.includes(audience))
    throw new JwtRefusal('AUDIENCE_MISMATCH', `audience ${JSON.stringify(aud).slice(0, 200)} lacks ${JSON.stringify(audience)}`);
}

/** When it expires. Written so that a clock that is no number accepts nothing. */
function judgeTimes({ exp, nbf, iat }: Readonly<Record<string, unknown>>, now: number): number {
  const [expiresAt, notBefore, issuedAt] = [timeOf('exp', exp), timeOf('nbf', nbf), timeOf('iat', iat)];
  if (expiresAt === undefined) throw new JwtRefusal('EXPIRY_MISSING', 'it has no expiry (exp)');
  const clock = `our clock says ${isoTime(now)}`;
  if (!(now < expiresAt)) throw new JwtRefusal('EXPIRED', `expired at ${isoTime(expiresAt)}; ${clock}`);
  for (const from of [notBefore, issuedAt]) {
    if (from !== undefined && !(now >= from - LEEWAY_MS))
      throw new JwtRefusal('NOT_YET_VALID', `not valid before ${isoTime(from)}; ${clock}`);
  }
  return expiresAt;
}

/** A NumericDate (RFC 7519, section 2) in Unix milliseconds. */
function timeOf(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !(value > 0 && value < 8e12)) throw new JwtRefusal('TIME_INVALID', `${name} is no time`);
  return value * 1000;
}

function isoTime(unixMs: number): string {
  return Number.isFinite(unixMs) ? new Date(unixMs).toISOString() : String(unixMs);
}
