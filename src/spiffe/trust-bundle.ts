// The CA certificates of one trust domain.

import { X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { pemBlocks } from './pem.ts';

/** `pem` is all authorities, concatenated: what `ca` of node:tls takes. */
export interface TrustBundle {
  readonly trustDomain: string;
  readonly authorities: readonly X509Certificate[];
  readonly pem: string;
}

const MAX_AUTHORITIES = 100;

/** Throws SECRET_INVALID for an empty bundle, one that is not all CA certificates, or an absurdly large one. */
export function parseTrustBundle(pem: string, trustDomain: string): TrustBundle {
  const blocks = pemBlocks(pem);
  if (blocks.length === 0) throw new HandfastError('SECRET_INVALID', 'trust bundle: no PEM certificate in it');
  if (blocks.length > MAX_AUTHORITIES) {
    throw new HandfastError('SECRET_INVALID', `trust bundle: ${blocks.length} certificates, at most ${MAX_AUTHORITIES} are accepted`);
  }
  const authorities = blocks.map(({ label, text }, index) => {
    if (label !== 'CERTIFICATE')
      throw new HandfastError('SECRET_INVALID', `trust bundle: entry ${index + 1} is a ${label}, not a CERTIFICATE`);
    const certificate = parseCertificate(text, `trust bundle: entry ${index + 1}`);
    if (!certificate.ca) throw new HandfastError('SECRET_INVALID', `trust bundle: entry ${index + 1} is not a CA certificate`);
    return certificate;
  });
  return Object.freeze({ trustDomain, authorities: Object.freeze(authorities), pem: blocks.map((block) => block.text).join('') });
}

/** Throws SECRET_INVALID, naming `what`, when OpenSSL cannot read the certificate. */
export function parseCertificate(pem: string, what: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', `${what}: not a readable certificate: ${messageOf(cause)}`, { cause });
  }
}
