// A TCP connection to an upstream, with a deadline.

import { connect, type Socket } from 'node:net';

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
  /** Source address to bind; undefined lets the kernel choose. */
  readonly localAddress?: string;
  readonly signal?: AbortSignal;
}

export class DialTimeout extends Error {}

const KEEP_ALIVE_MS = 60_000;

/** Resolves with a connected, paused socket that keeps half-close. Rejects with the system's error, or DialTimeout. */
export function dial(options: DialOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { host, port, timeoutMs, localAddress, signal } = options;
    const socket = connect({
      host,
      port,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
      ...(localAddress === undefined ? {} : { localAddress }),
    });
    const finish = (error?: Error) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      socket.removeListener('error', finish);
      if (error === undefined) resolve(socket);
      else {
        socket.on('error', () => undefined);
        socket.destroy();
        reject(error);
      }
    };
    const onAbort = () => finish(new Error('given up'));
    const timer = setTimeout(() => finish(new DialTimeout(`no answer from ${host} port ${port} within ${timeoutMs} ms`)), timeoutMs);
    socket.once('error', finish);
    socket.once('connect', () => finish());
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener('abort', onAbort, { once: true });
  });
}
