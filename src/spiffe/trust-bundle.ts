// The CA certificates of a trust domain, and the set of all trust domains that a workload trusts.

import { X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { pemBlocks } from './pem.ts';

/** `pem` is all authorities, concatenated: what `ca` of node:tls takes. */
export interface TrustBundle {
  readonly trustDomain: string;
  readonly authorities: readonly X509Certificate[];
  readonly pem: string;
}

/** Every trust domain that is trusted, the workload's own first. Each verifies its own members alone. */
export interface TrustBundles {
  readonly own: TrustBundle;
  readonly all: readonly TrustBundle[];
  get(trustDomain: string): TrustBundle | undefined;
}

const MAX_AUTHORITIES = 100;
export const MAX_TRUST_DOMAINS = 100;

/** Throws SECRET_INVALID for a trust domain that stands twice, or absurdly many. */
export function trustBundles(own: TrustBundle, others: readonly TrustBundle[] = []): TrustBundles {
  const all = [own, ...others];
  const byDomain = new Map(all.map((bundle) => [bundle.trustDomain, bundle]));
  if (byDomain.size !== all.length) throw new HandfastError('SECRET_INVALID', 'trust bundles: a trust domain stands twice');
  if (all.length > MAX_TRUST_DOMAINS) {
    throw new HandfastError('SECRET_INVALID', `trust bundles: ${all.length} trust domains, at most ${MAX_TRUST_DOMAINS} are accepted`);
  }
  return Object.freeze({ own, all: Object.freeze(all), get: (trustDomain: string) => byDomain.get(trustDomain) });
}

/** Throws SECRET_INVALID for an empty bundle, one that is not all CA certificates, or an absurdly large one. */
export function parseTrustBundle(pem: string, trustDomain: string): TrustBundle {
  const blocks = pemBlocks(pem);
  if (blocks.length === 0) throw new HandfastError('SECRET_INVALID', 'trust bundle: no PEM certificate in it');
  if (blocks.length > MAX_AUTHORITIES) {
    throw new HandfastError('SECRET_INVALID', `trust bundle: ${blocks.length} certificates, at most ${MAX_AUTHORITIES} are accepted`);
  }
  const authorities = blocks.map(({ label, text }, index) => {
    if (label !== 'CERTIFICATE')
      throw new HandfastError('SECRET_INVALID', `trust bundle: entry ${index + 1} is a ${label}, not a CERTIFICATE`);
    const certificate = parseCertificate(text, `trust bundle: entry ${index + 1}`);
    if (!certificate.ca) throw new HandfastError('SECRET_INVALID', `trust bundle: entry ${index + 1} is not a CA certificate`);
    return certificate;
  });
  return Object.freeze({ trustDomain, authorities: Object.freeze(authorities), pem: blocks.map((block) => block.text).join('') });
}

/** The same trust domains with the same authorities. */
export function sameBundles(a: TrustBundles, b: TrustBundles): boolean {
  return a.all.length === b.all.length && a.all.every(({ trustDomain, pem }) => b.get(trustDomain)?.pem === pem);
}

/** Whether the authority that a CA puts first, the one it signs below, is another now: its way to say that certificates should be renewed. */
export function firstRootChanged(before: TrustBundles, after: TrustBundles): boolean {
  const [old] = before.own.authorities;
  const [first] = after.own.authorities;
  return old !== undefined && first !== undefined && !first.raw.equals(old.raw);
}

/** Throws SECRET_INVALID, naming `what`, when OpenSSL cannot read the certificate. */
export function parseCertificate(pem: string, what: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', `${what}: not a readable certificate: ${messageOf(cause)}`, { cause });
  }
}
