// Bytes to frames: DATA is passed on as it comes, in the buffers it came in; everything else is small, and collected whole.

import { Flag, FRAME_HEADER_BYTES, FrameType, H2Error, MAX_FRAME_BYTES, SessionError } from './frame.ts';

/** Called while `push` runs. A SessionError that is thrown here comes out of `push`. */
export interface FrameSink {
  /** `length` is what flow control counts: payload and padding. */
  dataBegins(streamId: number, length: number, flags: number): void;
  /** A part of its payload, without padding; never empty. The buffer belongs to whoever is called. */
  data(bytes: Buffer): void;
  dataEnds(): void;
  /** Any other frame. The payload is only to be looked at until this returns. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): void;
}

const NOTHING = Buffer.alloc(0);

export class FrameReader {
  readonly #sink: FrameSink;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerLength = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Of the current frame's payload, still to come; -1 between frames. */
  #left = -1;
  /** Of those, padding at the end; -1 while the byte that says so is still to come. */
  #padding = 0;
  /** A payload that did not come in one piece. */
  #collected: Buffer | undefined;
  #collectedLength = 0;
  #halted = false;
  #stopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** What is being pushed is read no further than the frame it has come to; the next `push` goes on from there. */
  halt(): void {
    this.#halted = true;
  }

  /** Nothing more is read, not even of what is being pushed. */
  stop(): void {
    this.#stopped = true;
    this.#halted = true;
  }

  /** How many bytes were read: all of them, unless it was halted. Throws SessionError for what is no frame. */
  push(chunk: Buffer): number {
    this.#halted = this.#stopped;
    let offset = 0;
    const end = chunk.length;
    while (offset < end && !this.#halted) {
      if (this.#left < 0) offset = this.#readHeader(chunk, offset);
      else if (this.#type === FrameType.DATA) offset = this.#readData(chunk, offset);
      else offset = this.#readPayload(chunk, offset);
    }
    return offset;
  }

  #readHeader(chunk: Buffer, offset: number): number {
    if (this.#headerLength === 0 && chunk.length - offset >= FRAME_HEADER_BYTES) {
      this.#begin(chunk, offset);
      return offset + FRAME_HEADER_BYTES;
    }
    const taken = chunk.copy(this.#header, this.#headerLength, offset, offset + FRAME_HEADER_BYTES - this.#headerLength);
    this.#headerLength += taken;
    if (this.#headerLength === FRAME_HEADER_BYTES) {
      this.#headerLength = 0;
      this.#begin(this.#header, 0);
    }
    return offset + taken;
  }

  #begin(bytes: Buffer, at: number): void {
    const length = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    this.#type = bytes[at + 3] ?? 0;
    this.#flags = bytes[at + 4] ?? 0;
    this.#streamId =
      (((bytes[at + 5] ?? 0) & 0x7f) << 24) | ((bytes[at + 6] ?? 0) << 16) | ((bytes[at + 7] ?? 0) << 8) | (bytes[at + 8] ?? 0);
    if (length > MAX_FRAME_BYTES) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `a frame of ${length} bytes`);
    this.#left = length;
    if (this.#type === FrameType.DATA) {
      const padded = (this.#flags & Flag.PADDED) !== 0;
      if (padded && length === 0) throw new SessionError(H2Error.FRAME_SIZE_ERROR, 'a padded DATA frame without its padding');
      this.#padding = padded ? -1 : 0;
      this.#sink.dataBegins(this.#streamId, length, this.#flags);
      if (length === 0) this.#endData();
    } else if (length === 0) {
      this.#left = -1;
      this.#sink.frame(this.#type, this.#flags, this.#streamId, NOTHING);
    }
  }

  #readData(chunk: Buffer, start: number): number {
    let offset = start;
    if (this.#padding < 0) {
      this.#padding = chunk[offset++] ?? 0;
      this.#left--;
      if (this.#padding > this.#left) throw new SessionError(H2Error.PROTOCOL_ERROR, 'a DATA frame with more padding than payload');
    }
    const payload = Math.min(this.#left - this.#padding, chunk.length - offset);
    if (payload > 0) {
      this.#left -= payload;
      this.#sink.data(payload === chunk.length ? chunk : chunk.subarray(offset, offset + payload));
      offset += payload;
    }
    if (this.#left <= this.#padding) {
      const skipped = Math.min(this.#left, chunk.length - offset);
      this.#left -= skipped;
      this.#padding = this.#left;
      offset += skipped;
    }
    if (this.#left === 0) this.#endData();
    return offset;
  }

  #endData(): void {
    this.#left = -1;
    if (!this.#stopped) this.#sink.dataEnds();
  }

  #readPayload(chunk: Buffer, offset: number): number {
    const whole = this.#left;
    if (this.#collected === undefined && chunk.length - offset >= whole) {
      this.#left = -1;
      this.#sink.frame(this.#type, this.#flags, this.#streamId, chunk.subarray(offset, offset + whole));
      return offset + whole;
    }
    this.#collected ??= Buffer.allocUnsafe(whole);
    const taken = chunk.copy(this.#collected, this.#collectedLength, offset);
    this.#collectedLength += taken;
    if (this.#collectedLength === whole) {
      const payload = this.#collected;
      this.#collected = undefined;
      this.#collectedLength = 0;
      this.#left = -1;
      this.#sink.frame(this.#type, this.#flags, this.#streamId, payload);
    }
    return offset + taken;
  }
}
