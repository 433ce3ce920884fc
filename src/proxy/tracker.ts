// Every open connection, from accept to its one record: counted, re-judged when the mesh changes, drained at the end.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import { cut, type SpliceOutcome, splice } from '../net/splice.ts';
import type { Log } from '../observe/log.ts';
import type { Verdict } from '../policy/decide.ts';
import { canonicalIp } from '../policy/ip.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint } from '../policy/model.ts';
import type { Direction, Known } from './connection.ts';

const CUT_GRACE_MS = 2_000;

/** Failures that no policy decided. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  'DIAL_FAILED',
  'DIAL_TIMEOUT',
  'NO_HEALTHY_ENDPOINT',
  'HANDSHAKE_TIMEOUT',
  'HANDSHAKE_FAILED',
  'UNAVAILABLE',
]);

interface Ending {
  readonly decision: 'allowed' | 'refused' | 'failed' | 'cut';
  readonly outcome?: SpliceOutcome;
  readonly code?: ErrorCode;
  readonly reason?: string;
}

/** One connection's place in the tracker. `known` holds the latest facts for its record. */
export class Tracked {
  known: Known;
  /** Judges the open connection against a newer snapshot; set once it was admitted. */
  rejudge: ((mesh: MeshSnapshot) => Verdict) | undefined;
  readonly #tracker: ConnectionTracker;
  /** Each socket, and what speaks through it: itself, or the TLS on top. In the order they came, so that a reset goes out before TLS is torn down. */
  readonly #sockets = new Map<Duplex, Duplex>();
  readonly #dials = new AbortController();
  #cut: { code: ErrorCode; reason: string } | undefined;
  #ended = false;
  /** The plaintext side: its byte counts are the application's. */
  #application: Socket | undefined;

  constructor(tracker: ConnectionTracker, known: Known) {
    this.#tracker = tracker;
    this.known = known;
    this.own(known.socket);
  }

  /** Aborts when the connection is cut: for what is still being waited for. */
  get signal(): AbortSignal {
    return this.#dials.signal;
  }

