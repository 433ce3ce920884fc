// JWT-SVIDs signed at run time, and a node's trust that knows their keys.

import { type KeyObject, sign } from 'node:crypto';
import type { NodeTrust } from '../../src/node/node-trust.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { keyPair, type TestCa } from './pki.ts';

export class JwtKey {
  readonly kid: string;
  readonly #keys: { publicKey: KeyObject; privateKey: KeyObject } = keyPair();

  constructor(kid: string) {
    this.kid = kid;
  }

  get jwk() {
    return { ...this.#keys.publicKey.export({ format: 'jwk' }), kid: this.kid, use: 'jwt-svid' };
  }

  sign(claims: Readonly<Record<string, unknown>>, header: Readonly<Record<string, unknown>> = {}): string {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${encode({ alg: 'ES256', typ: 'JWT', kid: this.kid, ...header })}.${encode(claims)}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#keys.privateKey, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  }
}

/** The first CA's trust domain is the node's own; all of them have these JWT keys. */
export function nodeTrust(
  ca: TestCa | readonly TestCa[],
  keys: readonly JwtKey[],
  blocked: readonly string[] = [],
  crl: readonly Buffer[] = [],
): NodeTrust {
  const [own, ...others] = [ca].flat().map(({ rootPem, trustDomain }) => parseTrustBundle(rootPem, trustDomain));
  if (own === undefined) throw new Error('name a CA');
  const jwks = JSON.stringify({ keys: keys.map(({ jwk }) => jwk) });
  return Object.freeze({
    bundles: trustBundles(own, others),
    crl: { ...noRevocations, nextUpdate: Date.UTC(2100, 0, 1), der: crl, blockedIds: new Set(blocked) },
    crlPem: '',
    jwks: new Map([own, ...others].map(({ trustDomain }) => [trustDomain, jwks])),
  });
}
