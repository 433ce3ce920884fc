// The TLS settings of one identity snapshot, made once: whole chain, own bundle alone, no resumption.

import { constants } from 'node:crypto';
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import type { Identity } from '../spiffe/identity.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';

/**
 * Resumption stays off: a resumed session would outlive the trust it was made under, and a resuming client skips our checks.
 * Renegotiation too: an identity is judged once.
 */
const secureOptions = constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION;

export function contextOptions({ svid, bundles }: Identity): SecureContextOptions {
  return {
    // The whole chain with its intermediates: otherwise OpenSSL rebuilds and verifies our own chain in every handshake.
    cert: svid.chainPem,
    key: svid.keyPem,
    // Every trust domain's: whether a chain ends in the bundle of its own is for verify-peer to say.
    ca: bundles.all.map(({ pem }) => pem),
    minVersion: 'TLSv1.2',
    secureOptions,
  };
}

const verifying = new WeakMap<TrustBundles, SecureContext>();

/** A client's context without a certificate of its own. */
export function verifyOnly(bundles: TrustBundles): SecureContext {
  let context = verifying.get(bundles);
  if (context === undefined) {
    context = createSecureContext({ ca: bundles.all.map(({ pem }) => pem), minVersion: 'TLSv1.2', secureOptions });
    verifying.set(bundles, context);
  }
  return context;
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
