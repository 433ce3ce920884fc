// The Huffman code of HPACK (RFC 7541, 5.2 and Appendix B), decoded four bits at a time by a state machine.

/** COMPRESSION_ERROR (RFC 9113, 4.3): the two ends no longer agree on the compression state, so the whole connection is to end. */
export class HpackError extends Error {
  override readonly name = 'HpackError';
}

/** Bits in the code of each octet, and of EOS at the end. The code is canonical: lengths, then octets, in ascending order give every code. */
const LENGTHS = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10,
  12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
  7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7,
  7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22,
  23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22,
  23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20,
  24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const EOS = 256;
/** 257 leaves make 256 inner nodes, so a state fits in an octet. */
const STATES = 256;
/** Padding is at most 7 bits, all ones: the states of that path are numbered by their depth, so that `state <= 7` says it is one. */
const MAX_PADDING = 7;
const SHORTEST_CODE = 5;
const FAIL = -1;
const EMITS = 1 << 16;

/** By state and four bits: bits 0-7 the next state; with EMITS, 8-15 the octet that comes out (no code is so short that two could); or FAIL on EOS. */
let steps: Int32Array | undefined;
const scratch = Buffer.allocUnsafeSlow(4096);

/** The octets from `start` to `end` (which lie within `bytes`) as a latin1 string. Throws HpackError on EOS or on wrong padding. */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number): string {
  steps ??= stateMachine();
  const room = Math.floor(((end - start) * 8) / SHORTEST_CODE);
  const out = room <= scratch.length ? scratch : Buffer.allocUnsafeSlow(room);
  let state = 0;
  let length = 0;
  for (let offset = start; offset < end; offset++) {
    const octet = bytes[offset] ?? 0;
    const high = steps[(state << 4) | (octet >> 4)] ?? FAIL;
    if (high >= EMITS) out[length++] = high >>> 8;
    const low = steps[((high & 0xff) << 4) | (octet & 0xf)] ?? FAIL;
    if (low >= EMITS) out[length++] = low >>> 8;
    if ((high | low) < 0) throw new HpackError('a Huffman string with EOS in it');
    state = low & 0xff;
  }
  if (state > MAX_PADDING) throw new HpackError('a Huffman string with wrong padding');
  return out.toString('latin1', 0, length);
}

function stateMachine(): Int32Array {
  const children = codeTree();
  return Int32Array.from({ length: STATES * 16 }, (_, at) => step(children, at >> 4, at & 0xf));
}

/** Two children a node: below STATES another node, from there on the leaf of an octet or of EOS. */
function codeTree(): Uint16Array {
  const children = new Uint16Array(STATES * 2);
  for (let depth = 0; depth < MAX_PADDING; depth++) children[2 * depth + 1] = depth + 1;
  let nodes = MAX_PADDING + 1;
  const ordered = [...LENGTHS.entries()].sort(([a, aLength], [b, bLength]) => aLength - bLength || a - b);
  let code = 0;
  let bits = 0;
  for (const [symbol, length] of ordered) {
    code <<= length - bits;
    bits = length;
    let node = 0;
    for (let bit = length - 1; bit > 0; bit--) {
      const edge = 2 * node + ((code >> bit) & 1);
      if (children[edge] === 0) children[edge] = nodes++;
      node = children[edge] ?? 0;
    }
    children[2 * node + (code & 1)] = STATES + symbol;
    code++;
  }
  return children;
}

function step(children: Uint16Array, state: number, bits: number): number {
  let node = state;
  let out = 0;
  for (let bit = 3; bit >= 0; bit--) {
    node = children[2 * node + ((bits >> bit) & 1)] ?? 0;
    if (node < STATES) continue;
    if (node === STATES + EOS) return FAIL;
    out = EMITS | ((node - STATES) << 8);
    node = 0;
  }
  return out | node;
}
