// The first bytes of a connection: is it TLS, and which ALPN does its ClientHello offer (RFC 8446, 4.1.2; RFC 7301)?

/** 'more': a ClientHello that is not whole yet. `alpn` is empty when the extension is absent. */
export type FirstBytes =
  | { readonly kind: 'more' }
  | { readonly kind: 'plaintext' }
  | { readonly kind: 'tls'; readonly alpn: readonly string[] };

const RECORD_HEADER = 5;
const HANDSHAKE_RECORD = 0x16;
const CLIENT_HELLO = 0x01;
const EXTENSION_ALPN = 16;
const MAX_RECORD = 16_384;

/** Reads what is there. Bytes that begin like TLS but are no well-formed ClientHello count as plaintext: they are nobody's handshake. */
export function readFirstBytes(bytes: Buffer): FirstBytes {
  const [type, major] = bytes;
  if (type !== undefined && type !== HANDSHAKE_RECORD) return { kind: 'plaintext' };
  if (major !== undefined && major !== 0x03) return { kind: 'plaintext' };
  const handshake = firstHandshakeMessage(bytes);
  if (handshake === 'malformed') return { kind: 'plaintext' };
  if (handshake === 'more') return { kind: 'more' };
  try {
    return { kind: 'tls', alpn: alpnOf(new Reader(handshake)) };
  } catch {
    return { kind: 'plaintext' };
  }
}

/**
 * The body of the ClientHello, which may be spread over several records (post-quantum key shares make that common). What comes behind it,
 * a change_cipher_spec or early data, is not looked at.
 */
function firstHandshakeMessage(bytes: Buffer): Buffer | 'more' | 'malformed' {
  let message: Buffer = Buffer.alloc(0);
  for (let offset = 0; offset + RECORD_HEADER <= bytes.length; ) {
    const length = bytes.readUInt16BE(offset + 3);
    if (bytes[offset] !== HANDSHAKE_RECORD || bytes[offset + 1] !== 0x03 || length === 0 || length > MAX_RECORD) return 'malformed';
    const part = bytes.subarray(offset + RECORD_HEADER, offset + RECORD_HEADER + length);
    message = message.length === 0 ? part : Buffer.concat([message, part]);
    if (message.length >= 1 && message[0] !== CLIENT_HELLO) return 'malformed';
    const end = message.length >= 4 ? 4 + message.readUIntBE(1, 3) : Number.POSITIVE_INFINITY;
    if (message.length >= end) return message.subarray(4, end);
    offset += RECORD_HEADER + length;
  }
  return 'more';
}

class Reader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#offset >= this.#bytes.length;
  }

  uint(size: 1 | 2): number {
    return this.take(size).readUIntBE(0, size);
  }

  take(length: number): Buffer {
    const end = this.#offset + length;
    if (end > this.#bytes.length) throw new RangeError('truncated');
    const part = this.#bytes.subarray(this.#offset, end);
    this.#offset = end;
    return part;
  }

  /** A vector with a length prefix. */
  vector(prefix: 1 | 2): Buffer {
    return this.take(this.uint(prefix));
  }
}

function alpnOf(hello: Reader): string[] {
  hello.take(2 + 32);
  hello.vector(1);
  hello.vector(2);
  hello.vector(1);
  if (hello.done) return [];
  const extensions = new Reader(hello.vector(2));
  while (!extensions.done) {
    const type = extensions.uint(2);
    const body = extensions.vector(2);
    if (type !== EXTENSION_ALPN) continue;
    const names = new Reader(new Reader(body).vector(2));
    const protocols: string[] = [];
    while (!names.done) protocols.push(names.vector(1).toString('latin1'));
    return protocols;
  }
  return [];
}
