// Certificates no CA would sign, extension by extension, for the readers that must refuse them.

import { X509Certificate } from 'node:crypto';
import { createCertificate } from '../../src/ca/certificate.ts';
import { keySigner } from '../../src/ca/signer.ts';
import { type Asn1, bitString, boolean, extension, implicit, octetString, oid, sequence } from '../../src/spiffe/der-builder.ts';
import { aroundNow, keyPair } from './pki.ts';

export const usage = {
  digitalSignature: 0x80,
  keyEncipherment: 0x20,
  keyAgreement: 0x08,
  keyCertSign: 0x04,
  cRLSign: 0x02,
} as const;

/** GeneralNames by their tags (RFC 5280, 4.2.1.6). */
export const uri = (text: string): Asn1 => implicit(6, Buffer.from(text, 'latin1'));
export const dns = (text: string): Asn1 => implicit(2, Buffer.from(text, 'latin1'));
export const email = (text: string): Asn1 => implicit(1, Buffer.from(text, 'latin1'));
export const ip = (...bytes: number[]): Asn1 => implicit(7, Buffer.from(bytes));

export const subjectAltName = (...names: Asn1[]): Asn1 => extension('2.5.29.17', { critical: true, value: sequence(...names) });
export const keyUsage = (bits: number): Asn1 => extension('2.5.29.15', { critical: true, value: bitString(Buffer.of(bits)) });
export const basicConstraints = (ca: boolean): Asn1 =>
  extension('2.5.29.19', { critical: true, value: ca ? sequence(boolean(true)) : sequence() });
/** An extension whose value is these bytes as they stand. */
export const rawExtension = (id: string, bytes: Buffer): Asn1 => sequence(oid(id), octetString(bytes));

/** A self-signed certificate with these extensions and no others but key IDs. */
export async function rawCertificate(...extensions: Asn1[]): Promise<X509Certificate> {
  const { publicKey, privateKey } = keyPair();
  const pem = await createCertificate({
    subject: sequence(),
    publicKey,
    issuer: { commonName: 'nobody', signer: keySigner(privateKey) },
    validity: aroundNow(),
    serial: Buffer.of(1),
    extensions,
  });
  return new X509Certificate(pem);
}
