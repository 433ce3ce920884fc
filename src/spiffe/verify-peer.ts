// Our own verdict on a peer's certificate, after OpenSSL has built its chain to a bundle. Order as in the X.509-SVID standard: certificate
// present, ID, leaf constraints, trust domain and its own bundle, validity, revocation. Who the peer may be is decided by policy, not here.

import type { X509Certificate } from 'node:crypto';
import { HandfastError } from '../errors.ts';
import { type RevocationList, revocationOf } from './crl.ts';
import { type LeafFacts, leafFacts } from './leaf.ts';
import type { SpiffeId } from './spiffe-id.ts';
import type { TrustBundle, TrustBundles } from './trust-bundle.ts';
import { chainsTo } from './x509-svid.ts';

/** Who a peer has proven to be. `serial` is upper-case hex as OpenSSL prints it, `notAfter` Unix milliseconds. */
export interface VerifiedPeer {
  readonly id: SpiffeId;
  readonly serial: string;
  readonly notAfter: number;
  /** What it sent, leaf first: for when trust changes. */
  certificates(): readonly X509Certificate[];
}

/** What a peer is held against. `now` in Unix milliseconds. */
export interface PeerTrust {
  readonly bundles: TrustBundles;
  readonly revocations: RevocationList;
  readonly now: number;
}

/** A peer's leaf, and the certificates it sent with it; those are only asked for where more than one trust domain is trusted. */
export interface PeerCertificates {
  readonly leaf: X509Certificate | undefined;
  intermediates(): readonly X509Certificate[];
}

/** Whether the peer's chain ends in the bundle of its own trust domain, as bundles are now. */
export function isStillTrusted({ id, certificates }: VerifiedPeer, bundles: TrustBundles): boolean {
  const bundle = bundles.get(id.trustDomain);
  return bundle !== undefined && chainsTo(certificates(), bundle);
}

/** Throws NO_CLIENT_CERTIFICATE, SPIFFE_ID_INVALID, LEAF_INVALID, TRUST_DOMAIN_UNKNOWN, CHAIN_UNTRUSTED, CERTIFICATE_EXPIRED / _NOT_YET_VALID or _REVOKED. */
export function verifyPeer(peer: PeerCertificates, trust: PeerTrust): VerifiedPeer {
  const { leaf } = peer;
  // Never trust `authorized` by itself: a resumed TLS 1.3 session can claim it with no certificate at all (nodejs/node#64677).
  if (leaf === undefined) throw new HandfastError('NO_CLIENT_CERTIFICATE', 'the peer presented no certificate');
  const facts = leafFacts(leaf);
  const { id, serial, notAfter } = facts;
  const bundle = trust.bundles.get(id.trustDomain);
  if (bundle === undefined) {
    const known = trust.bundles.all.map(({ trustDomain }) => trustDomain).join(', ');
    throw new HandfastError('TRUST_DOMAIN_UNKNOWN', `${id.uri}: there is no bundle for trust domain ${id.trustDomain}, only for ${known}`);
  }
  // OpenSSL accepts a chain to any bundle; an authority of one trust domain must not speak for the members of another.
  const sent = trust.bundles.all.length > 1 ? [leaf, ...peer.intermediates()] : undefined;
  if (sent !== undefined && !chainsTo(sent, bundle)) {
    throw new HandfastError('CHAIN_UNTRUSTED', `${id.uri}: its certificate does not chain to the bundle of ${id.trustDomain}`);
  }
  checkDates(facts, { whose: id.uri, now: trust.now });
  const revocation = revocationOf({ id, serial }, trust.revocations);
  if (revocation !== undefined) throw new HandfastError('CERTIFICATE_REVOKED', `${id.uri}: ${revocation}`);
  const certificates = sent ?? sharedChain(facts, { bundle, peer });
  return Object.freeze({ id, serial, notAfter, certificates: () => certificates });
}

/**
 * What was sent with a leaf, once for all connections of a peer that are open: kilobytes of OpenSSL's each, which only the garbage collector gives back, and it does not see them. Where one trust
 * domain is trusted the first chain stays that was verified by a bundle.
 */
const chains = new WeakMap<LeafFacts, { readonly bundle: WeakRef<TrustBundle>; readonly chain: WeakRef<readonly X509Certificate[]> }>();

function sharedChain(facts: LeafFacts, of: { bundle: TrustBundle; peer: PeerCertificates }): readonly X509Certificate[] {
  const known = chains.get(facts);
  const shared = known?.bundle.deref() === of.bundle ? known.chain.deref() : undefined;
  if (shared !== undefined) return shared;
  const { leaf, intermediates } = of.peer;
  const chain = leaf === undefined ? [] : [leaf, ...intermediates()];
  chains.set(facts, { bundle: new WeakRef(of.bundle), chain: new WeakRef(chain) });
  return chain;
}

/** Throws CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID with both sides of the disagreement: our clock and the certificate's window. */
export function checkValidity(certificate: X509Certificate, { whose, now }: { whose: string; now: number }): void {
  const dates = { notBefore: certificate.validFromDate.getTime(), notAfter: certificate.validToDate.getTime() };
  checkDates({ ...dates, serial: certificate.serialNumber }, { whose, now });
}

function checkDates({ notBefore, notAfter, serial }: Omit<LeafFacts, 'id'>, { whose, now }: { whose: string; now: number }): void {
  // Written so that a clock that is no number accepts nobody.
  if (now <= notAfter && now >= notBefore) return;
  const [from, to] = [clock(notBefore), clock(notAfter)];
  const window = `our clock says ${clock(now)}, it is valid from ${from} to ${to}`;
  if (!(now <= notAfter)) throw new HandfastError('CERTIFICATE_EXPIRED', `${whose}: certificate ${serial} expired at ${to}: ${window}`);
  throw new HandfastError('CERTIFICATE_NOT_YET_VALID', `${whose}: certificate ${serial} is not valid before ${from}: ${window}`);
}

function clock(now: number): string {
  return Number.isFinite(now) ? new Date(now).toISOString() : String(now);
}
