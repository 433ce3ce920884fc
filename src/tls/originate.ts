// The client's side of mTLS: our SVID out, the server's identity held against the names its destination may have.

import type { Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { HandfastError } from '../errors.ts';
import { decideSecureNaming } from '../policy/secure-naming.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { type VerifiedPeer, verifyPeer } from '../spiffe/verify-peer.ts';
import { MESH_ALPN } from './alpn.ts';
import { clientContext } from './context.ts';
import { handshakeError } from './handshake-error.ts';
import { leavingOpenSsl } from './leaving-openssl.ts';
import { readPeer, type SentChain } from './peer-chain.ts';

export interface OriginateOptions {
  readonly identity: Identity;
  readonly revocations: RevocationList;
  /** SPIFFE IDs the server may prove; an empty list allows nobody. */
  readonly allowed: readonly string[];
  /** Where to, in words: `httpbin.bar:8000 at 10.0.0.7:8000`. */
  readonly destination: string;
  /** SNI as Istio writes it; undefined sends none. */
  readonly serverName: string | undefined;
  readonly handshakeTimeoutMs: number;
  readonly now: () => number;
}

export interface Originated {
  readonly socket: TLSSocket;
  readonly peer: VerifiedPeer;
}

/** Takes a connected socket; on any refusal it is destroyed before a byte of the application's has left. */
export function originate(raw: Socket, options: OriginateOptions): Promise<Originated> {
  return new Promise((resolve, reject) => {
    const { identity, allowed, destination, serverName } = options;
    let peer: VerifiedPeer | undefined;
    let sent: SentChain = { leaf: undefined, intermediates: [] };
    const socket = connect({
      socket: raw,
      secureContext: clientContext(identity),
      ALPNProtocols: [MESH_ALPN],
      rejectUnauthorized: true,
      // Only set where there is one: node:tls would fall back to the socket's host otherwise.
      ...(serverName === undefined ? {} : { servername: serverName }),
      // Called after OpenSSL has built the chain to our bundle, before anything else: names are ours to judge, not DNS's.
      checkServerIdentity: () => {
        try {
          peer = verifyPeer(
            { leaf: sent.leaf, intermediates: () => sent.intermediates },
            { bundles: identity.bundles, revocations: options.revocations, now: options.now() },
          );
          const verdict = decideSecureNaming(allowed, peer.id, destination);
          if (!verdict.allowed) throw new HandfastError(verdict.code, verdict.reason);
          return undefined;
        } catch (error) {
          return handshakeError(error);
        }
      },
    });
    // Before node:tls judges it: of a certificate it refuses, nothing can be read afterwards.
    socket.prependOnceListener('secure', () => {
      sent = readPeer(socket, identity.bundles.all.length > 1);
    });
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
        reject(handshakeError(error, { leaf: sent.leaf, now: options.now() }));
      });
    const timer = setTimeout(
      () => fail(new HandfastError('HANDSHAKE_TIMEOUT', `${destination}: no TLS handshake within ${options.handshakeTimeoutMs} ms`)),
      options.handshakeTimeoutMs,
    );
    // Stays on: what comes after the handshake is the splice's to judge, and an error in between must not be without a listener.
    socket.on('error', fail);
    socket.once('close', () =>
      fail(new HandfastError('HANDSHAKE_FAILED', `${destination} closed the connection during the TLS handshake`)),
    );
    socket.once('secureConnect', () => {
      const verified = peer;
      if (verified === undefined || !socket.authorized)
        fail(new HandfastError('CHAIN_UNTRUSTED', `${destination}: the server's certificate was not verified`));
      else settle(() => resolve({ socket, peer: verified }));
    });
  });
}
