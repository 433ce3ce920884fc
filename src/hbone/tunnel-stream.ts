// One connection inside a tunnel: an HTTP/2 stream with its two windows, its half-close and its reset, without the machinery of node:stream.

import { DEFAULT_WINDOW, H2Error } from './frame.ts';
import { HeldBytes } from './held-bytes.ts';
import type { ReceiveBudget } from './receive-budget.ts';
import { SLAB_BYTES, Slab } from './slab.ts';

/** Where a stream's bytes go. */
export interface TunnelSink {
  /** False when they are held up: whoever takes them says so to `consumed` later. The buffer is used again after this returns, unless `retain` was called. */
  data(bytes: Buffer): boolean;
  end(): void;
  /** What `write` could not take at once has left. */
  drained(): void;
  /** Over before both ends had ended. */
  broken(reason: string): void;
  /** Nothing comes after it, in whatever way it ended. */
  closed(): void;
}

/** What a stream says, its session sends. */
export interface StreamSender {
  /** Writes as much as windows and the turn allow; answers how many bytes. */
  emit(stream: TunnelStream, bytes: Buffer, most: number): number;
  /** The stream has more to say and a window for it: it gets its turn. */
  enqueue(stream: TunnelStream): void;
  writeEnd(stream: TunnelStream): void;
  writeReset(stream: TunnelStream, code: number): void;
  writeCredit(stream: TunnelStream, bytes: number): void;
}

/** What a stream needs of its session. */
export interface StreamHost {
  readonly budget: ReceiveBudget;
  readonly sender: StreamSender;
  /** What is being received stands in a buffer that somebody still needs, until the returned function is called. */
  retain(): () => void;
  /** Both ends have ended, or it was reset. */
  forget(stream: TunnelStream): void;
}

/** A stream's window at first, and as far as it grows while its reader keeps up. */
const FIRST_WINDOW = DEFAULT_WINDOW;
const LARGEST_WINDOW = 16 * FIRST_WINDOW;
/** What a stream says in one turn while others wait: with its frame header one full TLS record. */
export const TURN_BYTES = 16_375;

/** What is smaller may wait for long, and for many. */
const WORTH_A_SLAB_BYTES = SLAB_BYTES / 4;

/** Hears when bytes pass, in either direction. */
export interface Watcher {
  received(): void;
  written(): void;
}

/** Why a stream was over before its time, and HTTP/2's code for it: REFUSED_STREAM promises that the peer has done nothing with it. */
export interface Broken {
  readonly reason: string;
  readonly code: number;
}

export class TunnelStream {
  readonly id: number;
  /** The session's to change: what the peer lets us send. */
  sendWindow: number;
  /** Waits for its turn. */
  queued = false;
  /** The session's to change: a CONNECT of ours without its answer, so that nothing may come on it yet. */
  unanswered = false;
  readonly #host: StreamHost;
  #pending: Buffer | undefined;
  /** What it stands in. */
  #slab: Slab | undefined;
  #endWanted = false;
  #endSent = false;
  #receiveWindow = FIRST_WINDOW;
  #windowSize = FIRST_WINDOW;
  /** Taken in, and not yet given back to the peer. */
  #taken = 0;
  #early: Buffer[] | undefined;
  readonly #held: HeldBytes;
  #remoteEnded = false;
  #sink: TunnelSink | undefined;
  #watcher: Watcher | undefined;
  #onLost: (() => void) | undefined;
  #broken: Broken | undefined;
  #closed = false;

  constructor(id: number, { host, sendWindow }: { host: StreamHost; sendWindow: number }) {
    this.id = id;
    this.#host = host;
    this.#held = new HeldBytes(host.budget);
    this.sendWindow = sendWindow;
  }

  /** Both ends have ended, or it was reset by either side. */
  get closed(): boolean {
    return this.#closed;
  }

  get endedByPeer(): boolean {
    return this.#remoteEnded;
  }

  /** Something waits to leave: nothing more is to be written before `drained`. */
  get heldUp(): boolean {
    return this.#pending !== undefined;
  }

  /** Why it was over before its time, if it was. */
  get brokenBy(): Broken | undefined {
    return this.#broken;
  }

