// DER from structure, by node-forge's asn1: only ever for bytes we make ourselves.

import asn1 from 'node-forge/lib/asn1.js';
import { SUBJECT_ALT_NAME } from './leaf.ts';
import type { SpiffeId } from './spiffe-id.ts';

export type Asn1 = ReturnType<typeof asn1.create>;

const { Class, Type } = asn1;

export function sequence(...items: Asn1[]): Asn1 {
  return sequenceOf(items);
}

/** The same of a list that may be longer than a call's arguments. */
export function sequenceOf(items: Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, items);
}

export function set(...items: Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.SET, true, items);
}

export function oid(dotted: string): Asn1 {
  const known = encodedOids.get(dotted) ?? encodeOid(dotted);
  encodedOids.set(dotted, known);
  return asn1.create(Class.UNIVERSAL, Type.OID, false, known);
}

/** Those that we write are constants: there are few. */
const encodedOids = new Map<string, string>();

/** node-forge's own encoder stops at arcs of 32 bits; one below 2.25 is a UUID of 128. */
function encodeOid(dotted: string): string {
  const [first = 0n, second = 0n, ...rest] = dotted.split('.').map(BigInt);
  return Buffer.from([first * 40n + second, ...rest].flatMap(base128)).toString('latin1');
}

function base128(arc: bigint): number[] {
  const bytes = [Number(arc & 0x7fn)];
  for (let left = arc >> 7n; left > 0n; left >>= 7n) bytes.unshift(Number(left & 0x7fn) | 0x80);
  return bytes;
}

/** An ENUMERATED of one byte. */
export function enumerated(value: number): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.ENUMERATED, false, String.fromCharCode(value));
}

/** A non-negative INTEGER from big-endian bytes: padded where the top bit is set, minimal otherwise. */
export function unsignedInteger(bytes: Buffer): Asn1 {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const minimal = bytes.subarray(start);
  const padded = (minimal[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), minimal]) : minimal;
  return asn1.create(Class.UNIVERSAL, Type.INTEGER, false, padded.toString('latin1'));
}

export function bitString(bytes: Buffer, unusedBits = 0): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.BITSTRING, false, Buffer.concat([Buffer.of(unusedBits), bytes]).toString('latin1'));
}

export function octetString(bytes: Buffer): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.OCTETSTRING, false, bytes.toString('latin1'));
}

export function boolean(value: boolean): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.BOOLEAN, false, value ? '\xff' : '\x00');
}

export function utf8String(text: string): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.UTF8, false, Buffer.from(text, 'utf8').toString('latin1'));
}

/** UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280, 4.1.2.5). */
export function time(unixMs: number): Asn1 {
  const date = new Date(unixMs);
  return date.getUTCFullYear() < 2050
    ? asn1.create(Class.UNIVERSAL, Type.UTCTIME, false, asn1.dateToUtcTime(date))
    : asn1.create(Class.UNIVERSAL, Type.GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date));
}

/** A context-specific tag around items (explicit, constructed). */
export function explicit(tag: number, ...items: Asn1[]): Asn1 {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, true, items);
}

/** A context-specific tag on raw bytes (implicit, primitive). */
export function implicit(tag: number, bytes: Buffer): Asn1 {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, false, bytes.toString('latin1'));
}

export function toDer(structure: Asn1): Buffer {
  return Buffer.from(asn1.toDer(structure).getBytes(), 'latin1');
}

/** Bytes that are DER already (a public key from node:crypto, a Name copied from an issuer). */
export function fromOwnDer(der: Buffer): Asn1 {
  return asn1.fromDer(der.toString('latin1'));
}

export function extension(id: string, options: { critical: boolean; value: Asn1 }): Asn1 {
  const value = octetString(toDer(options.value));
  return options.critical ? sequence(oid(id), boolean(true), value) : sequence(oid(id), value);
}

/** subjectAltName with the SPIFFE ID as its one URI; critical, because the subject is empty (RFC 5280, 4.2.1.6). */
export function spiffeSan(id: SpiffeId, dnsNames: readonly string[] = []): Asn1 {
  const names = [implicit(6, Buffer.from(id.uri, 'latin1')), ...dnsNames.map((name) => implicit(2, Buffer.from(name, 'latin1')))];
  return extension(SUBJECT_ALT_NAME, { critical: true, value: sequence(...names) });
}

export function pemOf(label: string, der: Buffer): string {
  return `-----BEGIN ${label}-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END ${label}-----\n`;
}
