// A workload's stream to the agent: opened by its token or by what the kernel knows of its process, ended when the proof is refused, and let go
// of when it ends.

import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { callerKey, callerOf } from '../wire/caller.ts';
import { bearerToken, statusError } from '../wire/grpc.ts';
import { StreamLimits } from './stream-limits.ts';
import type { WorkloadSession, WorkloadSessions } from './workload-sessions.ts';

interface RegisteredWorkload {
  readonly spiffeId: { readonly uri: string };
  readonly token: Snapshot<string>;
}

/** The second proof: which workload a local process may be. */
export interface ProcessAttestor {
  mayPresent(peer: PeerCredentials, spiffeId: string): boolean;
  workloadsOf(peer: PeerCredentials): readonly RegisteredWorkload[];
  /** Calls back when the registrations have changed. Returns the way to stop. */
  subscribe(subscriber: () => void): () => void;
}

/** A token, and the registration it comes from where the caller sent none. */
interface FoundToken {
  readonly token: string;
  readonly registration: RegisteredWorkload | undefined;
}

const COME_AGAIN = 'the registration of this process has changed: come again';

type Call = ServerDuplexStream<unknown, unknown>;

/** Opens the streams of one agent. */
export class StreamSessions {
  readonly #sessions: WorkloadSessions;
  readonly #attestor: ProcessAttestor;
  readonly #log: Log;
  readonly #limits = new StreamLimits();

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
    const { peer } = caller;
    const key = callerKey(caller);
    const atEnd: (() => void)[] = [];
    let found: FoundToken;
    let session: WorkloadSession;
    try {
      atEnd.push(this.#limits.open(key));
      found = this.#token(call, peer);
      session = this.#sessions.acquire(found.token);
      atEnd.push(() => session.release());
    } catch (error) {
      for (const undo of atEnd) undo();
      call.emit('error', refusalStatus(error));
      return;
    }
    let ended = false;
    const end = () => {
      if (ended) return;
      ended = true;
      for (const undo of atEnd.reverse()) undo();
    };
    const refuse = (error: unknown) => {
      if (!ended) call.emit('error', error);
    };
    call.on('end', end);
    call.on('cancelled', end);
    call.on('error', end);
    session.ready.then(
      (identity) => {
        if (ended) return;
        const { uri } = identity.svid.id;
        const attest = () => {
          if (this.#attestor.mayPresent(peer, uri)) return true;
          this.#countRefusal(key);
          const process = { pid: peer.pid, uid: peer.uid, networkNamespace: peer.networkNamespace };
          this.#log.warn({ spiffeId: uri, ...process }, 'a process presented the token of a workload that it is not registered for');
          refuse(statusError(status.PERMISSION_DENIED, 'this process is not registered for the workload whose token it presents'));
          return false;
        };
        if (!attest()) return;
        const { registration } = found;
        if (registration !== undefined && registration.token.current !== found.token) {
          refuse(statusError(status.UNAVAILABLE, COME_AGAIN));
          return;
        }
        atEnd.push(this.#follow({ peer, found, attest, refuse }), serve({ session, identity, peer: key }));
        call.resume();
      },
      (error) => {
        if (isRefusal(error)) this.#countRefusal(key);
        // Also a stream that never asks for anything ends when its token is refused.
        refuse(refusalStatus(error));
      },
    );
  }

  #countRefusal(key: string): void {
    if (this.#limits.refused(key)) this.#log.warn({ peer: key }, 'many refused tokens from one peer: it has to wait');
  }

  /** A stream lasts no longer than its proofs: they are looked at again when the registrations change, or the token that was read for it. */
  #follow(of: { peer: PeerCredentials; found: FoundToken; attest: () => boolean; refuse: (error: unknown) => void }): () => void {
    const { registration } = of.found;
    const again = () => of.refuse(statusError(status.UNAVAILABLE, COME_AGAIN));
    const stopAttesting = this.#attestor.subscribe(() => {
      if (!of.attest() || registration === undefined) return;
      const found = this.#attestor.workloadsOf(of.peer);
      if (found.length !== 1 || found[0] !== registration) again();
    });
    // With the old token its certificate would be renewed only until that expires.
    const stopReading = registration?.token.subscribe(again);
    return () => {
      stopAttesting();
      stopReading?.();
    };
  }

  #token(call: Call, peer: PeerCredentials): FoundToken {
    const token = bearerToken(call.metadata);
    if (token !== undefined) return { token, registration: undefined };
    const found = this.#attestor.workloadsOf(peer);
    const [registration] = found;
    if (registration === undefined)
      throw new HandfastError('TOKEN_REFUSED', 'send the workload\'s token as authorization metadata: "Bearer <token>"');
    if (found.length > 1)
      throw new HandfastError('TOKEN_REFUSED', `this process is registered for ${found.length} workloads: send the token of one`);
    if (registration.token.current === undefined)
      throw new HandfastError('UNAVAILABLE', `the token file registered for ${registration.spiffeId.uri} holds no token`);
    return { token: registration.token.current, registration };
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
  return error instanceof HandfastError && (error.code === 'TOKEN_REFUSED' || error.code === 'IDENTITY_BLOCKED');
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
