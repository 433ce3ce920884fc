// A workload's stream to the agent: opened by its token or by what the kernel knows of its process, ended when the proof is refused, and let go
// of when it ends.

import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { Log } from '../observe/log.ts';
import { KeyedLimits } from '../rate-limit.ts';
import type { Identity } from '../spiffe/identity.ts';
import { callerKey, callerOf } from '../wire/caller.ts';
import { bearerToken, statusError } from '../wire/grpc.ts';
import type { WorkloadSession, WorkloadSessions } from './workload-sessions.ts';

/** The second proof: which workload a local process may be. */
export interface ProcessAttestor {
  mayPresent(peer: PeerCredentials, spiffeId: string): boolean;
  workloadsOf(
    peer: PeerCredentials,
  ): readonly { readonly spiffeId: { readonly uri: string }; readonly token: { readonly current: string | undefined } }[];
}

type Call = ServerDuplexStream<unknown, unknown>;

/** A pod that restarts all its programs opens a few streams; a node's bench opens thousands. */
const STREAMS = { burst: 4_096, perSecond: 100 };
/** Each refused token costs the CA a signature check: whoever presents many is made to wait. */
const REFUSALS = { burst: 20, perSecond: 1 };

/** Opens the streams of one agent. */
export class StreamSessions {
  readonly #sessions: WorkloadSessions;
  readonly #attestor: ProcessAttestor;
  readonly #log: Log;
  readonly #streams = new KeyedLimits(STREAMS);
  readonly #refusals = new KeyedLimits(REFUSALS);

  constructor(deps: { sessions: WorkloadSessions; attestor: ProcessAttestor; log: Log }) {
    this.#sessions = deps.sessions;
    this.#attestor = deps.attestor;
    this.#log = deps.log;
  }

  /** Calls `serve` once both proofs stand, and what it returns when the stream ends. A refused stream ends with the status that says why. */
  open<Request, Response>(call: ServerDuplexStream<Request, Response>, serve: (workload: ServedWorkload) => () => void): void {
    const caller = callerOf(call);
    // Requests wait in the stream until both proofs stand.
    call.pause();
    if (caller?.kind !== 'unix') {
      call.emit('error', statusError(status.UNAUTHENTICATED, 'workloads are served on a unix socket alone'));
      return;
    }
    const key = callerKey(caller);
    let session: WorkloadSession;
    try {
      const waitMs = this.#streams.take(key);
      if (waitMs > 0) throw new HandfastError('RATE_LIMITED', `too many streams; the next one in ${Math.ceil(waitMs / 1000)} s`);
      session = this.#sessions.acquire(this.#token(call, caller.peer));
    } catch (error) {
      call.emit('error', refusalStatus(error));
      return;
    }
    let ended = false;
    let stopServing: (() => void) | undefined;
    const end = () => {
      if (ended) return;
      ended = true;
      stopServing?.();
      session.release();
    };
    call.on('end', end);
    call.on('cancelled', end);
    call.on('error', end);
    session.ready.then(
      (identity) => {
        if (ended) return;
        const { uri } = identity.svid.id;
        if (!this.#attestor.mayPresent(caller.peer, uri)) {
          const process = { pid: caller.peer.pid, uid: caller.peer.uid, networkNamespace: caller.peer.networkNamespace };
          this.#log.warn({ spiffeId: uri, ...process }, 'a process presented the token of a workload that it is not registered for');
          call.emit(
            'error',
            statusError(status.PERMISSION_DENIED, 'this process is not registered for the workload whose token it presents'),
          );
          return;
        }
        stopServing = serve({ session, identity, peer: key });
        call.resume();
      },
      (error) => {
        if (isRefusal(error) && this.#refusals.take(key) > 0) this.#log.warn({ peer: key }, 'many refused tokens from one peer');
        // Also a stream that never asks for anything ends when its token is refused.
        if (!ended) call.emit('error', refusalStatus(error));
      },
    );
  }

  #token(call: Call, peer: PeerCredentials): string {
    const token = bearerToken(call.metadata);
    if (token !== undefined) return token;
    const found = this.#attestor.workloadsOf(peer);
    const [registration] = found;
    if (registration === undefined)
      throw new HandfastError('TOKEN_REFUSED', 'send the workload\'s token as authorization metadata: "Bearer <token>"');
    if (found.length > 1)
      throw new HandfastError('TOKEN_REFUSED', `this process is registered for ${found.length} workloads: send the token of one`);
    if (registration.token.current === undefined)
      throw new HandfastError('UNAVAILABLE', `the token file registered for ${registration.spiffeId.uri} holds no token`);
    return registration.token.current;
  }
}

/** What a stream is served for. */
export interface ServedWorkload {
  readonly session: WorkloadSession;
  readonly identity: Identity;
  /** Who asked, in words. */
  readonly peer: string;
}

function isRefusal(error: unknown): boolean {
  return error instanceof HandfastError && error.code === 'TOKEN_REFUSED';
}

/** The status for a stream whose token or certificate was refused. */
function refusalStatus(error: unknown) {
  const codes: Readonly<Partial<Record<HandfastError['code'], status>>> = {
    TOKEN_REFUSED: status.UNAUTHENTICATED,
    IDENTITY_BLOCKED: status.PERMISSION_DENIED,
    RATE_LIMITED: status.RESOURCE_EXHAUSTED,
  };
  return statusError((error instanceof HandfastError ? codes[error.code] : undefined) ?? status.UNAVAILABLE, messageOf(error));
}
