// What the X.509-SVID standard asks of a leaf, read from its DER: one URI SAN, not a CA, a key that may sign handshakes only.

import type { X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { type DerNode, DerTag, derChildren, derOid, readDer } from './der.ts';
import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts';

const OID_KEY_USAGE = '2.5.29.15';
const OID_SUBJECT_ALT_NAME = '2.5.29.17';
const OID_BASIC_CONSTRAINTS = '2.5.29.19';

// Bits of KeyUsage's first byte (RFC 5280, 4.2.1.3).
const DIGITAL_SIGNATURE = 0x80;
const KEY_CERT_SIGN = 0x04;
const CRL_SIGN = 0x02;

/** What is read from a certificate, whoever presents it. Dates in Unix milliseconds, `serial` upper-case hex as OpenSSL prints it. */
export interface LeafFacts {
  readonly id: SpiffeId;
  readonly serial: string;
  readonly notBefore: number;
  readonly notAfter: number;
}

/** The same peers come again and again; what their certificates say does not change. Only what is good is remembered, by its whole DER. */
const MAX_KNOWN = 1_000;
const known = new Map<string, LeafFacts>();

/** Throws what `readLeaf` throws. */
export function leafFacts(certificate: X509Certificate): LeafFacts {
  const der = certificate.raw.toString('latin1');
  const remembered = known.get(der);
  if (remembered !== undefined) return remembered;
  const facts = Object.freeze({
    id: readLeaf(certificate),
    serial: certificate.serialNumber,
    notBefore: certificate.validFromDate.getTime(),
    notAfter: certificate.validToDate.getTime(),
  });
  if (known.size >= MAX_KNOWN) known.clear();
  known.set(der, facts);
  return facts;
}

/**
 * The SPIFFE ID of a leaf that obeys https://spiffe.io/docs/latest/spiffe-specs/x509-svid/ sections 4 and 5.2.
 * Throws SPIFFE_ID_INVALID (0, 2 or odd URI SANs) or LEAF_INVALID (a CA, wrong key usage, not DER).
 */
export function readLeaf(certificate: X509Certificate): SpiffeId {
  const extensions = readExtensions(certificate.raw);
  const uris = uriSans(extensions.get(OID_SUBJECT_ALT_NAME));
  const [uri] = uris;
  if (uri === undefined || uris.length > 1) {
    throw new HandfastError('SPIFFE_ID_INVALID', `the certificate has ${uris.length} URI SANs; a SPIFFE certificate has exactly one`);
  }
  const id = parseSpiffeId(uri);
  if (id.path === '') throw new HandfastError('SPIFFE_ID_INVALID', `${id.uri} names a trust domain, not a workload`);
  if (certificate.ca || isCa(extensions.get(OID_BASIC_CONSTRAINTS))) {
    throw new HandfastError('LEAF_INVALID', `${id.uri}: a CA certificate may not be used as a leaf`);
  }
  const usage = keyUsage(extensions.get(OID_KEY_USAGE));
  if ((usage & DIGITAL_SIGNATURE) === 0) throw new HandfastError('LEAF_INVALID', `${id.uri}: key usage lacks digitalSignature`);
  if ((usage & (KEY_CERT_SIGN | CRL_SIGN)) !== 0) {
    throw new HandfastError('LEAF_INVALID', `${id.uri}: key usage has keyCertSign or cRLSign, which no leaf may have`);
  }
  return id;
}

/** extnValue by OID. A repeated extension is refused (RFC 5280, 4.2). */
function readExtensions(der: Buffer): ReadonlyMap<string, Buffer> {
  return reading(() => {
    const [tbs] = derChildren(readDer(der));
    if (tbs === undefined) throw new Error('empty certificate');
    const wrapper = derChildren(tbs).find((field) => field.tag === DerTag.context3);
    return wrapper === undefined ? new Map() : extensionsByOid(derChildren(wrapper)[0]);
  });
}

/** The `Extensions` of a certificate or CSR by OID, each as the DER inside its OCTET STRING. Throws when one is repeated. */
export function extensionsByOid(extensions: DerNode | undefined): Map<string, Buffer> {
  const byOid = new Map<string, Buffer>();
  if (extensions === undefined) return byOid;
  for (const extension of derChildren(extensions)) {
    const fields = derChildren(extension);
    const [oidNode] = fields;
    const value = fields.at(-1);
    if (oidNode === undefined || value === undefined || value.tag !== DerTag.octetString) throw new Error('malformed extension');
    const oid = derOid(oidNode);
    if (byOid.has(oid)) throw new Error(`extension ${oid} stands twice`);
    byOid.set(oid, value.content);
  }
  return byOid;
}

/** The URI entries of a subjectAltName extension, as they stand in the DER. */
export function uriSans(subjectAltName: Buffer | undefined): string[] {
  if (subjectAltName === undefined) return [];
  return reading(() =>
    derChildren(readDer(subjectAltName))
      .filter((name) => name.tag === DerTag.uri)
      .map((name) => name.content.toString('latin1')),
  );
}

function isCa(basicConstraints: Buffer | undefined): boolean {
  if (basicConstraints === undefined) return false;
  return reading(() => {
    const [first] = derChildren(readDer(basicConstraints));
    return first?.tag === DerTag.boolean && first.content[0] !== 0;
  });
}

function keyUsage(extension: Buffer | undefined): number {
  if (extension === undefined) return 0;
  return reading(() => {
    const bits = readDer(extension);
    const usage = bits.content[1];
    if (bits.tag !== DerTag.bitString || usage === undefined) throw new Error('malformed key usage');
    return usage;
  });
}

function reading<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new HandfastError('LEAF_INVALID', `the certificate is not well-formed DER: ${messageOf(cause)}`, { cause });
  }
}

export const SUBJECT_ALT_NAME = OID_SUBJECT_ALT_NAME;
