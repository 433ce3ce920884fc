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
    if (!this.#socket.destroyed) this.#socket._read(0);
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

/** On the socket itself: a WeakMap of thousands that come and go is work for the garbage collector. */
const READING = Symbol('reading');
const STOP_LISTENING = Symbol('stop listening');

type Read = Socket & { [READING]?: SocketReading; [STOP_LISTENING]?: () => void };

/** For bytes that are the stream's: they are copied. */
const SCRATCH = Buffer.allocUnsafeSlow(64 * 1024);

/**
 * From now on what comes is given to the reader, beginning with what the stream holds already, and no longer to one that was there before. The socket has no `data` events any more; `end`, `close` and
 * all that is written are as ever. It is not read before it is started. The first bytes of a second reader still stand in the buffer of the first.
 */
export function readInto(socket: Read, reader: IntoReader): Reading {
  let reading: Reading | undefined = socket[READING];
  if (socket[READING] !== undefined) socket[READING].reader = reader;
  else reading = takeOver(socket, reader);
  socket.pause();
  if (socket.readableLength > 0) {
    for (let bytes: Buffer | null = socket.read(); bytes !== null; bytes = socket.read()) reader.onBytes(bytes);
    // Taking from a stream makes it ask for more.
    socket.pause();
  }
  return reading ?? readData(socket, reader);
}

/** The socket is a stream again, whatever it was before. */
export function readAsStream(socket: Read): void {
  const reading = socket[READING];
  if (reading !== undefined) reading.reader = undefined;
  else socket[STOP_LISTENING]?.();
}

/** Undefined where Node does not have what it takes. */
function takeOver(socket: Read, reader: IntoReader): Reading | undefined {
  const symbols = symbolsOf(socket);
  const handle = handleOf(socket);
  const useUserBuffer: unknown = handle === undefined ? undefined : Reflect.get(handle, 'useUserBuffer');
  if (symbols === undefined || typeof useUserBuffer !== 'function') return undefined;
  const reading = new SocketReading(socket);
  reading.reader = reader;
  socket[READING] = reading;
  const first = reader.buffer();
  Reflect.set(socket, symbols.buffer, first);
  Reflect.set(socket, symbols.next, () => reading.reader?.buffer() ?? SCRATCH);
  Reflect.set(socket, symbols.callback, (length: number, into: Buffer) =>
    reading.take(length === into.length ? into : into.subarray(0, length)),
  );
  Reflect.apply(useUserBuffer, handle, [first]);
  return reading;
}

/** The same by events. */
function readData(socket: Read, reader: IntoReader): Reading {
  socket[STOP_LISTENING]?.();
  const onData = (bytes: Buffer) => reader.onBytes(bytes);
  socket.on('data', onData);
  socket[STOP_LISTENING] = () => socket.removeListener('data', onData);
  return { start: () => void socket.resume(), stop: () => void socket.pause() };
}
