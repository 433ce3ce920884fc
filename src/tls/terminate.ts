// The server's side of mTLS, always through a tls.Server: a TLSSocket made by hand does not enforce the client's chain.

import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { HandfastError } from '../errors.ts';
import type { Identity } from '../spiffe/identity.ts';
import { type VerifiedPeer, verifyPeer } from '../spiffe/verify-peer.ts';
import { chooseAlpn } from './alpn.ts';
import { contextOptions } from './context.ts';
import { handshakeError } from './handshake-error.ts';
import { leavingOpenSsl } from './leaving-openssl.ts';

/** A terminated connection, its peer already verified. */
export interface Terminated {
  readonly socket: TLSSocket;
  readonly peer: VerifiedPeer;
}

interface Pending {
  readonly identity: Identity;
  /** Known from the first key of the handshake on. */
  socket: TLSSocket | undefined;
  resolve(terminated: Terminated): void;
  reject(error: HandfastError): void;
}

export class Terminator {
  readonly #now: () => number;
  readonly #server: Server;
  readonly #handshakeTimeoutMs: number;
  readonly #pending = new Map<string, Pending>();
  #identity: Identity | undefined;

  constructor(options: { handshakeTimeoutMs: number; now: () => number }) {
    this.#now = options.now;
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs;
    this.#server = createServer({
      requestCert: true,
      rejectUnauthorized: true,
      // ours is the deadline that says why; this one only makes sure that nothing outlives it.
      handshakeTimeout: options.handshakeTimeoutMs + 1_000,
      allowHalfOpen: true,
      ALPNCallback: ({ protocols }) => chooseAlpn(protocols),
    });
    this.#server.on('secureConnection', (socket) => this.#secured(socket));
    this.#server.on('tlsClientError', (error, socket) => {
      const pending = this.#pending.get(keyOf(socket));
      if (pending !== undefined) leavingOpenSsl(() => pending.reject(handshakeError(error)));
    });
    // A client whose chain is refused is destroyed without an event; the reason stands on its TLSSocket alone, and this documented event
    // is the one that hands it over in time. The line itself is a secret and is not looked at.
    this.#server.on('keylog', (_secret, socket) => {
      const pending = this.#pending.get(keyOf(socket));
      if (pending === undefined || pending.socket !== undefined) return;
      pending.socket = socket;
      // A client that ends in mid-handshake: on a socket that keeps half-close nothing else would say so before the deadline.
      socket.once('end', () => leavingOpenSsl(() => pending.reject(closedDuringHandshake(socket))));
    });
  }

  /** From the next handshake on; handshakes under way and open connections keep theirs. */
  replace(identity: Identity): void {
    this.#server.setSecureContext(contextOptions(identity));
    this.#identity = identity;
  }

  /** Rejects with a coded error when the handshake, or our own verdict on the certificate, refuses the peer. */
  async terminate(raw: Socket): Promise<Terminated> {
    const identity = this.#identity;
    if (identity === undefined) throw new HandfastError('NO_IDENTITY', 'no certificate has arrived yet');
    const key = keyOf(raw);
    const { promise, resolve, reject } = Promise.withResolvers<Terminated>();
    const pending: Pending = { identity, socket: undefined, resolve, reject };
    const onClose = () => reject(closedDuringHandshake(pending.socket));
    const timer = setTimeout(
      () => reject(new HandfastError('HANDSHAKE_TIMEOUT', `no TLS handshake within ${this.#handshakeTimeoutMs} ms`)),
      this.#handshakeTimeoutMs,
    );
    raw.once('close', onClose);
    this.#pending.set(key, pending);
    this.#server.emit('connection', raw);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      raw.removeListener('close', onClose);
      // Its port may have been used again already.
      if (this.#pending.get(key) === pending) this.#pending.delete(key);
    }
  }

  #secured(socket: TLSSocket): void {
    // Attached before anything is awaited: a reset may come at once.
    socket.on('error', () => undefined);
    const pending = this.#pending.get(keyOf(socket));
    if (pending === undefined) {
      socket.destroy();
      return;
    }
    try {
      if (!socket.authorized)
        throw new HandfastError('CHAIN_UNTRUSTED', `the peer's certificate was not verified: ${socket.authorizationError}`);
      const peer = verifyPeer(socket.getPeerX509Certificate(), { bundle: pending.identity.bundle, now: this.#now() });
      leavingOpenSsl(() => pending.resolve({ socket, peer }));
    } catch (error) {
      leavingOpenSsl(() => pending.reject(handshakeError(error)));
    }
  }
}

function closedDuringHandshake(socket: TLSSocket | undefined): HandfastError {
  const verification = socket?.authorizationError;
  if (verification === undefined || verification === null)
    return new HandfastError('HANDSHAKE_FAILED', 'the peer closed the connection during the TLS handshake');
  const code = String(verification);
  return handshakeError(Object.assign(new Error(code), { code }));
}

/** The connection's four-tuple: the documented way to know a TLSSocket of the server by the socket it was made from. */
function keyOf(socket: Socket): string {
  return `${socket.remoteAddress}|${socket.remotePort}|${socket.localAddress}|${socket.localPort}`;
}
