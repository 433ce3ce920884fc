// Who may sign a revocation list: an authority of the bundle, or a CA with cRLSign below one, and the signature must verify by its key.

import { verify, type X509Certificate } from 'node:crypto';
import type { CrlFrame } from './crl-reader.ts';
import { type DerNode, DerTag, derChildren, readDer } from './der.ts';
import { extensionsByOid } from './leaf.ts';
import type { TrustBundle } from './trust-bundle.ts';

const OID_KEY_USAGE = '2.5.29.15';
const CRL_SIGN = 0x02;
const MAX_DEPTH = 8;

/** Signature OIDs: what foreign CAs use, without SHA-1. */
const algorithms: Readonly<Record<string, { hash: string; keyType: string }>> = {
  '1.2.840.113549.1.1.11': { hash: 'sha256', keyType: 'rsa' },
  '1.2.840.113549.1.1.12': { hash: 'sha384', keyType: 'rsa' },
  '1.2.840.113549.1.1.13': { hash: 'sha512', keyType: 'rsa' },
  '1.2.840.10045.4.3.2': { hash: 'sha256', keyType: 'ec' },
  '1.2.840.10045.4.3.3': { hash: 'sha384', keyType: 'ec' },
  '1.2.840.10045.4.3.4': { hash: 'sha512', keyType: 'ec' },
};

/** Throws a plain Error that says what is wrong with every candidate: no signer of that name, no right to sign, no chain, a wrong signature. */
export function verifyCrlSignature(frame: CrlFrame, by: { certificates: readonly X509Certificate[]; bundle: TrustBundle }): void {
  const algorithm = algorithms[frame.algorithm];
  if (algorithm === undefined) throw new Error(`signature algorithm ${frame.algorithm} is not accepted`);
  const chaining = chainingToBundle(by);
  let reason = 'no certificate of its issuer came with it, nor is the issuer an authority of the bundle';
  for (const candidate of [...by.bundle.authorities, ...by.certificates]) {
    const { subject, keyUsage } = readCa(candidate);
    if (!subject.equals(frame.issuer)) continue;
    const { publicKey } = candidate;
    const isAuthority = by.bundle.authorities.some((authority) => authority.raw.equals(candidate.raw));
    if (!candidate.ca) reason = 'its issuer is no CA';
    // An authority without any key usage may do everything (RFC 5280, 4.2.1.3); an intermediate has to say so.
    else if (keyUsage === undefined ? !isAuthority : (keyUsage & CRL_SIGN) === 0) reason = 'its issuer may not sign CRLs (no cRLSign)';
    else if (!isAuthority && !chaining.has(candidate)) reason = `its issuer does not chain to the bundle of ${by.bundle.trustDomain}`;
    else if (publicKey.asymmetricKeyType !== algorithm.keyType || !verify(algorithm.hash, frame.signed, publicKey, frame.signature))
      reason = 'its signature does not verify';
    else if (!(frame.thisUpdate >= candidate.validFromDate.getTime() && frame.thisUpdate <= candidate.validToDate.getTime()))
      reason = "it was made outside its issuer's validity";
    else return;
  }
  throw new Error(reason);
}

/** The certificates that chain to the bundle, found from the top: many that have signed one another cost no more than few. */
function chainingToBundle({
  certificates,
  bundle,
}: {
  certificates: readonly X509Certificate[];
  bundle: TrustBundle;
}): Set<X509Certificate> {
  const trusted = new Set<X509Certificate>();
  for (let depth = 0, before = -1; depth < MAX_DEPTH && trusted.size > before; depth++) {
    before = trusted.size;
    for (const certificate of certificates) {
      if (trusted.has(certificate)) continue;
      if ([...bundle.authorities, ...trusted].some((issuer) => isIssuedBy(certificate, issuer))) trusted.add(certificate);
    }
  }
  return trusted;
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** The subject as it stands in the DER, and the first byte of the key usage where there is one. */
function readCa(certificate: X509Certificate): { subject: Buffer; keyUsage: number | undefined } {
  const [tbs] = derChildren(readDer(certificate.raw), 3);
  const fields = tbs === undefined ? [] : derChildren(tbs, 10);
  // Serial, algorithm, issuer, validity, subject: after a version that only version 1 leaves out.
  const subject = fields[fields[0]?.tag === DerTag.context0 ? 5 : 4];
  if (subject === undefined) throw new Error('a certificate is malformed');
  return { subject: subject.raw, keyUsage: keyUsageOf(fields.find((field) => field.tag === DerTag.context3)) };
}

function keyUsageOf(wrapper: DerNode | undefined): number | undefined {
  if (wrapper === undefined) return undefined;
  const extension = extensionsByOid(derChildren(wrapper)[0]).get(OID_KEY_USAGE);
  if (extension === undefined) return undefined;
  const bits = readDer(extension);
  const usage = bits.content[1];
  if (bits.tag !== DerTag.bitString || usage === undefined) throw new Error('a certificate has a malformed key usage');
  return usage;
}
