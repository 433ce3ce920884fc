// One open connection: the sockets it holds, what is known of it, and the one way it ends.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import { joinTunnel } from '../hbone/join-tunnel.ts';
import { TunnelStream } from '../hbone/tunnel-stream.ts';
import type { ByteCounts } from '../http/application-agent.ts';
import { cut, type SpliceOutcome, splice } from '../net/splice.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Judgement } from '../policy/verdict.ts';
import type { Known } from './connection.ts';
import { whenQuiet } from './when-quiet.ts';

/** Failures that no policy decided. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  'DIAL_FAILED',
  'DIAL_TIMEOUT',
  'DESTINATION_UNANSWERED',
  'NO_HEALTHY_ENDPOINT',
  'HANDSHAKE_TIMEOUT',
  'HANDSHAKE_FAILED',
  'UNAVAILABLE',
]);

/** How a connection ended: `cut` was allowed once and is not any more, `failed` was nobody's decision; one that was allowed until it was quiet has the outcome `drained`. */
export interface Ending {
  readonly decision: 'allowed' | 'refused' | 'failed' | 'cut';
  readonly outcome?: SpliceOutcome | 'drained';
  readonly code?: ErrorCode;
  readonly reason?: string;
}

/** How long a connection that was ended at a quiet moment may take to end on either side. */
const LINGER_MS = 5_000;

export interface TrackedEvents {
  /** Both sides are about to be joined. */
  onJoined(tracked: Tracked): void;
  /** Called once: with the application's side, where the connection had come so far. */
  onEnd(tracked: Tracked, ending: Ending, application: ByteCounts | undefined): void;
  /** It was no connection of its own. */
  onForgotten(tracked: Tracked): void;
}

/** One end of a joined connection: a socket, TLS on top of one, or a stream of a tunnel. */
export type Side = Duplex | TunnelStream;

/** One connection's place in the tracker. `known` holds the latest facts for its record. */
export class Tracked {
  known: Known;
  /** Judges the open connection against a newer snapshot; set once it was admitted. */
  rejudge: ((mesh: MeshSnapshot) => Judgement) | undefined;
  readonly #events: TrackedEvents;
  /** Each socket, and what speaks through it: itself, or the TLS on top. In the order they came, so that a reset goes out before TLS is torn down. */
  readonly #sockets = new Map<Duplex, Duplex>();
  #streams: TunnelStream[] | undefined;
  #cut: { code: ErrorCode; reason: string } | undefined;
  #ended = false;
  /** The plaintext side: its byte counts are the application's. */
  #application: ByteCounts | undefined;
  #sides: { readonly downstream: Side; readonly upstream: Side } | undefined;
  #draining: (() => void) | undefined;
  #lingering: NodeJS.Timeout | undefined;
  /** Why it was ended at a quiet moment. */
  #drained: { code: ErrorCode; reason: string } | undefined;

  constructor(known: Known, events: TrackedEvents) {
    this.#events = events;
    this.known = known;
  }

  /** It is not allowed any more, though it was not joined yet. */
  get isCut(): boolean {
    return this.#cut !== undefined;
  }

