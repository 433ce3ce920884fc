// A connection's first bytes, looked at where they are, or else read and put back: enough to tell mesh TLS, other TLS and plaintext apart.

import type { Socket } from 'node:net';
import { FirstBytesReader, readFirstBytes } from './client-hello.ts';
import { peek } from './peek.ts';

/** 'silent': nothing came in time. 'closed': the peer ended or reset before saying enough. */
export type Sniffed =
  | { readonly kind: 'plaintext' }
  | { readonly kind: 'tls'; readonly alpn: readonly string[] }
  | { readonly kind: 'silent' }
  | { readonly kind: 'incomplete' }
  | { readonly kind: 'too-long' }
  | { readonly kind: 'closed' };

export interface SniffOptions {
  /** How long to wait for the first byte. */
  readonly silenceMs: number;
  /** How long a ClientHello that has begun may take to become whole. */
  readonly completeMs: number;
  readonly maxBytes: number;
  /** Ends the wait for the first byte early: 'silent'. */
  readonly signal?: AbortSignal;
}

/** Leaves the socket paused with every byte unread. Never rejects. */
export async function sniff(socket: Socket, options: SniffOptions): Promise<Sniffed> {
  // Mostly they are there already, or a turn of the event loop later: then nothing is read, and node:tls reads from the kernel itself.
  const seen = look(socket) ?? (await new Promise<Sniffed | undefined>((resolve) => setImmediate(() => resolve(look(socket)))));
  return seen ?? read(socket, options);
}

function look(socket: Socket): Sniffed | undefined {
  const bytes = socket.destroyed ? undefined : peek(socket);
  if (bytes === undefined) return undefined;
  const first = readFirstBytes(bytes);
  return first.kind === 'more' ? undefined : first;
}

function read(socket: Socket, options: SniffOptions): Promise<Sniffed> {
  return new Promise((resolve) => {
    const reader = new FirstBytesReader();
    const chunks: Buffer[] = [];
    let bytes = 0;
    const finish = (sniffed: Sniffed) => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
      socket.removeListener('data', onData);
      socket.removeListener('end', onEnd);
      socket.removeListener('close', onEnd);
      socket.removeListener('error', onEnd);
      socket.pause();
      if (bytes > 0 && !socket.destroyed && sniffed.kind !== 'closed') socket.unshift(Buffer.concat(chunks));
      resolve(sniffed);
    };
    const onData = (chunk: Buffer) => {
      const first = bytes === 0;
      chunks.push(chunk);
      bytes += chunk.length;
      const read = reader.push(chunk);
      if (read.kind !== 'more') finish(read);
      else if (bytes > options.maxBytes) finish({ kind: 'too-long' });
      else if (first) {
        clearTimeout(timer);
        timer = setTimeout(() => finish({ kind: 'incomplete' }), options.completeMs);
      }
    };
    // Who half-closes without a word may still listen to a server that speaks first; half a ClientHello leaves nobody to talk TLS with.
    const onEnd = () => finish(socket.readableEnded && !socket.destroyed && bytes === 0 ? { kind: 'plaintext' } : { kind: 'closed' });
    const onAbort = () => {
      if (bytes === 0) finish({ kind: 'silent' });
    };
    let timer = setTimeout(() => finish({ kind: 'silent' }), options.silenceMs);
    options.signal?.addEventListener('abort', onAbort, { once: true });
    socket.on('data', onData);
    socket.once('end', onEnd);
    socket.once('close', onEnd);
    socket.once('error', onEnd);
    if (options.signal?.aborted === true) onAbort();
    else socket.resume();
  });
}
