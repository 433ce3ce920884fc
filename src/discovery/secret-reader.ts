// SDS secrets read into what they hold. Everything must come inline and whole; each refusal names the secret and the field.

import { isDeepStrictEqual } from 'node:util';
import { HandfastError, messageOf } from '../errors.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { MAX_TRUST_DOMAINS, parseTrustBundle, type TrustBundles, trustBundles } from '../spiffe/trust-bundle.ts';
import { parseX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import type { DataSource } from '../wire/gen/envoy/config/core/v3/base.ts';
import {
  type CertificateValidationContext,
  type Secret,
  SPIFFECertValidatorConfig,
} from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { typeUrls } from './type-urls.ts';

/** Bundles as PEM by trust domain; a plain `trusted_ca` names none and is the SVID's own, under the empty name. */
export type BundleTexts = ReadonlyMap<string, string>;

const MAX_BUNDLE_BYTES = 1024 * 1024;

/** Throws SECRET_INVALID unless the secret is a certificate with its key. */
export function readSvid(secret: Secret): X509Svid {
  if (secret.type?.$case !== 'tlsCertificate') throw wrongKind(secret, 'a tls_certificate');
  const { certificateChain, privateKey, password } = secret.type.value;
  if (password !== undefined)
    throw new HandfastError('SECRET_INVALID', 'the private key is encrypted (password is set); send it unencrypted');
  return parseX509Svid({ chain: inline(certificateChain, 'certificate_chain'), key: inline(privateKey, 'private_key') });
}

/** Throws SECRET_INVALID unless the secret is a bundle: a `trusted_ca`, or SPIFFECertValidatorConfig as SPIRE sends it. */
export function readBundles(secret: Secret): BundleTexts {
  const context = validationContext(secret);
  const { trustedCa, customValidatorConfig } = context;
  if (customValidatorConfig === undefined) return new Map([['', validBundle(inline(trustedCa, 'trusted_ca'), '')]]);
  // Which of the two should hold would be a guess.
  if (trustedCa !== undefined)
    throw new HandfastError('SECRET_INVALID', `secret ${secret.name} has both trusted_ca and custom_validator_config`);
  const { typeUrl = 'nothing', value } = customValidatorConfig.typedConfig ?? {};
  if (typeUrl !== typeUrls.spiffeValidator || value === undefined)
    throw new HandfastError(
      'SECRET_INVALID',
      `secret ${secret.name}: custom_validator_config is ${typeUrl}, not SPIFFECertValidatorConfig`,
    );
  const { trustDomains } = SPIFFECertValidatorConfig.decode(value);
  // Before any of them is read: each may bring a hundred certificates.
  if (trustDomains.length > MAX_TRUST_DOMAINS) {
    const count = `${trustDomains.length} trust domains, at most ${MAX_TRUST_DOMAINS} are accepted`;
    throw new HandfastError('SECRET_INVALID', `secret ${secret.name} has ${count}`);
  }
  const texts = new Map<string, string>();
  for (const { name, trustBundle } of trustDomains) {
    const trustDomain = trustDomainOf(name, secret);
    if (texts.has(trustDomain)) throw new HandfastError('SECRET_INVALID', `secret ${secret.name} has trust domain ${trustDomain} twice`);
    texts.set(trustDomain, validBundle(inline(trustBundle, `trust_bundle of ${trustDomain}`), trustDomain));
  }
  if (texts.size === 0) throw new HandfastError('SECRET_INVALID', `secret ${secret.name} names no trust domain`);
  return texts;
}

/** The bundles of a trust domain's member, its own first. Undefined when there is none for its own. */
export function bundlesOf(trustDomain: string, texts: BundleTexts): TrustBundles | undefined {
  const own = texts.get(trustDomain) ?? texts.get('');
  if (own === undefined) return undefined;
  const others = [...texts].filter(([name]) => name !== '' && name !== trustDomain);
  return trustBundles(
    parseTrustBundle(own, trustDomain),
    others.map(([name, pem]) => parseTrustBundle(pem, name)),
  );
}

/** The PEM of a revocation list; an absent or empty one says that nothing is revoked. Throws SECRET_INVALID for another kind of secret. */
export function readCrl(secret: Secret): string {
  const { crl } = validationContext(secret);
  return crl === undefined ? '' : inline(crl, 'crl');
}

/** The text of a generic secret. Throws SECRET_INVALID for another kind. */
export function readGeneric(secret: Secret): string {
  if (secret.type?.$case !== 'genericSecret') throw wrongKind(secret, 'a generic_secret');
  return inline(secret.type.value.secret, 'secret');
}

/**
 * Has each secret read by the reader of its name, in their order. Throws what a reader throws, and SECRET_INVALID for a secret that was not asked
 * for, or two of one name that differ.
 */
export function readEach(secrets: readonly Secret[], readers: Readonly<Record<string, (secret: Secret) => void>>): void {
  const seen = new Map<string, Secret>();
  for (const secret of secrets) {
    const read = Object.hasOwn(readers, secret.name) ? readers[secret.name] : undefined;
    if (read === undefined) throw new HandfastError('SECRET_INVALID', `secret ${JSON.stringify(secret.name)} was not asked for`);
    read(secret);
    const earlier = seen.get(secret.name);
    if (earlier !== undefined && !isDeepStrictEqual(earlier, secret))
      throw new HandfastError('SECRET_INVALID', `secret ${secret.name} stands twice in one response, with different contents`);
    seen.set(secret.name, secret);
  }
}

function trustDomainOf(name: string, secret: Secret): string {
  try {
    return parseTrustDomain(name);
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', `secret ${secret.name}: ${messageOf(cause)}`, { cause });
  }
}

/** Validated here, so that a bad bundle is refused (NACK) even before there is an SVID to hold against it. */
function validBundle(pem: string, trustDomain: string): string {
  if (pem.length > MAX_BUNDLE_BYTES)
    throw new HandfastError('SECRET_INVALID', `trust bundle: ${pem.length} bytes, at most ${MAX_BUNDLE_BYTES} are accepted`);
  return parseTrustBundle(pem, trustDomain).pem;
}

function validationContext(secret: Secret): CertificateValidationContext {
  if (secret.type?.$case !== 'validationContext') throw wrongKind(secret, 'a validation_context');
  return secret.type.value;
}

/** Only bytes and strings in the message itself: a file name or variable from a peer would read this process's files. */
function inline(source: DataSource | undefined, field: string): string {
  switch (source?.specifier?.$case) {
    case 'inlineBytes':
      return Buffer.from(source.specifier.value).toString('utf8');
    case 'inlineString':
      return source.specifier.value;
    case undefined:
      throw new HandfastError('SECRET_INVALID', `${field} is missing`);
    default:
      throw new HandfastError('SECRET_INVALID', `${field} must be inline, not a file or variable`);
  }
}

function wrongKind(secret: Secret, wanted: string): HandfastError {
  return new HandfastError('SECRET_INVALID', `secret ${secret.name} must be ${wanted}, not ${secret.type?.$case ?? 'empty'}`);
}