  /** Remembers a tunnel's stream, so that ending the connection resets it. */
  ownStream(stream: TunnelStream): TunnelStream {
    this.#streams ??= [];
    this.#streams.push(stream);
    if (this.#cut !== undefined) stream.reset();
    return stream;
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
  async splice(sides: { downstream: Side; upstream: Side; application: Socket; halfCloseTimeoutMs: number }): Promise<void> {
    this.#application = sides.application;
    this.#sides = sides;
    this.#events.onJoined(this);
    let reset: string | undefined;
    const outcome = await join(sides, {
      abort: () => this.#abort(),
      onError: (side, error) => {
        reset ??= `${side}: ${messageOf(error).split('\n')[0]}`;
      },
    });
    this.#endJoined(outcome, reset);
  }

  /** Its requests are answered by `serve` until it ends. `application` counts their bytes. */
  async answer(serve: (of: { abort: () => void; onCounts: (application: ByteCounts) => void }) => Promise<SpliceOutcome>): Promise<void> {
    this.#events.onJoined(this);
    const onCounts = (application: ByteCounts) => {
      this.#application = application;
    };
    this.#endJoined(await serve({ abort: () => this.#abort(), onCounts }));
  }

  #endJoined(outcome: SpliceOutcome, reset?: string): void {
    const cut = this.#cut;
    if (cut !== undefined) this.#end({ decision: 'cut', outcome, ...cut });
    else if (this.#drained !== undefined) this.#end({ decision: 'allowed', outcome: 'drained', ...this.#drained });
    else this.#end({ decision: 'allowed', outcome, ...(reset === undefined ? {} : { reason: reset }) });
  }

  /** Ends a connection that was refused or failed before it was joined. */
  refuse(error: unknown): void {
    const cut = this.#cut;
    const coded = error instanceof HandfastError ? error : new HandfastError('UNAVAILABLE', messageOf(error), { cause: error });
    if (cut !== undefined) this.#end({ decision: 'cut', ...cut });
    else this.#end({ decision: FAILURES.has(coded.code) ? 'failed' : 'refused', code: coded.code, reason: coded.message });
  }

  /** Ends an open connection that the newer snapshot does not allow. */
  judgeAgain(mesh: MeshSnapshot): void {
    const judgement = this.rejudge?.(mesh);
    if (judgement?.allowed === false) this.cut(judgement.code, judgement.reason);
    else if (judgement?.allowed === 'drain') this.#drain(judgement);
    else this.#stopDraining();
  }

  /** Ends an open connection that is not allowed any more. */
  cut(code: ErrorCode, reason: string): void {
    if (this.#ended || this.#cut !== undefined) return;
    this.#cut = { code, reason };
    this.#abort();
  }

  /** Not a connection after all, and no record: what came of it has its own. */
  forget(): void {
    this.#ended = true;
    this.#events.onForgotten(this);
  }

  /** Ends the connection when it is quiet, and cuts it when that does not come. A later judgement can take it back. */
  #drain({ code, reason }: { code: ErrorCode; reason: string }): void {
    if (this.#draining !== undefined || this.#ended || this.#cut !== undefined) return;
    this.#draining = whenQuiet(() => this.#sides, {
      onQuiet: (sides) => {
        this.#drained = { code, reason };
        sides.downstream.end();
        sides.upstream.end();
        // Both ends may keep their half open for as long as they like.
        this.#lingering = setTimeout(() => this.cut(code, `${reason}; it did not end`), LINGER_MS).unref();
      },
      onLate: () => this.cut(code, `${reason}; it was never quiet`),
    });
  }

  #stopDraining(): void {
    this.#draining?.();
    this.#draining = undefined;
  }

  #abort(): void {
    for (const [socket, top] of this.#sockets) cut(socket, top);
    if (this.#streams !== undefined) for (const stream of this.#streams) stream.reset();
  }

  #end(ending: Ending): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopDraining();
    clearTimeout(this.#lingering);
    // A refused peer sees a reset: neither silence nor a clean end that could pass for an answer.
    if (ending.decision !== 'allowed') this.#abort();
    this.#events.onEnd(this, ending, this.#application);
  }
}

function join(
  sides: { downstream: Side; upstream: Side; application: Socket; halfCloseTimeoutMs: number },
  { abort, onError }: { abort: () => void; onError: (side: 'downstream' | 'upstream', error: Error) => void },
): Promise<SpliceOutcome> {
  const { downstream, upstream, application, halfCloseTimeoutMs } = sides;
  if (downstream instanceof TunnelStream)
    return joinTunnel({ application, stream: downstream, applicationIs: 'upstream', abort, halfCloseTimeoutMs }, onError);
  if (upstream instanceof TunnelStream)
    return joinTunnel({ application, stream: upstream, applicationIs: 'downstream', abort, halfCloseTimeoutMs }, onError);
  return splice({ downstream, upstream, abort, halfCloseTimeoutMs }, onError);
}
