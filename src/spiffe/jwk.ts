// One JSON Web Key (RFC 7517) that may verify signatures: elliptic curves of NIST and RSA, public members alone.

import { createPublicKey, type KeyObject } from 'node:crypto';
import { decodeBase64url } from './base64url.ts';

/** How node:crypto is to verify an algorithm of RFC 7518, section 3.1. There is no `none` and no HMAC to be talked into. */
export const jwsAlgorithms = {
  RS256: { hash: 'sha256', kty: 'RSA', pss: false },
  RS384: { hash: 'sha384', kty: 'RSA', pss: false },
  RS512: { hash: 'sha512', kty: 'RSA', pss: false },
  PS256: { hash: 'sha256', kty: 'RSA', pss: true },
  PS384: { hash: 'sha384', kty: 'RSA', pss: true },
  PS512: { hash: 'sha512', kty: 'RSA', pss: true },
  ES256: { hash: 'sha256', kty: 'EC', crv: 'P-256' },
  ES384: { hash: 'sha384', kty: 'EC', crv: 'P-384' },
  ES512: { hash: 'sha512', kty: 'EC', crv: 'P-521' },
} as const;

export type JwsAlgorithm = keyof typeof jwsAlgorithms;

/** `algorithms` is what the key may verify: narrowed by its curve, and by its own `alg`. */
export interface Jwk {
  readonly kid: string | undefined;
  readonly key: KeyObject;
  readonly algorithms: readonly JwsAlgorithm[];
}

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'];
const MAX_KID = 256;
const RSA_BITS = { min: 2048, max: 8192 } as const;

/** Undefined for keys that are none of our business (another type, use or algorithm). Throws a plain Error for what no key may be. */
export function parseJwk(jwk: Readonly<Record<string, unknown>>): Jwk | undefined {
  const secret = PRIVATE_MEMBERS.find((name) => jwk[name] !== undefined);
  if (secret !== undefined) throw new Error(`it carries private key material (${JSON.stringify(secret)}): that key is no secret any more`);
  const { kty, crv, use, alg, kid, key_ops: operations } = jwk;
  if (kid !== undefined && (typeof kid !== 'string' || kid === '' || kid.length > MAX_KID)) throw new Error('its kid is no short text');
  if (use !== undefined && use !== 'sig' && use !== 'jwt-svid') return undefined;
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) return undefined;
  const algorithms = algorithmNames.filter((name) => {
    const algorithm = jwsAlgorithms[name];
    return algorithm.kty === kty && (!('crv' in algorithm) || algorithm.crv === crv) && (alg === undefined || alg === name);
  });
  if (algorithms.length === 0) return undefined;
  const key = kty === 'RSA' ? rsaKey(member(jwk, 'n'), member(jwk, 'e')) : ecKey(String(crv), member(jwk, 'x'), member(jwk, 'y'));
  return Object.freeze({ kid, key, algorithms: Object.freeze(algorithms) });
}

const algorithmNames: readonly JwsAlgorithm[] = Object.keys(jwsAlgorithms).filter(isJwsAlgorithm);

export function isJwsAlgorithm(name: unknown): name is JwsAlgorithm {
  return typeof name === 'string' && Object.hasOwn(jwsAlgorithms, name);
}

function rsaKey(n: string, e: string): KeyObject {
  const key = createPublicKey({ key: { kty: 'RSA', n, e }, format: 'jwk' });
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {};
  if (modulusLength < RSA_BITS.min || modulusLength > RSA_BITS.max)
    throw new Error(`RSA of ${modulusLength} bits: ${RSA_BITS.min} to ${RSA_BITS.max} are accepted`);
  // An exponent of 1 makes every message its own signature; an enormous one makes each verification slow.
  if (publicExponent < 3n || publicExponent % 2n === 0n || publicExponent > 0xffff_ffffn)
    throw new Error(`RSA exponent ${publicExponent} is not accepted`);
  return key;
}

function ecKey(crv: string, x: string, y: string): KeyObject {
  return createPublicKey({ key: { kty: 'EC', crv, x, y }, format: 'jwk' });
}

function member(jwk: Readonly<Record<string, unknown>>, name: string): string {
  const value = jwk[name];
  if (typeof value !== 'string') throw new Error(`${JSON.stringify(name)} is missing`);
  decodeBase64url(value);
  return value;
}
