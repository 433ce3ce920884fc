// HTTP/2 by hand: frames as bytes, and a peer that says whatever it is told to, right or wrong (RFC 9113, RFC 7541).

import type { Socket } from 'node:net';
import { HpackDecoder } from '../../src/hbone/hpack-decoder.ts';

export const Type = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;
export const END_STREAM = 0x1;
export const ACK = 0x1;
export const END_HEADERS = 0x4;
export const PADDED = 0x8;
export const PRIORITY = 0x20;

/** Error codes of RFC 9113, section 7. */
export const Code = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  FLOW_CONTROL_ERROR: 3,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  ENHANCE_YOUR_CALM: 11,
} as const;

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** A frame as it came. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, streamId: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(streamId >>> 0, 5);
  return Buffer.concat([head, payload]);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export const settings = (...values: readonly (readonly [id: number, value: number])[]): Buffer =>
  frame(Type.SETTINGS, 0, 0, Buffer.concat(values.map(([id, value]) => Buffer.concat([Buffer.of(id >> 8, id & 0xff), uint32(value)]))));
export const windowUpdate = (streamId: number, by: number): Buffer => frame(Type.WINDOW_UPDATE, 0, streamId, uint32(by));
export const reset = (streamId: number, code: number = Code.CANCEL): Buffer => frame(Type.RST_STREAM, 0, streamId, uint32(code));
export const data = (streamId: number, bytes: string | Uint8Array, flags = 0): Buffer =>
  frame(Type.DATA, flags, streamId, typeof bytes === 'string' ? Buffer.from(bytes) : bytes);
export const ping = (flags = 0, payload: Uint8Array = Buffer.from('opaque!!')): Buffer => frame(Type.PING, flags, 0, payload);
export const goaway = (lastStreamId: number, code: number = Code.NO_ERROR): Buffer =>
  frame(Type.GOAWAY, 0, 0, Buffer.concat([uint32(lastStreamId), uint32(code)]));

type Fields = readonly (readonly [name: string, value: string])[];

/** Literals without indexing or Huffman: the plainest HPACK there is. Strings shorter than 127 bytes. */
export function block(fields: Fields): Buffer {
  const text = (of: string) => Buffer.concat([Buffer.of(of.length), Buffer.from(of, 'latin1')]);
  return Buffer.concat(fields.map(([name, value]) => Buffer.concat([Buffer.of(0), text(name), text(value)])));
}

export const headers = (streamId: number, fields: Fields, flags = 0): Buffer =>
  frame(Type.HEADERS, flags | END_HEADERS, streamId, block(fields));
export const connectFields = (authority: string): Fields => [
  [':method', 'CONNECT'],
  [':authority', authority],
];
export const connectTo = (streamId: number, authority = '127.0.0.1:80', flags = 0): Buffer =>
  headers(streamId, connectFields(authority), flags);

export const errorCodeOf = ({ type, payload }: Frame): number => payload.readUInt32BE(type === Type.GOAWAY ? 4 : 0);

/** One end of a connection, every frame of the other end kept until it is asked for. */
export class RawPeer {
  readonly socket: Socket;
  /** What has come and was not asked for. */
  readonly unread: Frame[] = [];
  /** The other end has closed, in whatever way. */
  over = false;
  readonly #decoder = new HpackDecoder({ maxHeaderListSize: 65_536 });
  readonly #waiting = new Set<() => void>();
  readonly #acknowledge: boolean;
  #bytes = Buffer.alloc(0);
  #skip: number;

  /** A server skips its client's preface. `acknowledge` says whether SETTINGS and PING are answered. */
  constructor(socket: Socket, { skip = 0, acknowledge = true } = {}) {
    this.socket = socket;
    this.#skip = skip;
    this.#acknowledge = acknowledge;
    socket.on('data', (bytes: Buffer) => this.#read(bytes));
    socket.on('error', () => undefined);
    for (const event of ['end', 'close']) socket.on(event, () => this.#end());
  }

  send(...bytes: readonly Uint8Array[]): void {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(bytes));
  }

  /** The next that matches, taken out. Rejects when the connection is over, or after 10 s. */
  next(matches: (frame: Frame) => boolean, what = 'frame'): Promise<Frame> {
    return this.#until(() => {
      const index = this.unread.findIndex(matches);
      if (index >= 0) return this.unread.splice(index, 1)[0];
      if (this.over) throw new Error(`the session ended before its ${what}`);
      return undefined;
    });
  }

  ofType(type: number, streamId?: number): Promise<Frame> {
    return this.next((frame) => frame.type === type && (streamId === undefined || frame.streamId === streamId), `frame of type ${type}`);
  }

  /** The error code of the RST_STREAM. */
  async resetOf(streamId: number): Promise<number> {
    return errorCodeOf(await this.ofType(Type.RST_STREAM, streamId));
  }

  /** The error code of the GOAWAY, once the connection has ended behind it. */
  async goneWith(): Promise<number> {
    const last = await this.ofType(Type.GOAWAY);
    await this.ended();
    return errorCodeOf(last);
  }

  ended(): Promise<true> {
    return this.#until(() => (this.over ? true : undefined));
  }

  async status(streamId: number): Promise<string | undefined> {
    const { payload } = await this.ofType(Type.HEADERS, streamId);
    return this.#decoder.decode(payload).fields.find(([name]) => name === ':status')?.[1];
  }

  /** So many bytes of a stream's DATA. */
  async bytes(streamId: number, length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let had = 0; had < length; ) {
      const { payload } = await this.ofType(Type.DATA, streamId);
      parts.push(payload);
      had += payload.length;
    }
    return Buffer.concat(parts);
  }

  /** Resolves when the other end has read all that was said so far. */
  async heard(): Promise<void> {
    const token = Buffer.from('hear me!');
    this.send(ping(0, token));
    await this.next(({ type, flags, payload }) => type === Type.PING && flags === ACK && payload.equals(token), 'PING ACK');
  }

  #read(bytes: Buffer): void {
    const skipped = Math.min(this.#skip, bytes.length);
    this.#skip -= skipped;
    this.#bytes = Buffer.concat([this.#bytes, bytes.subarray(skipped)]);
    while (this.#bytes.length >= 9) {
      const length = this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < 9 + length) break;
      const [type = 0, flags = 0] = this.#bytes.subarray(3, 5);
      const streamId = this.#bytes.readUInt32BE(5);
      const payload = Buffer.from(this.#bytes.subarray(9, 9 + length));
      this.#bytes = this.#bytes.subarray(9 + length);
      if (this.#acknowledge && type === Type.SETTINGS && (flags & ACK) === 0) this.send(frame(Type.SETTINGS, ACK, 0));
      if (this.#acknowledge && type === Type.PING && (flags & ACK) === 0) this.send(ping(ACK, payload));
      this.unread.push({ type, flags, streamId, payload });
    }
    this.#look();
  }

  #end(): void {
    this.over = true;
    this.#look();
  }

  #look(): void {
    for (const look of [...this.#waiting]) look();
  }

  #until<T>(check: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        finish();
      };
      const timer = setTimeout(() => settle(() => reject(new Error('the peer did not say within 10 s what was waited for'))), 10_000);
      const look = () => {
        try {
          const found = check();
          if (found !== undefined) settle(() => resolve(found));
        } catch (error) {
          settle(() => reject(error));
        }
      };
      this.#waiting.add(look);
      look();
    });
  }
}
