// The first bytes of a connection: is it TLS, and which ALPN does its ClientHello offer (RFC 8446, 4.1.2; RFC 7301)?

/** 'more': a ClientHello that is not whole yet. `alpn` is empty when the extension is absent. */
export type FirstBytes =
  | { readonly kind: 'more' }
  | { readonly kind: 'plaintext' }
  | { readonly kind: 'tls'; readonly alpn: readonly string[] };

const MORE: FirstBytes = Object.freeze({ kind: 'more' });
const PLAINTEXT: FirstBytes = Object.freeze({ kind: 'plaintext' });

const RECORD_HEADER = 5;
const HANDSHAKE_RECORD = 0x16;
const CLIENT_HELLO = 0x01;
const EXTENSION_ALPN = 16;
const MAX_RECORD = 16_384;

/** Reads what is there. Bytes that begin like TLS but are no well-formed ClientHello count as plaintext: they are nobody's handshake. */
export function readFirstBytes(bytes: Buffer): FirstBytes {
  return new FirstBytesReader().push(bytes);
}

/**
 * The same, as bytes come: each is looked at once, however finely a peer cuts them. A ClientHello may be spread over several records
 * (post-quantum key shares make that common); what comes behind it, a change_cipher_spec or early data, is not looked at.
 */
export class FirstBytesReader {
  readonly #header = Buffer.alloc(RECORD_HEADER);
  #headerLength = 0;
  /** Bytes of the current record still to come. */
  #inRecord = 0;
  #message = Buffer.alloc(2048);
  #messageLength = 0;

  /** 'more' until the answer is known; not to be called again after another answer. */
  push(chunk: Buffer): FirstBytes {
    for (let offset = 0; offset < chunk.length; ) {
      const wanted = this.#inRecord === 0 ? RECORD_HEADER - this.#headerLength : this.#inRecord;
      const part = chunk.subarray(offset, offset + wanted);
      offset += part.length;
      const read = this.#inRecord === 0 ? this.#pushHeader(part) : this.#pushBody(part);
      if (read.kind !== 'more') return read;
    }
    return MORE;
  }

  #pushHeader(part: Buffer): FirstBytes {
    part.copy(this.#header, this.#headerLength);
    this.#headerLength += part.length;
    if (this.#header[0] !== HANDSHAKE_RECORD || (this.#headerLength > 1 && this.#header[1] !== 0x03)) return PLAINTEXT;
    if (this.#headerLength < RECORD_HEADER) return MORE;
    const length = this.#header.readUInt16BE(3);
    if (length === 0 || length > MAX_RECORD) return PLAINTEXT;
    this.#inRecord = length;
    this.#headerLength = 0;
    return MORE;
  }

  #pushBody(part: Buffer): FirstBytes {
    this.#inRecord -= part.length;
    while (this.#message.length < this.#messageLength + part.length) this.#message = Buffer.concat([this.#message, this.#message]);
    part.copy(this.#message, this.#messageLength);
    this.#messageLength += part.length;
    if (this.#message[0] !== CLIENT_HELLO) return PLAINTEXT;
    const end = this.#messageLength >= 4 ? 4 + this.#message.readUIntBE(1, 3) : Number.POSITIVE_INFINITY;
    if (this.#messageLength < end) return MORE;
    try {
      return { kind: 'tls', alpn: alpnOf(new Reader(this.#message.subarray(4, end))) };
    } catch {
      return PLAINTEXT;
    }
  }
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
