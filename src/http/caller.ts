// One connection whose requests are read: its own connection to the application, and its requests one after the other, also where a caller sends the next before it has its answer.

import { messageOf } from '../errors.ts';
import { ApplicationAgent } from './application-agent.ts';
import type { HttpConnection } from './http-connection.ts';

/** Pipelined and not begun. Nobody sends this many but to fill our memory. */
const MAX_WAITING = 16;

export class Caller {
  readonly connection: HttpConnection;
  readonly agent: ApplicationAgent;
  /** It has ended, or what came on it cannot be read any more. */
  isOver = false;
  /** A WebSocket now: it ends by itself. */
  isUpgraded = false;
  readonly #isDraining: () => boolean;
  #isLast = false;
  #hasEnded = false;
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(connection: HttpConnection, isDraining: () => boolean) {
    this.connection = connection;
    this.#isDraining = isDraining;
    this.agent = new ApplicationAgent(
      () => connection.dial(),
      () => this.endIfIdle(),
    );
  }

  get isIdle(): boolean {
    return this.#waiting === 0;
  }

  /** Whatever follows is not taken any more: the caller has been told, or was not understood. */
  get takesNoMore(): boolean {
    return this.isOver || this.#isLast || this.connection.stream.writableEnded;
  }

  /** The answer that is under way is the last one. */
  takeNoMore(): void {
    this.#isLast = true;
  }

  /** Answers in turn. False where too many wait. What comes behind the last answer is dropped: nobody has judged it, and nobody hears of it. */
  inTurn(answer: () => Promise<void>): boolean {
    if (this.takesNoMore) return true;
    if (this.#waiting >= MAX_WAITING) return false;
    const begun = this.#waiting++ === 0 ? answer() : this.#turn.then(() => (this.takesNoMore ? undefined : this.#next(answer)));
    this.#turn = begun
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#waiting--;
        if (this.#isDraining()) this.endIfIdle();
      });
    return true;
  }

  #next(answer: () => Promise<void>): Promise<void> {
    const answered = answer();
    this.#endWrites();
    return answered;
  }

  /** The caller says no more: so the application hears, behind each request that is left. What that means to it is its own business. */
  callerEnded(): void {
    this.#hasEnded = true;
    this.#endWrites();
  }

  #endWrites(): void {
    if (this.#hasEnded && !this.isIdle && !this.isUpgraded) setImmediate(() => this.agent.endWrites());
  }

  /** Nothing is asked: who asks next would ask into a connection that is going. */
  endIfIdle(): void {
    if (!this.isIdle || this.isOver) return;
    this.#isLast = true;
    this.connection.stream.end();
  }

  close(): void {
    this.isOver = true;
    this.agent.close();
  }

  /** What nobody has foreseen ends this connection, and not the process. */
  #fail(error: unknown): void {
    this.isOver = true;
    const bytes = { bytesToApplication: 0, bytesFromApplication: 0 };
    const ending = { request: undefined, status: undefined, decision: 'failed', outcome: 'aborted' } as const;
    this.connection.ended({ ...ending, code: 'UNAVAILABLE', reason: messageOf(error), ...bytes, durationMs: 0 });
    this.connection.abort();
  }
}
