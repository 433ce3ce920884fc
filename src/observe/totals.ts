// How many connections a sidecar has had, and how many of them policy or a broken proof has ended: counted where they happen, so that nothing depends on which entries find room.

import { isPolicyFailure, isWordless, type LedgerFacts } from './ledger-entry.ts';

/** `failures` may be more than `connections` of a time: a connection is cut later than it was joined. */
export interface Totals {
  readonly connections: number;
  readonly failures: number;
}

export const NO_TOTALS: Totals = { connections: 0, failures: 0 };

/** One more. `joinedBefore`: it was counted then, and now it was cut. */
export function counted(totals: Totals, facts: LedgerFacts, joinedBefore: boolean): Totals {
  return {
    connections: totals.connections + (joinedBefore || isWordless(facts) ? 0 : 1),
    failures: totals.failures + (isPolicyFailure(facts) && !isWordless(facts) ? 1 : 0),
  };
}
