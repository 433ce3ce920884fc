// Calls that were refused, for the operator: a few of each kind, and how many more there were.

import { type ErrorCode, HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { MonotonicClock } from '../rate-limit.ts';
import { callerOf } from '../wire/caller.ts';
import { RefusalReports } from '../wire/refusal-reports.ts';

export class RefusalLog {
  readonly #log: Log;
  readonly #reports: RefusalReports;

  constructor(log: Log, options: { now?: MonotonicClock } = {}) {
    this.#log = log;
    this.#reports = new RefusalReports(options);
  }

  /** For a call that has just begun: takes its refusal once it is known. `what` is the line's message. */
  of(call: { getPeer(): string }, what: string): (error: unknown) => void {
    // Now, as its connection may be gone by then. Callers without a certificate must not silence what is said of nodes.
    const caller = callerOf(call)?.kind;
    return (error) => {
      const code: ErrorCode | 'INTERNAL' = error instanceof HandfastError ? error.code : 'INTERNAL';
      const suppressed = this.#reports.take(`${what}: ${code}, ${caller}`);
      if (suppressed !== undefined) this.#log.warn({ code, reason: messageOf(error), ...(suppressed > 0 ? { suppressed } : {}) }, what);
    };
  }
}
