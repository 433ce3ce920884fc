// First bytes: real ClientHellos of node:tls, whole, in pieces, spread over records, and everything that only begins like one.

import assert from 'node:assert/strict';
import { Duplex } from 'node:stream';
import { before, describe, test } from 'node:test';
import { type ConnectionOptions, connect } from 'node:tls';
import { readFirstBytes } from '../../src/net/client-hello.ts';

/** The first flight of a client that goes no further. */
async function clientHello(options: ConnectionOptions): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const wire = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      resolve(chunk);
      done();
    },
  });
  const socket = connect({ socket: wire, ...options });
  socket.on('error', () => undefined);
  const bytes = await promise;
  socket.destroy();
  wire.destroy();
  return bytes;
}

/** The same handshake bytes over records of the given payload sizes, the last one taking what is left. */
function refragment(hello: Buffer, ...sizes: number[]): Buffer {
  const header = hello.subarray(0, 3);
  let payload = hello.subarray(5);
  const records: Buffer[] = [];
  const push = (part: Buffer) => records.push(header, Buffer.of(part.length >> 8, part.length & 0xff), part);
  for (const size of sizes) {
    push(payload.subarray(0, size));
    payload = payload.subarray(size);
  }
  if (payload.length > 0) push(payload);
  return Buffer.concat(records);
}

/** What is read after each further byte; all but the last must be 'more'. */
function byteByByte(bytes: Buffer): ReturnType<typeof readFirstBytes> {
  for (let length = 0; length < bytes.length; length++) {
    assert.deepEqual(readFirstBytes(bytes.subarray(0, length)), { kind: 'more' }, `after ${length} of ${bytes.length} bytes`);
  }
  return readFirstBytes(bytes);
}

const offers: Readonly<Record<string, readonly [options: ConnectionOptions, alpn: string[]]>> = {
  'no ALPN': [{}, []],
  'the mesh ALPN': [{ ALPNProtocols: ['istio'] }, ['istio']],
  'several ALPNs in order': [
    { ALPNProtocols: ['istio-peer-exchange', 'istio', 'h2', 'http/1.1'] },
    ['istio-peer-exchange', 'istio', 'h2', 'http/1.1'],
  ],
  'an ALPN of 255 characters': [{ ALPNProtocols: ['x'.repeat(255)] }, ['x'.repeat(255)]],
  'a server name': [{ servername: 'outbound_.80_._.httpbin.bar.svc.cluster.local', ALPNProtocols: ['istio'] }, ['istio']],
  'TLS 1.2 alone': [{ maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] }, ['h2']],
  'TLS 1.3 alone': [{ minVersion: 'TLSv1.3', ALPNProtocols: ['h2'] }, ['h2']],
  'classical groups alone, a small hello': [{ ecdhCurve: 'X25519', ALPNProtocols: ['istio'] }, ['istio']],
};
const hellos = new Map<string, Buffer>();
before(async () => {
  for (const [name, [options]] of Object.entries(offers)) hellos.set(name, await clientHello(options));
});
const hello = (name: string): Buffer => hellos.get(name) ?? assert.fail(name);

describe('a ClientHello of node:tls', () => {
  for (const [name, [, alpn]] of Object.entries(offers)) {
    test(`with ${name}: 'more' until it is whole, then its ALPN`, () => assert.deepEqual(byteByByte(hello(name)), { kind: 'tls', alpn }));

    test(`with ${name}, spread over records: the same`, () => {
      for (const sizes of [[1], [3], [4], [10, 10, 10], [200], [1, 1, 1, 1, 1, 1]]) {
        assert.deepEqual(byteByByte(refragment(hello(name), ...sizes)), { kind: 'tls', alpn }, String(sizes));
      }
    });
  }

  test('is larger than a segment by default, because of its post-quantum key share', () => {
    assert.ok(hello('no ALPN').length > 1400, String(hello('no ALPN').length));
    assert.ok(hello('classical groups alone, a small hello').length < 700);
  });

  test('means the same whatever bytes come after it in the same read: early data does not unmake it', () => {
    const whole = hello('the mesh ALPN');
    const after: Readonly<Record<string, Buffer>> = {
      'another handshake record': whole,
      'change_cipher_spec and early data (RFC 8446, 4.2.10)': Buffer.from('140303000101170303000401020304', 'hex'),
      'half a record header': Buffer.from('1703', 'hex'),
      garbage: Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    };
    for (const [name, tail] of Object.entries(after)) {
      assert.deepEqual(readFirstBytes(Buffer.concat([whole, tail])), { kind: 'tls', alpn: ['istio'] }, name);
    }
  });
});

