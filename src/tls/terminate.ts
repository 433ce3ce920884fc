// The server's side of mTLS, always through a tls.Server: a TLSSocket made by hand does not enforce the client's chain.

import { Socket } from 'node:net';
import { createServer, type Server, TLSSocket } from 'node:tls';
import { HandfastError } from '../errors.ts';
import { isReset } from '../net/is-reset.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import { type VerifiedPeer, verifyPeer } from '../spiffe/verify-peer.ts';
import { contextOptions } from './context.ts';
import { handshakeError } from './handshake-error.ts';
import { leavingOpenSsl } from './leaving-openssl.ts';
import { nothingSent, readPeer, type SentChain } from './peer-chain.ts';

/** A terminated connection, its peer already verified. */
export interface Terminated<Peer = VerifiedPeer> {
  readonly socket: TLSSocket;
  readonly peer: Peer;
  /** What the peer was verified by. */
  readonly verifiedBy: TrustBundles;
}

interface Pending {
  readonly identity: Identity;
  /** Known from the first key of the handshake on. */
  socket: TLSSocket | undefined;
  /** What the peer sent, read before node:tls has judged it. */
  sent: SentChain;
  resolve(terminated: Terminated<VerifiedPeer | undefined>): void;
  reject(error: HandfastError): void;
}

export interface TerminatorOptions {
  readonly handshakeTimeoutMs: number;
  /** The protocol for what a client offers; undefined refuses the handshake with no_application_protocol. */
  readonly chooseAlpn: (offered: readonly string[]) => string | undefined;
  readonly revocations: () => RevocationList;
  /** Let clients in that send no certificate (`terminateAny`); one that is sent is judged as ever. */
  readonly anonymous?: boolean;
  readonly now: () => number;
}

export class Terminator {
  readonly #anonymous: boolean;
  readonly #revocations: () => RevocationList;
  readonly #now: () => number;
  readonly #server: Server;
  readonly #handshakeTimeoutMs: number;
  readonly #pending = new WeakMap<Socket, Pending>();
  /** The line itself is a secret and is not looked at. */
  readonly #onKeylog = (_secret: Buffer, socket: TLSSocket) => this.#known(socket);
  #identity: Identity | undefined;

