// HPACK: the examples of RFC 7541, what nghttp2 (through node:http2) sends and accepts, and each decoding error beside its allowed twin.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type OutgoingHttpHeaders, performServerHandshake, sensitiveHeaders } from 'node:http2';
import { type Duplex, duplexPair } from 'node:stream';
import { describe, test } from 'node:test';
import { type HeaderField, HpackDecoder, HpackError } from '../../src/hbone/hpack-decoder.ts';
import { encodeHeaders } from '../../src/hbone/hpack-encoder.ts';
import { decodeHuffman } from '../../src/hbone/huffman.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const sizeOf = (fields: readonly HeaderField[]): number => fields.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
const newDecoder = (maxTableSize = 4096): HpackDecoder => new HpackDecoder({ maxTableSize, maxHeaderListSize: 1 << 20 });
const decoded = (text: string): readonly HeaderField[] => newDecoder().decode(hex(text)).fields;

/** What the dynamic table holds, newest first, as far as references reach it. */
function tableOf(decoder: HpackDecoder): HeaderField[] {
  const entries: HeaderField[] = [];
  for (let index = 62; ; index++) {
    try {
      entries.push(...decoder.decode(index < 127 ? Buffer.of(0x80 | index) : Buffer.of(0xff, index - 127)).fields);
    } catch {
      return entries;
    }
  }
}

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

describe('the examples of RFC 7541, Appendix C', () => {
  const field = (name: string, value: string): HeaderField => [name, value];
  const example = field(':authority', 'www.example.com');
  const noCache = field('cache-control', 'no-cache');
  const custom = field('custom-key', 'custom-value');
  const requests: HeaderField[][] = [
    [field(':method', 'GET'), field(':scheme', 'http'), field(':path', '/'), example],
    [field(':method', 'GET'), field(':scheme', 'http'), field(':path', '/'), example, noCache],
    [field(':method', 'GET'), field(':scheme', 'https'), field(':path', '/index.html'), example, custom],
  ];
  const requestTables: HeaderField[][] = [[example], [noCache, example], [custom, noCache, example]];
  const found = field(':status', '302');
  const redirect = field(':status', '307');
  const isPrivate = field('cache-control', 'private');
  const date = field('date', 'Mon, 21 Oct 2013 20:13:21 GMT');
  const later = field('date', 'Mon, 21 Oct 2013 20:13:22 GMT');
  const location = field('location', 'https://www.example.com');
  const gzip = field('content-encoding', 'gzip');
  const cookie = field('set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1');
  const responses: HeaderField[][] = [
    [found, isPrivate, date, location],
    [redirect, isPrivate, date, location],
    [field(':status', '200'), isPrivate, later, location, gzip, cookie],
  ];
  const responseTables: HeaderField[][] = [
    [location, date, isPrivate, found],
    [redirect, location, date, isPrivate],
    [cookie, gzip, later],
  ];

  const single: Readonly<Record<string, readonly [block: string, fields: HeaderField[], table: HeaderField[]]>> = {
    'C.2.1, a literal with indexing': [
      '400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572',
      [['custom-key', 'custom-header']],
      [['custom-key', 'custom-header']],
    ],
    'C.2.2, a literal without indexing': ['040c 2f73 616d 706c 652f 7061 7468', [[':path', '/sample/path']], []],
    'C.2.3, a literal never indexed': ['1008 7061 7373 776f 7264 0673 6563 7265 74', [['password', 'secret']], []],
    'C.2.4, an indexed field': ['82', [[':method', 'GET']], []],
  };
  for (const [name, [block, fields, table]] of Object.entries(single)) {
    test(name, () => {
      const decoder = newDecoder();
      assert.deepEqual(decoder.decode(hex(block)), { fields, tooLong: false });
      assert.deepEqual(tableOf(decoder), table);
    });
  }

  // With 256 octets of table, an encoder says so at the beginning of the first block; the examples leave that out.
  const to256 = '3fe101';
  const series: Readonly<
    Record<string, readonly [maxTableSize: number, blocks: string[], lists: HeaderField[][], tables: HeaderField[][], sizes: number[]]>
  > = {
    'C.3, requests': [
      4096,
      [
        '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        '8286 84be 5808 6e6f 2d63 6163 6865',
        '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
      ],
      requests,
      requestTables,
      [57, 110, 164],
    ],
    'C.4, requests in Huffman code': [
      4096,
      [
        '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
        '8286 84be 5886 a8eb 1064 9cbf',
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
      ],
      requests,
      requestTables,
      [57, 110, 164],
    ],
    'C.5, responses, with evictions': [
      256,
      [
        `${to256} 4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768
         7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
        '4803 3330 37c1 c0bf',
        `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153
         444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31`,
      ],
      responses,
      responseTables,
      [222, 222, 215],
    ],
    'C.6, responses in Huffman code, with evictions': [
      256,
      [
        `${to256} 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8
         e9ae 82ae 43d3`,
        '4883 640e ffc1 c0bf',
        `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b
         3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
      ],
      responses,
      responseTables,
      [222, 222, 215],
    ],
  };
  for (const [name, [maxTableSize, blocks, lists, tables, sizes]] of Object.entries(series)) {
    test(name, () => {
      const decoder = newDecoder(maxTableSize);
      for (const [at, block] of blocks.entries()) {
        assert.deepEqual(decoder.decode(hex(block)), { fields: lists[at], tooLong: false });
        assert.deepEqual(tableOf(decoder), tables[at]);
        assert.equal(sizeOf(tableOf(decoder)), sizes[at]);
      }
    });
  }
});

