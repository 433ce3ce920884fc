// What a client says before anybody has agreed to hear it: said behind the question, and kept until the answer has come.

import type { Socket } from 'node:net';
import type { TunnelStream } from '../hbone/tunnel-stream.ts';
import { type Reading, readAsStream, readInto } from '../net/read-into.ts';

/** One for all clients: what is kept is copied. */
const READ_BUFFER = Buffer.allocUnsafeSlow(64 * 1024);

export class FirstWords {
  readonly #socket: Socket;
  #reading: Reading | undefined;
  #said: Buffer | undefined;
  #stream: TunnelStream | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /**
   * Said to a stream that is being asked for: what is known already, or what is read next. Goes on listening for a client that leaves. From the first time on the socket is nobody else's to read
   * until `drop` or `putBack`, whoever else is asked meanwhile.
   */
  sayTo(stream: TunnelStream): void {
    this.#reading ??= readInto(this.#socket, { buffer: () => READ_BUFFER, onBytes: (bytes) => this.#onBytes(bytes) });
    if (this.#said !== undefined) stream.write(this.#said);
    else {
      this.#stream = stream;
      this.#reading.start();
    }
  }

  /** Reads no more. Whether something was said. */
  stop(): boolean {
    this.#reading?.stop();
    this.#stream = undefined;
    return this.#said !== undefined;
  }

  /** Somebody has heard them. */
  drop(): void {
    this.#said = undefined;
  }

  /** Nobody has heard them: they are the socket's again, and somebody is about to read it as a stream. */
  putBack(): void {
    if (this.#reading === undefined) return;
    this.stop();
    if (this.#said !== undefined) this.#socket.unshift(this.#said);
    this.#said = undefined;
    readAsStream(this.#socket);
  }

  #onBytes(bytes: Buffer): void {
    this.#said = this.#said === undefined ? Buffer.from(bytes) : Buffer.concat([this.#said, bytes]);
    const stream = this.#stream;
    // No further: the client's end stays behind its words, whoever is to hear them.
    this.stop();
    stream?.write(bytes);
  }
}
