// The sessions to one peer under one identity: which of them takes the next stream, when another one is made, and who waits for it.

import { HandfastError } from '../errors.ts';
import type { Identity } from '../spiffe/identity.ts';
import { ClientSession, type ClientSessionOptions } from './client-session.ts';
import { type Dialled, leastBusy, type Tunnel, type TunnelTarget } from './tunnel.ts';
import { TurnQueue } from './turn-queue.ts';

export interface PeerSessionsOptions {
  readonly target: TunnelTarget;
  /** Rejects with a coded error; undefined when nobody listens there. */
  readonly dial: (target: TunnelTarget) => Promise<Dialled | undefined>;
  readonly session: Pick<ClientSessionOptions, 'budget' | 'silenceMs'>;
  /** How long a connection waits for a session or for its turn on one. */
  readonly patienceMs: number;
}

/** More sessions to one peer share the load of many cores and of lost packets; more than these only cost. */
const MAX_SHARING = 4;
/** Where the peer takes few streams on each, so many of them: half of what ours allow one peer. */
const MAX_NEEDED = 32;
/** Who was called in this time is expected to be called again. */
const EXPECTED_MS = 60_000;
/** How long a session under the former certificate goes on taking streams while the next one is being made. */
const HANDOVER_MS = 1_000;
/** A peer that ends each session as soon as it is there is not to be dialled in a circle: ahead of need, and while somebody waits. */
const REPLACE_EVERY_MS = 500;
const RETRY_EVERY_MS = 50;

export class PeerSessions {
  readonly tunnels = new Set<Tunnel>();
  readonly #options: PeerSessionsOptions;
  readonly #waiting: TurnQueue;
  #target: TunnelTarget;
  #usedAt = 0;
  #opening: Promise<void> | undefined;
  /** When a session or the making of one was last over, and when one was last made in its place. */
  #lostAt = Number.NEGATIVE_INFINITY;
  #replacedAt = Number.NEGATIVE_INFINITY;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PeerSessionsOptions) {
    this.#options = options;
    this.#target = options.target;
    this.#waiting = new TurnQueue({ tunnels: this.tunnels, patienceMs: options.patienceMs, onNoRoom: () => this.#makeRoom() });
  }

  /** A session with room for one more stream, at once where there is one. Rejects with the coded error of the dial, or DIAL_TIMEOUT; undefined when nobody takes tunnels there. */
  acquire(target: TunnelTarget): Tunnel | Promise<Tunnel | undefined> {
    this.#target = target;
    this.#usedAt = performance.now();
    // Whoever came first has the first turn.
    const best = this.#waiting.isEmpty ? leastBusy(this.tunnels) : undefined;
    if (best === undefined) return this.#waiting.wait(target.destination);
    // Ahead of need, beside what is open: nobody waits for it.
    if ((best.session.saturated || best.session.nearlyFull) && this.#usable() < MAX_SHARING) this.#open();
    return best;
  }

  /** From now on sessions are made with the next certificate; those of the former one go on until theirs are there, where somebody is likely to ask. */
  renew(next: Identity): void {
    const former = [...this.tunnels];
    this.#target = { ...this.#target, identity: next };
    this.#opening = undefined;
    const retire = () => {
      for (const tunnel of former) this.#retire(tunnel);
    };
    if (!this.#expected()) {
      retire();
      return;
    }
    setTimeout(retire, HANDOVER_MS).unref();
    void this.#open().then(retire);
  }

  /** Those without streams end if nobody has asked for so long. True when there is nothing left. */
  closeIdle(idleMs: number): boolean {
    if (performance.now() - this.#usedAt < idleMs) return false;
    for (const tunnel of [...this.tunnels]) if (tunnel.session.streams.size === 0) this.#retire(tunnel);
    return this.tunnels.size === 0 && this.#opening === undefined && this.#waiting.isEmpty;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#waiting.fail(stopping());
    for (const { session } of [...this.tunnels]) session.cut('stopped');
  }

  #expected(): boolean {
    return performance.now() - this.#usedAt < EXPECTED_MS;
  }

  #usable(): number {
    let count = 0;
    for (const { session } of this.tunnels) if (session.usable) count++;
    return count;
  }

  /** Never rejects: who waits hears of it. `ahead`: it was begun for nobody, and its failure is nobody's. */
  #open(ahead = true): Promise<void> {
    if (this.#opening !== undefined) return this.#opening;
    const opening: Promise<void> = this.#dial(ahead, () => this.#opening === opening);
    this.#opening = opening;
    return opening;
  }

  /** `isAwaited` is false when another dial has taken its place. */
  async #dial(ahead: boolean, isAwaited: () => boolean): Promise<void> {
    const target = this.#target;
    let dialled: Dialled | undefined;
    let failure: unknown;
    try {
      dialled = await this.#options.dial(target);
    } catch (error) {
      failure = error;
    }
    const awaited = isAwaited();
    if (awaited) this.#opening = undefined;
    if (this.#closed) {
      dialled?.socket.destroy();
    } else if (dialled !== undefined) {
      const tunnel = this.#add(dialled, target.identity);
      // Our certificate has changed meanwhile, and a session with the new one is being made.
      if (target.identity !== this.#target.identity) this.#retire(tunnel);
      this.#waiting.serve();
    } else if (awaited) {
      this.#lostAt = performance.now();
      // Where sessions are only full, those who wait still have them.
      if (this.#usable() > 0) this.#waiting.serve();
      else if (failure === undefined) this.#waiting.giveUp();
      else if (ahead && !this.#waiting.isEmpty) void this.#open(false);
      else this.#waiting.fail(failure);
    }
  }

  #add({ socket, peer }: Dialled, identity: Identity): Tunnel {
    const session = new ClientSession({
      socket,
      ...this.#options.session,
      effort: () => 0,
      onRoom: () => this.#waiting.serve(),
      onLeaving: () => this.#replace(),
      onClosed: () => {
        this.tunnels.delete(tunnel);
        this.#replace();
      },
    });
    const tunnel: Tunnel = { session, peer, identity };
    this.tunnels.add(tunnel);
    return tunnel;
  }

  /** Nobody of those who wait can be served by what is there. */
  #makeRoom(): void {
    if (this.#closed || this.#opening !== undefined || this.#retry !== undefined) return;
    let usable = 0;
    for (const { session } of this.tunnels) {
      if (!session.usable) continue;
      usable++;
      // It is about to say how many it takes.
      if (!session.settled) return;
    }
    if (usable >= MAX_NEEDED) return;
    const waitMs = this.#lostAt + RETRY_EVERY_MS - performance.now();
    if (waitMs <= 0) {
      this.#open(false);
      return;
    }
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#waiting.serve();
    }, waitMs);
  }

  /** The peer is leaving, or has left: somebody is likely to ask for it again, and should not have to wait. */
  #replace(): void {
    if (this.#closed) return;
    const now = performance.now();
    this.#lostAt = now;
    if (this.#expected() && leastBusy(this.tunnels) === undefined && now - this.#replacedAt >= REPLACE_EVERY_MS) {
      this.#replacedAt = now;
      this.#open();
    }
    this.#waiting.serve();
  }

  /** It takes nothing new, and ends with its last stream. */
  #retire(tunnel: Tunnel): void {
    tunnel.session.retire();
    // One that still has streams is nobody's to choose, but must be found when its peer is not trusted any more.
    if (tunnel.session.closedBy !== undefined) this.tunnels.delete(tunnel);
  }
}

export function stopping(): HandfastError {
  return new HandfastError('DRAINING', 'the sidecar is stopping');
}
