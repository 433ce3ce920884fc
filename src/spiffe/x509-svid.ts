// An X.509-SVID with its private key: what the sidecar presents.

import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { readLeaf } from './leaf.ts';
import { pemBlocks } from './pem.ts';
import type { SpiffeId } from './spiffe-id.ts';
import { parseCertificate, type TrustBundle } from './trust-bundle.ts';

/** `chainPem` is leaf first, intermediates after it, no root. Times are Unix milliseconds. */
export interface X509Svid {
  readonly id: SpiffeId;
  readonly certificates: readonly X509Certificate[];
  readonly chainPem: string;
  readonly keyPem: string;
  readonly serial: string;
  readonly notBefore: number;
  readonly notAfter: number;
}

/** Nobody follows a longer one, and each of them is a signature to verify. */
const MAX_CHAIN = 10;

/** Throws SECRET_INVALID: an empty chain, a missing, encrypted or mismatched key, a leaf that is no SVID, a chain out of order. */
export function parseX509Svid(pem: { chain: string; key: string }): X509Svid {
  const certificates = pemBlocks(pem.chain)
    .filter((block) => block.label === 'CERTIFICATE')
    .map((block, index) => parseCertificate(block.text, `certificate ${index + 1} of the chain`));
  const [leaf] = certificates;
  if (leaf === undefined) throw new HandfastError('SECRET_INVALID', 'the certificate chain is empty');
  if (certificates.length > MAX_CHAIN)
    throw new HandfastError('SECRET_INVALID', `the chain has ${certificates.length} certificates, at most ${MAX_CHAIN} are accepted`);
  const key = parseKey(pem.key);
  if (!leaf.checkPrivateKey(key)) throw new HandfastError('SECRET_INVALID', 'the private key does not belong to the certificate');
  certificates.forEach((certificate, index) => {
    const issuer = certificates[index + 1];
    if (issuer !== undefined && !isIssuedBy(certificate, issuer)) {
      throw new HandfastError('SECRET_INVALID', `certificate ${index + 1} of the chain was not issued by certificate ${index + 2}`);
    }
  });
  return Object.freeze({
    id: leafId(leaf),
    certificates: Object.freeze(certificates),
    chainPem: certificates.map((certificate) => certificate.toString()).join(''),
    keyPem: pem.key,
    serial: leaf.serialNumber,
    notBefore: leaf.validFromDate.getTime(),
    notAfter: leaf.validToDate.getTime(),
  });
}

/**
 * Whether a chain (leaf first, each issued by the next) ends in a self-signed authority of the bundle, as OpenSSL wants it: an intermediate alone anchors nothing
 * there. It is followed as far as the signatures go: node:tls completes a peer's chain by name, from any trust domain whose root is called the same.
 */
export function chainsTo(chain: readonly X509Certificate[], bundle: TrustBundle): boolean {
  const broken = chain.findIndex((certificate, index) => index > 0 && !isIssuedBy(chain[index - 1], certificate));
  let top = broken < 0 ? chain.at(-1) : chain[broken - 1];
  for (let depth = 0; top !== undefined && depth <= bundle.authorities.length; depth++) {
    const current: X509Certificate = top;
    if (bundle.authorities.some((authority) => authority.raw.equals(current.raw)) && isIssuedBy(current, current)) return true;
    top = bundle.authorities.find((authority) => !authority.raw.equals(current.raw) && isIssuedBy(current, authority));
  }
  return false;
}

function isIssuedBy(certificate: X509Certificate | undefined, issuer: X509Certificate): boolean {
  return certificate !== undefined && issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function leafId(leaf: X509Certificate): SpiffeId {
  try {
    return readLeaf(leaf);
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', `the certificate is not an X.509-SVID: ${messageOf(cause)}`, { cause });
  }
}

function parseKey(pem: string): KeyObject {
  const label = pemBlocks(pem)[0]?.label;
  if (label === undefined) throw new HandfastError('SECRET_INVALID', 'the private key is missing');
  // node:crypto asks for a passphrase without naming the way out, so both PEM styles of encryption are named here.
  if (label === 'ENCRYPTED PRIVATE KEY' || /^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
    throw new HandfastError('SECRET_INVALID', 'the private key is encrypted; send it unencrypted over the local socket');
  }
  try {
    return createPrivateKey(pem);
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', `the private key cannot be read: ${messageOf(cause)}`, { cause });
  }
}
