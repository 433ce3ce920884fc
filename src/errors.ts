// The one error class: a literal code to branch on, a message for people, a cause for whoever debugs.

/** Every way Handfast refuses or fails, by code. Branch on the code, never on the message. */
export type ErrorCode =
  // configuration and files
  | 'CONFIG_INVALID'
  | 'OBJECT_INVALID'
  | 'STATE_INVALID'
  // identity
  | 'TOKEN_REFUSED'
  | 'CSR_REFUSED'
  | 'IDENTITY_MISMATCH'
  | 'SECRET_INVALID'
  | 'NO_IDENTITY'
  | 'JWT_INVALID'
  | 'CRL_INVALID'
  | 'IDENTITY_BLOCKED'
  | 'JOIN_TOKEN_REFUSED'
  | 'WORKLOAD_UNKNOWN'
  | 'RATE_LIMITED'
  | 'STAGE_REFUSED'
  // the peer's certificate
  | 'NO_CLIENT_CERTIFICATE'
  | 'SPIFFE_ID_INVALID'
  | 'LEAF_INVALID'
  | 'CERTIFICATE_EXPIRED'
  | 'CERTIFICATE_NOT_YET_VALID'
  | 'TRUST_DOMAIN_UNKNOWN'
  | 'CERTIFICATE_REVOKED'
  | 'CHAIN_UNTRUSTED'
  | 'SECURE_NAMING_MISMATCH'
  // connections
  | 'NO_ORIGINAL_DESTINATION'
  | 'SELF_LOOP'
  | 'DESTINATION_NOT_LOCAL'
  | 'DESTINATION_UNKNOWN'
  | 'DESTINATION_UNANSWERED'
  | 'NO_HEALTHY_ENDPOINT'
  | 'NO_POLICY'
  | 'TRANSPORT_CHANGED'
  | 'PLAINTEXT_UNDER_STRICT'
  | 'AUTHORIZATION_DENIED'
  | 'SNIFF_LIMIT'
  | 'SNIFF_TIMEOUT'
  | 'ALPN_MISMATCH'
  | 'HANDSHAKE_FAILED'
  | 'HANDSHAKE_TIMEOUT'
  | 'DIAL_FAILED'
  | 'DIAL_TIMEOUT'
  | 'TUNNEL_REFUSED'
  | 'DRAINING'
  // requests
  | 'REQUEST_INVALID'
  | 'APPLICATION_FAILED'
  // the Kubernetes API server
  | 'KUBE_NOT_FOUND'
  | 'KUBE_CONFLICT'
  | 'KUBE_GONE'
  | 'KUBE_TOO_LONG'
  | 'KUBE_REFUSED'
  // peers and platform
  | 'UNAVAILABLE'
  | 'PLATFORM_UNSUPPORTED';

/** An error with a stable code. `message` is for operators; what crosses the wire stays opaque. */
export class HandfastError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.name = 'HandfastError';
    this.code = code;
  }
}

/** The message of anything thrown, for logs and for the `cause` line of a refusal. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
