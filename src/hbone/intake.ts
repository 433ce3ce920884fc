// A session's bytes as they come: read into one buffer over and over, and left where they are for a while when the peer makes too much work of them.

import type { TLSSocket } from 'node:tls';
import { type Reading, readInto } from '../net/read-into.ts';
import { ReadBuffer } from './slab.ts';

/** What makes work without carrying a byte is counted against the peer: 0, or for how many milliseconds it is not listened to. */
export type EffortLimit = () => number;

export interface IntakeOptions {
  readonly socket: TLSSocket;
  readonly effort: EffortLimit;
  /** Takes bytes, and answers how many: fewer than all only when `charge` has ended its patience meanwhile. */
  readonly read: (bytes: Buffer) => number;
  /** The peer is not listened to from now on: what is being read is to be read no further. */
  readonly onPause: () => void;
  /** It makes too much work however long it is not listened to. */
  readonly onTooMuch: () => void;
}

/** The first pause, and the longest; each in a row is twice as long as the one before. */
const MIN_PAUSE_MS = 100;
const MAX_PAUSE_MS = 1_000;
/** After so long without a pause, the next one is the first again. */
const CALM_MS = 1_000;
/** About 7 s. Until then nobody notices whether such a peer has left: what it said is not read to the end. */
const MAX_PAUSES = 10;

export class Intake {
  readonly #options: IntakeOptions;
  #buffer = ReadBuffer.take();
  #reading: Reading | undefined;
  #pause: NodeJS.Timeout | undefined;
  /** Came before the pause and is not to be looked at yet: no more than TLS had in hand when the socket was paused. */
  readonly #kept: Buffer[] = [];
  #pausesInARow = 0;
  #resumedAt = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  get paused(): boolean {
    return this.#pause !== undefined;
  }

  start(): void {
    const { socket } = this.#options;
    this.#reading = readInto(socket, { buffer: () => this.#nextBuffer(), onBytes: (bytes) => this.#onBytes(bytes) });
    // What was there already may have been too much.
    if (this.#pause === undefined && !this.#stopped) this.#reading.start();
  }

  /** What is being read stands in a buffer that somebody still needs, until the returned function is called. */
  retain(): () => void {
    return this.#buffer.retain();
  }

  /** Counts what makes work and carries nothing. A peer that makes too much of it is not listened to for a while; its other streams wait with it. */
  charge(): void {
    const waitMs = this.#options.effort();
    if (waitMs === 0 || this.#pause !== undefined || this.#stopped) return;
    if (performance.now() - this.#resumedAt > CALM_MS) this.#pausesInARow = 0;
    if (++this.#pausesInARow > MAX_PAUSES) {
      this.#options.onTooMuch();
      return;
    }
    this.#reading?.stop();
    this.#options.onPause();
    const pauseMs = Math.min(MAX_PAUSE_MS, MIN_PAUSE_MS * 2 ** (this.#pausesInARow - 1));
    this.#pause = setTimeout(() => this.#resume(), Math.max(waitMs, pauseMs)).unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#pause);
    this.#kept.length = 0;
  }

  /** The same buffer over and over, unless somebody still needs what is in it. */
  #nextBuffer(): Buffer {
    if (this.#buffer.needed) {
      this.#buffer.give();
      this.#buffer = ReadBuffer.take();
    }
    return this.#buffer.bytes;
  }

  #onBytes(bytes: Buffer): void {
    if (this.#stopped) return;
    const taken = this.#pause === undefined ? this.#options.read(bytes) : 0;
    if (taken < bytes.length && !this.#stopped) this.#kept.push(Buffer.from(bytes.subarray(taken)));
  }

  #resume(): void {
    this.#pause = undefined;
    this.#resumedAt = performance.now();
    // What the pause was for has not been counted yet.
    this.charge();
    while (!this.#stopped && this.#pause === undefined) {
      const bytes = this.#kept[0];
      if (bytes === undefined) {
        this.#reading?.start();
        return;
      }
      const taken = this.#options.read(bytes);
      if (taken < bytes.length) this.#kept[0] = bytes.subarray(taken);
      else this.#kept.shift();
    }
  }
}
