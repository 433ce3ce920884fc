// The identity a sidecar speaks with: SVID and trust bundles as one value, so that no handshake sees half of a rotation.

import type { TrustBundles } from './trust-bundle.ts';
import type { X509Svid } from './x509-svid.ts';

export interface Identity {
  readonly svid: X509Svid;
  readonly bundles: TrustBundles;
}
