// The TLS settings of one identity snapshot, made once: whole chain, own bundle alone, no resumption.

import { constants } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import type { Identity } from '../spiffe/identity.ts';

/**
 * Resumption stays off: a resumed session would outlive the trust it was made under, and a resuming client skips our checks.
 * Renegotiation too: an identity is judged once.
 */
const secureOptions = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION;

export function contextOptions({ svid, bundle }: Identity): SecureContextOptions {
  return {
    // The whole chain with its intermediates: otherwise OpenSSL rebuilds and verifies our own chain in every handshake.
    cert: svid.chainPem,
    key: svid.keyPem,
    ca: bundle.pem,
    minVersion: 'TLSv1.2',
    secureOptions,
  };
}

const contexts = new WeakMap<Identity, SecureContext>();

/** The client's context for this identity. */
export function clientContext(identity: Identity): SecureContext {
  let context = contexts.get(identity);
  if (context === undefined) {
    context = createSecureContext(contextOptions(identity));
    contexts.set(identity, context);
  }
  return context;
}
