// The secrets of one workload as SDS serves them: its certificate by Istio's name and by its SPIFFE ID, the bundles in every form that sidecars
// ask for, and the revocation list.

import { secretNames } from '../discovery/identity-source.ts';
import type { ResourceView, VersionedResource } from '../discovery/resource-view.ts';
import { bundleSecret, certificateSecret, crlSecret, encodeSecret, validatorSecret } from '../discovery/secret-writer.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { NodeTrust } from '../node/node-trust.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';

type Encoded = readonly [name: string, resource: VersionedResource][];

export class SessionSecrets implements ResourceView {
  readonly #identity: Snapshot<Identity>;
  readonly #trust: Snapshot<NodeTrust>;
  // Each part is encoded when it changes: bundles and lists change seldom, and are not encoded again with each certificate.
  readonly #certificates = remembering((svid: X509Svid) => [secretNames.svid, svid.id.uri].map((name) => certificateSecret(name, svid)));
  readonly #bundles = remembering(bundleSecrets);
  readonly #crl = remembering((pem: string) => [crlSecret(pem)]);

  constructor(sources: { identity: Snapshot<Identity>; trust: Snapshot<NodeTrust> }) {
    this.#identity = sources.identity;
    this.#trust = sources.trust;
  }

  resources(typeUrl: string): ReadonlyMap<string, VersionedResource> | undefined {
    const { current } = this.#identity;
    if (typeUrl !== typeUrls.secret || current === undefined) return undefined;
    const crl = this.#crl(this.#trust.current?.crlPem ?? '');
    return new Map([...this.#certificates(current.svid), ...this.#bundles(current.bundles), ...crl]);
  }

  subscribe(onChange: (typeUrl: string) => void): () => void {
    const changed = () => onChange(typeUrls.secret);
    const unsubscribes = [this.#identity.subscribe(changed), this.#trust.subscribe(changed)];
    return () => {
      for (const unsubscribe of unsubscribes) unsubscribe();
    };
  }
}

function bundleSecrets({ own, all }: TrustBundles): Secret[] {
  return [
    bundleSecret(secretNames.bundle, own.pem),
    validatorSecret(secretNames.allBundles, all),
    ...all.map((bundle) => validatorSecret(`spiffe://${bundle.trustDomain}`, [bundle])),
  ];
}

/** Encodes again only for another source. */
function remembering<Source>(make: (source: Source) => Secret[]): (source: Source) => Encoded {
  let last: { source: Source; encoded: Encoded } | undefined;
  return (source) => {
    if (last?.source !== source) last = { source, encoded: make(source).map((secret) => [secret.name, encodeSecret(secret)]) };
    return last.encoded;
  };
}
