// Header blocks of HTTP/2, decompressed (HPACK, RFC 7541). The peer is authenticated but not trusted: work is linear in the block, memory bounded.

import { type HeaderField, STATIC_TABLE } from './hpack-static-table.ts';
import { decodeHuffman, HpackError } from './huffman.ts';

export { type HeaderField, HpackError };

export interface HpackDecoderOptions {
  /** SETTINGS_HEADER_TABLE_SIZE that we announced, octets; default 4096. */
  readonly maxTableSize?: number;
  /** SETTINGS_MAX_HEADER_LIST_SIZE, octets: name + value + 32 for each field (RFC 9113, 6.5.2). */
  readonly maxHeaderListSize: number;
}

/** SETTINGS_HEADER_TABLE_SIZE before anything is announced (RFC 9113, 6.5.2). */
const DEFAULT_TABLE_SIZE = 4096;
const FIELD_OVERHEAD = 32;
/** Integers end below 2^28, and after four octets beyond the prefix: more of them would be zeros for padding (RFC 7541, 5.1). */
const INTEGER_LIMIT = 2 ** 28;
const INTEGER_LAST_SHIFT = 21;
const NOTHING = Buffer.alloc(0);

const sizeOf = ([name, value]: HeaderField): number => name.length + value.length + FIELD_OVERHEAD;

/** One for each connection and direction. After an HpackError it is out of step with the peer's encoder. */
export class HpackDecoder {
  readonly #maxTableSize: number;
  readonly #maxHeaderListSize: number;
  readonly #table: DynamicTable;
  #bytes: Buffer = NOTHING;
  #offset = 0;

  constructor({ maxTableSize = DEFAULT_TABLE_SIZE, maxHeaderListSize }: HpackDecoderOptions) {
    this.#maxTableSize = maxTableSize;
    this.#maxHeaderListSize = maxHeaderListSize;
    this.#table = new DynamicTable(Math.max(maxTableSize, DEFAULT_TABLE_SIZE));
  }

  /**
   * One whole header block, its fields in order. Throws HpackError on any decoding error of RFC 7541. `tooLong`: the list is larger than
   * `maxHeaderListSize`, and the fields from there on are left out; they still went through the table, which stays in step with the peer's.
   */
  decode(block: Uint8Array): { readonly fields: readonly HeaderField[]; readonly tooLong: boolean } {
    this.#bytes = Buffer.isBuffer(block) ? block : Buffer.from(block.buffer, block.byteOffset, block.byteLength);
    this.#offset = 0;
    try {
      const fields: HeaderField[] = [];
      let left = this.#maxHeaderListSize;
      this.#resizeTable();
      while (this.#offset < this.#bytes.length) {
        const field = this.#field();
        // Each field counts in full, however few octets it took: thousands of references to one large entry end here (an "HPACK bomb").
        if (left >= 0) left -= sizeOf(field);
        if (left >= 0) fields.push(field);
      }
      return { fields, tooLong: left < 0 };
    } finally {
      this.#bytes = NOTHING;
    }
  }

  /** Dynamic table size updates: at the beginning of a block, and nowhere else (RFC 7541, 4.2 and 6.3). */
  #resizeTable(): void {
    for (let octet = this.#bytes[0]; octet !== undefined && octet >> 5 === 0b001; octet = this.#bytes[this.#offset]) {
      this.#offset++;
      const size = this.#integer(octet, 0x1f);
      if (size > this.#maxTableSize) throw new HpackError('a dynamic table larger than was announced');
      this.#table.resize(size);
    }
  }

  #field(): HeaderField {
    const octet = this.#octet();
    if (octet >= 0x80) return this.#at(this.#integer(octet, 0x7f));
    if (octet >= 0x40) {
      const field = this.#literal(this.#integer(octet, 0x3f));
      this.#table.add(field);
      return field;
    }
    if (octet >= 0x20) throw new HpackError('a dynamic table size update behind a field');
    return this.#literal(this.#integer(octet, 0x0f));
  }

  #literal(nameIndex: number): HeaderField {
    const name = nameIndex === 0 ? this.#string() : this.#at(nameIndex)[0];
    return [name, this.#string()];
  }

  /** The very entry of the table, not a copy. */
  #at(index: number): HeaderField {
    const field = index <= STATIC_TABLE.length ? STATIC_TABLE[index - 1] : this.#table.at(index - STATIC_TABLE.length - 1);
    if (field === undefined) throw new HpackError('an index that neither table has');
    return field;
  }

  #string(): string {
    const octet = this.#octet();
    const length = this.#integer(octet, 0x7f);
    const start = this.#offset;
    const end = start + length;
    if (end > this.#bytes.length) throw new HpackError('a string longer than its block');
    this.#offset = end;
    return octet >= 0x80 ? decodeHuffman(this.#bytes, start, end) : this.#bytes.toString('latin1', start, end);
  }

  /** `prefix`: the mask of the bits of `octet` that belong to the integer (RFC 7541, 5.1). */
  #integer(octet: number, prefix: number): number {
    let value = octet & prefix;
    if (value < prefix) return value;
    for (let shift = 0; shift <= INTEGER_LAST_SHIFT; shift += 7) {
      const more = this.#octet();
      value += (more & 0x7f) << shift;
      if (more >= 0x80) continue;
      if (value >= INTEGER_LIMIT) break;
      return value;
    }
    throw new HpackError('an integer out of bounds');
  }

  #octet(): number {
    if (this.#offset >= this.#bytes.length) throw new HpackError('a block that ends too soon');
    return this.#bytes[this.#offset++] ?? 0;
  }
}

/**
 * The dynamic table (RFC 7541, 2.3.2): a ring with room for as many entries as can ever be in it, since each counts 32 octets at least.
 * It begins at the default size, whatever we announced: until our SETTINGS are there, that is what the peer's encoder goes by, and it
 * says when it changes over. (A table larger than the peer's is no harm: indices count from the newest entry.)
 */
class DynamicTable {
  readonly #ring: (HeaderField | undefined)[];
  #next = 0;
  #count = 0;
  #size = 0;
  #maxSize = DEFAULT_TABLE_SIZE;

  constructor(largestSize: number) {
    this.#ring = new Array(Math.floor(largestSize / FIELD_OVERHEAD)).fill(undefined);
  }

  /** 0 is the newest. */
  at(age: number): HeaderField | undefined {
    if (age >= this.#count) return undefined;
    return this.#ring[this.#slot(age + 1)];
  }

  /** An entry larger than the table empties it and is not kept, which is no error (RFC 7541, 4.4). */
  add(field: HeaderField): void {
    const size = sizeOf(field);
    this.#shrinkTo(Math.max(this.#maxSize - size, 0));
    if (size > this.#maxSize) return;
    this.#ring[this.#next] = field;
    this.#next = this.#next + 1 === this.#ring.length ? 0 : this.#next + 1;
    this.#count++;
    this.#size += size;
  }

  resize(maxSize: number): void {
    this.#maxSize = maxSize;
    this.#shrinkTo(maxSize);
  }

  #shrinkTo(size: number): void {
    while (this.#size > size) {
      const slot = this.#slot(this.#count);
      const oldest = this.#ring[slot];
      if (oldest !== undefined) this.#size -= sizeOf(oldest);
      this.#ring[slot] = undefined;
      this.#count--;
    }
  }

  /** Where the entry is that many back from the next. */
  #slot(back: number): number {
    const slot = this.#next - back;
    return slot < 0 ? slot + this.#ring.length : slot;
  }
}
