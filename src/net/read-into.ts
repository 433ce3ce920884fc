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

/**
 * From now on what comes is given to the reader, beginning with what the stream holds already. The socket has no `data` events any more; `pause`, `resume`, `end` and all else are as ever.
 * It is to be resumed by the caller.
 */
export function readInto(socket: Socket, reader: IntoReader): void {
  socket.pause();
  for (let bytes: Buffer | null = socket.read(); bytes !== null; bytes = socket.read()) reader.onBytes(bytes);
  const symbols = symbolsOf(socket);
  const handle = handleOf(socket);
  const useUserBuffer: unknown = handle === undefined ? undefined : Reflect.get(handle, 'useUserBuffer');
  if (symbols === undefined || typeof useUserBuffer !== 'function') {
    socket.on('data', (bytes: Buffer) => reader.onBytes(bytes));
    return;
  }
  const first = reader.buffer();
  Reflect.set(socket, symbols.buffer, first);
  Reflect.set(socket, symbols.next, () => reader.buffer());
  Reflect.set(socket, symbols.callback, (length: number, into: Buffer) => {
    reader.onBytes(length === into.length ? into : into.subarray(0, length));
    // Anything but false: pausing is done by `pause`.
    return true;
  });
  Reflect.apply(useUserBuffer, handle, [first]);
}
