// Connections that wait for room on a session, first come first served: none is forgotten when another one's client has gone, and none waits for ever.

import { HandfastError } from '../errors.ts';
import type { Tunnel } from './tunnel.ts';

export interface TurnQueueOptions {
  readonly tunnels: ReadonlySet<Tunnel>;
  readonly patienceMs: number;
  /** Somebody waits, and no session has room. */
  readonly onNoRoom: () => void;
}

interface Waiting {
  readonly resolve: (tunnel: Tunnel | undefined) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

export class TurnQueue {
  readonly #options: TurnQueueOptions;
  readonly #waiting = new Set<Waiting>();
  #again: NodeJS.Immediate | undefined;

  constructor(options: TurnQueueOptions) {
    this.#options = options;
  }

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** `destination` is for the error, in words. */
  wait(destination: string): Promise<Tunnel | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<Tunnel | undefined>();
    const timer = setTimeout(() => {
      this.#waiting.delete(waiting);
      reject(new HandfastError('DIAL_TIMEOUT', `${destination}: no tunnel to its sidecar had room in time`));
    }, this.#options.patienceMs);
    const waiting: Waiting = { resolve, reject, timer };
    this.#waiting.add(waiting);
    this.serve();
    return promise;
  }

  /** Gives out what room there is. Who has been given some takes it before the next turn of the event loop, or does not want it any more: then it is the next one's. */
  serve(): void {
    if (this.#waiting.size === 0 || this.#again !== undefined) return;
    let given = false;
    for (const tunnel of this.#options.tunnels)
      for (let { room } = tunnel.session; room > 0; room--) {
        const first = this.#takeFirst();
        if (first === undefined) return;
        first.resolve(tunnel);
        given = true;
      }
    if (this.#waiting.size === 0) return;
    if (!given) this.#options.onNoRoom();
    else
      this.#again = setImmediate(() => {
        this.#again = undefined;
        this.serve();
      });
  }

  /** Nobody takes tunnels there. */
  giveUp(): void {
    for (let first = this.#takeFirst(); first !== undefined; first = this.#takeFirst()) first.resolve(undefined);
  }

  fail(error: unknown): void {
    for (let first = this.#takeFirst(); first !== undefined; first = this.#takeFirst()) first.reject(error);
  }

  #takeFirst(): Waiting | undefined {
    for (const waiting of this.#waiting) {
      this.#waiting.delete(waiting);
      clearTimeout(waiting.timer);
      return waiting;
    }
    return undefined;
  }
}
