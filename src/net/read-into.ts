// Reading without an allocation for each read. Node has that for sockets it dials itself (`onread` of net.connect); this is the one place that gives it to sockets
// which were accepted, and to TLS: by the symbols and the handle's method that `onread` is made of. Where a Node version has them no more, `data` events do the same, slower.

import type { Socket } from 'node:net';
import { handleOf } from './descriptor.ts';

export interface IntoReader {
  /** Where the next bytes go. Asked before the first read, and after each. */
  buffer(): Buffer;
  /** Bytes at the beginning of that buffer: to be used, or copied, before this returns. */
  onBytes(bytes: Buffer): void;
}

/** A socket that is read in this way. */
export interface Reading {
  /** Reads on. What `resume` does, without a stream that flows. */
  start(): void;
  stop(): void;
}

interface Symbols {
  readonly buffer: symbol;
  readonly callback: symbol;
  readonly next: symbol;
}

let known: Symbols | undefined;

function symbolsOf(socket: Socket): Symbols | undefined {
  if (known !== undefined) return known;
  const own = Object.getOwnPropertySymbols(socket);
  const find = (name: string) => own.find(({ description }) => description === name);
  const [buffer, callback, next] = [find('kBuffer'), find('kBufferCb'), find('kBufferGen')];
  if (buffer === undefined || callback === undefined || next === undefined) return undefined;
  known = { buffer, callback, next };
  return known;
}

/** Who reads a socket now. Undefined: it is a stream like any other. */
class SocketReading implements Reading {
  reader: IntoReader | undefined;
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  start(): void {
    this.#socket._read(0);
  }

  stop(): void {
    this.#socket.pause();
  }

  /** False: Node reads no further until the stream asks. */
  take(bytes: Buffer): boolean {
    if (this.reader === undefined) return this.#socket.push(Buffer.from(bytes));
    this.reader.onBytes(bytes);
    // Pausing is done by `stop`.
    return true;
  }
}

const readings = new WeakMap<Socket, SocketReading>();
/** For bytes that are the stream's: they are copied. */
const SCRATCH = Buffer.allocUnsafeSlow(64 * 1024);

/**
 * From now on what comes is given to the reader, beginning with what the stream holds already, and no longer to one that was there before. The socket has no `data` events any more; `end`, `close` and
 * all that is written are as ever. It does not read before it is started.
 */
export function readInto(socket: Socket, reader: IntoReader): Reading {
  socket.pause();
  if (socket.readableLength > 0)
    for (let bytes: Buffer | null = socket.read(); bytes !== null; bytes = socket.read()) reader.onBytes(bytes);
  let reading = readings.get(socket);
  if (reading === undefined) {
    const symbols = symbolsOf(socket);
    const handle = handleOf(socket);
    const useUserBuffer: unknown = handle === undefined ? undefined : Reflect.get(handle, 'useUserBuffer');
    if (symbols === undefined || typeof useUserBuffer !== 'function') return readData(socket, reader);
    reading = new SocketReading(socket);
    readings.set(socket, reading);
    takeOver(socket, { reading, symbols, first: reader.buffer() });
    Reflect.apply(useUserBuffer, handle, [Reflect.get(socket, symbols.buffer)]);
  }
  reading.reader = reader;
  return reading;
}

/** The socket is a stream again, whatever it was before. */
export function readAsStream(socket: Socket): void {
  const reading = readings.get(socket);
  if (reading !== undefined) reading.reader = undefined;
  else dataListeners.get(socket)?.();
}

function takeOver(socket: Socket, { reading, symbols, first }: { reading: SocketReading; symbols: Symbols; first: Buffer }): void {
  Reflect.set(socket, symbols.buffer, first);
  Reflect.set(socket, symbols.next, () => reading.reader?.buffer() ?? SCRATCH);
  Reflect.set(socket, symbols.callback, (length: number, into: Buffer) =>
    reading.take(length === into.length ? into : into.subarray(0, length)),
  );
}

const dataListeners = new WeakMap<Socket, () => void>();

/** The same by events. */
function readData(socket: Socket, reader: IntoReader): Reading {
  dataListeners.get(socket)?.();
  const onData = (bytes: Buffer) => reader.onBytes(bytes);
  socket.on('data', onData);
  dataListeners.set(socket, () => socket.removeListener('data', onData));
  return { start: () => void socket.resume(), stop: () => void socket.pause() };
}
