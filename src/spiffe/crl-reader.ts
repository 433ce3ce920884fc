// The structure of one X.509 CRL (RFC 5280, section 5), read from DER. Who signed it is judged in two steps by the caller: the frame first, the
// entries only after the signature has verified, so that nobody unknown can make us read a hundred thousand of them.

import { type DerNode, DerTag, derChildren, derOid, readDer } from './der.ts';

/** 2.25 and a random UUID, 96e949b2-e729-4a4a-9332-a8f2a64f0a5c: the GeneralNames of SPIFFE IDs that are blocked altogether. Not critical. */
export const OID_BLOCKED_IDS = '2.25.200595499325830943942132134799303707228';
export const OID_CRL_NUMBER = '2.5.29.20';
export const OID_REASON_CODE = '2.5.29.21';
export const OID_AUTHORITY_KEY_ID = '2.5.29.35';

const OID_DELTA = '2.5.29.27';
/** Extensions of the list that are understood, or may be ignored for not being critical. */
const KNOWN_EXTENSIONS = [OID_CRL_NUMBER, OID_AUTHORITY_KEY_ID, OID_BLOCKED_IDS];
const REMOVE_FROM_CRL = 8;
export const MAX_CRL_ENTRIES = 50_000;

/** What there is to know before the signature has verified. `algorithm` is the signature's OID, `signed` the bytes beneath it. */
export interface CrlFrame {
  readonly issuer: Buffer;
  readonly algorithm: string;
  readonly signature: Buffer;
  readonly signed: Buffer;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  readonly entries: DerNode | undefined;
  readonly extensions: DerNode;
}

/** Serials as OpenSSL prints them, URIs as they stand. */
export interface CrlContent {
  readonly serials: readonly string[];
  readonly blockedUris: readonly string[];
  readonly number: bigint;
}

/** Throws a plain Error for whatever is no version 2 CRL with a nextUpdate. */
export function readCrlFrame(der: Buffer): CrlFrame {
  const [tbs, algorithm, signature, ...rest] = derChildren(expectTag(readDer(der), DerTag.sequence), 3);
  if (tbs === undefined || algorithm === undefined || signature === undefined || rest.length > 0) throw new Error('not three parts');
  const fields = derChildren(expectTag(tbs, DerTag.sequence), 7);
  const [version, innerAlgorithm, issuer, thisUpdate, nextUpdate] = fields;
  if (version?.raw.toString('hex') !== '020101') throw new Error('not a version 2 CRL');
  // The algorithm inside is signed, the one outside is not: they must be one (RFC 5280, 5.1.1.2).
  if (innerAlgorithm === undefined || !innerAlgorithm.raw.equals(algorithm.raw)) throw new Error('its two signature algorithms differ');
  if (issuer === undefined || thisUpdate === undefined || nextUpdate === undefined) throw new Error('a field is missing');
  const last = fields.slice(5);
  const entries = last[0]?.tag === DerTag.sequence ? last.shift() : undefined;
  const extensions = last.shift();
  if (extensions === undefined || last.length > 0) throw new Error('its extensions are missing, or not the last field');
  if (signature.tag !== DerTag.bitString || signature.content[0] !== 0) throw new Error('its signature is no BIT STRING');
  const frame = {
    issuer: expectTag(issuer, DerTag.sequence).raw,
    algorithm: algorithmOid(algorithm),
    signature: signature.content.subarray(1),
    signed: tbs.raw,
    thisUpdate: readTime(thisUpdate),
    nextUpdate: readTime(nextUpdate),
    entries,
    extensions: expectTag(extensions, DerTag.context0),
  };
  if (!(frame.nextUpdate > frame.thisUpdate)) throw new Error('nextUpdate is not after thisUpdate');
  return frame;
}

/** Everything inside. Throws a plain Error for what is malformed, and for lists whose rules we do not know (indirect, delta, partial). */
export function readCrlContent(frame: CrlFrame): CrlContent {
  const [list, ...rest] = derChildren(frame.extensions, 1);
  if (list === undefined || rest.length > 0) throw new Error('its extensions are malformed');
  const extensions = readExtensions(list);
  if (extensions.has(OID_DELTA)) throw new Error('it is a delta CRL, which is not accepted');
  for (const [oid, { critical }] of extensions) {
    if (critical && !KNOWN_EXTENSIONS.includes(oid))
      throw new Error(`it has the critical extension ${oid}, which is not accepted (indirect and partial CRLs are not)`);
  }
  const number = extensions.get(OID_CRL_NUMBER)?.value;
  const blocked = extensions.get(OID_BLOCKED_IDS)?.value;
  const uris = blocked === undefined ? [] : derChildren(expectTag(readDer(blocked), DerTag.sequence), MAX_CRL_ENTRIES);
  const serials = frame.entries === undefined ? [] : derChildren(frame.entries, MAX_CRL_ENTRIES).map(readEntry);
  return {
    serials,
    blockedUris: uris.map((uri) => expectTag(uri, DerTag.uri).content.toString('latin1')),
    number: number === undefined ? 0n : BigInt(`0x${serialText(readDer(number))}`),
  };
}

