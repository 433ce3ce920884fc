// What an API server says when it refuses: a Status object (meta/v1), made one coded error.

import { type ErrorCode, HandfastError } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';

const CODES: Readonly<Record<number, ErrorCode>> = { 404: 'KUBE_NOT_FOUND', 409: 'KUBE_CONFLICT', 410: 'KUBE_GONE' };
/** Nothing is wrong with what was asked: the server has too much to do. */
const TOO_MANY_REQUESTS = 429;
const MAX_WORDS = 500;

/** `said`: the body of the answer, JSON or not. */
export function refusalOf({ status, said, what }: { status: number; said: string; what: string }): HandfastError {
  const words = wordsOf(said);
  const way = status === 403 ? '; give this service account that right (deploy/ has the roles)' : '';
  return new HandfastError(codeOf(status), `${what}: the API server answered ${status}${words === '' ? '' : `: ${words}`}${way}`);
}

/** An ERROR event of a watch carries the same object, and no status line. */
export function refusalOfEvent(object: unknown, what: string): HandfastError {
  const status = isJsonObject(object) && typeof object.code === 'number' ? object.code : 0;
  return refusalOf({ status, said: JSON.stringify(object), what });
}

function codeOf(status: number): ErrorCode {
  return CODES[status] ?? (status >= 400 && status < 500 && status !== TOO_MANY_REQUESTS ? 'KUBE_REFUSED' : 'UNAVAILABLE');
}

function wordsOf(said: string): string {
  try {
    const status: unknown = JSON.parse(said);
    if (isJsonObject(status) && typeof status.message === 'string') return status.message.slice(0, MAX_WORDS);
  } catch {
    // A proxy in front of it answers in its own words.
  }
  return said.replace(/\s+/g, ' ').slice(0, MAX_WORDS);
}
