// Port 15008: terminates mTLS, keeps the sessions of authenticated peers, and hands every CONNECT on with whoever asks.

import type { Socket } from 'node:net';
import { HandfastError } from '../errors.ts';
import { KeyedLimits } from '../rate-limit.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import type { Terminated, Terminator } from '../tls/terminate.ts';
import type { ReceiveBudget } from './receive-budget.ts';
import { type Incoming, ServerSession } from './server-session.ts';

/** A CONNECT, and who it comes from. */
export interface TunnelRequest extends Incoming {
  readonly peer: VerifiedPeer;
  /** The bundles its certificate was verified by. */
  readonly verifiedBy: TrustBundles;
  /** The peer's address on the wire. */
  readonly remote: { readonly address: string; readonly port: number };
}

export interface TunnelServerOptions {
  readonly terminator: Terminator;
  readonly budget: ReceiveBudget;
  readonly onConnect: (request: TunnelRequest) => void;
  /** Throws for a peer that is not to be trusted any more: what its handshake began with may have been replaced meanwhile. */
  readonly admit?: (peer: VerifiedPeer, verifiedBy: TrustBundles) => void;
  readonly silenceMs?: number;
}

interface Live {
  readonly session: ServerSession;
  readonly peer: VerifiedPeer;
  /** Infinity while it has streams. */
  idleSince: number;
}

/** What one peer may have open at a time on one session. One that needs more opens another. */
const MAX_STREAMS = 1_000;
/** Sessions of one peer; those that drain count again as many. */
const MAX_SESSIONS = 64;
/** Streams of one peer on all its sessions, and of all peers: each is a connection to the application, with its descriptor and its buffers. */
const MAX_STREAMS_OF_PEER = 16_000;
const MAX_STREAMS_OF_ALL = 32_000;
/** Resets, pings and the like. 10,000 short connections a minute are below it even if every one of them ends in a reset. */
const EFFORT = { burst: 1_000, perSecond: 200 };
const SILENCE_MS = 15_000;
/** The dialling side closes what it does not use any more; this is for one that does not. */
const MAX_IDLE_MS = 15 * 60_000;

export class TunnelServer {
  readonly #options: TunnelServerOptions;
  readonly #live = new Set<Live>();
  readonly #byPeer = new Map<string, Set<Live>>();
  /** By peer, so that a new session does not begin anew. */
  readonly #effort = new KeyedLimits(EFFORT);
  readonly #sweep: NodeJS.Timeout;
  /** How often everybody was asked to begin anew. */
  #drains = 0;
  #closed = false;

  constructor(options: TunnelServerOptions) {
    this.#options = options;
    this.#sweep = setInterval(() => this.#closeIdle(), MAX_IDLE_MS / 4).unref();
  }

  get sessions(): number {
    return this.#live.size;
  }

  get #streams(): number {
    return streamsOf(this.#live);
  }

  /** Takes an accepted connection. Rejects with the coded error of a handshake that failed or was refused; then nothing is left open. */
  async accept(raw: Socket): Promise<void> {
    const { terminator } = this.#options;
    const remote = { address: raw.remoteAddress ?? '', port: raw.remotePort ?? 0 };
    const drains = this.#drains;
    const terminated = await terminator.terminate(raw);
    try {
      const live = this.#begin(terminated, remote);
      if (this.#drains !== drains) live.session.drain();
    } catch (error) {
      terminated.socket.destroy();
      throw error;
    }
  }

  /** Asks every peer to begin new sessions: our certificate has changed, or we are leaving. Streams that are open go on. */
  drain(): void {
    this.#drains++;
    for (const { session } of this.#live) session.drain();
  }

  /** Cuts the sessions of peers that are not to be trusted any more. */
  cut(refuses: (peer: VerifiedPeer) => string | undefined): void {
    for (const { session, peer } of [...this.#live]) {
      const reason = refuses(peer);
      if (reason !== undefined) session.cut(reason);
    }
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#sweep);
    for (const { session } of [...this.#live]) session.cut('stopped');
  }

  #begin({ socket, peer, verifiedBy }: Terminated, remote: TunnelRequest['remote']): Live {
    const { budget, onConnect, admit, silenceMs = SILENCE_MS } = this.#options;
    if (this.#closed) throw new HandfastError('DRAINING', 'the sidecar is stopping');
    admit?.(peer, verifiedBy);
    const peerKey = `${peer.id.uri} ${remote.address}`;
    const ofPeer = this.#byPeer.get(peerKey) ?? new Set();
    makeRoom(ofPeer);
    const session = new ServerSession({
      socket,
      budget,
      silenceMs,
      maxStreams: MAX_STREAMS,
      mayOpen: () => this.#streams < MAX_STREAMS_OF_ALL && streamsOf(ofPeer) < MAX_STREAMS_OF_PEER,
      effort: () => this.#effort.take(peerKey),
      onConnect: (incoming) => {
        live.idleSince = Number.POSITIVE_INFINITY;
        onConnect({ ...incoming, peer, verifiedBy, remote });
      },
      onIdle: () => {
        live.idleSince = performance.now();
      },
      onClosed: () => {
        this.#live.delete(live);
        ofPeer.delete(live);
        if (ofPeer.size === 0 && this.#byPeer.get(peerKey) === ofPeer) this.#byPeer.delete(peerKey);
      },
    });
    const live: Live = { session, peer, idleSince: performance.now() };
    this.#live.add(live);
    ofPeer.add(live);
    this.#byPeer.set(peerKey, ofPeer);
    return live;
  }

  #closeIdle(): void {
    const now = performance.now();
    for (const { session, idleSince } of this.#live) if (now - idleSince > MAX_IDLE_MS) session.drain();
  }
}

function streamsOf(sessions: ReadonlySet<Live>): number {
  let streams = 0;
  for (const { session } of sessions) streams += session.streams.size;
  return streams;
}

/** Has the longest idle of a peer's sessions drained if it has as many as it may have. Throws when there is none. */
function makeRoom(ofPeer: ReadonlySet<Live>): void {
  if (ofPeer.size < MAX_SESSIONS) return;
  let lasting = 0;
  let oldest: Live | undefined;
  for (const live of ofPeer) {
    if (live.session.isDraining) continue;
    lasting++;
    if (live.session.streams.size === 0 && (oldest === undefined || live.idleSince < oldest.idleSince)) oldest = live;
  }
  if (lasting < MAX_SESSIONS && ofPeer.size < 2 * MAX_SESSIONS) return;
  if (oldest === undefined || ofPeer.size >= 2 * MAX_SESSIONS)
    throw new HandfastError('RATE_LIMITED', `the peer has ${ofPeer.size} sessions already`);
  oldest.session.drain();
}
