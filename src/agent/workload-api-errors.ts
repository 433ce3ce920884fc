// What a caller of the Workload API is told when something fails: turned away for good, or to ask again. The reason stays in the log.

import { status } from '@grpc/grpc-js';
import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { statusError } from '../wire/grpc.ts';

/** Answers that asking again does not change. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set(['TOKEN_REFUSED', 'IDENTITY_MISMATCH', 'IDENTITY_BLOCKED', 'NO_IDENTITY', 'CSR_REFUSED']);

/** Whether the workload was turned away, rather than not answered. */
export function isRefusal(error: unknown): boolean {
  return error instanceof HandfastError && REFUSALS.has(error.code);
}

export function noIdentity(failure: unknown): Error {
  return isRefusal(failure)
    ? statusError(status.PERMISSION_DENIED, 'no SVID is issued to this workload')
    : statusError(status.UNAVAILABLE, 'no SVID can be issued at the moment');
}

/** A status as it was thrown; of anything else, which is a mistake of ours, the caller learns nothing. */
export function statusOf(error: unknown, log: Log): Error {
  if (error instanceof Error && 'code' in error && typeof error.code === 'number') return error;
  log.error({ reason: messageOf(error) }, 'Workload API: a call failed');
  return statusError(status.INTERNAL, 'internal error');
}
