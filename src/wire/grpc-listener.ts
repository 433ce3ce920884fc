// Listeners for gRPC servers that know their callers: a unix socket by its peer's credentials, TCP by mutual TLS.

import { createServer, type Server as NetServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { HandfastError } from '../errors.ts';
import { type PeerCredentials, peerCredentials } from '../net/peer-credentials.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { Admission, type AdmissionOptions } from './admission.ts';
import type { Caller } from './caller.ts';
import { MAX_CONNECTIONS } from './connection-counts.ts';
import { affordableConnections } from './descriptor-limit.ts';
import { type HandshakeLimits, PendingHandshakes } from './pending-handshakes.ts';
import { BACKLOG, holdPath } from './socket-path.ts';

export interface GrpcListener {
  /** 0 for a unix socket. */
  readonly port: number;
  /** Stops accepting. Connections that are open go on until the gRPC server is stopped, which is up to its owner. */
  close(): Promise<void>;
  /** Ends the open connections of these callers at once. How many. */
  cut(which: (caller: Caller) => boolean): number;
}

export interface UnixOptions extends AdmissionOptions {
  readonly path: string;
  readonly mode: number;
  /** Replace the socket of a process that still serves it; false refuses with CONFIG_INVALID. */
  readonly takeOver: boolean;
  /** Default: what the kernel says. */
  readonly credentials?: (socket: Socket) => PeerCredentials;
}

/** Rejects with CONFIG_INVALID, or with UNAVAILABLE when the system refuses. */
export async function listenUnix(options: UnixOptions): Promise<GrpcListener> {
  // The connection's own, and its peer's pidfd.
  const admission = new Admission(affordable(options, { descriptorsEach: 2 }));
  const credentials = options.credentials ?? peerCredentials;
  let accepted = 0;
  const listener = createServer((socket) => {
    accepted++;
    socket.on('error', () => undefined);
    try {
      admission.admit(socket, { kind: 'unix', peer: credentials(socket) });
    } catch (error) {
      admission.refuse(socket, { error, from: options.path });
    }
  });
  const held = await holdPath(listener, options);
  reportAcceptErrors(listener, admission);
  return {
    port: 0,
    cut: (which) => admission.cut(which),
    close: async () => {
      held.release();
      // Whoever connected before the path was gone is in the queue, from which one is accepted in each turn of the event loop.
      for (let turns = 0, before = -1; before !== accepted && turns < BACKLOG; turns++) {
        before = accepted;
        await turn();
        await turn();
      }
      listener.close();
      await turn();
    },
  };
}

/** What `Terminator` of src/tls does. It must choose the ALPN protocol h2. A peer is undefined only where clients need no certificate. */
export interface PeerTerminator {
  terminate(raw: Socket): Promise<{ socket: TLSSocket; peer: VerifiedPeer | undefined }>;
}

export interface TlsOptions extends AdmissionOptions, HandshakeLimits {
  readonly host: string;
  /** 0 takes any free one. */
  readonly port: number;
  readonly terminator: PeerTerminator;
}

/** Rejects with UNAVAILABLE when the system refuses. */
export async function listenTls(options: TlsOptions): Promise<GrpcListener> {
  const admission = new Admission(affordable(options, { descriptorsEach: 1 }));
  const { terminator } = options;
  const handshaking = new PendingHandshakes(options);
  let closed = false;
  const accept = async (raw: Socket): Promise<void> => {
    raw.on('error', () => undefined);
    const from = `${raw.remoteAddress}:${raw.remotePort}`;
    // Before the handshake, which is the expensive part.
    const full = admission.full();
    if (full !== undefined) return admission.refuseForLimit(raw, { from, reason: full });
    const evicted = handshaking.begin(raw);
    if (evicted === 'refused') return admission.refuseForLimit(raw, { from, reason: 'too many handshakes are under way' });
    if (evicted !== undefined)
      admission.refuseForLimit(evicted, {
        from: `${evicted.remoteAddress}:${evicted.remotePort}`,
        reason: 'too many handshakes are under way',
      });
    try {
      const { socket, peer } = await terminator.terminate(raw);
      if (socket.alpnProtocol !== 'h2') throw new HandfastError('ALPN_MISMATCH', `${peer?.id.uri ?? from} did not agree on h2`);
      if (closed) throw new HandfastError('DRAINING', 'the listener was closed during the handshake');
      const address = raw.remoteAddress ?? 'unknown';
      admission.admit(socket, peer === undefined ? { kind: 'anonymous', address } : { kind: 'tls', peer });
    } catch (error) {
      admission.refuse(raw, { error, from });
    } finally {
      handshaking.end(raw);
    }
  };
  const listener = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (raw) => void accept(raw));
  await bind(listener, options);
  reportAcceptErrors(listener, admission);
  const address = listener.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : options.port,
    cut: (which) => admission.cut(which),
    close: async () => {
      closed = true;
      listener.close();
      for (const raw of handshaking.all) raw.destroy();
      await turn();
    },
  };
}

/** For want of file descriptors mostly: the listener goes on. */
function reportAcceptErrors(listener: NetServer, admission: Admission): void {
  listener.on('error', (error) => admission.report({ error: new Error(`accept: ${error.message}`), from: 'unknown' }));
}

/** With no more connections than there are descriptors for. */
function affordable<Options extends AdmissionOptions>(options: Options, of: { descriptorsEach: number }): Options {
  return { ...options, maxConnections: Math.min(options.maxConnections ?? MAX_CONNECTIONS, affordableConnections(of)) };
}

function bind(listener: NetServer, { host, port }: TlsOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once('error', (cause) =>
      reject(new HandfastError('UNAVAILABLE', `cannot listen on ${host}:${port}: ${cause.message}`, { cause })),
    );
    listener.listen({ host, port, backlog: BACKLOG }, () => {
      listener.removeAllListeners('error');
      resolve();
    });
  });
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
