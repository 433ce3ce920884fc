// SDS secrets as servers of ours write them.

import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { Secret, SPIFFECertValidatorConfig } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { secretNames } from './identity-source.ts';
import { type VersionedResource, versionOf } from './resource-view.ts';
import { typeUrls } from './type-urls.ts';

/** A certificate with its key. */
export function certificateSecret(name: string, svid: X509Svid): Secret {
  const value = { certificateChain: inline(svid.chainPem), privateKey: inline(svid.keyPem), password: undefined };
  return { name, type: { $case: 'tlsCertificate', value } };
}

/** `trusted_ca`: what every sidecar understands. */
export function bundleSecret(name: string, pem: string): Secret {
  return {
    name,
    type: { $case: 'validationContext', value: { trustedCa: inline(pem), crl: undefined, customValidatorConfig: undefined } },
  };
}

/** Envoy's SPIFFE validator: each trust domain's members by its own bundle alone. */
export function validatorSecret(name: string, bundles: readonly TrustBundle[]): Secret {
  const config = { trustDomains: bundles.map(({ trustDomain, pem }) => ({ name: trustDomain, trustBundle: inline(pem) })) };
  const typedConfig = { typeUrl: typeUrls.spiffeValidator, value: Buffer.from(SPIFFECertValidatorConfig.encode(config).finish()) };
  const customValidatorConfig = { name: 'envoy.tls.cert_validator.spiffe', typedConfig };
  return { name, type: { $case: 'validationContext', value: { trustedCa: undefined, crl: undefined, customValidatorConfig } } };
}

/** An empty list says that nothing is revoked. */
export function crlSecret(pem: string): Secret {
  const value = { trustedCa: undefined, crl: inline(pem), customValidatorConfig: undefined };
  return { name: secretNames.crl, type: { $case: 'validationContext', value } };
}

/** Any other text. */
export function genericSecret(name: string, text: string): Secret {
  return { name, type: { $case: 'genericSecret', value: { secret: inline(text), secrets: {} } } };
}

export function encodeSecret(secret: Secret): VersionedResource {
  const value = Secret.encode(secret).finish();
  return { version: versionOf(value), value };
}

function inline(text: string) {
  return { specifier: { $case: 'inlineBytes' as const, value: Buffer.from(text) } };
}
