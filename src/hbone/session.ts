// One HTTP/2 session over mTLS, as far as both ends of a tunnel are alike: its streams, who sends and who listens for them, and the ways it ends.

import type { TLSSocket } from 'node:tls';
import { messageOf } from '../errors.ts';
import type { FrameHost } from './control-frames.ts';
import { DEFAULT_WINDOW, H2Error, h2ErrorName, SessionError } from './frame.ts';
import { FrameReader } from './frame-reader.ts';
import { type HeaderField, HpackError } from './hpack-decoder.ts';
import { IncomingFrames, SESSION_WINDOW } from './incoming-frames.ts';
import { type EffortLimit, Intake } from './intake.ts';
import { Liveness } from './liveness.ts';
import type { ReceiveBudget } from './receive-budget.ts';
import { Sender } from './sender.ts';
import { type StreamHost, TunnelStream } from './tunnel-stream.ts';

export interface SessionOptions {
  readonly socket: TLSSocket;
  readonly budget: ReceiveBudget;
  readonly effort: EffortLimit;
  /** For the peer's SETTINGS, and for the answer to a PING of ours where streams are open and nothing comes. */
  readonly silenceMs: number;
  /** Called once, when nothing goes in or out any more. */
  readonly onClosed: (reason: string) => void;
  /** The peer has said GOAWAY. */
  readonly onLeaving?: () => void;
  /** The last stream has ended. */
  readonly onIdle?: () => void;
}

const LINGER_MS = 2_000;

export abstract class Session implements StreamHost, FrameHost {
  readonly budget: ReceiveBudget;
  readonly streams = new Map<number, TunnelStream>();
  readonly sender: Sender;
  readonly liveness: Liveness;
  lastStreamId = 0;
  /** No new streams: one of the two has said GOAWAY. */
  protected draining = false;
  readonly #socket: TLSSocket;
  readonly #options: SessionOptions;
  readonly #frames: IncomingFrames;
  readonly #reader: FrameReader;
  readonly #intake: Intake;
  #closed: string | undefined;

  protected constructor(options: SessionOptions, peerIs: 'client' | 'server') {
    const { socket, effort, silenceMs } = options;
    this.#options = options;
    this.#socket = socket;
    this.budget = options.budget;
    this.sender = new Sender({ socket, streams: this.streams, onUnread: () => this.#over('the peer does not read', true) });
    this.#frames = new IncomingFrames(this, peerIs);
    this.#reader = new FrameReader(this.#frames);
    this.#intake = new Intake({
      socket,
      effort,
      read: (bytes) => this.#read(bytes),
      onPause: () => this.#reader.halt(),
      onTooMuch: () => this.fail(H2Error.ENHANCE_YOUR_CALM, 'the peer makes work and carries nothing'),
    });
    this.liveness = new Liveness({
      silenceMs,
      excused: () => this.streams.size === 0 || this.#intake.paused,
      ping: (payload) => {
        this.sender.writer.ping(0, payload);
        this.sender.wake();
      },
      onSilence: (of) => {
        if (of === 'settings') this.fail(H2Error.SETTINGS_TIMEOUT, 'no SETTINGS in time');
        else this.#over('the peer does not answer', true);
      },
    });
    socket.on('error', (error) => this.#over(messageOf(error).split('\n')[0] ?? 'reset'));
    socket.once('end', () => this.#over('the peer ended the session'));
    socket.once('close', () => this.#over('the session was closed'));
  }

  abstract onHeaders(streamId: number, fields: readonly HeaderField[] | undefined, endStream: boolean): void;
  abstract onSettings(maxStreams: number | undefined): void;
  /** Bytes that come before the first frame: what is left of them. */
  protected readPreface(bytes: Buffer): Buffer {
    return bytes;
  }

  /** Why it is over; undefined while it is not. */
  get closedBy(): string | undefined {
    return this.#closed;
  }

  /** More is written than the network takes. */
  get saturated(): boolean {
    return this.sender.congested;
  }

  /** The settings that we announce, and the window that makes flow control the streams' own. */
  protected greet(settings: readonly (readonly [id: number, value: number])[]): void {
    this.sender.writer.settings(settings);
    this.sender.writer.windowUpdate(0, SESSION_WINDOW - DEFAULT_WINDOW);
    this.sender.wake();
    // Whoever makes the session has it in hand before it says anything.
    process.nextTick(() => {
      if (this.#closed === undefined && !this.#socket.destroyed) this.#intake.start();
    });
  }

  protected newStream(id: number): TunnelStream {
    const stream = new TunnelStream(id, { host: this, sendWindow: this.sender.streamWindow });
    this.lastStreamId = Math.max(this.lastStreamId, id);
    this.streams.set(id, stream);
    return stream;
  }

  /** Ends the session for a mistake of the peer's, or by our own decision; its streams are broken. */
  fail(code: number, reason: string): void {
    if (this.#closed !== undefined) return;
    this.sender.writer.goaway(this.lastStreamId, code);
    this.sender.flush();
    this.#over(`${h2ErrorName(code)}: ${reason}`, true);
  }

  /** Cuts the session: its peer is not trusted any more. */
  cut(reason: string): void {
    this.fail(H2Error.CANCEL, reason);
    this.#socket.destroy();
  }

  /** Takes no new streams, and closes when the last one has ended. */
  protected finishWhenIdle(): void {
    this.draining = true;
    if (this.streams.size > 0 || this.#closed !== undefined) return;
    this.fail(H2Error.NO_ERROR, 'drained');
  }

  retain(): () => void {
    return this.#intake.retain();
  }

  forget(stream: TunnelStream): void {
    this.streams.delete(stream.id);
    this.#frames.forget(stream);
    if (this.streams.size > 0) return;
    if (this.draining) setImmediate(() => this.finishWhenIdle());
    else this.#options.onIdle?.();
  }

  charge(): void {
    this.#intake.charge();
  }

  breakStream(stream: TunnelStream, code: number): void {
    this.charge();
    this.sender.writeReset(stream, code);
    stream.break(`${h2ErrorName(code)} by the peer`);
  }

  onGoaway(_lastStreamId: number): void {
    this.finishWhenIdle();
    this.#options.onLeaving?.();
  }

  /** How many of the bytes were taken. */
  #read(bytes: Buffer): number {
    this.liveness.heard();
    try {
      if (this.#frames.settled) return this.#reader.push(bytes);
      const rest = this.readPreface(bytes);
      return bytes.length - rest.length + this.#reader.push(rest);
    } catch (error) {
      if (error instanceof SessionError) this.fail(error.code, error.message);
      else if (error instanceof HpackError) this.fail(H2Error.COMPRESSION_ERROR, error.message);
      else this.fail(H2Error.INTERNAL_ERROR, messageOf(error));
      return bytes.length;
    }
  }

  #over(reason: string, linger = false): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    this.#reader.stop();
    this.#intake.stop();
    this.sender.stop();
    this.liveness.stop();
    for (const stream of [...this.streams.values()]) stream.break(`the tunnel ended: ${reason}`);
    const socket = this.#socket;
    if (!linger) socket.destroy();
    else {
      // The GOAWAY is to arrive; what the peer still says is not listened to.
      socket.end();
      socket.resume();
      const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref();
      socket.once('close', () => clearTimeout(timer));
    }
    this.#options.onClosed(reason);
  }
}
