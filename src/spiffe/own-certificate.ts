// Whether a certificate made for us just now can be used by our clock.

import { checkValidity } from './verify-peer.ts';
import type { X509Svid } from './x509-svid.ts';

/** An issuer's clock may be this far ahead of ours: a certificate just made is not refused for it. */
const CLOCK_LEEWAY_MS = 30_000;

/** Throws CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID. One that is dead on arrival would be asked for again at once, for ever. */
export function checkOwnCertificate(svid: X509Svid, now: number): void {
  const [leaf] = svid.certificates;
  // Up to the leeway a certificate may begin in our future; it must live a moment longer than now.
  const judgedAt = now < svid.notBefore && svid.notBefore <= now + CLOCK_LEEWAY_MS ? svid.notBefore : now + 1;
  if (leaf !== undefined) checkValidity(leaf, { whose: svid.id.uri, now: judgedAt });
}
