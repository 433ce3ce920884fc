// A strict DER reader for bytes that a peer sent: definite lengths, minimal encodings, nothing left over.

/** One TLV. `content` is the value alone; `raw` is tag, length and value, as signed. */
export interface DerNode {
  readonly tag: number;
  readonly content: Buffer;
  readonly raw: Buffer;
}

export const DerTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  enumerated: 0x0a,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  context0: 0xa0,
  context3: 0xa3,
  /** GeneralName uniformResourceIdentifier: context 6, primitive. */
  uri: 0x86,
} as const;

class DerError extends Error {}

/** Reads exactly one TLV that fills the whole buffer. Throws on anything that is not DER. */
export function readDer(bytes: Buffer): DerNode {
  const node = readAt(bytes, 0);
  if (node.raw.length !== bytes.length) throw new DerError('bytes after the end of the structure');
  return node;
}

/** The TLVs inside a constructed one, in order. Throws when there are more than `max`, before it has made them all. */
export function derChildren(node: DerNode, max = Number.POSITIVE_INFINITY): DerNode[] {
  if ((node.tag & 0x20) === 0) throw new DerError(`tag 0x${node.tag.toString(16)} is not constructed`);
  const children: DerNode[] = [];
  for (let offset = 0; offset < node.content.length; ) {
    if (children.length === max) throw new DerError(`more than ${max} elements`);
    const child = readAt(node.content, offset);
    children.push(child);
    offset += child.raw.length;
  }
  return children;
}

/** Dotted text of an OBJECT IDENTIFIER. */
export function derOid(node: DerNode): string {
  if (node.tag !== DerTag.oid || node.content.length === 0) throw new DerError('not an OBJECT IDENTIFIER');
  if (node.content[0] === UUID_ARC) return uuidOid(node.content.subarray(1));
  const arcs: number[] = [];
  let value = 0;
  let fresh = true;
  for (const byte of node.content) {
    if (fresh && byte === 0x80) throw new DerError('OBJECT IDENTIFIER arc is not minimal');
    fresh = (byte & 0x80) === 0;
    value = value * 128 + (byte & 0x7f);
    if (value > 0xffff_ffff) throw new DerError('OBJECT IDENTIFIER arc too large');
    if ((byte & 0x80) === 0) {
      if (arcs.length === 0) {
        const first = Math.min(2, Math.floor(value / 40));
        arcs.push(first, value - first * 40);
      } else arcs.push(value);
      value = 0;
    }
  }
  if (!fresh) throw new DerError('OBJECT IDENTIFIER ends inside an arc');
  return arcs.join('.');
}

/** 2.25, below which every UUID is an arc of up to 128 bits (X.667): the one place where an arc does not fit a number. */
const UUID_ARC = 2 * 40 + 25;

function uuidOid(arc: Buffer): string {
  const last = arc.length - 1;
  if (last < 0 || arc[0] === 0x80 || arc.length > 19) throw new DerError('OBJECT IDENTIFIER arc is empty, not minimal or too large');
  let value = 0n;
  arc.forEach((byte, index) => {
    if (((byte & 0x80) !== 0) === (index === last)) throw new DerError('OBJECT IDENTIFIER below 2.25 is not one whole arc');
    value = (value << 7n) | BigInt(byte & 0x7f);
  });
  if (value >> 128n !== 0n) throw new DerError('OBJECT IDENTIFIER arc too large');
  return `2.25.${value}`;
}

function readAt(bytes: Buffer, start: number): DerNode {
  const tag = bytes[start];
  const first = bytes[start + 1];
  if (tag === undefined || first === undefined) throw new DerError('truncated');
  if ((tag & 0x1f) === 0x1f) throw new DerError('multi-byte tags are not used in certificates');
  let length = first;
  let header = 2;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 4) throw new DerError('indefinite or oversized length');
    length = 0;
    for (let i = 0; i < count; i++) {
      const byte = bytes[start + 2 + i];
      if (byte === undefined) throw new DerError('truncated');
      length = length * 256 + byte;
    }
    if (length < 0x80 || length < 2 ** (8 * (count - 1))) throw new DerError('length is not minimal');
    header += count;
  }
  const end = start + header + length;
  if (end > bytes.length) throw new DerError('truncated');
  return { tag, content: bytes.subarray(start + header, end), raw: bytes.subarray(start, end) };
}
