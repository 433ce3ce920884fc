// PKCS#10 requests (RFC 2986): made by the agent, read by the CA. A CSR proves possession of a key and nothing else.

import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { DerTag, derChildren, derOid, readDer } from './der.ts';
import { bitString, explicit, fromOwnDer, oid, pemOf, sequence, set, spiffeSan, toDer, unsignedInteger } from './der-builder.ts';
import { extensionsByOid, SUBJECT_ALT_NAME, uriSans } from './leaf.ts';
import { isP256, OID_ECDSA_SHA256 } from './p256.ts';
import { pemBlocks } from './pem.ts';
import type { SpiffeId } from './spiffe-id.ts';

const OID_EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
const OID_RSA_SHA256 = '1.2.840.113549.1.1.11';
const MAX_PEM_BYTES = 16_384;

/** A PEM request for `keys`, signed with ECDSA/SHA-256. Without `id` it asks for no name: the CA takes that from the token. */
export function createCsr(keys: { publicKey: KeyObject; privateKey: KeyObject }, id?: SpiffeId): string {
  const attributes = id === undefined ? explicit(0) : explicit(0, sequence(oid(OID_EXTENSION_REQUEST), set(sequence(spiffeSan(id)))));
  const info = sequence(
    unsignedInteger(Buffer.of(0)),
    sequence(),
    fromOwnDer(keys.publicKey.export({ type: 'spki', format: 'der' })),
    attributes,
  );
  const signature = sign('sha256', toDer(info), keys.privateKey);
  return pemOf('CERTIFICATE REQUEST', toDer(sequence(info, sequence(oid(OID_ECDSA_SHA256)), bitString(signature))));
}

/** `uris` is what the CSR asks for; it decides nothing. */
export interface CsrContent {
  readonly publicKey: KeyObject;
  readonly uris: readonly string[];
}

/**
 * Throws CSR_REFUSED unless the CSR is one well-formed request whose signature proves possession of its key: ECDSA on P-256, as our agents make
 * them, or RSA as Istio's do, with SHA-256.
 */
export function readCsr(pem: string): CsrContent {
  if (pem.length > MAX_PEM_BYTES) throw new HandfastError('CSR_REFUSED', `the CSR is longer than ${MAX_PEM_BYTES} bytes`);
  const blocks = pemBlocks(pem);
  const [block] = blocks;
  if (block === undefined || blocks.length !== 1 || !/^(NEW )?CERTIFICATE REQUEST$/.test(block.label)) {
    throw new HandfastError('CSR_REFUSED', 'expected exactly one PEM block, a CERTIFICATE REQUEST');
  }
  try {
    return parse(Buffer.from(block.text.replace(/-----[^-]+-----|\s/g, ''), 'base64'));
  } catch (cause) {
    if (cause instanceof HandfastError && cause.code === 'CSR_REFUSED') throw cause;
    throw new HandfastError('CSR_REFUSED', `the CSR cannot be read: ${messageOf(cause)}`, { cause });
  }
}

function parse(der: Buffer): CsrContent {
  const outer = readDer(der);
  const [info, algorithm, signature, ...rest] = derChildren(outer);
  if (info === undefined || algorithm === undefined || signature === undefined || rest.length > 0) throw new Error('not three parts');
  if ([outer, info, algorithm].some((node) => node.tag !== DerTag.sequence)) throw new Error('a part is no SEQUENCE');
  const [, , spki, attributes] = derChildren(info);
  const [algorithmOid] = derChildren(algorithm);
  if (spki === undefined || algorithmOid === undefined) throw new Error('a part is missing');
  const publicKey = createPublicKey({ key: spki.raw, format: 'der', type: 'spki' });
  const expected = signatureOid(publicKey);
  if (expected === undefined) throw new HandfastError('CSR_REFUSED', 'the key must be ECDSA on P-256, or RSA of 2048 to 4096 bits');
  if (derOid(algorithmOid) !== expected) throw new HandfastError('CSR_REFUSED', "the signature must be of the key's kind, with SHA-256");
  if (
    signature.tag !== DerTag.bitString ||
    signature.content[0] !== 0 ||
    !verify('sha256', info.raw, publicKey, signature.content.subarray(1))
  ) {
    throw new HandfastError('CSR_REFUSED', 'the signature does not verify: the sender does not hold the key');
  }
  return { publicKey, uris: attributes === undefined ? [] : requestedUris(attributes.content) };
}

function signatureOid(key: KeyObject): string | undefined {
  if (isP256(key)) return OID_ECDSA_SHA256;
  const bits = key.asymmetricKeyType === 'rsa' ? (key.asymmetricKeyDetails?.modulusLength ?? 0) : 0;
  return bits >= 2048 && bits <= 4096 ? OID_RSA_SHA256 : undefined;
}

function requestedUris(attributes: Buffer): string[] {
  const uris: string[] = [];
  for (const attribute of derChildren({ tag: DerTag.sequence, content: attributes, raw: attributes })) {
    const [type, values] = derChildren(attribute);
    if (type === undefined || values === undefined || derOid(type) !== OID_EXTENSION_REQUEST) continue;
    for (const extensions of derChildren(values)) uris.push(...uriSans(extensionsByOid(extensions).get(SUBJECT_ALT_NAME)));
  }
  return uris;
}
