// The dialling side's sessions: kept by who we are, whom the peer may be, and where it is; opened ahead, replaced before they are retired, and cut with the trust they were made under.

import type { Identity } from '../spiffe/identity.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { PeerSessions, stopping } from './peer-sessions.ts';
import type { ReceiveBudget } from './receive-budget.ts';
import type { Dialled, Tunnel, TunnelTarget } from './tunnel.ts';

export type { Dialled, Tunnel, TunnelTarget };

/** HBONE's port. */
export const TUNNEL_PORT = 15008;

export interface TunnelPoolOptions {
  /** Rejects with a coded error; undefined when nobody listens there. */
  readonly dial: (target: TunnelTarget) => Promise<Dialled | undefined>;
  readonly budget: ReceiveBudget;
  readonly silenceMs?: number;
  /** How long a connection waits for a session, or for its turn on one. */
  readonly patienceMs?: number;
}

const SILENCE_MS = 15_000;
const PATIENCE_MS = 10_000;
const IDLE_MS = 5 * 60_000;
const SWEEP_MS = 10_000;
/** Nobody listened: for so long its connections are sessions of their own. It may only be starting; each time it is still so, the wait doubles. */
const WITHOUT_FIRST_MS = 500;
const WITHOUT_LAST_MS = 60_000;

export class TunnelPool {
  readonly #options: TunnelPoolOptions;
  readonly #peers = new Map<string, PeerSessions>();
  readonly #sweep: NodeJS.Timeout;
  /** Addresses where nobody takes tunnels. */
  readonly #without = new Map<string, { until: number; waitMs: number }>();
  /** What `renew` said last. */
  #identity: Identity | undefined;
  #closed = false;

  constructor(options: TunnelPoolOptions) {
    this.#options = options;
    this.#sweep = setInterval(() => this.#closeIdle(), SWEEP_MS).unref();
  }

  get sessions(): number {
    let count = 0;
    for (const { tunnels } of this.#peers.values()) count += tunnels.size;
    return count;
  }

  /** False for an address where nobody took tunnels a moment ago. */
  takes(address: string): boolean {
    const known = this.#without.get(address);
    return known === undefined || performance.now() >= known.until;
  }

  /**
   * A session with room for one more stream, at once where there is one. Rejects with the coded error of the dial, or DIAL_TIMEOUT where no session has room in time; undefined when
   * nobody takes tunnels there.
   */
  acquire(target: TunnelTarget): Tunnel | Promise<Tunnel | undefined> {
    if (this.#closed) return Promise.reject(stopping());
    return this.#peerOf(target).acquire(this.#withLatest(target));
  }

  /** From now on sessions are made with the next certificate. */
  renew(next: Identity): void {
    this.#identity = next;
    for (const peer of this.#peers.values()) peer.renew(next);
  }

  /** Cuts the sessions of peers that are not to be trusted any more. */
  cut(refuses: (peer: VerifiedPeer) => string | undefined): void {
    for (const { tunnels } of this.#peers.values())
      for (const { session, peer } of [...tunnels]) {
        const reason = refuses(peer);
        if (reason !== undefined) session.cut(reason);
      }
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#sweep);
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  #peerOf(target: TunnelTarget): PeerSessions {
    const key = keyOf(target);
    let peer = this.#peers.get(key);
    if (peer === undefined) {
      const { budget, silenceMs = SILENCE_MS, patienceMs = PATIENCE_MS } = this.#options;
      peer = new PeerSessions({ target, dial: (latest) => this.#dial(latest), session: { budget, silenceMs }, patienceMs });
      this.#peers.set(key, peer);
    }
    return peer;
  }

  /** A connection that was begun before our certificate changed asks with the former one: it gets the next all the same. */
  #withLatest(target: TunnelTarget): TunnelTarget {
    const latest = this.#identity;
    if (latest === undefined || latest === target.identity || latest.svid.id.uri !== target.identity.svid.id.uri) return target;
    return { ...target, identity: latest };
  }

  async #dial(target: TunnelTarget): Promise<Dialled | undefined> {
    const dialled = await this.#options.dial(target);
    if (dialled !== undefined) this.#without.delete(target.address);
    else {
      const waitMs = Math.min(WITHOUT_LAST_MS, 2 * (this.#without.get(target.address)?.waitMs ?? WITHOUT_FIRST_MS / 2));
      this.#without.set(target.address, { until: performance.now() + waitMs, waitMs });
    }
    return dialled;
  }

  #closeIdle(): void {
    const now = performance.now();
    for (const [address, { until }] of this.#without) if (now - until > WITHOUT_LAST_MS) this.#without.delete(address);
    for (const [key, peer] of this.#peers) if (peer.closeIdle(IDLE_MS)) this.#peers.delete(key);
  }
}

/** One identity's session is nobody else's, whatever address it goes to. */
function keyOf({ source, identity, allowed, address }: TunnelTarget): string {
  const names = allowed.length < 2 ? allowed : [...new Set(allowed)].sort();
  let key = '';
  // With its length, no text can be taken for another two.
  for (const text of [source, identity.svid.id.uri, address, ...names]) key += `${text.length} ${text} `;
  return key;
}
