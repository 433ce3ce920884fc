// The dialling side of a tunnel: opens streams by CONNECT and waits for their answers.

import { endpointText } from '../policy/ip.ts';
import { areTrailers, readFields } from './field-rules.ts';
import { H2Error, PREFACE, SessionError, Setting } from './frame.ts';
import { MAX_HEADER_LIST_BYTES } from './header-blocks.ts';
import type { HeaderField } from './hpack-decoder.ts';
import { encodeHeaders } from './hpack-encoder.ts';
import { Session, type SessionOptions } from './session.ts';
import { TunnelStream } from './tunnel-stream.ts';

/** `unprocessed`: the peer has done nothing with the stream, so that it can be tried again, elsewhere or on another session. */
export type Answer =
  | { readonly kind: 'established' }
  | { readonly kind: 'refused'; readonly status: number }
  | { readonly kind: 'broken'; readonly reason: string; readonly unprocessed: boolean };

export interface Outgoing {
  readonly stream: TunnelStream;
  /** Never rejects. */
  readonly answered: Promise<Answer>;
}

export interface ClientSessionOptions extends SessionOptions {
  /** There may be room for streams where there was none. */
  readonly onRoom?: () => void;
}

const ESTABLISHED: Answer = { kind: 'established' };
/** Until the peer has said how many it takes, and for one that does not say. */
const STREAMS_AT_FIRST = 100;
const STREAMS_WITHOUT_LIMIT = 1_000;
const MAX_STREAM_ID = 0x7fff_fffe;

export class ClientSession extends Session {
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #nextId = 1;
  #peerMax = STREAMS_AT_FIRST;
  #settled = false;
  #retired = false;
  readonly #onRoom: (() => void) | undefined;

  constructor(options: ClientSessionOptions) {
    super(options, 'server');
    this.#onRoom = options.onRoom;
    this.sender.writer.raw(PREFACE);
    this.greet([
      [Setting.ENABLE_PUSH, 0],
      [Setting.MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_BYTES],
    ]);
  }

  /** Neither over nor about to be: it takes streams, now or when others have ended. */
  get usable(): boolean {
    return !this.draining && !this.#retired && this.closedBy === undefined && this.#nextId < MAX_STREAM_ID;
  }

  /** How many more streams it takes now. */
  get room(): number {
    return this.usable ? Math.max(0, this.#peerMax - this.streams.size) : 0;
  }

  /** Whether it takes another stream now. */
  get available(): boolean {
    return this.room > 0;
  }

  /** Whether the peer has said how many streams it takes. */
  get settled(): boolean {
    return this.#settled;
  }

  /** Whether so many streams are open that another session will soon be needed. */
  get nearlyFull(): boolean {
    return this.streams.size * 5 >= this.#peerMax * 4;
  }

  /** Asks for a connection to an address and port behind the peer. Where it is not `available`, the answer is that it was not. */
  connect(destination: { readonly address: string; readonly port: number }): Outgoing {
    if (!this.available) return this.#notAsked();
    const stream = this.newStream(this.#nextId);
    stream.unanswered = true;
    this.#nextId += 2;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#waiting.set(stream.id, resolve);
    this.sender.writer.headers(
      stream.id,
      0,
      encodeHeaders([
        [':method', 'CONNECT'],
        [':authority', endpointText(destination)],
      ]),
    );
    this.sender.wake();
    return { stream, answered: promise };
  }

  /** Takes no new streams, and closes when the last one has ended. */
  retire(): void {
    if (this.#retired) return;
    this.#retired = true;
    this.finishWhenIdle();
  }

  override forget(stream: TunnelStream): void {
    const { brokenBy } = stream;
    this.#settle(stream.id, {
      kind: 'broken',
      reason: brokenBy?.reason ?? 'given up',
      unprocessed: brokenBy?.code === H2Error.REFUSED_STREAM,
    });
    super.forget(stream);
    this.#onRoom?.();
  }

  onSettings(maxStreams: number | undefined): void {
    // What is not said stays as it was, and at first it is no limit at all (RFC 9113, 6.5.2).
    if (maxStreams !== undefined) this.#peerMax = maxStreams;
    else if (!this.#settled) this.#peerMax = STREAMS_WITHOUT_LIMIT;
    this.#settled = true;
    this.#onRoom?.();
  }

  override onGoaway(lastStreamId: number): void {
    this.draining = true;
    for (const stream of [...this.streams.values()])
      if (stream.id > lastStreamId) stream.break('the peer is leaving, and has not looked at it', H2Error.REFUSED_STREAM);
    super.onGoaway(lastStreamId);
  }

  onHeaders(streamId: number, fields: readonly HeaderField[] | undefined, endStream: boolean): void {
    if (streamId > this.lastStreamId || streamId % 2 === 0) throw new SessionError(H2Error.PROTOCOL_ERROR, `HEADERS on stream ${streamId}`);
    const stream = this.streams.get(streamId);
    if (stream === undefined) return;
    if (!stream.unanswered) {
      // Trailers say nothing about a connection but that it is over.
      if (endStream && !stream.endedByPeer && areTrailers(fields)) stream.receiveEnd();
      else this.breakStream(stream, H2Error.PROTOCOL_ERROR);
      return;
    }
    const status = statusOf(fields ?? []);
    if (status === undefined || (status < 200 && endStream)) {
      this.breakStream(stream, H2Error.PROTOCOL_ERROR);
    } else if (status >= 300) {
      this.#settle(streamId, { kind: 'refused', status });
      stream.reset(H2Error.CANCEL);
    } else if (status >= 200) {
      stream.unanswered = false;
      this.#settle(streamId, ESTABLISHED);
      if (endStream) stream.receiveEnd();
    }
  }

  #notAsked(): Outgoing {
    const stream = new TunnelStream(0, { host: this, sendWindow: 0 });
    const reason = this.closedBy ?? 'the session takes no more streams';
    stream.break(reason, H2Error.REFUSED_STREAM);
    return { stream, answered: Promise.resolve({ kind: 'broken', reason, unprocessed: true }) };
  }

  #settle(streamId: number, answer: Answer): void {
    const resolve = this.#waiting.get(streamId);
    if (resolve === undefined) return;
    this.#waiting.delete(streamId);
    resolve(answer);
  }
}

/** Undefined for what is no response. 101 is not for HTTP/2 (RFC 9113, 8.6). */
function statusOf(fields: readonly HeaderField[]): number | undefined {
  const pseudo = readFields(fields);
  const status = pseudo?.get(':status');
  if (status === undefined || pseudo?.size !== 1 || !/^[1-5][0-9]{2}$/.test(status) || status === '101') return undefined;
  return Number(status);
}
