// Frames to bytes: everything that is to be said in one turn is copied behind one another, and leaves as one write, which is one TLS record or a few full ones.

import { Flag, FRAME_HEADER_BYTES, FrameType } from './frame.ts';
import { SLAB_BYTES, Slab } from './slab.ts';

/** A part of what is to be written; `done` is to be called when it has left, or never will. */
export interface Written {
  readonly bytes: Buffer;
  readonly done: () => void;
}

export class FrameWriter {
  #slab: Slab | undefined;
  #end = 0;
  /** Slabs that were filled since the last `take`. */
  #full: Written[] = [];
  #fullBytes = 0;

  /** Bytes that `take` would give. */
  get pending(): number {
    return this.#fullBytes + this.#end;
  }

  /** What was written since the last time, and nothing twice. */
  take(): readonly Written[] {
    if (this.#slab !== undefined) this.#close(this.#slab);
    const taken = this.#full;
    this.#full = [];
    this.#fullBytes = 0;
    return taken;
  }

  data(streamId: number, flags: number, bytes: Uint8Array): void {
    const slab = this.#begin(FrameType.DATA, flags, streamId, bytes.length);
    slab.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  headers(streamId: number, flags: number, block: Uint8Array): void {
    const slab = this.#begin(FrameType.HEADERS, flags | Flag.END_HEADERS, streamId, block.length);
    slab.set(block, this.#end);
    this.#end += block.length;
  }

  rstStream(streamId: number, code: number): void {
    this.#uint32(this.#begin(FrameType.RST_STREAM, 0, streamId, 4), code);
  }

  windowUpdate(streamId: number, increment: number): void {
    this.#uint32(this.#begin(FrameType.WINDOW_UPDATE, 0, streamId, 4), increment);
  }

  settings(settings: readonly (readonly [id: number, value: number])[]): void {
    const slab = this.#begin(FrameType.SETTINGS, 0, 0, 6 * settings.length);
    for (const [id, value] of settings) {
      this.#end = slab.writeUInt16BE(id, this.#end);
      this.#uint32(slab, value);
    }
  }

  settingsAck(): void {
    this.#begin(FrameType.SETTINGS, Flag.ACK, 0, 0);
  }

  ping(flags: number, opaque: Uint8Array): void {
    const slab = this.#begin(FrameType.PING, flags, 0, 8);
    slab.set(opaque, this.#end);
    this.#end += 8;
  }

  goaway(lastStreamId: number, code: number): void {
    const slab = this.#begin(FrameType.GOAWAY, 0, 0, 8);
    this.#uint32(slab, lastStreamId);
    this.#uint32(slab, code);
  }

  /** Bytes that are no frame: the preface. */
  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length).set(bytes, this.#end);
    this.#end += bytes.length;
  }

  #uint32(slab: Buffer, value: number): void {
    this.#end = slab.writeUInt32BE(value, this.#end);
  }

  #begin(type: number, flags: number, streamId: number, length: number): Buffer {
    const slab = this.#reserve(FRAME_HEADER_BYTES + length);
    const at = this.#end;
    slab[at] = length >>> 16;
    slab[at + 1] = length >>> 8;
    slab[at + 2] = length;
    slab[at + 3] = type;
    slab[at + 4] = flags;
    slab[at + 5] = streamId >>> 24;
    slab[at + 6] = streamId >>> 16;
    slab[at + 7] = streamId >>> 8;
    slab[at + 8] = streamId;
    this.#end = at + FRAME_HEADER_BYTES;
    return slab;
  }

  /** The slab, with room for that many bytes at its end. */
  #reserve(bytes: number): Buffer {
    if (this.#slab !== undefined && this.#end + bytes > SLAB_BYTES) this.#close(this.#slab);
    this.#slab ??= Slab.take();
    return this.#slab.bytes;
  }

  #close(slab: Slab): void {
    this.#full.push({ bytes: slab.bytes.subarray(0, this.#end), done: slab.release });
    this.#fullBytes += this.#end;
    this.#slab = undefined;
    this.#end = 0;
  }
}