  /** Remembers a socket, so that ending the connection ends it too, and an early error has a listener. `over` is the TCP socket beneath TLS. */
  own<T extends Duplex>(socket: T, over?: Duplex): T {
    this.#sockets.set(socket, socket);
    if (over !== undefined) this.#sockets.set(over, socket);
    socket.on('error', () => undefined);
    if (this.#cut !== undefined) cut(socket);
    return socket;
  }

  /** Adds facts for the record and returns them. */
  note<T extends Known>(known: T): T {
    this.known = known;
    return known;
  }

  /** Joins both sides until they end. `application` is the one of the two that speaks plaintext. */
  async splice(sides: { downstream: Duplex; upstream: Duplex; application: Socket; halfCloseTimeoutMs: number }): Promise<void> {
    this.#application = sides.application;
    let reset: string | undefined;
    const outcome = await splice({ ...sides, abort: () => this.#abort() }, (side, error) => {
      reset ??= `${side}: ${messageOf(error).split('\n')[0]}`;
    });
    const cut = this.#cut;
    if (cut !== undefined) this.#end({ decision: 'cut', outcome, ...cut });
    else this.#end({ decision: 'allowed', outcome, ...(reset === undefined ? {} : { reason: reset }) });
  }

  /** Ends a connection that was refused or failed before it was joined. */
  refuse(error: unknown): void {
    const cut = this.#cut;
    const coded = error instanceof HandfastError ? error : new HandfastError('UNAVAILABLE', messageOf(error), { cause: error });
    if (cut !== undefined) this.#end({ decision: 'cut', ...cut });
    else this.#end({ decision: FAILURES.has(coded.code) ? 'failed' : 'refused', code: coded.code, reason: coded.message });
  }

  /** Ends an open connection that is not allowed any more. */
  cut(code: ErrorCode, reason: string): void {
    if (this.#ended || this.#cut !== undefined) return;
    this.#cut = { code, reason };
    this.#dials.abort();
    this.#abort();
  }

  #abort(): void {
    for (const [socket, top] of this.#sockets) cut(socket, top);
  }

  #end(ending: Ending): void {
    if (this.#ended) return;
    this.#ended = true;
    // A refused peer sees a reset: neither silence nor a clean end that could pass for an answer.
    if (ending.decision !== 'allowed') this.#abort();
    this.#tracker.finish(this, ending, this.#application);
  }
}

export class ConnectionTracker {
  readonly #open = new Set<Tracked>();
  readonly #perUpstream = new Map<string, number>();
  readonly #log: Log;
  readonly #now: () => number;
  #nextId = 1;
  #idle: (() => void) | undefined;

  constructor(options: { log: Log; now: () => number }) {
    this.#log = options.log;
    this.#now = options.now;
  }

  get size(): number {
    return this.#open.size;
  }

  open(direction: Direction, socket: Socket): Tracked {
    const downstream = { address: canonicalIp(socket.remoteAddress ?? '0.0.0.0'), port: socket.remotePort ?? 0 };
    const tracked = new Tracked(this, { id: this.#nextId++, direction, socket, downstream, openedAt: this.#now() });
    this.#open.add(tracked);
    return tracked;
  }

  /** How many outbound connections go to an endpoint now. */
  load(endpoint: Endpoint): number {
    return this.#perUpstream.get(keyOf(endpoint)) ?? 0;
  }

  /** Counts a connection towards an endpoint until the returned function is called. */
  occupy(endpoint: Endpoint): () => void {
    const key = keyOf(endpoint);
    this.#perUpstream.set(key, this.load(endpoint) + 1);
    return () => {
      const left = (this.#perUpstream.get(key) ?? 1) - 1;
      if (left > 0) this.#perUpstream.set(key, left);
      else this.#perUpstream.delete(key);
    };
  }

  /** Ends what the new snapshot no longer allows. */
  rejudge(mesh: MeshSnapshot): void {
    for (const tracked of [...this.#open]) {
      const verdict = tracked.rejudge?.(mesh);
      if (verdict?.allowed === false) tracked.cut(verdict.code, verdict.reason);
    }
  }

  /** Resolves when every connection has ended; those still open at the deadline are cut. */
  async drain(timeoutMs: number): Promise<void> {
    if (this.#open.size === 0) return;
    const timers: NodeJS.Timeout[] = [];
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      timers.push(
        setTimeout(() => {
          for (const tracked of [...this.#open]) tracked.cut('DRAINING', 'the sidecar is stopping and its drain time is over');
        }, timeoutMs),
        // What does not end when it is cut must not keep the process.
        setTimeout(resolve, timeoutMs + CUT_GRACE_MS),
      );
    });
    for (const timer of timers) clearTimeout(timer);
  }

  /** Called once a connection, by its Tracked. */
  finish(tracked: Tracked, ending: Ending, application: Socket | undefined): void {
    this.#open.delete(tracked);
    const { known } = tracked;
    const inbound = known.direction === 'inbound';
    const own = { spiffeId: known.ownId };
    const peer = { spiffeId: known.peer?.id.uri, serial: known.peer?.serial };
    const record = {
      direction: known.direction,
      connection: known.id,
      downstream: { address: show(known.downstream), ...(inbound ? peer : own) },
      upstream: { address: show(known.upstream), service: known.service, ...(inbound ? own : peer) },
      originalDestination: show(known.originalDestination),
      mode: known.tlsSwitch?.mode ?? known.mode,
      modeSource: known.tlsSwitch?.source,
      transport: known.transport,
      ...ending,
      // Seen from the application: what it was sent, what it sent.
      bytesToApplication: application?.bytesWritten ?? 0,
      bytesFromApplication: application?.bytesRead ?? 0,
      durationMs: this.#now() - known.openedAt,
    };
    if (ending.decision === 'allowed') this.#log.info(record, 'connection');
    else this.#log.warn(record, 'connection');
    if (this.#open.size === 0) this.#idle?.();
  }
}

function keyOf(endpoint: Endpoint): string {
  return `${endpoint.address} ${endpoint.port}`;
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function show(endpoint: Endpoint): string;
export function show(endpoint: Endpoint | undefined): string | undefined;
export function show(endpoint: Endpoint | undefined): string | undefined {
  if (endpoint === undefined) return undefined;
  return endpoint.address.includes(':') ? `[${endpoint.address}]:${endpoint.port}` : `${endpoint.address}:${endpoint.port}`;
}
