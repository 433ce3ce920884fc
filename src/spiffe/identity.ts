// The identity a sidecar speaks with: SVID and trust bundle as one value, so that no handshake sees half of a rotation.

import type { TrustBundle } from './trust-bundle.ts';
import type { X509Svid } from './x509-svid.ts';

export interface Identity {
  readonly svid: X509Svid;
  readonly bundle: TrustBundle;
}