describe('the Huffman code', () => {
  test('of control characters, which no header of nghttp2 has in it, is that of Appendix B', () => {
    const codes = new Map<number, readonly [code: number, bits: number]>();
    for (const [octet, code] of [
      [0, 0x1ff8],
      [1, 0x7fffd8],
      [9, 0xffffea],
      [10, 0x3ffffffc],
      [13, 0x3ffffffd],
      [22, 0x3ffffffe],
    ] as const)
      codes.set(octet, [code, code.toString(2).length]);
    let next = 0xfffffe2;
    for (let octet = 2; octet < 32; octet++) if (!codes.has(octet)) codes.set(octet, [next++, 28]);
    codes.set(127, [next, 28]);
    for (const [octet, [code, bits]] of codes) {
      const padding = (8 - (bits % 8)) % 8;
      const bytes = hex(((BigInt(code) << BigInt(padding)) | BigInt(2 ** padding - 1)).toString(16));
      assert.equal(decodeHuffman(bytes, 0, bytes.length), String.fromCharCode(octet), `octet ${octet}`);
    }
  });

  test('is read between its bounds alone, and at any length', () => {
    const text = hex('00 f1e3c2e5f23a6ba0ab90f4ff 00');
    assert.equal(decodeHuffman(text, 1, text.length - 1), 'www.example.com');
    assert.equal(decodeHuffman(text, 1, 1), '');
    assert.equal(decodeHuffman(Buffer.alloc(50_000), 0, 50_000), '0'.repeat(80_000));
  });
});

