// X.509 certificates (RFC 5280) as DER by node-forge's asn1, signed through a Signer: P-256 and SHA-256 throughout.

import { createHash, type KeyObject, randomBytes } from 'node:crypto';
import { derChildren, readDer } from '../spiffe/der.ts';
import {
  type Asn1,
  bitString,
  boolean,
  explicit,
  extension,
  fromOwnDer,
  implicit,
  octetString,
  oid,
  pemOf,
  sequence,
  set,
  spiffeSan,
  time,
  toDer,
  unsignedInteger,
  utf8String,
} from '../spiffe/der-builder.ts';
import { OID_ECDSA_SHA256 } from '../spiffe/p256.ts';
import { parseSpiffeId, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { spkiOf } from '../spiffe/spki.ts';
import type { Signer } from './signer.ts';

export const ecdsaSha256 = (): Asn1 => sequence(oid(OID_ECDSA_SHA256));
const KEY_USAGE = '2.5.29.15';
const BASIC_CONSTRAINTS = '2.5.29.19';
const EXTENDED_KEY_USAGE = '2.5.29.37';
const SUBJECT_KEY_ID = '2.5.29.14';
const AUTHORITY_KEY_ID = '2.5.29.35';
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

/** Validity in Unix milliseconds; certificates carry whole seconds. */
export interface Validity {
  readonly notBefore: number;
  readonly notAfter: number;
}

/** An authority that signs: its own name and key. */
export interface Issuer {
  readonly commonName: string;
  readonly signer: Signer;
}

/** A CA certificate in PEM. A root names itself as issuer. `pathLength` is how many CAs may stand below it. */
export async function createCaCertificate(of: {
  commonName: string;
  trustDomain: string;
  publicKey: KeyObject;
  pathLength: number;
  issuer: Issuer;
  validity: Validity;
}): Promise<string> {
  return createCertificate({
    subject: commonNameOf(of),
    publicKey: of.publicKey,
    issuer: of.issuer,
    validity: of.validity,
    serial: newSerial(),
    extensions: [
      extension(BASIC_CONSTRAINTS, { critical: true, value: sequence(boolean(true), unsignedInteger(Buffer.of(of.pathLength))) }),
      // keyCertSign and cRLSign.
      extension(KEY_USAGE, { critical: true, value: bitString(Buffer.of(0x06), 1) }),
      caSan(of.trustDomain),
    ],
  });
}

/** An X.509-SVID in PEM: one URI SAN (and DNS names for a server that others know by those), digitalSignature, server and client authentication, an empty subject. */
export async function createSvidCertificate(of: {
  id: SpiffeId;
  dnsNames?: readonly string[];
  publicKey: KeyObject;
  issuer: Issuer;
  validity: Validity;
  serial: Buffer;
}): Promise<string> {
  return createCertificate({
    subject: sequence(),
    publicKey: of.publicKey,
    issuer: of.issuer,
    validity: of.validity,
    serial: of.serial,
    extensions: [
      extension(BASIC_CONSTRAINTS, { critical: true, value: sequence() }),
      extension(KEY_USAGE, { critical: true, value: bitString(Buffer.of(0x80), 7) }),
      extension(EXTENDED_KEY_USAGE, { critical: false, value: sequence(oid(SERVER_AUTH), oid(CLIENT_AUTH)) }),
      spiffeSan(of.id, of.dnsNames),
    ],
  });
}

/** 127 random bits, never zero: unguessable, positive, and well under the 20 octets RFC 5280 allows. */
export function newSerial(): Buffer {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  return serial;
}

/** Any certificate: the two above are what the CA makes of it. */
export async function createCertificate(of: {
  subject: Asn1;
  publicKey: KeyObject;
  issuer: Issuer;
  validity: Validity;
  serial: Buffer;
  extensions: Asn1[];
}): Promise<string> {
  const tbs = sequence(
    explicit(0, unsignedInteger(Buffer.of(2))),
    unsignedInteger(of.serial),
    ecdsaSha256(),
    commonNameOf(of.issuer),
    sequence(time(of.validity.notBefore), time(of.validity.notAfter)),
    of.subject,
    fromOwnDer(spkiOf(of.publicKey)),
    explicit(
      3,
      sequence(
        ...of.extensions,
        extension(SUBJECT_KEY_ID, { critical: false, value: octetString(subjectKeyId(of.publicKey)) }),
        extension(AUTHORITY_KEY_ID, { critical: false, value: sequence(implicit(0, subjectKeyId(of.issuer.signer.publicKey))) }),
      ),
    ),
  );
  return pemOf('CERTIFICATE', toDer(await signed(tbs, of.issuer)));
}

/** What every signed structure of RFC 5280 is: the content, the algorithm, the signature over the content. */
export async function signed(tbs: Asn1, { signer }: Issuer): Promise<Asn1> {
  return sequence(tbs, ecdsaSha256(), bitString(await signer.sign(toDer(tbs))));
}

/** SHA-1 over the key's bits: a name, not a promise (RFC 5280, 4.2.1.2, method 1). */
export function subjectKeyId(publicKey: KeyObject): Buffer {
  // SubjectPublicKeyInfo is the algorithm and a BIT STRING, whose first byte counts unused bits.
  const [, bits] = derChildren(readDer(spkiOf(publicKey)));
  return createHash('sha1')
    .update(bits?.content.subarray(1) ?? '')
    .digest();
}

/** A Name of one common name. */
export function commonNameOf({ commonName }: { commonName: string }): Asn1 {
  return sequence(set(sequence(oid('2.5.4.3'), utf8String(commonName))));
}

/** A signing certificate carries its trust domain's ID without a path (X509-SVID, section 4.2); not critical, the subject is not empty. */
function caSan(trustDomain: string): Asn1 {
  const { uri } = parseSpiffeId(`spiffe://${trustDomain}`);
  return extension('2.5.29.17', { critical: false, value: sequence(implicit(6, Buffer.from(uri, 'latin1'))) });
}
