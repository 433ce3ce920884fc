// What the CA and control ask of a peer as it is admitted, beyond its handshake: it must be of our own trust domain, and not revoked since.

import { HandfastError } from '../errors.ts';
import { type RevocationList, revocationOf } from '../spiffe/crl.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';

/** Throws TRUST_DOMAIN_UNKNOWN: a federated domain names its own agents, not ours. Throws CERTIFICATE_REVOKED. */
export function checkMember({ id, serial }: VerifiedPeer, ours: { trustDomain: string; revocations: RevocationList }): void {
  if (id.trustDomain !== ours.trustDomain)
    throw new HandfastError('TRUST_DOMAIN_UNKNOWN', `${id.uri} is not of trust domain ${ours.trustDomain}`);
  const revocation = revocationOf({ id, serial }, ours.revocations);
  if (revocation !== undefined) throw new HandfastError('CERTIFICATE_REVOKED', `${id.uri}: ${revocation}`);
}