describe('a decoding error, and what is allowed beside it', () => {
  const entry = '40 0161 0162';
  const padded127 = Buffer.alloc(127, 'a').toString('hex');
  const cases: Readonly<Record<string, readonly [refused: string, allowed: string]>> = {
    'index 0': ['80', '81'],
    'an index behind the static table, into an empty dynamic one': ['be', `${entry} be`],
    'an index behind the dynamic table': [`${entry} bf`, `${entry} be`],
    'an index of several octets behind it': ['ff00', 'bd'],
    'a name index, with indexing': ['7e 0162', `${entry} 7e 0162`],
    'a name index, without indexing': ['0f2f 0162', `${entry} 0f2f 0162`],
    'a name index, never indexed': ['1f2f 0162', `${entry} 1f2f 0162`],
    'an integer of too many octets': [`00 7f8080808000 ${padded127} 00`, `00 7f80808000 ${padded127} 00`],
    'an integer that overflows 32 bits': ['00 7fffffffff0f', '00 00 00'],
    'an integer without an end': [`00 7f${'80'.repeat(1000)}`, '00 00 00'],
    'an integer that is cut': ['0f', '0f00 00'],
    'a name that is cut': ['00 0261', '00 0161 00'],
    'a name that is missing': ['00', '00 00 00'],
    'a value that is cut': ['00 0161 0262', '00 0161 0162'],
    'a value that is missing': ['00 0161', '00 0161 00'],
    'a string of 2^28 - 1 octets': ['00 0161 7f80ffff7f', '00 0161 00'],
    'Huffman padding with zeros': ['00 0161 8100', '00 0161 8107'],
    'Huffman padding of 8 bits': ['00 0161 8207ff', '00 0161 8107'],
    'Huffman padding of 15 bits, beside one of 7': ['00 0161 850000007fff', '00 0161 840000007f'],
    'Huffman padding alone': ['00 0161 81ff', '00 0161 80'],
    'Huffman padding that is the beginning of a code': ['00 0161 81fe', '00 0161 81f8'],
    EOS: ['00 0161 84ffffffff', '00 0161 84fffffff3'],
    'EOS, and more': ['00 0161 85fffffffc07', '00 0161 85fffffff007'],
    'a table size update above the limit': ['3fe21f', '3fe11f'],
    'a table size update behind a field': ['82 20', '20 82'],
    'a table size update behind two of them and a field': ['20 3fe11f 82 20', '20 3fe11f 82'],
    'a table size update that is cut': ['3f', '3f00'],
  };
  for (const [name, [refused, allowed]] of Object.entries(cases)) {
    test(name, () => {
      assert.throws(() => decoded(refused), HpackError);
      decoded(allowed);
    });
  }

  test('a limit of 0 refuses any table, and allows the update to none', () => {
    assert.throws(() => newDecoder(0).decode(hex('21')), HpackError);
    const decoder = newDecoder(0);
    assert.deepEqual(decoder.decode(hex(`20 ${entry}`)).fields, [['a', 'b']]);
    assert.deepEqual(tableOf(decoder), []);
  });

  test('a block cut anywhere is an error or the fields that are whole', () => {
    const block = hex('3fe11f 8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf be 0f2f 0161');
    const whole = newDecoder().decode(block).fields;
    let errors = 0;
    for (let length = 0; length < block.length; length++) {
      try {
        const { fields } = newDecoder().decode(block.subarray(0, length));
        assert.deepEqual(fields, whole.slice(0, fields.length));
      } catch (error) {
        assert.ok(error instanceof HpackError, String(error));
        errors++;
      }
    }
    assert.ok(errors > 20 && errors < block.length, String(errors));
  });
});

describe('the dynamic table', () => {
  const literal = (name: string, value: string): Buffer => {
    const block = encodeHeaders([[name, value]]);
    block[0] = 0x40;
    return block;
  };

  test('hands out its entry itself', () => {
    const decoder = newDecoder();
    const [added] = decoder.decode(hex('40 0161 0162')).fields;
    assert.equal(decoder.decode(hex('be')).fields[0], added);
  });

  test('is emptied by an entry larger than it, and keeps one that just fits', () => {
    const decoder = newDecoder();
    decoder.decode(literal('a', 'b'));
    const fits: HeaderField = ['a', 'x'.repeat(4096 - 33)];
    decoder.decode(literal(...fits));
    assert.deepEqual(tableOf(decoder), [fits]);
    assert.deepEqual(decoder.decode(literal('a', `${fits[1]}x`)).fields, [['a', `${fits[1]}x`]]);
    assert.deepEqual(tableOf(decoder), []);
    decoder.decode(literal('a', 'b'));
    assert.deepEqual(tableOf(decoder), [['a', 'b']]);
  });

  test('gives a name to the very entry that drives the name out', () => {
    const decoder = newDecoder();
    decoder.decode(Buffer.concat([hex('3f01'), literal('abcd', '')]));
    assert.deepEqual(tableOf(decoder), []);
    decoder.decode(Buffer.concat([hex('3f11'), literal('abcd', '12345678')]));
    decoder.decode(hex('7e 0131'));
    assert.deepEqual(tableOf(decoder), [['abcd', '1']]);
  });

  test('forgets with a smaller size, and does not remember with a larger one', () => {
    const decoder = newDecoder();
    decoder.decode(Buffer.concat([literal('a', '1'), literal('b', '2'), literal('c', '3')]));
    decoder.decode(hex('3f25'));
    assert.deepEqual(tableOf(decoder), [
      ['c', '3'],
      ['b', '2'],
    ]);
    decoder.decode(hex('20 3fe11f'));
    assert.deepEqual(tableOf(decoder), []);
  });

  test('holds as many entries as 32 octets each allow, over and over', () => {
    for (const maxTableSize of [4096, 5000]) {
      const decoder = newDecoder(maxTableSize);
      if (maxTableSize === 5000) decoder.decode(hex('3fe926'));
      for (let times = 0; times < 1000; times++) decoder.decode(hex('40 00 00'));
      assert.equal(tableOf(decoder).length, Math.floor(maxTableSize / 32));
    }
  });
});

