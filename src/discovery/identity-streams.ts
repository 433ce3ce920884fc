// A sidecar's two SDS streams: certificate and bundles on one, the revocation list on one of its own.

import type { Snapshot } from '../snapshot.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { IdentitySource } from './identity-source.ts';
import { RevocationSource } from './revocation-source.ts';
import { runSdsClient, type SdsClientOptions } from './sds-client.ts';

export interface IdentityStreamsOptions extends Omit<SdsClientOptions, 'resourceNames' | 'accept'> {
  /** What the secrets are called; by default as Istio calls them. */
  readonly names?: { readonly svid: string; readonly bundle: string };
  /** The revocation list's secret; undefined where the server has none. */
  readonly crl: string | undefined;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  /** Throws for an identity that TLS would refuse. */
  readonly prove: (identity: Identity) => void;
  readonly now: () => number;
}

/** Runs until the signal aborts. */
export async function runIdentityStreams(options: IdentityStreamsOptions): Promise<void> {
  const source = new IdentitySource(options);
  await Promise.all([
    runSdsClient({ ...options, resourceNames: source.resourceNames, accept: (secrets) => source.accept(secrets) }),
    runRevocations(options),
  ]);
}

/** Opened once there is a bundle to verify lists with; whatever happens to it, keys rotate on. */
async function runRevocations(options: IdentityStreamsOptions): Promise<void> {
  const { crl, identity, signal } = options;
  if (crl === undefined) return;
  const source = new RevocationSource({ ...options, name: crl });
  if ((await identity.first(signal)) === undefined) return;
  await runSdsClient({ ...options, resourceNames: [crl], accept: (secrets) => source.accept(secrets) });
}
