// What a listener does with a connection once it knows whose it is: hand it to the gRPC server, unless there are too many.

import type { Socket } from 'node:net';
import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import { type MonotonicClock, TokenBucket } from '../rate-limit.ts';
import { type Caller, callerKey, rememberCaller } from './caller.ts';

/** `from` is the caller as far as it is known; `suppressed` is how many refusals for limits went unreported before this one. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly reason: string;
  readonly from: string;
  readonly suppressed: number;
}

export interface AdmissionOptions {
  readonly server: Server;
  readonly onRefused: (refusal: Refusal) => void;
  /** All callers together; default 16,384. */
  readonly maxConnections?: number;
  /** One caller; default 256. */
  readonly maxPerCaller?: number;
  readonly now?: MonotonicClock;
}

const MAX_CONNECTIONS = 16_384;
const MAX_PER_CALLER = 256;

export class Admission {
  readonly #injector: ReturnType<Server['createConnectionInjector']>;
  readonly #options: AdmissionOptions;
  readonly #open = new Map<Socket, Caller>();
  readonly #perCaller = new Map<string, number>();
  readonly #reports: TokenBucket;
  #suppressed = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    // Whatever protects the connection has been done before it gets here.
    this.#injector = options.server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#reports = new TokenBucket({ burst: 1, perSecond: 1 }, options.now);
  }

  get size(): number {
    return this.#open.size;
  }

  admit(socket: Socket, caller: Caller): void {
    const key = callerKey(caller);
    const full = this.#limitReached(key);
    if (full !== undefined) this.refuseForLimit(socket, { from: key, reason: full });
    // One that was closed during its handshake would never say so again, and be remembered for ever.
    else if (!socket.destroyed) this.#take(socket, { caller, key });
  }

  refuse(socket: Socket, { error, from }: { error: unknown; from: string }): void {
    socket.destroy();
    const code = error instanceof HandfastError ? error.code : 'UNAVAILABLE';
    this.#options.onRefused({ code, reason: messageOf(error), from, suppressed: 0 });
  }

  /** Reported once a second at most: whoever opens too many connections must not fill the log with them too. */
  refuseForLimit(socket: Socket, { reason, from }: { reason: string; from: string }): void {
    socket.destroy();
    if (this.#reports.take() > 0) {
      this.#suppressed++;
      return;
    }
    this.#options.onRefused({ code: 'RATE_LIMITED', reason, from, suppressed: this.#suppressed });
    this.#suppressed = 0;
  }

  /** Ends the connections of these callers at once. How many. */
  cut(which: (caller: Caller) => boolean): number {
    const cut = [...this.#open].filter(([, caller]) => which(caller));
    for (const [socket] of cut) socket.destroy();
    return cut.length;
  }

  #limitReached(key: string): string | undefined {
    const { maxConnections = MAX_CONNECTIONS, maxPerCaller = MAX_PER_CALLER } = this.#options;
    const held = this.#perCaller.get(key) ?? 0;
    if (held >= maxPerCaller) return `${held} connections of this caller are open`;
    return this.#open.size >= maxConnections ? `${this.#open.size} connections are open` : undefined;
  }

  #take(socket: Socket, { caller, key }: { caller: Caller; key: string }): void {
    this.#open.set(socket, caller);
    this.#perCaller.set(key, (this.#perCaller.get(key) ?? 0) + 1);
    socket.once('close', () => this.#forget(socket, key));
    rememberCaller(socket, caller);
    this.#injector.injectConnection(socket);
  }

  #forget(socket: Socket, key: string): void {
    this.#open.delete(socket);
    const left = (this.#perCaller.get(key) ?? 1) - 1;
    if (left === 0) this.#perCaller.delete(key);
    else this.#perCaller.set(key, left);
  }
}