describe('plaintext', () => {
  const texts: Readonly<Record<string, Buffer>> = {
    HTTP: Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n'),
    'HTTP/2 with prior knowledge': Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    'one byte': Buffer.from('G'),
    'a NUL': Buffer.of(0),
    'SSLv2 hello': Buffer.from('802e0100020015000000100100', 'hex'),
    'a TLS alert': Buffer.from('15030300020100', 'hex'),
    'TLS application data': Buffer.from('170303000401020304', 'hex'),
    'an SSH banner': Buffer.from('SSH-2.0-OpenSSH\r\n'),
    '0x16 and not a TLS version': Buffer.from('1602', 'hex'),
    'a handshake record that is no ClientHello': Buffer.from('160303000402000000', 'hex'),
    'a HelloRequest': Buffer.from('160303000400000000', 'hex'),
    'an empty record': Buffer.from('1603010000', 'hex'),
    'a record longer than any may be': Buffer.from('1603014001', 'hex'),
    'a record of 65,535 bytes': Buffer.from('160301ffff', 'hex'),
  };
  for (const [name, bytes] of Object.entries(texts)) {
    test(`${name} is told as soon as it shows`, () => assert.deepEqual(readFirstBytes(bytes), { kind: 'plaintext' }));
  }

  test('nothing yet is nothing yet', () => assert.deepEqual(readFirstBytes(Buffer.alloc(0)), { kind: 'more' }));

  test('a second record that is no handshake, before the hello is whole', () => {
    const broken = refragment(hello('no ALPN'), 100);
    broken[5 + 100] = 0x17;
    assert.deepEqual(readFirstBytes(broken), { kind: 'plaintext' });
  });
});

