// What OpenSSL and node:tls report, in one code and one plain sentence.

import type { X509Certificate } from 'node:crypto';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import { checkValidity } from '../spiffe/verify-peer.ts';

const BY_NODE_CODE: Readonly<Record<string, { code: ErrorCode; says: string }>> = {
  ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE: { code: 'NO_CLIENT_CERTIFICATE', says: 'the peer presented no certificate' },
  CERT_HAS_EXPIRED: { code: 'CERTIFICATE_EXPIRED', says: "the peer's certificate has expired" },
  CERT_NOT_YET_VALID: { code: 'CERTIFICATE_NOT_YET_VALID', says: "the peer's certificate is not valid yet" },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { code: 'CHAIN_UNTRUSTED', says: "the peer's certificate does not chain to our trust bundle" },
  UNABLE_TO_GET_ISSUER_CERT: { code: 'CHAIN_UNTRUSTED', says: "the peer's certificate does not chain to our trust bundle" },
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: { code: 'CHAIN_UNTRUSTED', says: "the peer's certificate does not chain to our trust bundle" },
  SELF_SIGNED_CERT_IN_CHAIN: { code: 'CHAIN_UNTRUSTED', says: "the peer's certificate chains to another root" },
  DEPTH_ZERO_SELF_SIGNED_CERT: { code: 'CHAIN_UNTRUSTED', says: "the peer's certificate is self-signed" },
  CERT_SIGNATURE_FAILURE: { code: 'CHAIN_UNTRUSTED', says: "the peer's certificate has a bad signature" },
  INVALID_CA: { code: 'CHAIN_UNTRUSTED', says: "the peer's chain has an issuer that is no CA" },
  INVALID_PURPOSE: { code: 'LEAF_INVALID', says: "the peer's certificate may not be used for this side of TLS" },
  ERR_SSL_NO_APPLICATION_PROTOCOL: { code: 'ALPN_MISMATCH', says: 'the peer offers no ALPN of the mesh' },
};

const NOBODY = { leaf: undefined, now: Number.NaN };

/** An alert means that the other side refused us. */
const ALERT = /^ERR_SSL_(?:TLSV?1[_0-9]*|SSLV3|TLSV13)_ALERT_(.+)$/;

/** A HandfastError for anything a handshake can fail with; errors of ours pass through. With the peer's leaf, wrong dates come with our clock and its window. */
export function handshakeError(error: unknown, peer: { leaf: X509Certificate | undefined; now: number } = NOBODY): HandfastError {
  if (error instanceof HandfastError) return error;
  const nodeCode = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  const known = BY_NODE_CODE[nodeCode];
  if (known?.code === 'CERTIFICATE_EXPIRED' || known?.code === 'CERTIFICATE_NOT_YET_VALID') {
    const dates = datesOf(peer);
    if (dates !== undefined) return dates;
    const clock = Number.isFinite(peer.now) ? `: one above its leaf, by our clock, which says ${new Date(peer.now).toISOString()}` : '';
    return new HandfastError(known.code, known.says + clock, { cause: error });
  }
  if (known !== undefined) return new HandfastError(known.code, known.says, { cause: error });
  const [, alert] = ALERT.exec(nodeCode) ?? [];
  const says =
    alert === undefined
      ? `the TLS handshake failed: ${nodeCode === 'ECONNRESET' ? 'the peer reset the connection' : messageOf(error).split('\n')[0]}`
      : `the peer refused our handshake: ${alert.toLowerCase().replaceAll('_', ' ')}`;
  return new HandfastError('HANDSHAKE_FAILED', says, { cause: error });
}

/** OpenSSL says only that dates are wrong; the leaf, held against our clock, says how. Undefined when it is another certificate of the chain. */
function datesOf({ leaf, now }: { leaf: X509Certificate | undefined; now: number }): HandfastError | undefined {
  if (leaf === undefined) return undefined;
  try {
    checkValidity(leaf, { whose: leaf.subjectAltName?.replace(/^URI:/, '') ?? 'the peer', now });
    return undefined;
  } catch (error) {
    if (error instanceof HandfastError) return error;
    throw error;
  }
}
