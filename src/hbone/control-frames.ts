// Frames that carry nothing of anybody's: SETTINGS, windows, resets, PINGs and GOAWAY, each with what RFC 9113 forbids it.

import { Flag, FrameType, H2Error, h2ErrorName, MAX_WINDOW, SessionError } from './frame.ts';
import type { HeaderField } from './hpack-decoder.ts';
import type { Liveness } from './liveness.ts';
import { readSettings } from './read-settings.ts';
import type { Sender } from './sender.ts';
import type { TunnelStream } from './tunnel-stream.ts';

/** What frames are about: the session. */
export interface FrameHost {
  readonly streams: ReadonlyMap<number, TunnelStream>;
  /** The highest stream that either side has opened. */
  readonly lastStreamId: number;
  readonly sender: Sender;
  readonly liveness: Liveness;
  /** Counts what makes work and carries nothing. */
  charge(): void;
  /** For a mistake of the peer's that is one stream's alone: counted, and the stream reset. */
  breakStream(stream: TunnelStream, code: number): void;
  /** `fields` is undefined for a list that is too long. */
  onHeaders(streamId: number, fields: readonly HeaderField[] | undefined, endStream: boolean): void;
  /** SETTINGS have come, perhaps with how many streams the peer takes. */
  onSettings(maxStreams: number | undefined): void;
  onGoaway(lastStreamId: number): void;
}

export class ControlFrames {
  settled = false;
  readonly #host: FrameHost;
  readonly #peerIs: 'client' | 'server';
  #acknowledged = false;

  constructor(host: FrameHost, peerIs: 'client' | 'server') {
    this.#host = host;
    this.#peerIs = peerIs;
  }

  frame(type: number, flags: number, streamId: number, payload: Buffer): void {
    switch (type) {
      case FrameType.SETTINGS:
        this.#onSettings(flags, streamId, payload);
        break;
      case FrameType.WINDOW_UPDATE:
        this.#onWindowUpdate(streamId, payload);
        break;
      case FrameType.RST_STREAM:
        this.#onReset(streamId, payload);
        break;
      case FrameType.PING:
        this.#onPing(flags, streamId, payload);
        break;
      case FrameType.GOAWAY:
        if (streamId !== 0) throw new SessionError(H2Error.PROTOCOL_ERROR, `GOAWAY on stream ${streamId}`);
        if (payload.length < 8) throw new SessionError(H2Error.FRAME_SIZE_ERROR, 'a short GOAWAY');
        this.#host.charge();
        this.#host.onGoaway(payload.readUInt32BE(0) & MAX_WINDOW);
        break;
      case FrameType.PUSH_PROMISE:
        throw new SessionError(H2Error.PROTOCOL_ERROR, 'PUSH_PROMISE');
      case FrameType.PRIORITY:
        if (streamId === 0) throw new SessionError(H2Error.PROTOCOL_ERROR, 'PRIORITY on stream 0');
        if (payload.length !== 5) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `PRIORITY of ${payload.length} bytes`);
        this.#host.charge();
        break;
      default:
        // Types that nobody knows are to be ignored (RFC 9113, 4.1), which is work all the same.
        this.#host.charge();
    }
  }

  #onSettings(flags: number, streamId: number, payload: Buffer): void {
    const { sender, liveness } = this.#host;
    if (streamId !== 0) throw new SessionError(H2Error.PROTOCOL_ERROR, `SETTINGS on stream ${streamId}`);
    if ((flags & Flag.ACK) !== 0) {
      this.#onAcknowledged(payload);
      return;
    }
    if (this.settled) this.#host.charge();
    const { initialWindow, maxStreams } = readSettings(payload, this.#peerIs);
    this.settled = true;
    liveness.settled();
    sender.writer.settingsAck();
    if (initialWindow !== undefined) sender.resize(initialWindow);
    sender.wake();
    this.#host.onSettings(maxStreams);
  }

  #onAcknowledged(payload: Buffer): void {
    if (payload.length > 0) throw new SessionError(H2Error.FRAME_SIZE_ERROR, 'SETTINGS ACK with a payload');
    if (!this.settled) throw new SessionError(H2Error.PROTOCOL_ERROR, 'the first frame must be SETTINGS');
    // We say ours once.
    if (this.#acknowledged) this.#host.charge();
    this.#acknowledged = true;
  }

  #onWindowUpdate(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `WINDOW_UPDATE of ${payload.length} bytes`);
    const increment = payload.readUInt32BE(0) & MAX_WINDOW;
    const stream = this.#known(streamId, 'WINDOW_UPDATE');
    if (streamId === 0) {
      if (increment === 0) throw new SessionError(H2Error.PROTOCOL_ERROR, 'WINDOW_UPDATE by 0');
      this.#host.sender.widen(increment);
    } else if (stream === undefined) return;
    else if (increment === 0) this.#host.breakStream(stream, H2Error.PROTOCOL_ERROR);
    else if (stream.sendWindow + increment > MAX_WINDOW) this.#host.breakStream(stream, H2Error.FLOW_CONTROL_ERROR);
    else stream.widen(increment);
  }

  #onReset(streamId: number, payload: Buffer): void {
    if (streamId === 0) throw new SessionError(H2Error.PROTOCOL_ERROR, 'RST_STREAM on stream 0');
    if (payload.length !== 4) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `RST_STREAM of ${payload.length} bytes`);
    const stream = this.#known(streamId, 'RST_STREAM');
    this.#host.charge();
    const code = payload.readUInt32BE(0);
    stream?.break(`reset by the peer: ${h2ErrorName(code)}`, code);
  }

  #onPing(flags: number, streamId: number, payload: Buffer): void {
    const { sender, liveness } = this.#host;
    if (streamId !== 0) throw new SessionError(H2Error.PROTOCOL_ERROR, `PING on stream ${streamId}`);
    if (payload.length !== 8) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `PING of ${payload.length} bytes`);
    if ((flags & Flag.ACK) !== 0) {
      if (!liveness.answered(payload)) this.#host.charge();
      return;
    }
    this.#host.charge();
    sender.writer.ping(Flag.ACK, payload);
    sender.wake();
  }

  /** Undefined for stream 0, and for one that is over. */
  #known(streamId: number, what: string): TunnelStream | undefined {
    if (streamId > this.#host.lastStreamId) throw new SessionError(H2Error.PROTOCOL_ERROR, `${what} on idle stream ${streamId}`);
    return this.#host.streams.get(streamId);
  }
}