describe('a list over its limit', () => {
  const limited = (maxHeaderListSize: number) => new HpackDecoder({ maxHeaderListSize });

  test('is one octet longer than one that is not', () => {
    const block = hex('40 0161 0162 40 0163 0164');
    assert.deepEqual(limited(68).decode(block), {
      fields: [
        ['a', 'b'],
        ['c', 'd'],
      ],
      tooLong: false,
    });
    assert.deepEqual(limited(67).decode(block), { fields: [['a', 'b']], tooLong: true });
    assert.deepEqual(limited(0).decode(block), { fields: [], tooLong: true });
    assert.deepEqual(limited(0).decode(hex('')), { fields: [], tooLong: false });
  });

  test('leaves out the fields behind the first that was too long, though they would fit', () => {
    assert.deepEqual(limited(70).decode(hex('82 00 0161 03313233 82')), { fields: [[':method', 'GET']], tooLong: true });
  });

  test('leaves the table in step, and the next list unharmed', () => {
    const decoder = limited(70);
    assert.equal(decoder.decode(hex('82 40 0161 0162 40 0163 0164')).tooLong, true);
    assert.deepEqual(decoder.decode(hex('bf be')), {
      fields: [
        ['a', 'b'],
        ['c', 'd'],
      ],
      tooLong: false,
    });
  });

  test('is a decoding error all the same if there is one behind the limit', () => {
    assert.throws(() => limited(10).decode(hex('82 82 80')), HpackError);
    assert.equal(limited(10).decode(hex('82 82 82')).tooLong, true);
  });

  test('thousands of references to one large entry: as many are kept as the limit allows', () => {
    const decoder = limited(65_536);
    const large = encodeHeaders([['a', 'x'.repeat(4000)]]);
    large[0] = 0x40;
    const { fields, tooLong } = decoder.decode(Buffer.concat([large, Buffer.alloc(60_000, 0xbe)]));
    assert.equal(fields.length, Math.floor(65_536 / 4033));
    assert.equal(tooLong, true);
  });
});

test('a block that is a view into a larger Uint8Array is read between its bounds', () => {
  const bytes = Uint8Array.from([0x80, 0x40, 1, 0xe9, 1, 0x62, 0x80]);
  assert.deepEqual(newDecoder().decode(bytes.subarray(1, 6)).fields, [['\u00e9', 'b']]);
});

// Frames, as little of them as these tests need.

const HEADERS = 1;
const SETTINGS = 4;
const PING = 6;
const CONTINUATION = 9;
const END_HEADERS = 4;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** Header blocks as a client sends them. */
class BlockReader {
  readonly blocks: Buffer[] = [];
  #bytes = Buffer.alloc(0);
  #preface = true;
  #partial: Buffer[] = [];
  #wanted = 0;
  #reached: () => void = () => undefined;

  constructor(wire: Duplex) {
    wire.on('data', (chunk: Buffer) => this.#push(chunk));
  }

  async until(count: number): Promise<void> {
    if (this.blocks.length >= count) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wanted = count;
    this.#reached = resolve;
    await promise;
  }

  #push(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (this.#preface && this.#bytes.length >= 24) {
      this.#bytes = this.#bytes.subarray(24);
      this.#preface = false;
    }
    while (!this.#preface && this.#bytes.length >= 9) {
      const end = 9 + this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < end) break;
      this.#frame(this.#bytes[3] ?? 0, this.#bytes[4] ?? 0, this.#bytes.subarray(9, end));
      this.#bytes = this.#bytes.subarray(end);
    }
    if (this.blocks.length >= this.#wanted) this.#reached();
  }

  #frame(type: number, flags: number, payload: Buffer): void {
    if (type !== HEADERS && type !== CONTINUATION) return;
    const padding = type === HEADERS && (flags & 8) !== 0 ? 1 + (payload[0] ?? 0) : 0;
    const before = (padding > 0 ? 1 : 0) + (type === HEADERS && (flags & 0x20) !== 0 ? 5 : 0);
    this.#partial.push(payload.subarray(before, payload.length - Math.max(padding - 1, 0)));
    if ((flags & END_HEADERS) === 0) return;
    this.blocks.push(Buffer.concat(this.#partial));
    this.#partial = [];
  }
}

