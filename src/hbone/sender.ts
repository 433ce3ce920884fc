// The sending side of a session: what streams say, as far as the peer's windows go, each in its turn, in as few writes as may be.

import type { TLSSocket } from 'node:tls';
import { DEFAULT_WINDOW, Flag, H2Error, MAX_WINDOW, SessionError } from './frame.ts';
import { FrameWriter } from './frame-writer.ts';
import { type StreamSender, TURN_BYTES, type TunnelStream } from './tunnel-stream.ts';

export interface SenderOptions {
  readonly socket: TLSSocket;
  /** Those that are open. */
  readonly streams: ReadonlyMap<number, TunnelStream>;
  /** More has been written than is ever to be kept for a peer that does not read. */
  readonly onUnread: () => void;
}

/** What is written in one go. */
const WRITE_BYTES = 64 * 1024;
/** While more than that waits for the network, streams wait for their turn. */
const CONGESTED_BYTES = 4 * WRITE_BYTES;
/** With fewer streams than this nothing is gained by waiting for others in the same turn of the event loop. */
const FEW_STREAMS = 4;
/** Answers that a peer does not fetch. */
const MAX_UNSENT_BYTES = 4 * 1024 * 1024;
const NOTHING = Buffer.alloc(0);

export class Sender implements StreamSender {
  /** What is written to it leaves at the next `flush`, which `wake` sees to. */
  readonly writer = new FrameWriter();
  readonly #options: SenderOptions;
  readonly #ready: TunnelStream[] = [];
  readonly #flush = () => this.flush();
  #flushing = false;
  /** The network holds up what was written. */
  #congested = false;
  /** The session's own, and what a stream has at first. */
  #window = DEFAULT_WINDOW;
  #streamWindow = DEFAULT_WINDOW;
  #stopped = false;

  constructor(options: SenderOptions) {
    this.#options = options;
    options.socket.on('drain', () => this.#onDrain());
  }

  /** More is written than the network takes. */
  get congested(): boolean {
    return this.#congested;
  }

  /** What a new stream may send. */
  get streamWindow(): number {
    return this.#streamWindow;
  }

  emit(stream: TunnelStream, bytes: Buffer, most: number): number {
    let sent = 0;
    while (sent < bytes.length && sent < most && !this.#congested) {
      const length = Math.min(bytes.length - sent, TURN_BYTES, most - sent, stream.sendWindow, this.#window);
      if (length <= 0) break;
      if (this.writer.pending >= WRITE_BYTES && !this.#write()) break;
      this.writer.data(stream.id, 0, length === bytes.length ? bytes : bytes.subarray(sent, sent + length));
      stream.sendWindow -= length;
      this.#window -= length;
      sent += length;
    }
    if (sent > 0) this.wake();
    return sent;
  }

  enqueue(stream: TunnelStream): void {
    if (stream.queued) return;
    stream.queued = true;
    this.#ready.push(stream);
    this.wake();
  }

  writeEnd(stream: TunnelStream): void {
    this.writer.data(stream.id, Flag.END_STREAM, NOTHING);
    this.wake();
  }

  writeReset(stream: TunnelStream, code: number): void {
    this.writer.rstStream(stream.id, code);
    this.wake();
  }

  writeCredit(stream: TunnelStream, bytes: number): void {
    this.writer.windowUpdate(stream.id, bytes);
    this.wake();
  }

  /** The peer has made room in the session's window. */
  widen(increment: number): void {
    if (this.#window + increment > MAX_WINDOW) throw new SessionError(H2Error.FLOW_CONTROL_ERROR, "the session's window overflows");
    this.#window += increment;
    if (this.#ready.length > 0) this.wake();
  }

  /** The peer has changed every stream's window, of those that are open too: by less than nothing perhaps (RFC 9113, 6.9.2). */
  resize(streamWindow: number): void {
    const change = streamWindow - this.#streamWindow;
    this.#streamWindow = streamWindow;
    for (const stream of this.#options.streams.values()) {
      if (stream.sendWindow + change > MAX_WINDOW) throw new SessionError(H2Error.FLOW_CONTROL_ERROR, 'SETTINGS overflow a window');
      stream.widen(change);
    }
  }

  /** What was written leaves at the end of this turn: alone if there is hardly anybody, together with what others say in it if there are many. */
  wake(): void {
    if (this.#flushing || this.#stopped) return;
    this.#flushing = true;
    if (this.#options.streams.size < FEW_STREAMS) process.nextTick(this.#flush);
    else setImmediate(this.#flush);
  }

  flush(): void {
    this.#flushing = false;
    if (this.#stopped || this.#options.socket.destroyed) return;
    if (this.#ready.length > 0) this.#takeTurns();
    if (this.writer.pending > 0) this.#write();
  }

  /** Hands what was said over to the network. Whether more may follow. */
  #write(): boolean {
    const { socket, onUnread } = this.#options;
    if (this.#stopped || socket.destroyed) return false;
    for (const { bytes, done } of this.writer.take()) socket.write(bytes, done);
    // More than the socket's own mark, which is to drain then.
    if (socket.writableLength >= CONGESTED_BYTES) this.#congested = true;
    if (socket.writableLength > MAX_UNSENT_BYTES) onUnread();
    return !this.#congested;
  }

  /** Nothing leaves any more. */
  stop(): void {
    this.#stopped = true;
    this.#ready.length = 0;
  }

  #onDrain(): void {
    this.#congested = false;
    if (this.#ready.length > 0) this.flush();
  }

  /** Each in its turn, as long as there is room: a stream with much to say gets in nobody's way. */
  #takeTurns(): void {
    const { socket } = this.#options;
    while (this.#ready.length > 0 && !this.#congested && this.#window > 0 && !socket.destroyed) {
      const stream = this.#ready.shift();
      if (stream === undefined) return;
      stream.queued = false;
      stream.advance();
    }
  }
}
