// The serving side of a tunnel: each CONNECT of an authenticated peer is handed on, and answered once somebody has decided.

import { readRequest } from './connect-request.ts';
import { areTrailers } from './field-rules.ts';
import { Flag, H2Error, MAX_WINDOW, PREFACE, SessionError, Setting } from './frame.ts';
import { MAX_HEADER_LIST_BYTES } from './header-blocks.ts';
import type { HeaderField } from './hpack-decoder.ts';
import { encodeHeaders } from './hpack-encoder.ts';
import { Session, type SessionOptions } from './session.ts';
import type { TunnelStream } from './tunnel-stream.ts';

/** A CONNECT that waits for its answer. What the peer says behind it is kept, as far as the stream's window goes. */
export interface Incoming {
  readonly stream: TunnelStream;
  /** As it was sent: `10.0.0.7:8080`. */
  readonly authority: string;
  accept(): void;
  /** With an HTTP status and nothing else: what the reason was is nobody's business there. */
  refuse(status: number): void;
}

export interface ServerSessionOptions extends SessionOptions {
  readonly maxStreams: number;
  /** Whether there is room for one more beside what other sessions have open. Default: there is. */
  readonly mayOpen?: () => boolean;
  readonly onConnect: (incoming: Incoming) => void;
}

const ACCEPTED = encodeHeaders([[':status', '200']]);

export class ServerSession extends Session {
  readonly #options: ServerSessionOptions;
  #prefaceRead = 0;
  #drainBegun = false;
  /** Streams above it are refused, once the last GOAWAY is out. */
  #lastAccepted = MAX_WINDOW;

  constructor(options: ServerSessionOptions) {
    super(options, 'client');
    this.#options = options;
    this.greet([
      [Setting.MAX_CONCURRENT_STREAMS, options.maxStreams],
      [Setting.MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_BYTES],
    ]);
  }

  get isDraining(): boolean {
    return this.#drainBegun || this.draining;
  }

  /** No new streams; closes when the last one has ended. What the peer sends before it hears of this is still taken. */
  drain(): void {
    if (this.#drainBegun || this.closedBy !== undefined) return;
    this.#drainBegun = true;
    this.sender.writer.goaway(MAX_WINDOW, H2Error.NO_ERROR);
    this.liveness.whenRead(() => {
      this.#lastAccepted = this.lastStreamId;
      this.sender.writer.goaway(this.lastStreamId, H2Error.NO_ERROR);
      this.sender.wake();
      this.finishWhenIdle();
    });
  }

  onSettings(): void {
    // How many streams a client would take is nothing to us: we open none.
  }

  protected override readPreface(bytes: Buffer): Buffer {
    const length = Math.min(PREFACE.length - this.#prefaceRead, bytes.length);
    if (length > 0 && bytes.compare(PREFACE, this.#prefaceRead, this.#prefaceRead + length, 0, length) !== 0)
      throw new SessionError(H2Error.PROTOCOL_ERROR, 'the peer does not speak HTTP/2');
    this.#prefaceRead += length;
    return bytes.subarray(length);
  }

  onHeaders(streamId: number, fields: readonly HeaderField[] | undefined, endStream: boolean): void {
    if (streamId % 2 === 0) throw new SessionError(H2Error.PROTOCOL_ERROR, `HEADERS on stream ${streamId}`);
    if (streamId <= this.lastStreamId) this.#onTrailers(streamId, fields, endStream);
    else if (this.streams.size >= this.#options.maxStreams || streamId > this.#lastAccepted || this.#options.mayOpen?.() === false)
      this.#turnAway(streamId);
    else this.#onRequest(streamId, fields, endStream);
  }

  /** How many it takes says SETTINGS; the peer may ask again elsewhere. */
  #turnAway(streamId: number): void {
    this.lastStreamId = streamId;
    this.charge();
    this.sender.writer.rstStream(streamId, H2Error.REFUSED_STREAM);
    this.sender.wake();
  }

  #onRequest(streamId: number, fields: readonly HeaderField[] | undefined, endStream: boolean): void {
    const stream = this.newStream(streamId);
    const request = fields === undefined ? undefined : readRequest(fields);
    if (endStream) stream.receiveEnd();
    if (request === undefined) this.#answer(stream, 431);
    else if (request.kind === 'other') this.#answer(stream, 405);
    else if (request.kind === 'malformed') this.breakStream(stream, H2Error.PROTOCOL_ERROR);
    else
      this.#options.onConnect({
        stream,
        authority: request.authority,
        accept: () => this.#accept(stream),
        refuse: (status) => this.#answer(stream, status),
      });
  }

  #onTrailers(streamId: number, fields: readonly HeaderField[] | undefined, endStream: boolean): void {
    const stream = this.streams.get(streamId);
    if (stream === undefined) this.charge();
    else if (stream.endedByPeer) this.breakStream(stream, H2Error.STREAM_CLOSED);
    else if (!endStream || !areTrailers(fields)) this.breakStream(stream, H2Error.PROTOCOL_ERROR);
    else stream.receiveEnd();
  }

  #accept(stream: TunnelStream): void {
    if (stream.closed) return;
    this.sender.writer.headers(stream.id, 0, ACCEPTED);
    this.sender.wake();
  }

  #answer(stream: TunnelStream, status: number): void {
    if (stream.closed) return;
    // That its application is not there is not the peer's doing.
    if (status < 500) this.charge();
    this.sender.writer.headers(stream.id, Flag.END_STREAM, encodeHeaders([[':status', String(status)]]));
    // The answer is whole; whatever else the peer has to say on this stream is not wanted (RFC 9113, 8.1).
    stream.reset(H2Error.NO_ERROR);
  }
}
