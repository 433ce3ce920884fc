// What a client says before anybody has agreed to hear it: said behind the question, and kept in the client's socket until the answer has come.

import type { Socket } from 'node:net';
import type { TunnelStream } from '../hbone/tunnel-stream.ts';

export class FirstWords {
  readonly #socket: Socket;
  readonly #stream: TunnelStream;
  #length = 0;

  /** Reads once, and goes on listening for a client that leaves. */
  constructor(socket: Socket, stream: TunnelStream) {
    this.#socket = socket;
    this.#stream = stream;
    socket.on('data', this.#onData);
    socket.resume();
  }

  /** Reads no more. Whether something was said. */
  stop(): boolean {
    this.#socket.removeListener('data', this.#onData);
    this.#socket.pause();
    return this.#length > 0;
  }

  /** Somebody has heard them. */
  drop(): void {
    if (this.#length > 0) this.#socket.read(this.#length);
  }

  readonly #onData = (bytes: Buffer): void => {
    this.#length = bytes.length;
    this.stop();
    // Back at once: a socket with something to read does not end, so the client's end stays behind its words, whoever is to hear them.
    this.#socket.unshift(bytes);
    this.#stream.write(bytes);
  };
}