  constructor(options: TerminatorOptions) {
    this.#anonymous = options.anonymous === true;
    this.#revocations = options.revocations;
    this.#now = options.now;
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs;
    const early = (socket: TLSSocket) => this.#known(socket);
    this.#server = createServer({
      requestCert: true,
      // Without it every client is let through to our own verdict, which is the same but for the missing certificate.
      rejectUnauthorized: options.anonymous !== true,
      // ours is the deadline that says why; this one only makes sure that nothing outlives it.
      handshakeTimeout: options.handshakeTimeoutMs + 1_000,
      allowHalfOpen: true,
      ALPNCallback(this: unknown, { protocols }: { protocols: readonly string[] }) {
        if (this instanceof TLSSocket) early(this);
        return options.chooseAlpn(protocols);
      },
    });
    this.#server.on('keylog', this.#onKeylog);
    this.#server.on('secureConnection', (socket) => this.#secured(socket));
    this.#server.on('tlsClientError', (error, socket) => {
      const pending = this.#pendingOf(socket);
      if (pending !== undefined) leavingOpenSsl(() => pending.reject(handshakeError(error)));
    });
  }
  /** From the next handshake on; handshakes under way and open connections keep theirs. */
  replace(identity: Identity): void {
    this.#server.setSecureContext(contextOptions(identity));
    this.#identity = identity;
  }

  /** Rejects with a coded error when the handshake, or our own verdict on the certificate, refuses the peer. */
  async terminate(raw: Socket, options: { offersAlpn?: boolean } = {}): Promise<Terminated> {
    const { socket, peer, verifiedBy } = await this.terminateAny(raw, options);
    if (peer !== undefined) return { socket, peer, verifiedBy };
    socket.destroy();
    throw new HandfastError('NO_CLIENT_CERTIFICATE', 'the peer presented no certificate');
  }

  /** The same, but `peer` is undefined for a client without a certificate, where those are let in. */
  async terminateAny(raw: Socket, options: { offersAlpn?: boolean } = {}): Promise<Terminated<VerifiedPeer | undefined>> {
    const identity = this.#identity;
    if (identity === undefined) throw new HandfastError('NO_IDENTITY', 'no certificate has arrived yet');
    // It will not say so again.
    if (raw.destroyed) throw new HandfastError('HANDSHAKE_FAILED', 'the peer closed the connection before the TLS handshake');
    const { promise, resolve, reject } = Promise.withResolvers<Terminated<VerifiedPeer | undefined>>();
    const pending: Pending = { identity, socket: undefined, sent: nothingSent, resolve, reject };
    const onClose = () => reject(this.#closedDuringHandshake(pending));
    const timer = setTimeout(
      () => reject(new HandfastError('HANDSHAKE_TIMEOUT', `no TLS handshake within ${this.#handshakeTimeoutMs} ms`)),
      this.#handshakeTimeoutMs,
    );
    raw.once('close', onClose);
    this.#pending.set(raw, pending);
    // Whether anybody wants its keys, node:tls asks when it makes the TLSSocket: five calls for each handshake, which one that offers an ALPN is known without.
    if (options.offersAlpn === true) this.#server.removeListener('keylog', this.#onKeylog);
    try {
      try {
        this.#server.emit('connection', raw);
      } finally {
        if (options.offersAlpn === true) this.#server.on('keylog', this.#onKeylog);
      }
      const terminated = await promise;
      // Node writes its session tickets as the handshake ends, and forgets that it could not: nothing that is written later would ever leave, nor fail.
      if (isReset(raw)) {
        terminated.socket.destroy();
        throw new HandfastError('HANDSHAKE_FAILED', 'the peer reset the connection as the TLS handshake ended');
      }
      return terminated;
    } finally {
      clearTimeout(timer);
      raw.removeListener('close', onClose);
      this.#pending.delete(raw);
      // Its socket keeps `pending` for as long as it lives.
      pending.sent = nothingSent;
    }
  }

  /**
   * A client whose chain is refused is destroyed without an event: the reason stands on its TLSSocket alone, and nothing is handed that before it is judged but the callback for the
   * ALPN and the event with its keys.
   */
  #known(socket: TLSSocket): void {
    const pending = this.#pendingOf(socket);
    if (pending === undefined || pending.socket !== undefined) return;
    pending.socket = socket;
    socket.prependOnceListener('secure', () => {
      pending.sent = readPeer(socket);
    });
    // A client that ends in mid-handshake: on a socket that keeps half-close nothing else would say so before the deadline.
    socket.once('end', () => leavingOpenSsl(() => pending.reject(this.#closedDuringHandshake(pending))));
  }

  #pendingOf(socket: TLSSocket): Pending | undefined {
    const raw = beneath(socket);
    return raw === undefined ? undefined : this.#pending.get(raw);
  }

  #secured(socket: TLSSocket): void {
    // Attached before anything is awaited: a reset may come at once.
    socket.on('error', () => undefined);
    const pending = this.#pendingOf(socket);
    if (pending === undefined) {
      socket.destroy();
      return;
    }
    // Without ALPN and keys it is known only now, and nobody has read its certificate before.
    if (pending.socket === undefined) pending.sent = readPeer(socket);
    const { sent } = pending;
    const verifiedBy = pending.identity.bundles;
    if (sent.leaf === undefined && this.#anonymous) {
      leavingOpenSsl(() => pending.resolve({ socket, peer: undefined, verifiedBy }));
      return;
    }
    try {
      if (!socket.authorized)
        throw new HandfastError('CHAIN_UNTRUSTED', `the peer's certificate was not verified: ${socket.authorizationError}`);
      const peer = verifyPeer(sent, { bundles: verifiedBy, revocations: this.#revocations(), now: this.#now() });
      leavingOpenSsl(() => pending.resolve({ socket, peer, verifiedBy }));
    } catch (error) {
      leavingOpenSsl(() => pending.reject(handshakeError(error)));
    }
  }

  #closedDuringHandshake({ socket, sent }: Pending): HandfastError {
    const verification = socket?.authorizationError;
    if (verification === undefined || verification === null)
      return new HandfastError('HANDSHAKE_FAILED', 'the peer closed the connection during the TLS handshake');
    const code = String(verification);
    return handshakeError(Object.assign(new Error(code), { code }), { leaf: sent.leaf, now: this.#now() });
  }
}

/** The socket that a TLSSocket was made from. Node keeps it on an undocumented property, and this is the one place that reads it; without it nobody is let in. */
function beneath(socket: TLSSocket): Socket | undefined {
  const raw: unknown = Reflect.get(socket, '_parent');
  return raw instanceof Socket ? raw : undefined;
}
