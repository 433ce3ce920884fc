// The certificates a peer sent with its leaf, as node:tls hands them over: a linked list that ends in a self-signed certificate or in nothing.

import { X509Certificate } from 'node:crypto';

/** node:tls's PeerCertificate, as far as it is used. */
interface SentCertificate {
  readonly raw: Buffer;
  readonly issuerCertificate?: SentCertificate;
}

/** A longer chain than anybody's is not followed further. */
const MAX_LENGTH = 10;

/** What stands above the leaf. */
export function intermediatesOf(leaf: SentCertificate | undefined): X509Certificate[] {
  const above: X509Certificate[] = [];
  let current = leaf;
  while (current !== undefined && above.length < MAX_LENGTH) {
    const issuer: SentCertificate | undefined = current.issuerCertificate;
    if (issuer?.raw === undefined || issuer.raw.equals(current.raw)) break;
    above.push(new X509Certificate(issuer.raw));
    current = issuer;
  }
  return above;
}
