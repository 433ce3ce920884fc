// What a listener does with a connection once it knows whose it is: hand it to the gRPC server, unless there are too many or it may not be there.

import type { Socket } from 'node:net';
import { type Server, ServerCredentials } from '@grpc/grpc-js';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import type { MonotonicClock } from '../rate-limit.ts';
import { type Caller, callerKey, rememberCaller } from './caller.ts';
import { ConnectionCounts, type ConnectionLimits } from './connection-counts.ts';
import { RefusalReports } from './refusal-reports.ts';
import { atWallTime } from './wall-timer.ts';

/** `from` is the caller as far as it is known; `suppressed` is how many refusals with this code went unreported before this one. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly reason: string;
  readonly from: string;
  readonly suppressed: number;
}

export interface AdmissionOptions extends ConnectionLimits {
  readonly server: Server;
  /** Callers without a certificate are served by this one, with bounds of its own, and for so long; without it they are served as the others are. */
  readonly anonymousService?: { readonly server: Server; readonly lifetimeMs: number | undefined } | undefined;
  /**
   * Asked in the very turn in which a connection is admitted, and thus becomes one that `cut` finds: what has been revoked since the handshake
   * is refused here. Throws what the caller is refused for.
   */
  readonly judge?: (caller: Caller) => void;
  readonly onRefused: (refusal: Refusal) => void;
  readonly now?: MonotonicClock;
  /** Unix milliseconds; certificates end by it. */
  readonly wallClock?: () => number;
}

type Injector = ReturnType<Server['createConnectionInjector']>;

export class Admission {
  readonly #injector: Injector;
  readonly #anonymous: { injector: Injector; lifetimeMs: number | undefined } | undefined;
  readonly #options: AdmissionOptions;
  readonly #wallClock: () => number;
  readonly #open = new Map<Socket, Caller>();
  readonly #counts: ConnectionCounts;
  readonly #refusals: RefusalReports;
  readonly #limitRefusals: RefusalReports;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#wallClock = options.wallClock ?? Date.now;
    this.#counts = new ConnectionCounts(options);
    this.#injector = injectorOf(options.server);
    const { anonymousService, now } = options;
    this.#anonymous = anonymousService && { injector: injectorOf(anonymousService.server), lifetimeMs: anonymousService.lifetimeMs };
    this.#refusals = new RefusalReports({ now });
    this.#limitRefusals = new RefusalReports({ rate: { burst: 1, perSecond: 1 }, now });
  }

  /** Why there is no room for anybody now; undefined when there is. */
  full(): string | undefined {
    return this.#counts.full();
  }

  admit(socket: Socket, caller: Caller): void {
    const full = this.#counts.fullFor(caller);
    if (full !== undefined) this.refuseForLimit(socket, { from: callerKey(caller), reason: full });
    // One that was closed during its handshake would never say so again, and be remembered for ever.
    else if (this.#allows(socket, caller) && !socket.destroyed) this.#take(socket, caller);
  }

  refuse(socket: Socket, { error, from }: { error: unknown; from: string }): void {
    socket.destroy();
    this.report({ error, from });
  }

  /** Reported once a second at most: whoever opens too many connections must not fill the log with them too. */
  refuseForLimit(socket: Socket, { reason, from }: { reason: string; from: string }): void {
    socket.destroy();
    const suppressed = this.#limitRefusals.take('RATE_LIMITED');
    if (suppressed !== undefined) this.#options.onRefused({ code: 'RATE_LIMITED', reason, from, suppressed });
  }

  /** Says what went wrong with somebody who has no connection any more, unless that has been said too often. */
  report({ error, from }: { error: unknown; from: string }): void {
    const code = error instanceof HandfastError ? error.code : 'UNAVAILABLE';
    const suppressed = this.#refusals.take(code);
    if (suppressed !== undefined) this.#options.onRefused({ code, reason: messageOf(error), from, suppressed });
  }

  /** Ends the connections of these callers at once. How many. */
  cut(which: (caller: Caller) => boolean): number {
    const cut = [...this.#open].filter(([, caller]) => which(caller));
    for (const [socket] of cut) socket.destroy();
    return cut.length;
  }

  #allows(socket: Socket, caller: Caller): boolean {
    try {
      if (caller.kind === 'tls' && !(this.#wallClock() <= caller.peer.notAfter))
        throw new HandfastError('CERTIFICATE_EXPIRED', `${caller.peer.id.uri}: certificate ${caller.peer.serial} has expired`);
      this.#options.judge?.(caller);
      return true;
    } catch (error) {
      this.refuse(socket, { error, from: callerKey(caller) });
      return false;
    }
  }

  #take(socket: Socket, caller: Caller): void {
    this.#open.set(socket, caller);
    this.#counts.add(caller);
    const stopTimer = this.#limitLife(socket, caller);
    socket.once('close', () => {
      stopTimer();
      this.#open.delete(socket);
      this.#counts.remove(caller);
    });
    rememberCaller(socket, caller);
    const { injector } = (caller.kind === 'anonymous' ? this.#anonymous : undefined) ?? { injector: this.#injector };
    injector.injectConnection(socket);
  }

  /** A connection never outlives the certificate that opened it. */
  #limitLife(socket: Socket, caller: Caller): () => void {
    if (caller.kind === 'tls') return atWallTime(caller.peer.notAfter, { now: this.#wallClock, callback: () => socket.destroy() });
    const lifetimeMs = caller.kind === 'anonymous' ? this.#anonymous?.lifetimeMs : undefined;
    if (lifetimeMs === undefined) return () => undefined;
    const timer = setTimeout(() => socket.destroy(), lifetimeMs).unref();
    return () => clearTimeout(timer);
  }
}

/** Whatever protects the connection has been done before it gets here. */
function injectorOf(server: Server): Injector {
  return server.createConnectionInjector(ServerCredentials.createInsecure());
}
