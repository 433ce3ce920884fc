// A workload's stream to the agent: opened by its token, ended when the token is refused, and let go of when it ends.

import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import { bearerToken, statusError } from '../wire/grpc.ts';
import type { SvidRotator } from './svid-rotator.ts';
import type { WorkloadSession, WorkloadSessions } from './workload-sessions.ts';

export class StreamSession {
  readonly rotator: SvidRotator;
  #ended = false;

  private constructor(call: ServerDuplexStream<unknown, unknown>, session: WorkloadSession, onEnd: () => void) {
    this.rotator = session.rotator;
    const end = () => {
      if (this.#ended) return;
      this.#ended = true;
      onEnd();
      session.release();
    };
    call.on('end', end);
    call.on('cancelled', end);
    call.on('error', end);
    // Also a stream that never asks for anything ends when its token is refused.
    this.rotator.ready.catch((error) => {
      if (!this.#ended) call.emit('error', refusalStatus(error));
    });
  }

  /** Undefined when the stream was ended at once, with the status that says why. */
  static open<Request, Response>(
    call: ServerDuplexStream<Request, Response>,
    deps: { sessions: WorkloadSessions; onEnd?: () => void },
  ): StreamSession | undefined {
    const token = bearerToken(call.metadata);
    if (token === undefined) {
      call.emit('error', statusError(status.UNAUTHENTICATED, 'send the workload\'s token as authorization metadata: "Bearer <token>"'));
      return undefined;
    }
    try {
      return new StreamSession(call, deps.sessions.acquire(token), deps.onEnd ?? (() => undefined));
    } catch (error) {
      call.emit('error', statusError(status.RESOURCE_EXHAUSTED, messageOf(error)));
      return undefined;
    }
  }

  get ended(): boolean {
    return this.#ended;
  }
}

/** The status for a session whose token or certificate was refused. */
function refusalStatus(error: unknown) {
  const unauthenticated = error instanceof HandfastError && error.code === 'TOKEN_REFUSED';
  return statusError(unauthenticated ? status.UNAUTHENTICATED : status.UNAVAILABLE, messageOf(error));
}
