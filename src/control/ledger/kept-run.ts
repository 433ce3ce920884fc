// One run in the mesh's ledger: what is put right of what it says, and what is left of it when it is not kept any more.

import { isUnproven, type LedgerEntry, type Tier, tierOf } from '../../observe/ledger-entry.ts';
import { type LedgerInstance, lastSeenIn } from './ledger-instance.ts';

/** The stream it is told on is there while its sidecar lives. */
export interface KeptRun extends Omit<LedgerInstance, 'live' | 'heard' | 'wasBelieved' | 'dropped' | 'forgotten' | 'entries'> {
  stream: object | undefined;
  heard: number;
  /** Until then it makes room for everybody else, and pushes nobody out: names of pods can be made up. */
  wasBelieved: boolean;
  /** Missing by the sidecar's and its agent's word; and what found no room here. */
  said: Missing;
  readonly lost: { dropped: number; forgotten: number };
  /** In the shared store, by the key of each there. */
  readonly entries: Map<string, LedgerEntry>;
}

type Missing = Pick<LedgerInstance, 'dropped' | 'forgotten'>;

export function instanceOf({ stream, entries, said, lost, ...run }: KeptRun): LedgerInstance {
  return {
    ...run,
    live: stream !== undefined,
    dropped: said.dropped + lost.dropped,
    forgotten: said.forgotten + lost.forgotten,
    entries: [...entries.values()],
  };
}

export function runKey({ node, pod, reporter, instance }: Pick<LedgerInstance, 'node' | 'pod' | 'reporter' | 'instance'>): string {
  return `${node}\n${pod}\n${reporter}\n${instance}`;
}

export function lose(kept: KeptRun, entry: LedgerEntry): void {
  if (isUnproven(entry)) kept.lost.dropped += entry.connections;
  else kept.lost.forgotten += entry.connections;
}

export function tierIn({ wasBelieved }: KeptRun, entry: LedgerEntry): Tier {
  return wasBelieved ? tierOf(entry) : 0;
}

/** What is heard was said a while ago: a sidecar and its agent pass things on once a second each, and a busy agent takes turns. */
const LAG_MS = 60_000;

/** By our own clock: nothing was seen in the future, and what has changed since we heard of it last was seen about then or later. `heardBefore`: undefined for a run's first word. */
export function setRight(
  entry: LedgerEntry,
  of: { before: LedgerEntry | undefined; heardBefore: number | undefined; now: number },
): LedgerEntry {
  const { before, heardBefore = 0, now } = of;
  const isSame = before !== undefined && entry.connections === before.connections && entry.open === before.open;
  const lastSeen = Math.min(now, Math.max(entry.lastSeen, isSame ? before.lastSeen : heardBefore - LAG_MS));
  return { ...entry, firstSeen: Math.min(entry.firstSeen, lastSeen), lastSeen };
}

/** What must outlive a run: whom STRICT would refuse. */
export function evidenceIn(kept: KeptRun): LedgerEntry[] {
  return [...kept.entries.values()].filter(isUnproven).map((entry) => ({ ...entry, open: 0, lastSeen: lastSeenIn(kept, entry) }));
}

/** The same entry of two runs, as one. */
export function together(a: LedgerEntry, b: LedgerEntry | undefined): LedgerEntry {
  if (b === undefined) return a;
  return {
    ...a,
    connections: a.connections + b.connections,
    firstSeen: Math.min(a.firstSeen, b.firstSeen),
    lastSeen: Math.max(a.lastSeen, b.lastSeen),
    tripwire: a.tripwire || b.tripwire,
  };
}