/** SETTINGS_HEADER_TABLE_SIZE, and streams enough. */
const settings = (tableSize: number): Buffer => {
  const payload = Buffer.alloc(12);
  payload.writeUInt16BE(1, 0);
  payload.writeUInt32BE(tableSize, 2);
  payload.writeUInt16BE(3, 6);
  payload.writeUInt32BE(10_000, 8);
  return Buffer.concat([frame(SETTINGS, 0, 0, payload), frame(SETTINGS, 1, 0, Buffer.alloc(0))]);
};

/** What nghttp2 makes of header lists on one connection: `early` ones before it knows the table size, `late` ones after. */
async function encodedByNghttp2(tableSize: number, early: readonly HeaderField[][], late: readonly HeaderField[][]): Promise<Buffer[]> {
  const [near, far] = duplexPair();
  const reader = new BlockReader(far);
  const client = connect('http://a.example', { createConnection: () => near, maxSendHeaderBlockLength: 1 << 20 });
  const send = (list: readonly HeaderField[]) => {
    const headers: OutgoingHttpHeaders = { [sensitiveHeaders]: ['x-secret'] };
    for (const [name, value] of list) {
      const known = headers[name];
      headers[name] = known === undefined ? value : [known, value].flat().map(String);
    }
    client.request(headers, { endStream: true }).on('error', () => undefined);
  };
  for (const list of early) send(list);
  await reader.until(early.length);
  const known = once(client, 'remoteSettings');
  far.write(settings(tableSize));
  await known;
  for (const list of late) send(list);
  await reader.until(early.length + late.length);
  client.destroy();
  far.destroy();
  return reader.blocks;
}

const NAMES = [
  'user-agent',
  'cookie',
  'accept',
  'authorization',
  'etag',
  'baggage',
  'traceparent',
  'forwarded',
  'x-secret',
  'x-a',
  'x-bb',
  'x-ccc',
];

/** A list as HTTP allows it: connects and requests, values that come again, any octet that a value may have. */
function headerList(next: (below: number) => number): HeaderField[] {
  const authority = `10.0.${next(3)}.${next(20)}:${8080 + next(2)}`;
  const list: HeaderField[] =
    next(2) === 0
      ? [
          [':method', 'CONNECT'],
          [':authority', authority],
        ]
      : [
          [':method', ['GET', 'POST', 'PUT'][next(3)] ?? ''],
          [':authority', authority],
          [':scheme', 'https'],
          [':path', `/${'p'.repeat(next(40))}`],
        ];
  const wanted = next(6);
  for (const name of NAMES) {
    if (next(NAMES.length) >= wanted) continue;
    for (let times = name === 'x-a' ? next(3) : 1; times > 0; times--) list.push([name, fieldValue(next)]);
  }
  return list;
}

function fieldValue(next: (below: number) => number): string {
  if (next(2) === 0) return `again ${next(8)}`;
  if (next(30) === 0) return 'long and in Huffman code '.repeat(next(200)).trim();
  const octet = (): number => [97 + next(26), 48 + next(10), 0x21 + next(94), 0x80 + next(128)][next(4)] ?? 0;
  const odd = String.fromCharCode(...Array.from({ length: next(24) }, octet));
  // Most of it in short codes, so that the Huffman code is the shorter one for the odd octets too.
  return next(2) === 0 ? odd : `e${'e'.repeat(12 * odd.length)}${odd}\t${odd}a`;
}

