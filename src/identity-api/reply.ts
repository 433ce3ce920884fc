// What the identity API answers: JSON with a status, and where something is refused a code that stays.

export interface Reply {
  readonly status: number;
  /** As JSON, or as it is; undefined for nothing. */
  readonly body: object | undefined;
  readonly headers?: Readonly<Record<string, string>>;
}

/** `code` is for programs, `message` for people. */
export function refused(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}): Reply {
  return { status, body: { code, message }, headers };
}

export function tooOften(waitMs: number): Reply {
  return refused(429, 'RATE_LIMITED', `too many requests: the next is allowed in ${waitMs} ms`, {
    'retry-after': `${Math.ceil(waitMs / 1000)}`,
  });
}

export function unavailable(message: string): Reply {
  return refused(503, 'UNAVAILABLE', message, { 'retry-after': '1' });
}