  /** What has come so far is handed over now, with the end or the reset that came behind it. */
  attach(sink: TunnelSink): void {
    this.#sink = sink;
    const early = this.#early;
    this.#early = undefined;
    this.#held.release();
    for (const bytes of early ?? []) this.#deliver(bytes, sink);
    if (this.#broken !== undefined) sink.broken(this.#broken.reason);
    else if (this.#remoteEnded) sink.end();
    if (this.#closed) sink.closed();
  }

  /** One watcher at a time; undefined for none. */
  watch(watcher: Watcher | undefined): void {
    this.#watcher = watcher;
  }

  /** Calls back when it is broken before anything is attached; undefined for nobody. */
  whenLost(onLost: (() => void) | undefined): void {
    this.#onLost = onLost;
  }

  /** What is being received is needed for longer than `data` runs: until the returned function is called. */
  retain(): () => void {
    return this.#host.retain();
  }

  /** False when not all of it has left: then nothing more is to be written before `drained`. What has not is copied: the buffer is the caller's again. */
  write(bytes: Buffer): boolean {
    if (this.#closed || this.#endWanted) return true;
    this.#watcher?.written();
    if (this.#pending !== undefined) {
      this.#pending = Buffer.concat([this.#pending, bytes]);
      this.#releaseSlab();
      return false;
    }
    const sent = this.#host.sender.emit(this, bytes, bytes.length);
    if (sent === bytes.length) return true;
    this.#keep(this.#copyOf(bytes.subarray(sent)));
    return false;
  }

  /** Our half is over, once everything has left. */
  end(): void {
    if (this.#closed || this.#endWanted) return;
    this.#endWanted = true;
    if (this.#pending === undefined) this.#sendEnd();
  }

  /** Over at once, on both sides. */
  reset(code: number = H2Error.CANCEL): void {
    if (this.#closed) return;
    this.#host.sender.writeReset(this, code);
    this.#close();
  }

  /** The reader has taken in bytes that it had held up. */
  consumed(bytes: number): void {
    this.#held.taken(bytes);
    this.#taken += bytes;
    if (this.#taken * 2 < this.#windowSize || this.#remoteEnded || this.#closed) return;
    let credit = this.#taken;
    this.#taken = 0;
    // A reader that keeps up may be sent more ahead, so that distance does not slow it down.
    if (this.#windowSize < LARGEST_WINDOW && this.#host.budget.take(this.#windowSize)) {
      credit += this.#windowSize;
      this.#windowSize *= 2;
    }
    this.#receiveWindow += credit;
    this.#host.sender.writeCredit(this, credit);
  }

  /** For the session: its turn to write. */
  advance(): void {
    const pending = this.#pending;
    if (pending === undefined || this.#closed) return;
    const sent = this.#host.sender.emit(this, pending, TURN_BYTES);
    if (sent < pending.length) this.#keep(pending.subarray(sent));
    else {
      this.#pending = undefined;
      this.#releaseSlab();
      if (this.#endWanted) this.#sendEnd();
      else this.#sink?.drained();
    }
  }

  /** For the session: a larger window, by WINDOW_UPDATE or SETTINGS. */
  widen(bytes: number): void {
    this.sendWindow += bytes;
    if (this.#pending !== undefined && this.sendWindow > 0) this.#host.sender.enqueue(this);
  }

  /** For the session: a DATA frame begins. False when the peer had no window for it. */
  admits(bytes: number): boolean {
    this.#receiveWindow -= bytes;
    return this.#receiveWindow >= 0;
  }

  /** For the session: bytes from the peer. */
  receive(bytes: Buffer): void {
    if (this.#closed) return;
    this.#watcher?.received();
    if (this.#sink !== undefined) this.#deliver(bytes, this.#sink);
    else {
      this.#early ??= [];
      this.#early.push(Buffer.from(bytes));
      this.#hold(bytes.length);
    }
  }

  /** For the session: the peer's half is over. */
  receiveEnd(): void {
    if (this.#closed || this.#remoteEnded) return;
    this.#remoteEnded = true;
    this.#sink?.end();
    this.#closeIfBothEnded();
  }

  /** For the session: it was reset by the peer, or the session is over. */
  break(reason: string, code: number = H2Error.CANCEL): void {
    if (this.#closed) return;
    this.#broken = { reason, code };
    this.#finish();
    this.#sink?.broken(reason);
    this.#sink?.closed();
    if (this.#sink === undefined) this.#onLost?.();
  }

  #deliver(bytes: Buffer, sink: TunnelSink): void {
    if (sink.data(bytes)) this.consumed(bytes.length);
    else this.#hold(bytes.length);
  }

  /** Where too much waits for its readers, who is in nobody's way goes on: it ends for those who send more of it. */
  #hold(bytes: number): void {
    if (this.#closed || this.#held.add(bytes)) return;
    this.#host.sender.writeReset(this, H2Error.ENHANCE_YOUR_CALM);
    this.break('too much waits for readers that are slower than their peers', H2Error.ENHANCE_YOUR_CALM);
  }

  #copyOf(rest: Buffer): Buffer {
    if (rest.length < WORTH_A_SLAB_BYTES || rest.length > SLAB_BYTES) return Buffer.from(rest);
    this.#slab = Slab.take();
    return this.#slab.bytes.subarray(0, rest.copy(this.#slab.bytes));
  }

  #releaseSlab(): void {
    this.#slab?.release();
    this.#slab = undefined;
  }

  #keep(rest: Buffer): void {
    this.#pending = rest;
    if (this.sendWindow > 0) this.#host.sender.enqueue(this);
  }

  #sendEnd(): void {
    this.#endSent = true;
    this.#host.sender.writeEnd(this);
    this.#closeIfBothEnded();
  }

  #closeIfBothEnded(): void {
    if (this.#endSent && this.#remoteEnded) this.#close();
  }

  #close(): void {
    this.#finish();
    this.#sink?.closed();
  }

  #finish(): void {
    this.#closed = true;
    this.#pending = undefined;
    this.#releaseSlab();
    this.#held.release();
    if (this.#windowSize > FIRST_WINDOW) this.#host.budget.give(this.#windowSize - FIRST_WINDOW);
    this.#host.forget(this);
  }
}
