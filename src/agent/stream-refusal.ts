// What a workload is told that gets no stream, and whether that speaks against it.

import { status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import { statusError } from '../wire/grpc.ts';

/** A proof that was looked at and refused: not a CA that is away, say. */
export function isRefusal(error: unknown): boolean {
  return error instanceof HandfastError && (error.code === 'TOKEN_REFUSED' || error.code === 'IDENTITY_BLOCKED');
}

/** The status for a stream whose token or certificate was refused. */
export function refusalStatus(error: unknown) {
  const codes: Readonly<Partial<Record<HandfastError['code'], status>>> = {
    TOKEN_REFUSED: status.UNAUTHENTICATED,
    IDENTITY_BLOCKED: status.PERMISSION_DENIED,
    RATE_LIMITED: status.RESOURCE_EXHAUSTED,
  };
  return statusError((error instanceof HandfastError ? codes[error.code] : undefined) ?? status.UNAVAILABLE, messageOf(error));
}
