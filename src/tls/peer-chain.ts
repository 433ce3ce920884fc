// The certificates a peer sent with its leaf, as node:tls hands them over: a linked list that ends in a self-signed certificate or in nothing.

import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

/** node:tls's PeerCertificate, as far as it is used. */
interface SentCertificate {
  readonly raw: Buffer;
  readonly issuerCertificate?: SentCertificate;
}

/** A peer's leaf, and what stands above it where that was asked for. */
export interface SentChain {
  readonly leaf: X509Certificate | undefined;
  readonly intermediates: readonly X509Certificate[];
}

/**
 * What the peer sent, read on `secure` before anybody else: the first question that Node 24.21 is asked is the only one it answers with the whole chain, on either
 * side (nodejs/node#65579), and afterwards `checkServerIdentity` is handed the leaf alone. The chain costs a tenth of a handshake: ask only where it is needed.
 */
export function readPeer(socket: TLSSocket, withChain: boolean): SentChain {
  if (!withChain) return { leaf: socket.getPeerX509Certificate(), intermediates: [] };
  const sent: Partial<SentCertificate> | undefined = socket.getPeerCertificate(true);
  if (sent?.raw === undefined) return { leaf: undefined, intermediates: [] };
  return { leaf: new X509Certificate(sent.raw), intermediates: intermediatesOf({ raw: sent.raw, ...sent }) };
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
