// What JWT-SVIDs are verified with, as one value: keys, revocations, and until when the two may be used. Agents hand it to their sidecars.

import { HandfastError, messageOf } from '../errors.ts';
import { type Jwks, parseJwks } from './jwt.ts';
import { JwtRefusal } from './jwt-refusal.ts';
import { type VerifiedJwtSvid, verifyJwtSvid } from './jwt-svid.ts';
import { parseSpiffeId, parseTrustDomain } from './spiffe-id.ts';
import { isJsonObject, parseStrictObject } from './strict-json.ts';

export interface JwtTrust {
  /** Our own. */
  readonly trustDomain: string;
  /** The `iss` of its tokens, where the CA sets any. */
  readonly issuer: string | undefined;
  /** By trust domain, as they were published and as they verify. */
  readonly texts: ReadonlyMap<string, string>;
  readonly keySets: ReadonlyMap<string, Jwks>;
  readonly blockedIds: ReadonlySet<string>;
  /** Unix seconds by SPIFFE ID: it was blocked, and its tokens from before that stay refused. */
  readonly notBefore: ReadonlyMap<string, number>;
  /** Unix milliseconds until which the CA's word holds, on keys and on revocations; 0 without any. */
  readonly validUntil: number;
}

const MAX_ENTRIES = 50_000;
/** The member of our CA's key sets that says what RFC 7517 has no name for. */
const OWN_MEMBER = 'handfast';

/** Keys without a living list of revocations might be withdrawn ones. */
export function mayJudge({ validUntil }: JwtTrust, now: number): boolean {
  return now < validUntil;
}

/** Verifies, and holds against the revocations. Throws JwtRefusal. */
export function judgeJwtSvid(token: string, { audience, trust, now }: { audience: string; trust: JwtTrust; now: number }): VerifiedJwtSvid {
  const verified = verifyJwtSvid(token, { audience, bundles: trust.keySets, now });
  const { uri } = verified.id;
  if (trust.blockedIds.has(uri)) throw new JwtRefusal('IDENTITY_BLOCKED', `${uri} has been blocked`);
  const { iat } = verified.claims;
  if (isBeforeRevocation(trust, { spiffeId: uri, issuedAt: typeof iat === 'number' ? iat : undefined }))
    throw new JwtRefusal('BEFORE_REVOCATION', `${uri} has been blocked since it was signed`);
  return verified;
}

/** `issuedAt` in Unix seconds: a token that does not say is from before. */
export function isBeforeRevocation({ notBefore }: JwtTrust, of: { spiffeId: string; issuedAt: number | undefined }): boolean {
  const from = notBefore.get(of.spiffeId);
  return from !== undefined && !(of.issuedAt !== undefined && of.issuedAt >= from);
}

/** What our CA says beside its keys. */
export interface JwksExtras {
  readonly issuer?: string | undefined;
  readonly notBefore: ReadonlyMap<string, number>;
  /** Unix milliseconds, on the wire seconds: until then these are the keys. */
  readonly validUntil?: number | undefined;
}

/** The members with ours among them. */
export function withExtras(jwks: object, { issuer, notBefore, validUntil }: JwksExtras): object {
  const own = {
    ...(validUntil === undefined ? {} : { valid_until: Math.floor(validUntil / 1000) }),
    ...(issuer === undefined ? {} : { issuer }),
    ...(notBefore.size === 0 ? {} : { not_before: Object.fromEntries(notBefore) }),
  };
  return { ...jwks, [OWN_MEMBER]: own };
}

/** Throws a plain Error for what our CA cannot have said. */
export function readExtras(jwks: string): JwksExtras {
  const { [OWN_MEMBER]: own = {} } = parseStrictObject(jwks);
  if (!isJsonObject(own)) throw new Error(`its member "${OWN_MEMBER}" is no object`);
  const { issuer, not_before: notBefore = {}, valid_until: until } = own;
  if (issuer !== undefined && typeof issuer !== 'string') throw new Error('its issuer is no text');
  if (until !== undefined && typeof until !== 'number') throw new Error('the time until which it holds is no time');
  return { issuer, notBefore: timesOf(notBefore), validUntil: until === undefined ? undefined : until * 1000 };
}

export function formatJwtTrust({ texts, keySets: _, blockedIds, notBefore, ...plain }: JwtTrust): string {
  return JSON.stringify({
    ...plain,
    keySets: Object.fromEntries(texts),
    blockedIds: [...blockedIds],
    notBefore: Object.fromEntries(notBefore),
  });
}

/** Throws SECRET_INVALID. */
export function parseJwtTrust(text: string): JwtTrust {
  try {
    const { trustDomain, issuer, keySets, blockedIds, notBefore, validUntil } = parseStrictObject(text);
    if (typeof trustDomain !== 'string') throw new Error('it names no trust domain');
    if (issuer !== undefined && typeof issuer !== 'string') throw new Error('its issuer is no text');
    if (typeof validUntil !== 'number' || !Number.isSafeInteger(validUntil)) throw new Error('it does not say until when it holds');
    if (!Array.isArray(blockedIds) || blockedIds.length > MAX_ENTRIES) throw new Error('it has no list of blocked SPIFFE IDs');
    const texts = textsOf(keySets);
    return Object.freeze({
      trustDomain: parseTrustDomain(trustDomain),
      issuer,
      texts,
      keySets: new Map([...texts].map(([name, jwks]) => [name, parseJwks(jwks)])),
      blockedIds: new Set(blockedIds.map((id: unknown) => parseSpiffeId(String(id)).uri)),
      notBefore: timesOf(notBefore),
      validUntil,
    });
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', `trust for JWT-SVIDs: ${messageOf(cause)}`, { cause });
  }
}

function textsOf(keySets: unknown): ReadonlyMap<string, string> {
  if (!isJsonObject(keySets)) throw new Error('it has no key sets');
  return new Map(
    Object.entries(keySets).map(([name, jwks]) => {
      if (typeof jwks !== 'string') throw new Error(`the key set of ${name} is no text`);
      return [parseTrustDomain(name), jwks];
    }),
  );
}

function timesOf(times: unknown): ReadonlyMap<string, number> {
  if (!isJsonObject(times)) throw new Error('its times of revocation are no object');
  const entries = Object.entries(times);
  if (entries.length > MAX_ENTRIES) throw new Error(`${entries.length} times of revocation, at most ${MAX_ENTRIES} are accepted`);
  return new Map(
    entries.map(([id, at]) => {
      if (typeof at !== 'number' || !(at > 0)) throw new Error(`the time at which ${id} was blocked is no time`);
      return [parseSpiffeId(id).uri, at];
    }),
  );
}
