// The certificates a peer sent with its leaf.

import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

/** A leaf, and what was sent above it; walked when it is asked for. */
export interface SentChain {
  readonly leaf: X509Certificate | undefined;
  intermediates(): readonly X509Certificate[];
}

/** Before anybody has read it. */
export const nothingSent: SentChain = { leaf: undefined, intermediates: () => [] };

/**
 * What the peer sent, read on `secure` before anybody else: the first leaf that Node 24.21 hands out is the only one that knows its issuers, on either side
 * (nodejs/node#65579), and afterwards `checkServerIdentity` is handed the leaf alone. Walking up costs nothing until somebody does, and works after the connection has ended.
 */
export function readPeer(socket: TLSSocket): SentChain {
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return nothingSent;
  return { leaf, intermediates: () => walk(leaf, (certificate) => certificate.issuerCertificate) };
}

/** What node:tls hands to `checkServerIdentity`, as far as it is used: a linked list that ends in a self-signed certificate or in nothing. */
interface SentCertificate {
  readonly raw: Buffer;
  readonly issuerCertificate?: SentCertificate;
}

/** What stands above the leaf, where node:tls has made the list. */
export function intermediatesOf(leaf: SentCertificate): X509Certificate[] {
  return walk(leaf, (certificate) => certificate.issuerCertificate).map(({ raw }) => new X509Certificate(raw));
}

/** A longer chain than anybody's is not followed further. */
const MAX_LENGTH = 10;

function walk<T extends { readonly raw: Buffer }>(leaf: T, issuerOf: (certificate: T) => T | undefined): T[] {
  const above: T[] = [];
  let current = leaf;
  while (above.length < MAX_LENGTH) {
    const issuer = issuerOf(current);
    if (issuer?.raw === undefined || issuer.raw.equals(current.raw)) break;
    above.push(issuer);
    current = issuer;
  }
  return above;
}
