// One connection whose requests are read: its own connection to the application, and its requests one after the other, also where a caller sends the next before it has its answer.

import { messageOf } from '../errors.ts';
import { ApplicationAgent } from './application-agent.ts';
import type { HttpConnection } from './http-connection.ts';

/** Pipelined and not begun. Nobody sends this many but to fill our memory. */
const MAX_WAITING = 100;

export class Caller {
  readonly connection: HttpConnection;
  readonly agent: ApplicationAgent;
  /** It has ended, or what came on it cannot be read any more. */
  isOver = false;
  /** The last request was refused, and nothing that follows it is wanted. */
  hasRefused = false;
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(connection: HttpConnection) {
    this.connection = connection;
    this.agent = new ApplicationAgent(
      () => connection.dial(),
      () => this.endIfIdle(),
    );
  }

  get isIdle(): boolean {
    return this.#waiting === 0;
  }

  /** Answers in turn. False where too many wait. */
  inTurn(answer: () => Promise<void>): boolean {
    if (this.#waiting >= MAX_WAITING) return false;
    const begun = this.#waiting++ === 0 ? answer() : this.#turn.then(() => (this.isOver ? undefined : answer()));
    this.#turn = begun
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#waiting--;
      });
    return true;
  }

  /** What nobody has foreseen ends this connection, and not the process. */
  #fail(error: unknown): void {
    this.isOver = true;
    const bytes = { bytesToApplication: 0, bytesFromApplication: 0 };
    const ending = { request: undefined, status: undefined, decision: 'failed', outcome: 'aborted' } as const;
    this.connection.ended({ ...ending, code: 'UNAVAILABLE', reason: messageOf(error), ...bytes, durationMs: 0 });
    this.connection.abort();
  }

  /** Nothing is asked: who asks next would ask into a connection that is going. */
  endIfIdle(): void {
    if (this.isIdle && !this.isOver) this.connection.stream.end();
  }

  close(): void {
    this.isOver = true;
    this.agent.close();
  }
}
