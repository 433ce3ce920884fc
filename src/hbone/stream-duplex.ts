// A tunnel's stream as what HTTP servers serve: a Duplex, with backpressure both ways, half-close and reset. For those connections whose requests are read; all others are joined without it.

import { Duplex } from 'node:stream';
import { H2Error } from './frame.ts';
import type { TunnelStream } from './tunnel-stream.ts';

type Done = (error?: Error | null) => void;

export class StreamDuplex extends Duplex {
  readonly #stream: TunnelStream;
  /** Taken out of the stream, and not yet by the reader. */
  #heldUp = 0;
  /** Waits for what was written to leave. */
  #writing: Done | undefined;

  constructor(stream: TunnelStream) {
    super({ allowHalfOpen: true });
    this.#stream = stream;
    stream.attach({
      data: (bytes) => {
        // The session reads into the same buffer again.
        const more = this.push(Buffer.from(bytes));
        if (!more) this.#heldUp += bytes.length;
        return more;
      },
      end: () => this.push(null),
      drained: () => this.#written(),
      broken: (reason) => this.destroy(Object.assign(new Error(reason), { code: 'ECONNRESET' })),
      closed: () => this.#written(),
    });
  }

  // What HTTP servers and proxies ask of a socket; a stream has neither timers nor probes of its own.
  setTimeout(): this {
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  override _read(): void {
    const taken = this.#heldUp;
    this.#heldUp = 0;
    if (taken > 0) this.#stream.consumed(taken);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#send(chunk, done);
  }

  /** Head and body of an answer are one write. */
  override _writev(chunks: { chunk: Buffer; encoding: BufferEncoding }[], done: Done): void {
    this.#send(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: Done): void {
    // Everything that was written has left by now.
    this.#stream.end();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    this.#stream.reset(H2Error.CONNECT_ERROR);
    this.#written(error ?? undefined);
    done(error);
  }

  #send(bytes: Buffer, done: Done): void {
    if (this.#stream.write(bytes)) done();
    else this.#writing = done;
  }

  #written(error?: Error): void {
    const done = this.#writing;
    this.#writing = undefined;
    done?.(error);
  }
}
