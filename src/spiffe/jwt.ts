// Signed tokens (JWS in compact form, RFC 7515) and the key sets that verify them (RFC 7517), strict and on node:crypto alone.

import { constants, verify } from 'node:crypto';
import { messageOf } from '../errors.ts';
import { decodeBase64url } from './base64url.ts';
import { isJwsAlgorithm, type Jwk, type JwsAlgorithm, jwsAlgorithms, parseJwk } from './jwk.ts';
import { JwtRefusal, type JwtRefusalReason } from './jwt-refusal.ts';
import { isJsonObject, parseStrictObject } from './strict-json.ts';

/** A key set: a JWKS of an OIDC issuer, or a SPIFFE JWT bundle. Each kid stands once. */
export interface Jwks {
  readonly keys: readonly Jwk[];
}

/** What a token says before anybody has verified it: good for choosing whom to ask, for nothing else. */
export interface UnverifiedJws {
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
  readonly algorithm: JwsAlgorithm;
  readonly kid: string | undefined;
  readonly signed: string;
  readonly signature: Buffer;
}

export interface VerifiedJws {
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
}

const MAX_TOKEN_BYTES = 16_384;
const MAX_JWKS_BYTES = 524_288;
const MAX_KEYS = 100;
/** Header members that bring their own key, or ask for a rule that we would have to know. */
const REFUSED_MEMBERS = ['crit', 'jku', 'x5u', 'jwk', 'x5c'];

/** Throws JWT_INVALID: not a key set, private key material, a kid that stands twice, a key too weak. Keys of other kinds are left out. */
export function parseJwks(text: string): Jwks {
  if (text.length > MAX_JWKS_BYTES) throw invalid(`key set: longer than ${MAX_JWKS_BYTES} bytes`);
  const entries = reading('key set', () => parseStrictObject(text)).keys;
  if (!Array.isArray(entries)) throw invalid('key set: it has no list "keys"');
  if (entries.length > MAX_KEYS) throw invalid(`key set: ${entries.length} keys, at most ${MAX_KEYS} are accepted`);
  const kids = new Set<string>();
  const keys = entries.flatMap((entry: unknown, index) => {
    const jwk = reading(`key set: key ${index + 1}`, () => {
      if (!isJsonObject(entry)) throw new Error('not an object');
      return parseJwk(entry);
    });
    if (jwk?.kid !== undefined && kids.size === kids.add(jwk.kid).size)
      throw invalid(`key set: kid ${JSON.stringify(jwk.kid)} stands twice`);
    return jwk === undefined ? [] : [jwk];
  });
  return Object.freeze({ keys: Object.freeze(keys) });
}

/** A JWT-SVID's. */
const TYPES: readonly string[] = ['JWT', 'JOSE'];

/** Takes a token apart, verifying nothing. Throws JWT_INVALID for whatever is no compact JWS of an algorithm that we know. `types`: what its `typ` may be, if it has one. */
export function readJws(token: string, { types = TYPES }: { types?: readonly string[] } = {}): UnverifiedJws {
  if (token.length > MAX_TOKEN_BYTES) throw invalid(`longer than ${MAX_TOKEN_BYTES} bytes`, 'TOO_LONG');
  const [first, second, third, ...rest] = token.split('.', 4);
  if (first === undefined || second === undefined || third === undefined || rest.length > 0) throw invalid('not three parts');
  const header = reading('header', () => parseStrictObject(decodeBase64url(first)));
  const claims = reading('claims', () => parseStrictObject(decodeBase64url(second)));
  const signature = reading('signature', () => decodeBase64url(third));
  const { alg, kid, typ } = header;
  const refused = REFUSED_MEMBERS.find((name) => header[name] !== undefined);
  if (refused !== undefined) throw invalid(`the header has ${JSON.stringify(refused)}, which is not accepted`, 'HEADER_REFUSED');
  if (!isJwsAlgorithm(alg)) throw invalid(`algorithm ${JSON.stringify(alg)} is not accepted`, 'ALGORITHM_REFUSED');
  if (typ !== undefined && !types.some((type) => type === typ))
    throw invalid(`type ${JSON.stringify(typ)} is neither ${types.join(' nor ')}`, 'TYPE_REFUSED');
  if (kid !== undefined && typeof kid !== 'string') throw invalid('the kid is no text');
  return { header, claims, algorithm: alg, kid, signed: `${first}.${second}`, signature };
}

/** Header and claims of a token that one of the keys has signed: the one its kid names; `onlyKey`: without a kid, the only one that it can be. Throws JWT_INVALID. What the claims mean is for the caller. */
export function verifyJws(token: string | UnverifiedJws, { keys }: Jwks, { onlyKey = false }: { onlyKey?: boolean } = {}): VerifiedJws {
  const { header, claims, algorithm, kid, signed, signature } = typeof token === 'string' ? readJws(token) : token;
  const candidates =
    kid === undefined ? keys.filter((key) => onlyKey && key.algorithms.includes(algorithm)) : keys.filter((key) => key.kid === kid);
  const [jwk, another] = candidates;
  if (kid === undefined && (jwk === undefined || another !== undefined)) throw invalid('the header names no key (kid)', 'KEY_UNKNOWN');
  if (jwk === undefined) throw invalid(`key ${JSON.stringify(kid)} is not among the ${keys.length} known ones`, 'KEY_UNKNOWN');
  if (!jwk.algorithms.includes(algorithm)) throw invalid(`key ${JSON.stringify(kid)} does not sign with ${algorithm}`, 'ALGORITHM_REFUSED');
  const { hash, ...kind } = jwsAlgorithms[algorithm];
  const padding =
    kind.kty === 'RSA' && kind.pss
      ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
      : { dsaEncoding: 'ieee-p1363' as const };
  if (!verify(hash, Buffer.from(signed), { key: jwk.key, ...padding }, signature))
    throw invalid('the signature does not verify', 'SIGNATURE_WRONG');
  return { header, claims };
}

function reading<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new JwtRefusal('MALFORMED', `${what}: ${messageOf(cause)}`, { cause });
  }
}

function invalid(message: string, reason: JwtRefusalReason = 'MALFORMED'): JwtRefusal {
  return new JwtRefusal(reason, message);
}