describe('nghttp2, through node:http2', () => {
  for (const tableSize of [0, 64, 256, 4096, 65_536]) {
    test(`what it sends with a table of ${tableSize} octets is read as it was meant, from before it knew of that size`, async () => {
      const next = random(tableSize + 1);
      const early = Array.from({ length: 20 }, () => headerList(next));
      const late = Array.from({ length: 300 }, () => headerList(next));
      const blocks = await encodedByNghttp2(tableSize, early, late);
      const decoder = newDecoder(tableSize);
      for (const [at, list] of [...early, ...late].entries()) {
        assert.deepEqual(decoder.decode(blocks[at] ?? assert.fail()), { fields: list, tooLong: false }, `list ${at}`);
      }
    });
  }

  test('a CONNECT that it sends again is two octets, and is read as the first was', async () => {
    const list: HeaderField[] = [
      [':method', 'CONNECT'],
      [':authority', '10.0.0.7:8080'],
    ];
    const blocks = await encodedByNghttp2(4096, [], [list, list]);
    assert.deepEqual(
      blocks.map((block) => block.length > 2),
      [true, false],
    );
    const decoder = newDecoder();
    for (const block of blocks) assert.deepEqual(decoder.decode(block), { fields: list, tooLong: false });
  });

  test('every octet that a value may have comes through its Huffman code', async () => {
    const octets = [9, ...Array.from({ length: 0x7f - 0x20 }, (_, at) => 0x20 + at), ...Array.from({ length: 0x80 }, (_, at) => 0x80 + at)];
    const list: HeaderField[] = [
      [':method', 'CONNECT'],
      [':authority', 'a:1'],
    ];
    const lists = octets.map((octet) => [...list, ['x-a', `${'e'.repeat(40)}${String.fromCharCode(octet)}e`] as const]);
    const blocks = await encodedByNghttp2(0, [], lists);
    const decoder = newDecoder(0);
    for (const [at, one] of lists.entries()) {
      const block = blocks[at] ?? assert.fail();
      assert.equal(block.includes('eeee'), false);
      assert.deepEqual(decoder.decode(block).fields, one);
    }
  });

  test('it reads what we send as it was meant', async () => {
    const next = random(99);
    const lists = Array.from({ length: 300 }, () => headerList(next));
    lists.push([
      [':method', 'GET'],
      [':scheme', 'http'],
      [':path', '/index.html'],
      ['host', 'a'],
      ['accept-encoding', 'gzip, deflate'],
      ['accept', ''],
    ]);
    lists.push([
      [':method', 'CONNECT'],
      [':authority', 'a:1'],
      ['x-long', 'x'.repeat(16_000)],
      [`x-${'n'.repeat(200)}`, '1'],
    ]);
    const [near, far] = duplexPair();
    const session = performServerHandshake(near, { settings: { maxConcurrentStreams: 10_000 } });
    const read: unknown[] = [];
    session.on('stream', (stream, _headers, _flags, raw: unknown) => {
      stream.on('error', () => undefined);
      read.push(raw);
    });
    // It answers a ping once it has read all before it.
    const { promise: answered, resolve, reject } = Promise.withResolvers<void>();
    session.on('error', reject);
    session.on('close', () => reject(new Error('closed')));
    far.on('data', (chunk: Buffer) => {
      if (chunk.includes('all read')) resolve();
    });
    far.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    far.write(frame(SETTINGS, 0, 0, Buffer.alloc(0)));
    for (const [at, list] of lists.entries()) {
      const block = encodeHeaders(list);
      far.write(frame(HEADERS, 1, 2 * at + 1, block.subarray(0, 16_000)));
      far.write(frame(CONTINUATION, END_HEADERS, 2 * at + 1, block.subarray(16_000)));
    }
    far.write(frame(PING, 0, 0, Buffer.from('all read')));
    await answered;
    session.destroy();
    far.destroy();
    assert.deepEqual(
      read,
      lists.map((list) => list.flat()),
    );
  });
});

describe('what we send', () => {
  test('is one octet for a field of the static table, and never enters a dynamic one', () => {
    assert.deepEqual(encodeHeaders([[':status', '200']]), hex('88'));
    assert.deepEqual(encodeHeaders([[':status', '503']]), hex('08 03353033'));
    assert.deepEqual(encodeHeaders([[':method', 'CONNECT']]), hex('02 07434f4e4e454354'));
    assert.deepEqual(encodeHeaders([['user-agent', 'a']]), hex('0f2b 0161'));
    assert.deepEqual(encodeHeaders([['x', '\u00ff']]), hex('00 0178 01ff'));
    assert.deepEqual(encodeHeaders([]), hex(''));
  });

  test('is read back at any length', () => {
    for (const length of [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 2_200_000]) {
      const list: HeaderField[] = [
        ['n'.repeat(length), 'v'.repeat(length)],
        ['cookie', 'c'.repeat(length)],
      ];
      const decoder = new HpackDecoder({ maxHeaderListSize: 10_000_000 });
      assert.deepEqual(decoder.decode(encodeHeaders(list)), { fields: list, tooLong: false });
      assert.deepEqual(tableOf(decoder), []);
    }
  });
});
