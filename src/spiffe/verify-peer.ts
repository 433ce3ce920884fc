// Our own verdict on a peer's certificate, after OpenSSL has built its chain to the bundle. Order as in the X.509-SVID standard:
// certificate present, ID, leaf constraints, trust domain, validity. Who the peer may be is decided by policy, not here.

import type { X509Certificate } from 'node:crypto';
import { HandfastError } from '../errors.ts';
import { readLeaf } from './leaf.ts';
import type { SpiffeId } from './spiffe-id.ts';
import type { TrustBundle } from './trust-bundle.ts';

/** Who a peer has proven to be. `serial` is upper-case hex as OpenSSL prints it, `notAfter` Unix milliseconds. */
export interface VerifiedPeer {
  readonly id: SpiffeId;
  readonly serial: string;
  readonly notAfter: number;
}

/** Throws NO_CLIENT_CERTIFICATE, SPIFFE_ID_INVALID, LEAF_INVALID, TRUST_DOMAIN_UNKNOWN or CERTIFICATE_EXPIRED / _NOT_YET_VALID. */
export function verifyPeer(certificate: X509Certificate | undefined, trust: { bundle: TrustBundle; now: number }): VerifiedPeer {
  // Never trust `authorized` by itself: a resumed TLS 1.3 session can claim it with no certificate at all (nodejs/node#64677).
  if (certificate === undefined) throw new HandfastError('NO_CLIENT_CERTIFICATE', 'the peer presented no certificate');
  const id = readLeaf(certificate);
  if (id.trustDomain !== trust.bundle.trustDomain) {
    throw new HandfastError(
      'TRUST_DOMAIN_UNKNOWN',
      `${id.uri}: trust domain ${id.trustDomain} is not ${trust.bundle.trustDomain}, the only one this sidecar has a bundle for`,
    );
  }
  const notAfter = certificate.validToDate.getTime();
  // Written so that a clock that is no number accepts nobody.
  if (!(trust.now <= notAfter)) {
    throw new HandfastError('CERTIFICATE_EXPIRED', `${id.uri}: certificate expired at ${certificate.validToDate.toISOString()}`);
  }
  if (!(trust.now >= certificate.validFromDate.getTime())) {
    throw new HandfastError(
      'CERTIFICATE_NOT_YET_VALID',
      `${id.uri}: certificate not valid before ${certificate.validFromDate.toISOString()}`,
    );
  }
  return Object.freeze({ id, serial: certificate.serialNumber, notAfter });
}
