// A client's handshake to its end: one verdict, within its time, reached outside OpenSSL's callbacks; and nothing left open where it fails.

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { HandfastError } from '../errors.ts';
import { leavingOpenSsl } from './leaving-openssl.ts';

export interface ClientHandshake<T> {
  /** Where to, in words. */
  readonly destination: string;
  readonly handshakeTimeoutMs: number;
  /** What the caller gets once the handshake is done; undefined where the server was not verified. */
  verified(): T | undefined;
  /** An error of node:tls or of ours, coded. */
  failure(error: unknown): HandfastError;
}

/** Rejects with what `failure` says, HANDSHAKE_TIMEOUT, HANDSHAKE_FAILED or CHAIN_UNTRUSTED; both sockets are destroyed then. `raw` is the one beneath. */
export function clientHandshake<T>(socket: TLSSocket, raw: Socket, options: ClientHandshake<T>): Promise<T> {
  const { destination, handshakeTimeoutMs } = options;
  return new Promise((resolve, reject) => {
    let settled = false;
    const settle = (act: () => void) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      leavingOpenSsl(act);
    };
    const fail = (error: unknown) =>
      settle(() => {
        socket.destroy();
        raw.destroy();
        reject(options.failure(error));
      });
    const timer = setTimeout(
      () => fail(new HandfastError('HANDSHAKE_TIMEOUT', `${destination}: no TLS handshake within ${handshakeTimeoutMs} ms`)),
      handshakeTimeoutMs,
    );
    // Stays on: what comes after the handshake is the splice's to judge, and an error in between must not be without a listener.
    socket.on('error', fail);
    socket.once('close', () =>
      fail(new HandfastError('HANDSHAKE_FAILED', `${destination} closed the connection during the TLS handshake`)),
    );
    socket.once('secureConnect', () => {
      const verified = socket.authorized ? options.verified() : undefined;
      if (verified === undefined) fail(new HandfastError('CHAIN_UNTRUSTED', `${destination}: the server's certificate was not verified`));
      else settle(() => resolve(verified));
    });
  });
}
