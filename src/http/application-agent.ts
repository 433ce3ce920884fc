// The one connection to the application that belongs to one connection of a caller. It is kept alive as long as both want it and is nobody else's: the application sees what it
// would see without us, no caller's answer can come to another, and one that the application ends while nothing is asked ends the caller's too, so that the caller asks nothing into it.

import { Agent, type AgentOptions } from 'node:http';
import type { Socket } from 'node:net';

/** Bytes as the application sees them. */
export interface ByteCounts {
  readonly bytesWritten: number;
  readonly bytesRead: number;
}

export class ApplicationAgent extends Agent implements ByteCounts {
  readonly #dial: () => Socket;
  readonly #onGone: () => void;
  readonly #open = new Set<Socket>();
  #bytesWritten = 0;
  #bytesRead = 0;
  #hasConnected = false;

  /** `dial` answers at once, with a socket that may not be connected yet; `onGone` hears each time that one has closed. */
  constructor(dial: () => Socket, onGone: () => void) {
    // Requests come in turn, so one socket is used at a time. None may wait for another one's end: http-proxy would send what it has put together before we hear of a socket.
    super({ keepAlive: true, maxFreeSockets: 1 } satisfies AgentOptions);
    this.#dial = dial;
    this.#onGone = onGone;
  }

  /** Of the last connection that was made: the application was there. */
  get hasConnected(): boolean {
    return this.#hasConnected;
  }

  get bytesWritten(): number {
    return this.#sum(this.#bytesWritten, ({ bytesWritten }) => bytesWritten);
  }

  get bytesRead(): number {
    return this.#sum(this.#bytesRead, ({ bytesRead }) => bytesRead);
  }

  override createConnection(): Socket {
    const socket = this.#dial();
    this.#open.add(socket);
    this.#hasConnected = false;
    socket.once('connect', () => {
      this.#hasConnected = true;
    });
    socket.once('close', () => {
      this.#open.delete(socket);
      this.#bytesWritten += socket.bytesWritten;
      this.#bytesRead += socket.bytesRead;
      this.#onGone();
    });
    return socket;
  }

  /** Nothing more will be said to the application; it may still answer. */
  endWrites(): void {
    for (const socket of this.#open) socket.end();
  }

  /** Whatever it is used for: an upgraded connection has left Node's own books. */
  close(): void {
    for (const socket of this.#open) socket.destroy();
    this.destroy();
  }

  #sum(closed: number, of: (socket: Socket) => number): number {
    let sum = closed;
    for (const socket of this.#open) sum += of(socket);
    return sum;
  }
}
