// JWT-SVIDs (https://spiffe.io/docs/latest/spiffe-specs/jwt-svid/): ES256, for one SPIFFE ID and the audiences that were asked for.

import { HandfastError } from '../errors.ts';
import { isTooMuchAudience, MAX_AUDIENCE_BYTES } from '../spiffe/audiences.ts';
import { DerTag, derChildren, readDer } from '../spiffe/der.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { Signer } from './signer.ts';

const MAX_AUDIENCES = 16;
const MAX_AUDIENCE = 1024;
const COORDINATE = 32;

/** Times in Unix seconds. */
export interface SignedJwtSvid {
  readonly token: string;
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/** Throws JWT_INVALID for audiences that no verifier would take: none, empty, or absurdly many. */
export async function signJwtSvid(of: {
  id: SpiffeId;
  audience: readonly string[];
  ttlMs: number;
  key: { kid: string; signer: Signer };
  issuer?: string | undefined;
  now: number;
}): Promise<SignedJwtSvid> {
  const audience = [...new Set(of.audience)];
  if (
    audience.length === 0 ||
    audience.length > MAX_AUDIENCES ||
    audience.some((each) => each === '' || each.length > MAX_AUDIENCE) ||
    isTooMuchAudience(audience)
  ) {
    throw new HandfastError(
      'JWT_INVALID',
      `a JWT-SVID needs an audience: 1 to ${MAX_AUDIENCES} names of at most ${MAX_AUDIENCE} characters, ${MAX_AUDIENCE_BYTES} bytes together`,
    );
  }
  const issuedAt = Math.floor(of.now / 1000);
  const expiresAt = issuedAt + Math.floor(of.ttlMs / 1000);
  const header = { alg: 'ES256', kid: of.key.kid, typ: 'JWT' };
  const text = `${encode(header)}.${encode({ ...(of.issuer === undefined ? {} : { iss: of.issuer }), sub: of.id.uri, aud: audience, iat: issuedAt, exp: expiresAt })}`;
  const signature = rawSignature(await of.key.signer.sign(Buffer.from(text)));
  return { token: `${text}.${signature.toString('base64url')}`, issuedAt, expiresAt };
}

function encode(part: unknown): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url');
}

/** r and s, 32 bytes each (RFC 7518, 3.4), from the DER that a Signer gives. */
function rawSignature(der: Buffer): Buffer {
  const numbers = derChildren(readDer(der), 2).map(({ tag, content }) => {
    const digits = content[0] === 0 ? content.subarray(1) : content;
    if (tag !== DerTag.integer || digits.length > COORDINATE) throw new Error('the signer gave something else than a P-256 signature');
    return Buffer.concat([Buffer.alloc(COORDINATE - digits.length), digits]);
  });
  if (numbers.length !== 2) throw new Error('the signer gave something else than a P-256 signature');
  return Buffer.concat(numbers);
}
