// A workload's stream to the agent: opened by its token or by what the kernel knows of its process, ended when a proof is refused or its process
// has ended, and let go of when it ends.

import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { ResponseRules } from '../discovery/response-writer.ts';
import { HandfastError } from '../errors.ts';
import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { callerKey, callerOf } from '../wire/caller.ts';
import { bearerToken, statusError, whenOver } from '../wire/grpc.ts';
import type { Objection } from './attestor.ts';
import { type StreamCounts, StreamLimits } from './stream-limits.ts';
import { isRefusal, refusalStatus } from './stream-refusal.ts';
import type { WorkloadSession, WorkloadSessions } from './workload-sessions.ts';

interface RegisteredWorkload {
  readonly spiffeId: { readonly uri: string };
  readonly token: Snapshot<string>;
}

/** The second proof: which workload a local process may be. */
export interface ProcessAttestor {
  /** Why a process may not present a token that was proven to be of this ID. */
  objection(peer: PeerCredentials, of: { spiffeId: string; token: string }): Objection | undefined;
  workloadsOf(peer: PeerCredentials): readonly RegisteredWorkload[];
  /** Calls back when the registrations have changed. Returns the way to stop. */
  subscribe(subscriber: () => void): () => void;
}

/** A token, and the registration it comes from where the caller sent none. */
interface FoundToken {
  readonly token: string;
  readonly registration: RegisteredWorkload | undefined;
}

/** For every stream of ours a client answers at once: one that has not in this time hangs, and comes back if it can. */
const ANSWER_TIMEOUT_MS = 60_000;

const COME_AGAIN = 'the registration of this process has changed: come again';

type Call = ServerDuplexStream<unknown, unknown>;

/** Opens the streams of one agent. */
export class StreamSessions {
  readonly #sessions: WorkloadSessions;
  readonly #attestor: ProcessAttestor;
  readonly #log: Log;
  readonly #limits: StreamLimits;
  readonly #answerTimeoutMs: number;

  constructor(deps: {
    sessions: WorkloadSessions;
    attestor: ProcessAttestor;
    log: Log;
    answerTimeoutMs?: number | undefined;
    counts?: Partial<StreamCounts> | undefined;
  }) {
    this.#limits = new StreamLimits(deps.counts);
    this.#answerTimeoutMs = deps.answerTimeoutMs ?? ANSWER_TIMEOUT_MS;
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
    // Random, and the same for all streams of a connection.
    const connection = call.getPeer();
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
    whenOver(call, end);
    session.ready.then(
      (identity) => {
        if (ended) return;
        const { uri } = identity.svid.id;
        const attest = () => {
          // Its socket may have been handed on: whoever holds it now has proven nothing.
          if (!peer.alive()) {
            refuse(statusError(status.PERMISSION_DENIED, 'the process that opened this stream has ended'));
            return false;
          }
          const objection = this.#attestor.objection(peer, { spiffeId: uri, token: found.token });
          if (objection === undefined) return true;
          this.#countRefusal(key);
          const process = { pid: peer.pid, uid: peer.uid, networkNamespace: peer.networkNamespace };
          this.#log.warn({ spiffeId: uri, ...process, ...objection.fields }, objection.said);
          refuse(statusError(status.PERMISSION_DENIED, objection.told));
          return false;
        };
        if (!attest()) return;
        const { registration } = found;
        if (registration !== undefined && registration.token.current !== found.token) {
          refuse(statusError(status.UNAVAILABLE, COME_AGAIN));
          return;
        }
        try {
          atEnd.push(this.#limits.prove(uri));
        } catch (error) {
          refuse(refusalStatus(error));
          return;
        }
        const stillProven = () => !ended && attest();
        const rules = { mayPush: stillProven, answerTimeoutMs: this.#answerTimeoutMs };
        atEnd.push(this.#follow({ peer, found, attest, refuse }), serve({ session, identity, peer: key, connection, stillProven, rules }));
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
  /** The name of the connection that the stream came over. */
  readonly connection: string;
  /** To be asked before anything is told or believed: false when a proof has fallen since, and the stream has ended. */
  stillProven(): boolean;
  /** The same for what serves discovery, with the time that a client has to answer. */
  readonly rules: ResponseRules;
}
