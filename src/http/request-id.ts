// x-request-id: the caller's where it has a sound one, so that one request is found again from hop to hop; otherwise a new one.

import { randomUUID } from 'node:crypto';

export const REQUEST_ID = 'x-request-id';

/** It is logged, and travels on: no more than what anybody's tracing makes. */
const SOUND = /^[A-Za-z0-9._:/+=-]{1,128}$/;

export function requestIdOf(values: readonly string[]): string {
  const [value] = values;
  return values.length === 1 && value !== undefined && SOUND.test(value) ? value : randomUUID();
}
