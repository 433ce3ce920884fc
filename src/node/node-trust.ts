// What the whole node trusts, as one value that is replaced when it changes: bundles, revocations and the keys that verify JWT-SVIDs.

import type { RevocationList } from '../spiffe/crl.ts';
import { type Jwks, parseJwks } from '../spiffe/jwt.ts';
import { type JwksExtras, type JwtTrust, readExtras } from '../spiffe/jwt-trust.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';

export interface NodeTrust {
  readonly bundles: TrustBundles;
  readonly crl: RevocationList;
  /** The text of `crl`, as it is served on; undefined until the first list has come, which must not pass for an empty one. */
  readonly crlPem: string | undefined;
  /** JWKS documents by trust domain. */
  readonly jwks: ReadonlyMap<string, string>;
}

const NO_EXTRAS: JwksExtras = { notBefore: new Map() };
const read = new WeakMap<NodeTrust, JwtTrust>();

/** The part that verifies JWT-SVIDs, read once. A key set that cannot be read verifies nobody. */
export function jwtTrustOf(trust: NodeTrust): JwtTrust {
  let jwtTrust = read.get(trust);
  if (jwtTrust === undefined) {
    const { trustDomain } = trust.bundles.own;
    const own = trust.jwks.get(trustDomain);
    const { issuer, notBefore, validUntil: keysUntil = Number.POSITIVE_INFINITY } = own === undefined ? NO_EXTRAS : readExtras(own);
    jwtTrust = Object.freeze({
      trustDomain,
      issuer,
      texts: trust.jwks,
      keySets: new Map([...trust.jwks].map(([name, text]) => [name, readable(text)])),
      blockedIds: trust.crl.blockedIds,
      notBefore,
      validUntil: Math.min(trust.crl.nextUpdate, keysUntil),
    });
    read.set(trust, jwtTrust);
  }
  return jwtTrust;
}

function readable(text: string): Jwks {
  try {
    return parseJwks(text);
  } catch {
    return { keys: [] };
  }
}
