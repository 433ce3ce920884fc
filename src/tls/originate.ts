// The client's side of mTLS: our SVID out, the server's identity held against the names its destination may have.

import type { Socket } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { HandfastError } from '../errors.ts';
import { decideSecureNaming } from '../policy/secure-naming.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { type VerifiedPeer, verifyPeer } from '../spiffe/verify-peer.ts';
import { MESH_ALPN } from './alpn.ts';
import { clientHandshake } from './client-handshake.ts';
import { clientContext } from './context.ts';
import { handshakeError } from './handshake-error.ts';
import { nothingSent, readPeer } from './peer-chain.ts';

export interface OriginateOptions {
  readonly identity: Identity;
  readonly revocations: RevocationList;
  /** SPIFFE IDs the server may prove; an empty list allows nobody. */
  readonly allowed: readonly string[];
  /** Where to, in words: `httpbin.bar:8000 at 10.0.0.7:8000`. */
  readonly destination: string;
  /** SNI as Istio writes it; undefined sends none. */
  readonly serverName: string | undefined;
  /** The one protocol to offer and to get. Default: Istio's for a connection of its own. */
  readonly alpn?: string;
  readonly handshakeTimeoutMs: number;
  readonly now: () => number;
}

export interface Originated {
  readonly socket: TLSSocket;
  readonly peer: VerifiedPeer;
}

/** Takes a connected socket; on any refusal it is destroyed before a byte of the application's has left. */
export function originate(raw: Socket, options: OriginateOptions): Promise<Originated> {
  const { identity, allowed, destination, serverName, alpn = MESH_ALPN } = options;
  let peer: VerifiedPeer | undefined;
  let sent = nothingSent;
  const socket = connect({
    socket: raw,
    secureContext: clientContext(identity),
    ALPNProtocols: [alpn],
    rejectUnauthorized: true,
    // Only set where there is one: node:tls would fall back to the socket's host otherwise.
    ...(serverName === undefined ? {} : { servername: serverName }),
    // Called after OpenSSL has built the chain to our bundle, before anything else: names are ours to judge, not DNS's.
    checkServerIdentity: () => {
      try {
        peer = verifyPeer(sent, { bundles: identity.bundles, revocations: options.revocations, now: options.now() });
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
    sent = readPeer(socket);
  });
  return clientHandshake(socket, raw, {
    ...options,
    verified: () => {
      if (peer === undefined) return undefined;
      // The socket keeps this for as long as it lives.
      sent = nothingSent;
      return { socket, peer };
    },
    failure: (error) => handshakeError(error, { leaf: sent.leaf, now: options.now() }),
  });
}
