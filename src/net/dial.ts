// A TCP connection to an upstream, with a deadline.

import { connect, type Socket } from 'node:net';
import { bindSource } from './bound-socket.ts';

export interface DialOptions {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
  /** Source address to bind; undefined lets the kernel choose. */
  readonly localAddress?: string;
  /** Default: as long as nothing is said, the kernel asks now and then whether the other host is still there. */
  readonly keepAlive?: boolean;
  /** Nothing is read before somebody asks for it: whoever waits for `data` events must resume it. Default: reading begins at once. */
  readonly paused?: boolean;
  /** Hears of the socket before it is connected: whoever destroys it ends the dial. */
  readonly onSocket?: (socket: Socket) => void;
}

export class DialTimeout extends Error {}

const KEEP_ALIVE_MS = 60_000;

/** Resolves with a connected, paused socket that keeps half-close. Rejects with the system's error, or DialTimeout. */
export function dial(options: DialOptions): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const { host, port, timeoutMs, localAddress, keepAlive = true } = options;
    const to = { host, port, allowHalfOpen: true, noDelay: true, keepAlive, keepAliveInitialDelay: KEEP_ALIVE_MS };
    let socket = connect(to);
    // The socket connects in the next tick: until then it can be given its source.
    if (localAddress !== undefined && !bindSource(socket, localAddress)) {
      socket.destroy();
      socket = connect({ ...to, localAddress });
    }
    if (options.paused === true) socket.pause();
    const finish = (error?: Error) => {
      clearTimeout(timer);
      socket.removeListener('error', finish);
      socket.removeListener('close', onClose);
      if (error === undefined) resolve(socket);
      else {
        socket.on('error', () => undefined);
        socket.destroy();
        reject(error);
      }
    };
    const onClose = () => finish(new Error('given up'));
    const timer = setTimeout(() => finish(new DialTimeout(`no answer from ${host} port ${port} within ${timeoutMs} ms`)), timeoutMs);
    socket.once('error', finish);
    socket.once('close', onClose);
    socket.once('connect', () => finish());
    options.onSocket?.(socket);
  });
}
