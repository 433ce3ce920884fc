// What the whole node trusts, as one value that is replaced when it changes: bundles, revocations and the keys that verify JWT-SVIDs.

import type { RevocationList } from '../spiffe/crl.ts';
import { type Jwks, parseJwks } from '../spiffe/jwt.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';

export interface NodeTrust {
  readonly bundles: TrustBundles;
  readonly crl: RevocationList;
  /** The text of `crl`, as it is served on; undefined until the first list has come, which must not pass for an empty one. */
  readonly crlPem: string | undefined;
  /** JWKS documents by trust domain. */
  readonly jwks: ReadonlyMap<string, string>;
}

const parsed = new WeakMap<NodeTrust, ReadonlyMap<string, Jwks>>();

/** The key sets by trust domain, read once. One that cannot be read verifies nobody. */
export function keySetsOf(trust: NodeTrust): ReadonlyMap<string, Jwks> {
  let keySets = parsed.get(trust);
  if (keySets === undefined) {
    keySets = new Map([...trust.jwks].map(([trustDomain, text]) => [trustDomain, readable(text)]));
    parsed.set(trust, keySets);
  }
  return keySets;
}

function readable(text: string): Jwks {
  try {
    return parseJwks(text);
  } catch {
    return { keys: [] };
  }
}
