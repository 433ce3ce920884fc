// Header blocks of HTTP/2, compressed (HPACK, RFC 7541) by the static table alone: no state, so nothing to keep in step and nothing for CRIME to probe.

import { type HeaderField, STATIC_NAMES } from './hpack-static-table.ts';

const INDEXED = 0x80;
const LITERAL_WITHOUT_INDEXING = 0x00;
/** An octet for the kind of field and the longest integer for the name's index, its length and the value's: 32 bits in 7s, and a prefix. */
const FIELD_ROOM = 1 + 3 * 6;

/** `fields` are latin1, names in lower case, as they are to be on the wire. Whatever table the peer allows, this uses none. */
export function encodeHeaders(fields: readonly HeaderField[]): Buffer {
  let room = 0;
  for (const [name, value] of fields) room += name.length + value.length + FIELD_ROOM;
  const block = Buffer.allocUnsafe(room);
  let end = 0;
  for (const [name, value] of fields) {
    const known = STATIC_NAMES.get(name);
    const index = known?.values.get(value);
    if (index !== undefined) {
      end = writeInteger(block, end, { flags: INDEXED, prefix: 0x7f, value: index });
      continue;
    }
    end = writeInteger(block, end, { flags: LITERAL_WITHOUT_INDEXING, prefix: 0x0f, value: known?.index ?? 0 });
    if (known === undefined) end = writeString(block, end, name);
    end = writeString(block, end, value);
  }
  return block.subarray(0, end);
}

function writeString(block: Buffer, start: number, text: string): number {
  const end = writeInteger(block, start, { flags: 0, prefix: 0x7f, value: text.length });
  return end + block.write(text, end, 'latin1');
}

function writeInteger(block: Buffer, start: number, { flags, prefix, value }: { flags: number; prefix: number; value: number }): number {
  let end = start;
  if (value < prefix) {
    block[end++] = flags | value;
    return end;
  }
  block[end++] = flags | prefix;
  let rest = value - prefix;
  for (; rest >= 0x80; rest >>>= 7) block[end++] = 0x80 | (rest & 0x7f);
  block[end++] = rest;
  return end;
}
