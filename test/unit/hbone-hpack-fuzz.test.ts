// HPACK with anything in its blocks: each is fields within the limits or an HpackError, and the same of the two that nghttp2 makes of it.

import assert from 'node:assert/strict';
import { performServerHandshake } from 'node:http2';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { type HeaderField, HpackDecoder, HpackError } from '../../src/hbone/hpack-decoder.ts';
import { encodeHeaders } from '../../src/hbone/hpack-encoder.ts';
import { STATIC_TABLE } from '../../src/hbone/hpack-static-table.ts';

type Next = (below: number) => number;

function random(seed: number): Next {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const sizeOf = (fields: readonly HeaderField[]): number => fields.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);

const seeds: readonly Buffer[] = [
  ...[
    '3fe11f8286844 18cf1e3c2e5f23a6ba0ab90f4ff 4088 25a849e95ba97d7f 8925a849e95bb8e8b4bf be bf',
    '4882640258 85aec3771a4b 6196d07abe941054d444a8200595040b8166e082a62d1bff 6e919d29ad171863c78f0b97c8e9ae82ae43d3',
    '20 3fe101 88c1 400161016240016301 64c0bfbe',
    '400a637573746f6d2d6b65790d637573746f6d2d686561646572 040c2f73616d706c652f70617468 100870617373776f726406736563726574 82',
    '0f2b 7f818001 0f0f 847fffffff',
  ].map((text) => Buffer.from(text.replaceAll(' ', ''), 'hex')),
  encodeHeaders([
    [':method', 'CONNECT'],
    [':authority', '10.0.0.7:8080'],
    ['baggage', 'x'.repeat(300)],
  ]),
];

/** Octets at which something turns. */
const TURNS = [0, 1, 0x0f, 0x10, 0x1f, 0x20, 0x3f, 0x40, 0x7e, 0x7f, 0x80, 0xbd, 0xbe, 0xbf, 0xff];

function block(next: Next): Buffer {
  if (next(4) === 0) return Buffer.from(Array.from({ length: next(60) }, () => next(256)));
  const parts = Array.from({ length: 1 + next(3) }, () => seeds[next(seeds.length)] ?? assert.fail());
  let bytes = Buffer.concat(parts);
  for (let times = next(5); times > 0; times--) {
    const at = next(bytes.length);
    const octet = next(2) === 0 ? next(256) : (TURNS[next(TURNS.length)] ?? 0);
    const kind = next(4);
    if (kind === 0) bytes[at] = octet;
    if (kind === 1) bytes[at] = (bytes[at] ?? 0) ^ (1 << next(8));
    if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, at), Buffer.of(octet), bytes.subarray(at)]);
    if (kind === 3) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + next(3))]);
    if (bytes.length === 0) return bytes;
  }
  return bytes;
}

const outcome = (decoder: HpackDecoder, bytes: Buffer): ReturnType<HpackDecoder['decode']> | undefined => {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    assert.ok(error instanceof HpackError, `${bytes.toString('hex')}: ${error instanceof Error ? error.stack : error}`);
    return undefined;
  }
};

/** What the dynamic table holds, newest first. */
function tableOf(decoder: HpackDecoder): HeaderField[] {
  const entries: HeaderField[] = [];
  for (let index = 62; ; index++) {
    const reference = index < 127 ? Buffer.of(0x80 | index) : Buffer.of(0xff, (index - 127) & 0x7f);
    const read = outcome(decoder, reference);
    if (read === undefined) return entries;
    entries.push(...read.fields);
  }
}

test('20,000 blocks that something was done to: fields within the limit or an HpackError, and a table within its size', () => {
  const next = random(7);
  let refused = 0;
  let tooLong = 0;
  let decoder = new HpackDecoder({ maxHeaderListSize: 8192 });
  let limit = 8192;
  for (let round = 0; round < 20_000; round++) {
    if (round % 20 === 0) {
      assert.ok(sizeOf(tableOf(decoder)) <= 4096);
      limit = [100, 1000, 8192][next(3)] ?? 0;
      decoder = new HpackDecoder({ maxHeaderListSize: limit, maxTableSize: [0, 100, 4096][next(3)] ?? 0 });
    }
    const read = outcome(decoder, block(next));
    if (read === undefined) refused++;
    else if (read.tooLong) tooLong++;
    if (read !== undefined) assert.ok(sizeOf(read.fields) <= limit);
  }
  assert.ok(refused > 4000 && refused < 18_000, `${refused} refused`);
  assert.ok(tooLong > 100, `${tooLong} too long`);
});

