// The secrets of one workload as SDS serves them: its certificate by Istio's name and by its SPIFFE ID, the bundles in every form that sidecars
// ask for, and the revocation list.

import { secretNames } from '../discovery/identity-source.ts';
import type { ResourceView, VersionedResource } from '../discovery/resource-view.ts';
import { bundleSecret, certificateSecret, crlSecret, encodeSecret, genericSecret, validatorSecret } from '../discovery/secret-writer.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { jwtTrustOf, type NodeTrust } from '../node/node-trust.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { formatJwtTrust } from '../spiffe/jwt-trust.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';

type Encoded = readonly (readonly [name: string, resource: VersionedResource])[];

// Encoded once for all workloads of the node, and again only when they change.
const encodedBundles = new WeakMap<TrustBundles, Encoded>();
const encodedJwtTrust = new WeakMap<NodeTrust, Encoded>();
let encodedCrl: { readonly pem: string; readonly encoded: Encoded } | undefined;

export class SessionSecrets implements ResourceView {
  readonly #identity: Snapshot<Identity>;
  readonly #trust: Snapshot<NodeTrust>;
  #certificates: { readonly svid: X509Svid; readonly encoded: Encoded } | undefined;

  constructor(sources: { identity: Snapshot<Identity>; trust: Snapshot<NodeTrust> }) {
    this.#identity = sources.identity;
    this.#trust = sources.trust;
  }

  resources(typeUrl: string): ReadonlyMap<string, VersionedResource> | undefined {
    const { current } = this.#identity;
    if (typeUrl !== typeUrls.secret || current === undefined) return undefined;
    const { svid, bundles } = current;
    if (this.#certificates?.svid !== svid) this.#certificates = { svid, encoded: encodeCertificates(svid) };
    const trust = this.#trust.current;
    const crlPem = trust?.crlPem;
    // "Nothing is revoked" would clear what the workload has from before this agent was started.
    const crl = crlPem === undefined ? [] : encodeCrl(crlPem);
    // Keys without revocations would let a blocked identity speak.
    const jwtTrust = trust === undefined || crlPem === undefined || trust.jwks.size === 0 ? [] : encodeJwtTrust(trust);
    return new Map([...this.#certificates.encoded, ...encodeBundles(bundles), ...crl, ...jwtTrust]);
  }

  subscribe(onChange: (typeUrl: string) => void): () => void {
    const changed = () => onChange(typeUrls.secret);
    const unsubscribes = [this.#identity.subscribe(changed), this.#trust.subscribe(changed)];
    return () => {
      for (const unsubscribe of unsubscribes) unsubscribe();
    };
  }
}

/** By Istio's name and by its ID. */
function encodeCertificates(svid: X509Svid): Encoded {
  return encode([secretNames.svid, svid.id.uri].map((name) => certificateSecret(name, svid)));
}

function encodeBundles(bundles: TrustBundles): Encoded {
  let encoded = encodedBundles.get(bundles);
  if (encoded === undefined) {
    const { own, all } = bundles;
    encoded = encode([
      bundleSecret(secretNames.bundle, own.pem),
      validatorSecret(secretNames.allBundles, all),
      ...all.map((bundle) => validatorSecret(`spiffe://${bundle.trustDomain}`, [bundle])),
    ]);
    encodedBundles.set(bundles, encoded);
  }
  return encoded;
}

function encodeJwtTrust(trust: NodeTrust): Encoded {
  let encoded = encodedJwtTrust.get(trust);
  if (encoded === undefined) {
    encoded = encode([genericSecret(secretNames.jwtTrust, formatJwtTrust(jwtTrustOf(trust)))]);
    encodedJwtTrust.set(trust, encoded);
  }
  return encoded;
}

function encodeCrl(pem: string): Encoded {
  if (encodedCrl?.pem !== pem) encodedCrl = { pem, encoded: encode([crlSecret(pem)]) };
  return encodedCrl.encoded;
}

function encode(secrets: readonly Secret[]): Encoded {
  return secrets.map((secret) => [secret.name, encodeSecret(secret)]);
}
