// What one run of one sidecar has observed, as control keeps it.

import type { LedgerEntry } from '../../observe/ledger-entry.ts';

export interface LedgerInstance {
  /** Whose agent told us. */
  readonly node: string;
  /** `namespace/name`, by the sidecar's word. */
  readonly pod: string;
  /** The SPIFFE ID that the sidecar has proven to its agent. */
  readonly reporter: string;
  readonly instance: string;
  /** Unix milliseconds by our own clock: not from before we first heard of it, whatever its clock says. */
  readonly observedSince: number;
  /** When anything of it was heard last, Unix milliseconds. */
  readonly heard: number;
  /** It was told, at some time, by the one who was registered for the pod then. */
  readonly wasBelieved: boolean;
  /** Its sidecar reports now. */
  readonly live: boolean;
  readonly dropped: number;
  readonly forgotten: number;
  readonly entries: readonly LedgerEntry[];
}

/** Instead of a run's name: who was let in unproven by runs that are not kept any more. No run can be called so. */
export const EARLIER_RUNS = 'earlier runs';

/** Since when, at the earliest, an entry can be known: a clock that is wrong must not make it older than what we know of its run. */
export function lastSeenIn(
  { instance, observedSince }: Pick<LedgerInstance, 'instance' | 'observedSince'>,
  { lastSeen }: LedgerEntry,
): number {
  // What was merged was set right then.
  return instance === EARLIER_RUNS ? lastSeen : Math.max(lastSeen, observedSince);
}