test('the dynamic table is that of a plain list, whatever is added to it and however it is resized', () => {
  const next = random(11);
  for (let series = 0; series < 60; series++) {
    const decoder = new HpackDecoder({ maxHeaderListSize: 1 << 20 });
    const table: HeaderField[] = [];
    let maxSize = 4096;
    for (let round = 0; round < 60; round++) {
      const parts: Buffer[] = [];
      const expected: HeaderField[] = [];
      if (next(8) === 0) {
        maxSize = [0, 31, 64, 300, 1000, 4096][next(6)] ?? 0;
        const update = encodeInteger(0x20, 0x1f, maxSize);
        parts.push(update);
        while (sizeOf(table) > maxSize) table.pop();
      }
      for (let fields = next(10); fields > 0; fields--) {
        if (table.length > 0 && next(2) === 0) {
          const at = next(table.length);
          parts.push(encodeInteger(0x80, 0x7f, 1 + STATIC_TABLE.length + at));
          expected.push(table[at] ?? assert.fail());
          continue;
        }
        const at = next(3) > 0 ? -1 : next(STATIC_TABLE.length + table.length);
        const name = at < 0 ? 'n'.repeat(next(20)) : ([...STATIC_TABLE, ...table][at] ?? assert.fail())[0];
        const value = 'v'.repeat(next(next(10) === 0 ? 5000 : 40));
        parts.push(encodeInteger(0x40, 0x3f, at + 1));
        for (const text of at < 0 ? [name, value] : [value]) parts.push(encodeInteger(0, 0x7f, text.length), Buffer.from(text));
        expected.push([name, value]);
        table.unshift([name, value]);
        while (sizeOf(table) > maxSize) table.pop();
      }
      assert.deepEqual(decoder.decode(Buffer.concat(parts)), { fields: expected, tooLong: false });
    }
    assert.deepEqual(tableOf(decoder), table);
  }
});

function encodeInteger(flags: number, prefix: number, value: number): Buffer {
  if (value < prefix) return Buffer.of(flags | value);
  const octets = [flags | prefix];
  let rest = value - prefix;
  for (; rest >= 128; rest >>= 7) octets.push(0x80 | (rest & 0x7f));
  return Buffer.from([...octets, rest]);
}

/** Whether nghttp2 ends the connection with COMPRESSION_ERROR over the first block on it. */
async function refusedByNghttp2(bytes: Buffer): Promise<boolean> {
  const frame = (type: number, flags: number, stream: number, payload: Buffer) =>
    Buffer.concat([Buffer.of(0, payload.length >> 8, payload.length & 0xff, type, flags, 0, 0, 0, stream), payload]);
  const [near, far] = duplexPair();
  const session = performServerHandshake(near);
  session.on('error', () => undefined);
  session.on('stream', (stream) => stream.on('error', () => undefined));
  let sent = Buffer.alloc(0);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  far.on('data', (chunk: Buffer) => {
    sent = Buffer.concat([sent, chunk]);
    for (let at = 0; at + 9 <= sent.length; at += 9 + sent.readUIntBE(at, 3)) {
      const type = sent[at + 3];
      if (type === 7 && at + 17 <= sent.length) resolve(sent.readUInt32BE(at + 13) === 9);
      if (type === 6) resolve(false);
    }
  });
  far.on('end', () => resolve(false));
  const hello = [Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(4, 0, 0, Buffer.alloc(0))];
  far.write(Buffer.concat([...hello, frame(1, 5, 1, bytes), frame(6, 0, 0, Buffer.alloc(8))]));
  const refused = await promise;
  session.destroy();
  far.destroy();
  return refused;
}

test('500 blocks that something was done to are errors to nghttp2 where they are to us, and nowhere else', async () => {
  const next = random(23);
  let refused = 0;
  for (let round = 0; round < 500; round++) {
    const bytes = block(next);
    const ours = outcome(new HpackDecoder({ maxHeaderListSize: 1 << 20 }), bytes) === undefined;
    if (ours) refused++;
    assert.equal(await refusedByNghttp2(bytes), ours, `${round}: ${bytes.toString('hex')}`);
  }
  assert.ok(refused > 100 && refused < 450, `${refused} refused`);
});
