// A CA's key with its certificate, kept in one file so that neither can be there without the other.

import { X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { pemBlocks } from '../spiffe/pem.ts';
import { createCaCertificate, type Issuer } from './certificate.ts';
import { keyIdOf } from './ledger-entry.ts';
import type { KeyStore } from './signer.ts';

const DAY = 86_400_000;
const ROOT_LIFETIME = 10 * 365 * DAY;
export const INTERMEDIATE_LIFETIME = 365 * DAY;
/** Clocks differ between nodes: what is signed is valid from a little before it was asked for. */
export const BACKDATE = 60_000;

/** `keyId` is the hex SHA-256 of its public key; as an `Issuer` it signs under its certificate's own name. */
export interface CaKeyPair extends Issuer {
  readonly certificatePem: string;
  readonly certificate: X509Certificate;
  readonly keyId: string;
}

interface Making {
  readonly keys: KeyStore;
  readonly trustDomain: string;
  readonly now: () => number;
}

/** The text of a new root's file. */
export async function makeRoot({ keys, trustDomain, now }: Making): Promise<string> {
  const { signer, pem } = await keys.create();
  // Two roots of one trust domain live side by side during a rotation: each has a name of its own.
  const commonName = nameOf('root', { trustDomain, keyId: keyIdOf(signer.publicKey) });
  const certificate = await createCaCertificate({
    commonName,
    trustDomain,
    publicKey: signer.publicKey,
    pathLength: 1,
    issuer: { commonName, signer },
    validity: { notBefore: now() - BACKDATE, notAfter: now() + ROOT_LIFETIME },
  });
  return pem + certificate;
}

/** The text of a new intermediate's file, signed by the root. It never outlives the root. */
export async function makeIntermediate(root: CaKeyPair, { keys, trustDomain, now }: Making): Promise<string> {
  const { signer, pem } = await keys.create();
  const certificate = await createCaCertificate({
    commonName: nameOf('intermediate', { trustDomain, keyId: keyIdOf(signer.publicKey) }),
    trustDomain,
    publicKey: signer.publicKey,
    pathLength: 0,
    issuer: root,
    validity: { notBefore: now() - BACKDATE, notAfter: Math.min(now() + INTERMEDIATE_LIFETIME, root.certificate.validToDate.getTime()) },
  });
  return pem + certificate;
}

/** Throws STATE_INVALID, naming the file, when key and certificate are not there, not P-256, or not each other's. */
export async function openCaKeyPair(text: string, { path, keys }: { path: string; keys: KeyStore }): Promise<CaKeyPair> {
  const [keyBlock, certificateBlock] = pemBlocks(text);
  try {
    if (keyBlock === undefined || certificateBlock === undefined) throw new Error('expected a private key and a certificate');
    const signer = await keys.open(keyBlock.text);
    const certificate = new X509Certificate(certificateBlock.text);
    const keyId = keyIdOf(signer.publicKey);
    if (!certificate.ca || keyIdOf(certificate.publicKey) !== keyId) throw new Error('key and CA certificate do not belong together');
    const commonName = /^CN=(.+)$/.exec(certificate.subject)?.[1];
    if (commonName === undefined) throw new Error('the certificate has another name than a common name');
    return { signer, certificate, certificatePem: certificateBlock.text, commonName, keyId };
  } catch (cause) {
    throw new HandfastError('STATE_INVALID', `${path}: ${messageOf(cause)}; restore it from a backup`, { cause });
  }
}

/** Throws STATE_INVALID unless it is a self-signed root of this trust domain. */
export function checkRoot({ certificate }: CaKeyPair, { path, trustDomain }: { path: string; trustDomain: string }): void {
  if (!certificate.verify(certificate.publicKey)) throw new HandfastError('STATE_INVALID', `${path}: the root is not self-signed`);
  if (certificate.subjectAltName !== `URI:spiffe://${trustDomain}`) {
    throw new HandfastError(
      'STATE_INVALID',
      `${path} is the root of ${certificate.subjectAltName ?? 'no trust domain'}, not of ${trustDomain}: give --trust-domain its name, or another --state directory`,
    );
  }
}

export function isIssuedBy(intermediate: CaKeyPair, root: CaKeyPair): boolean {
  return intermediate.certificate.checkIssued(root.certificate) && intermediate.certificate.verify(root.certificate.publicKey);
}

function nameOf(kind: 'root' | 'intermediate', of: { trustDomain: string; keyId: string }): string {
  return `Handfast ${kind} CA ${of.keyId.slice(0, 8)} of ${of.trustDomain}`.slice(0, 64);
}
