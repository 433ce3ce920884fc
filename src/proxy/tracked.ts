// One open connection: the sockets it holds, what is known of it, and the one way it ends.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import { cut, type SpliceOutcome, splice } from '../net/splice.ts';
import type { Verdict } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Known } from './connection.ts';

/** Failures that no policy decided. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  'DIAL_FAILED',
  'DIAL_TIMEOUT',
  'NO_HEALTHY_ENDPOINT',
  'HANDSHAKE_TIMEOUT',
  'HANDSHAKE_FAILED',
  'UNAVAILABLE',
]);

/** How a connection ended: `cut` was allowed once and is not any more, `failed` was nobody's decision. */
export interface Ending {
  readonly decision: 'allowed' | 'refused' | 'failed' | 'cut';
  readonly outcome?: SpliceOutcome;
  readonly code?: ErrorCode;
  readonly reason?: string;
}

/** Called once: with the application's side, where the connection had come so far. */
type OnEnd = (tracked: Tracked, ending: Ending, application: Socket | undefined) => void;

/** One connection's place in the tracker. `known` holds the latest facts for its record. */
export class Tracked {
  known: Known;
  /** Judges the open connection against a newer snapshot; set once it was admitted. */
  rejudge: ((mesh: MeshSnapshot) => Verdict) | undefined;
  readonly #onEnd: OnEnd;
  /** Each socket, and what speaks through it: itself, or the TLS on top. In the order they came, so that a reset goes out before TLS is torn down. */
  readonly #sockets = new Map<Duplex, Duplex>();
  readonly #dials = new AbortController();
  #cut: { code: ErrorCode; reason: string } | undefined;
  #ended = false;
  /** The plaintext side: its byte counts are the application's. */
  #application: Socket | undefined;

  constructor(known: Known, onEnd: OnEnd) {
    this.#onEnd = onEnd;
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
    this.#onEnd(this, ending, this.#application);
  }
}