describe('a malformed ClientHello', () => {
  const record = (handshake: Buffer) => Buffer.concat([Buffer.of(0x16, 3, 1, handshake.length >> 8, handshake.length & 0xff), handshake]);
  const handshake = (body: Buffer) => record(Buffer.concat([Buffer.of(1, 0, body.length >> 8, body.length & 0xff), body]));
  const random = Buffer.alloc(34, 3);
  /** version, random, session id, one cipher suite, null compression, then what is given. */
  const body = (...rest: Buffer[]) => Buffer.concat([random, Buffer.of(0), Buffer.of(0, 2, 0x13, 1), Buffer.of(1, 0), ...rest]);
  const extension = (type: number, data: Buffer) =>
    Buffer.concat([Buffer.of(type >> 8, type & 0xff, data.length >> 8, data.length & 0xff), data]);
  const extensions = (...all: Buffer[]) => {
    const joined = Buffer.concat(all);
    return Buffer.concat([Buffer.of(joined.length >> 8, joined.length & 0xff), joined]);
  };
  const tls = (...alpn: string[]) => ({ kind: 'tls', alpn });
  const plaintext = { kind: 'plaintext' };

  const cases: Readonly<Record<string, readonly [bytes: Buffer, expected: object]>> = {
    'the well-formed twin': [handshake(body(extensions(extension(16, Buffer.from('0003026832', 'hex'))))), tls('h2')],
    'no extensions at all (RFC 5246 allows that)': [handshake(body()), tls()],
    'an empty list of extensions': [handshake(body(extensions())), tls()],
    'other extensions alone': [handshake(body(extensions(extension(0, Buffer.alloc(4)), extension(43, Buffer.alloc(3))))), tls()],
    'an empty list of protocols': [handshake(body(extensions(extension(16, Buffer.of(0, 0))))), tls()],
    'an ALPN list longer than its extension': [handshake(body(extensions(extension(16, Buffer.from('00ff026832', 'hex'))))), plaintext],
    'an ALPN name longer than its list': [handshake(body(extensions(extension(16, Buffer.from('0003ff6832', 'hex'))))), plaintext],
    'an ALPN extension without a length': [handshake(body(extensions(extension(16, Buffer.alloc(0))))), plaintext],
    'an extension longer than the list': [handshake(body(Buffer.from('0008001000ff00030268', 'hex'))), plaintext],
    'extensions longer than the hello': [handshake(body(Buffer.of(0xff, 0xff))), plaintext],
    'half a length of extensions': [handshake(body(Buffer.of(0))), plaintext],
    'a session id longer than the hello': [handshake(Buffer.concat([random, Buffer.of(255)])), plaintext],
    'cipher suites longer than the hello': [handshake(Buffer.concat([random, Buffer.of(0, 0xff, 0xff)])), plaintext],
    'nothing but a length': [handshake(Buffer.alloc(0)), plaintext],
    'a length of 16 MiB: wait, somebody else bounds that': [record(Buffer.of(1, 0xff, 0xff, 0xff)), { kind: 'more' }],
  };
  for (const [name, [bytes, expected]] of Object.entries(cases)) test(name, () => assert.deepEqual(readFirstBytes(bytes), expected));

  test('mutated at random never throws, and is never told to be more than it is', () => {
    const next = lcg(15_006);
    const kinds = new Set<string>();
    const names = [...hellos.keys()];
    for (let round = 0; round < 8000; round++) {
      const source = Buffer.from(hello(names[next() % names.length] ?? ''));
      for (let i = 0; i <= next() % 6; i++) source[next() % source.length] = next() % 256;
      const bytes = source.subarray(0, next() % 3 === 0 ? next() % source.length : source.length);
      // The bytes that follow in the same memory are poison: what they say must not be seen.
      const alone = Buffer.from(bytes);
      const read = readFirstBytes(bytes);
      assert.deepEqual(read, readFirstBytes(alone));
      if (read.kind === 'tls') assert.ok(read.alpn.join('').length <= bytes.length);
      kinds.add(read.kind);
    }
    assert.deepEqual([...kinds].sort(), ['more', 'plaintext', 'tls']);
  });

  test('once it is told to be plaintext or TLS, a longer look at the same bytes never says "more"', () => {
    const next = lcg(42);
    for (let round = 0; round < 300; round++) {
      const bytes = refragment(hello('classical groups alone, a small hello'), 1 + (next() % 50), 1 + (next() % 50));
      for (let i = 0; i <= next() % 4; i++) bytes[next() % Math.min(80, bytes.length)] = next() % 256;
      let told = false;
      for (let length = 0; length <= bytes.length; length += 1 + (next() % 7)) {
        const { kind } = readFirstBytes(bytes.subarray(0, length));
        assert.ok(!(told && kind === 'more'), `round ${round}, ${length} bytes`);
        told ||= kind !== 'more';
      }
    }
  });

  test('a hello of which every byte is a record of its own is read whole', () => {
    const ones = refragment(hello('no ALPN'), ...Array.from({ length: hello('no ALPN').length - 6 }, () => 1));
    assert.deepEqual(readFirstBytes(ones), { kind: 'tls', alpn: [] });
    assert.deepEqual(readFirstBytes(ones.subarray(0, -1)), { kind: 'more' });
  });

  // segment. Collect the parts and join them once (client-hello.ts firstHandshakeMessage).
  test('a buffer of one-byte records is copied about once, not once for every record', (context) => {
    const bytes = Buffer.concat(Array.from({ length: 5000 }, (_, index) => Buffer.of(0x16, 3, 1, 0, 1, [1, 0, 255, 255][index] ?? 0)));
    const concat = context.mock.method(Buffer, 'concat');
    assert.deepEqual(readFirstBytes(bytes), { kind: 'more' });
    const copied = concat.mock.calls.reduce((sum, { result }) => sum + (result?.length ?? 0), 0);
    assert.ok(copied <= 2 * bytes.length, `${copied} bytes copied of ${bytes.length}`);
  });
});

/** Numbers that are the same in every run (Numerical Recipes' constants). */
function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 8;
  };
}