function readEntry(entry: DerNode): string {
  const [serial, date, extensions, ...rest] = derChildren(expectTag(entry, DerTag.sequence), 3);
  if (serial === undefined || date === undefined || rest.length > 0) throw new Error('an entry is malformed');
  readTime(date);
  for (const [oid, { critical, value }] of extensions === undefined ? [] : readExtensions(extensions)) {
    // certificateIssuer is the critical one: the entry would speak of another CA's certificate.
    if (critical && oid !== OID_REASON_CODE) throw new Error(`an entry has the critical extension ${oid}, which is not accepted`);
    if (oid === OID_REASON_CODE && expectTag(readDer(value), DerTag.enumerated).content[0] === REMOVE_FROM_CRL)
      throw new Error('an entry is removed again, as only a delta CRL may');
  }
  return serialText(serial);
}

/** A non-negative INTEGER in upper-case hex, whole bytes: as X509Certificate.serialNumber has it. */
function serialText(node: DerNode): string {
  const { content } = expectTag(node, DerTag.integer);
  const [first, second] = content;
  if (first === undefined || first >= 0x80 || content.length > 21) throw new Error('a number is negative, empty or too long');
  if (first === 0 && second !== undefined && second < 0x80) throw new Error('a number is not minimal');
  return (first === 0 && content.length > 1 ? content.subarray(1) : content).toString('hex').toUpperCase();
}

function readExtensions(list: DerNode): Map<string, { critical: boolean; value: Buffer }> {
  const byOid = new Map<string, { critical: boolean; value: Buffer }>();
  for (const extension of derChildren(expectTag(list, DerTag.sequence), 32)) {
    const fields = derChildren(expectTag(extension, DerTag.sequence), 3);
    const [oidNode, flag] = fields;
    const value = fields.at(-1);
    if (oidNode === undefined || value?.tag !== DerTag.octetString || fields.length < 2) throw new Error('an extension is malformed');
    const critical = fields.length === 3;
    if (critical && flag?.raw.toString('hex') !== '0101ff') throw new Error('an extension is malformed');
    const oid = derOid(oidNode);
    if (byOid.has(oid)) throw new Error(`extension ${oid} stands twice`);
    byOid.set(oid, { critical, value: value.content });
  }
  return byOid;
}

/** Unix milliseconds of a UTCTime or GeneralizedTime in the one form that RFC 5280 allows: whole seconds, Zulu. */
function readTime(node: DerNode): number {
  const text = node.content.toString('latin1');
  const short = node.tag === DerTag.utcTime && /^\d{12}Z$/.test(text);
  if (!short && !(node.tag === DerTag.generalizedTime && /^\d{14}Z$/.test(text))) throw new Error('a time is malformed');
  const digits = short ? `${Number(text.slice(0, 2)) >= 50 ? '19' : '20'}${text}` : text;
  const number = (from: number, length: number) => Number(digits.slice(from, from + length));
  const [month, day, hour, minute, second] = [number(4, 2), number(6, 2), number(8, 2), number(10, 2), number(12, 2)];
  const unixMs = Date.UTC(number(0, 4), month - 1, day, hour, minute, second);
  // Date carries over what does not exist: the 31st of June, the 61st second.
  const date = new Date(unixMs);
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day || hour > 23 || minute > 59 || second > 59)
    throw new Error(`${JSON.stringify(text)} is no time`);
  return unixMs;
}

function algorithmOid(algorithm: DerNode): string {
  const [oidNode, parameters, ...rest] = derChildren(expectTag(algorithm, DerTag.sequence), 2);
  if (oidNode === undefined || rest.length > 0 || (parameters !== undefined && parameters.raw.toString('hex') !== '0500'))
    throw new Error('its signature algorithm has parameters that are not accepted');
  return derOid(oidNode);
}

function expectTag(node: DerNode, tag: number): DerNode {
  if (node.tag !== tag) throw new Error(`tag 0x${node.tag.toString(16)} where 0x${tag.toString(16)} is due`);
  return node;
}
