// What the identity API answers: JSON with a status, and where something is refused a code that stays.

export interface Reply {
  readonly status: number;
  readonly body: object;
  readonly headers?: Readonly<Record<string, string>>;
}

/** `code` is for programs, `message` for people. */
export function refused(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}): Reply {
  return { status, body: { code, message }, headers };
}
