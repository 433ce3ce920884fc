// What comes in, frame by frame: in an order that RFC 9113 allows, DATA to its stream as it comes, header blocks and control frames to whoever understands them.

import { ControlFrames, type FrameHost } from './control-frames.ts';
import { Flag, FrameType, H2Error, MAX_WINDOW, SessionError } from './frame.ts';
import type { FrameSink } from './frame-reader.ts';
import { HeaderBlocks } from './header-blocks.ts';
import type { TunnelStream } from './tunnel-stream.ts';

/** The session's own window, and how much of it may be used before it is filled up again: memory is bounded by the windows of the streams. */
export const SESSION_WINDOW = MAX_WINDOW;
const REFILL_AT = SESSION_WINDOW / 2;

export class IncomingFrames implements FrameSink {
  readonly #host: FrameHost;
  readonly #headers: HeaderBlocks;
  readonly #control: ControlFrames;
  /** Of the session's window. */
  #received = 0;
  /** Of the DATA frame that is being read. */
  #receiving: TunnelStream | undefined;
  #frameBytes = 0;
  #endsStream = false;

  constructor(host: FrameHost, peerIs: 'client' | 'server') {
    this.#host = host;
    this.#headers = new HeaderBlocks((streamId, flags, fields) => host.onHeaders(streamId, fields, (flags & Flag.END_STREAM) !== 0));
    this.#control = new ControlFrames(host, peerIs);
  }

  /** The peer has said its SETTINGS, and so its preface before it. */
  get settled(): boolean {
    return this.#control.settled;
  }

  /** The stream is over: whatever else there is of its frame is nobody's. */
  forget(stream: TunnelStream): void {
    if (this.#receiving === stream) this.#receiving = undefined;
  }

  dataBegins(streamId: number, length: number, flags: number): void {
    const host = this.#host;
    this.#mustBeSettled();
    this.#headers.mustBeClosed();
    if (streamId === 0 || streamId > host.lastStreamId) throw new SessionError(H2Error.PROTOCOL_ERROR, `DATA on stream ${streamId}`);
    this.#received += length;
    if (this.#received > REFILL_AT) {
      host.sender.writer.windowUpdate(0, this.#received);
      host.sender.wake();
      this.#received = 0;
    }
    this.#endsStream = (flags & Flag.END_STREAM) !== 0;
    this.#frameBytes = length;
    if (length === 0 && !this.#endsStream) host.charge();
    this.#receiving = this.#receiver(streamId, length);
  }

  data(bytes: Buffer): void {
    this.#frameBytes -= bytes.length;
    this.#receiving?.receive(bytes);
  }

  dataEnds(): void {
    const stream = this.#receiving;
    this.#receiving = undefined;
    if (stream === undefined) return;
    // Padding is nobody's to read.
    if (this.#frameBytes > 0) stream.consumed(this.#frameBytes);
    if (this.#endsStream) stream.receiveEnd();
  }

  frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (type !== FrameType.SETTINGS) this.#mustBeSettled();
    if (type === FrameType.HEADERS) this.#headers.begin({ streamId, flags, payload });
    else if (type === FrameType.CONTINUATION) this.#headers.continue({ streamId, flags, payload });
    else {
      this.#headers.mustBeClosed();
      this.#control.frame(type, flags, streamId, payload);
    }
  }

  /** Who takes a DATA frame. One that we have reset is unknown by now, and what was on its way is dropped. */
  #receiver(streamId: number, length: number): TunnelStream | undefined {
    const stream = this.#host.streams.get(streamId);
    if (stream === undefined) return undefined;
    if (stream.endedByPeer) this.#host.breakStream(stream, H2Error.STREAM_CLOSED);
    else if (stream.unanswered) this.#host.breakStream(stream, H2Error.PROTOCOL_ERROR);
    else if (!stream.admits(length)) this.#host.breakStream(stream, H2Error.FLOW_CONTROL_ERROR);
    else return stream;
    return undefined;
  }

  #mustBeSettled(): void {
    if (!this.#control.settled) throw new SessionError(H2Error.PROTOCOL_ERROR, 'the first frame must be SETTINGS');
  }
}
