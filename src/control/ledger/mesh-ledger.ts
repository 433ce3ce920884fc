// The mesh's ledger: what every sidecar has observed, merged by pod and run, kept for a while after the sidecar is gone, in bounded memory.

import { BoundedEntries } from '../../observe/bounded-entries.ts';
import { entryKey, type LedgerEntry } from '../../observe/ledger-entry.ts';
import { NO_TOTALS, type Totals } from '../../observe/totals.ts';
import type { LedgerReport } from '../../wire/gen/handfast/report/v1/report.ts';
import { evidenceIn, instanceOf, type KeptRun, lose, runKey, setRight, tierIn, together } from './kept-run.ts';
import { EARLIER_RUNS, type LedgerInstance, lastSeenIn } from './ledger-instance.ts';
import { type Direction, LedgerTotals, type SavedTotals, type TotalsByDirection } from './ledger-totals.ts';

export interface MeshLedgerOptions {
  /** Unix milliseconds. */
  readonly now: () => number;
  /** The SPIFFE ID registered for a pod (`namespace/name`) now; undefined for one that is not registered. */
  readonly registeredId: (pod: string) => string | undefined;
  readonly bounds?: Partial<typeof BOUNDS>;
}

/** All without those that live. `runsOfPod`: by each reporter; `suspectRuns`: of each reporter, for pods that it was never registered for. */
const BOUNDS = { entries: 200_000, runs: 20_000, runsOfPod: 20, suspectRuns: 100, retentionMs: 7 * 24 * 3_600_000 };

/** A run that was first heard of so long after it began has lived through what nobody here knows the time of. */
const LATE_MS = 5_000;

export class MeshLedger {
  readonly #options: MeshLedgerOptions;
  readonly #bounds: typeof BOUNDS;
  readonly #runs = new Map<string, KeptRun>();
  readonly #store: BoundedEntries<{ kept: KeptRun; entry: LedgerEntry }>;
  readonly #totals = new LedgerTotals();
  #revision = 0;

  constructor(options: MeshLedgerOptions) {
    this.#options = options;
    this.#bounds = { ...BOUNDS, ...options.bounds };
    this.#store = new BoundedEntries(this.#bounds.entries, ({ kept, entry }, key) => {
      kept.entries.delete(key);
      lose(kept, entry);
    });
  }

  /** Grows with each change. */
  get revision(): number {
    return this.#revision;
  }

  /** Every run that is kept, the longest unheard first. */
  get instances(): readonly LedgerInstance[] {
    this.#forgetOld();
    // Its pod may have been registered since it has said anything.
    for (const kept of this.#runs.values()) this.#believe(kept);
    return [...this.#runs.values()].map(instanceOf);
  }

  /** Whether a pod's records are those of its own sidecar. Undefined: nobody can say, the pod is not registered. */
  isBelieved({ pod, reporter }: { pod: string; reporter: string }): boolean | undefined {
    const registered = this.#options.registeredId(pod);
    return registered === undefined ? undefined : registered === reporter;
  }

  /** Of pods (`namespace/name`), by their own sidecars, gone runs too; of one that is registered no more by those that were believed. Both directions, unless one is named. */
  totals(pods: ReadonlySet<string>, direction?: Direction): Totals {
    return this.#totals.sum(
      [...pods].map((pod) => ({ pod, reporter: this.#options.registeredId(pod) })),
      direction,
    );
  }

  /** Takes an agent's message about one sidecar. */
  take(stream: object, { node, report }: { node: string; report: LedgerReport }): void {
    const now = this.#options.now();
    const key = runKey({ node, ...report });
    const known = this.#runs.get(key);
    const heardBefore = known?.heard;
    const kept = known ?? this.#open({ node, ...report, observedSince: Math.max(report.observedSince, now), wasBelieved: false });
    // What a new stream does not speak of has ended while nobody listened.
    if (kept.stream !== stream) this.#close(kept);
    kept.stream = stream;
    kept.heard = now;
    kept.said = {
      dropped: Math.max(kept.said.dropped, report.dropped),
      forgotten: Math.max(kept.said.forgotten, report.forgotten),
    };
    this.#totals.take(kept, totalsOf(report), { now, isLate: kept.observedSince - report.observedSince > LATE_MS });
    this.#believe(kept);
    // The longest unheard first.
    this.#runs.delete(key);
    this.#runs.set(key, kept);
    for (const entry of report.entries) {
      this.#put(kept, setRight(entry, { before: kept.entries.get(storeKey(kept, entry)), heardBefore, now }));
    }
    if (report.ended) this.#close(kept);
    this.#revision++;
    if (known === undefined) this.#forgetRuns(kept);
  }

  /** The agent's stream has ended: none of its sidecars is heard any more. */
  end(stream: object): void {
    for (const kept of this.#runs.values()) {
      if (kept.stream !== stream) continue;
      kept.heard = this.#options.now();
      this.#believe(kept);
      this.#close(kept);
      this.#revision++;
    }
  }

  /** What another control has saved, or we before we were started again: whatever is not known here, and of what is known whatever is more. A run that is heard now says itself what it has seen. */
  merge(saved: SavedLedger): void {
    for (const { entries, live: _, heard, dropped, forgotten, ...run } of saved.instances) {
      const known = this.#runs.get(runKey(run));
      if (known?.stream !== undefined) continue;
      const kept = known ?? this.#open(run);
      kept.heard = known === undefined ? heard : Math.max(known.heard, heard);
      kept.said = { dropped: Math.max(kept.said.dropped, dropped), forgotten: Math.max(kept.said.forgotten, forgotten) };
      for (const entry of entries) {
        const before = kept.entries.get(storeKey(kept, entry));
        if (before === undefined || before.connections < entry.connections) this.#put(kept, entry);
      }
      this.#close(kept);
      if (known === undefined) this.#forgetRuns(kept);
    }
    this.#totals.merge(saved.totals);
    this.#revision++;
  }

  get saved(): SavedLedger {
    return { instances: this.instances, totals: this.#totals.saved };
  }

  #open(of: Pick<KeptRun, 'node' | 'pod' | 'reporter' | 'instance' | 'observedSince' | 'wasBelieved'>): KeptRun {
    const { node, pod, reporter, instance, observedSince, wasBelieved } = of;
    const kept: KeptRun = {
      ...{ node, pod, reporter, instance, observedSince, wasBelieved },
      heard: this.#options.now(),
      said: { dropped: 0, forgotten: 0 },
      lost: { dropped: 0, forgotten: 0 },
      entries: new Map(),
      stream: undefined,
    };
    this.#runs.set(runKey(of), kept);
    return kept;
  }

  /** Only while it is heard: whoever is registered when it is gone says nothing about who told it. */
  #believe(kept: KeptRun): void {
    if (kept.wasBelieved || kept.stream === undefined || this.isBelieved(kept) !== true) return;
    const entries = [...kept.entries];
    for (const [key, entry] of entries) this.#store.delete(key, tierIn(kept, entry));
    kept.entries.clear();
    kept.wasBelieved = true;
    this.#totals.believe(kept);
    for (const [, entry] of entries) this.#put(kept, entry);
    this.#revision++;
  }

  /** Nobody speaks for it now: as far as anybody knows, what was open was so until it was heard last. */
  #close(kept: KeptRun): void {
    kept.stream = undefined;
    for (const entry of [...kept.entries.values()]) {
      if (entry.open > 0) this.#put(kept, { ...entry, open: 0, lastSeen: Math.max(entry.lastSeen, kept.heard) });
    }
  }

  #put(kept: KeptRun, entry: LedgerEntry): void {
    const key = storeKey(kept, entry);
    if (this.#store.put(key, { kept, entry }, tierIn(kept, entry))) kept.entries.set(key, entry);
    else lose(kept, entry);
  }

  /** No workload has its pods' records crowded out by runs that come and go; and nobody fills our memory with runs that say nothing. */
  #forgetRuns(of: KeptRun): void {
    const ofReporter = this.#silent(({ reporter }) => reporter === of.reporter);
    const ofPod = ofReporter.filter(({ pod, instance }) => pod === of.pod && instance !== EARLIER_RUNS);
    for (const kept of oldest(ofPod, this.#bounds.runsOfPod)) this.#merge(kept);
    const suspects = ofReporter.filter((kept) => !kept.wasBelieved && this.#runs.has(runKey(kept)));
    for (const kept of oldest(suspects, this.#bounds.suspectRuns)) this.#forget(kept);
    if (this.#runs.size <= this.#bounds.runs) return;
    const gone = this.#silent(({ instance }) => instance !== EARLIER_RUNS);
    const spared = gone.find(({ wasBelieved }) => !wasBelieved) ?? (of.wasBelieved ? gone[0] : undefined);
    if (spared?.wasBelieved === true) this.#merge(spared);
    else if (spared !== undefined) this.#forget(spared);
  }

  /** Those that nobody speaks for now, the longest unheard first. */
  #silent(isMeant: (kept: KeptRun) => boolean): KeptRun[] {
    const silent: KeptRun[] = [];
    for (const kept of this.#runs.values()) if (kept.stream === undefined && isMeant(kept)) silent.push(kept);
    return silent;
  }

  /** Forgets a run, but not whom it has let in: one line for all such of a pod, or of all pods that are gone. */
  #merge(kept: KeptRun): void {
    const { reporter, wasBelieved, observedSince, heard } = kept;
    const evidence = evidenceIn(kept);
    const { dropped } = instanceOf(kept);
    this.#forget(kept);
    if (evidence.length === 0 && dropped === 0) return;
    // Under another service account by the same name it stays that name's: whoever called the one will call the other.
    const pod = wasBelieved && this.isBelieved(kept) === undefined ? `${kept.pod.split('/')[0]}/(earlier pods)` : kept.pod;
    const of = { node: '', pod, reporter, instance: EARLIER_RUNS, observedSince, wasBelieved };
    const known = this.#runs.get(runKey(of));
    const earlier = known ?? this.#open(of);
    earlier.heard = Math.max(known?.heard ?? 0, heard);
    earlier.lost.dropped += dropped;
    for (const entry of evidence) this.#put(earlier, together(entry, earlier.entries.get(storeKey(earlier, entry))));
  }

  #forgetOld(): void {
    const before = this.#options.now() - this.#bounds.retentionMs;
    for (const kept of [...this.#runs.values()]) {
      if (kept.stream !== undefined) continue;
      for (const [key, entry] of kept.entries) {
        if (lastSeenIn(kept, entry) >= before) continue;
        kept.entries.delete(key);
        this.#store.delete(key, tierIn(kept, entry));
      }
      if (kept.heard < before) this.#forget(kept);
    }
    this.#totals.forgetOld(before, (teller) => this.isBelieved(teller) === true);
  }

  #forget(kept: KeptRun): void {
    for (const [key, entry] of kept.entries) this.#store.delete(key, tierIn(kept, entry));
    this.#runs.delete(runKey(kept));
    this.#revision++;
    // Those of pods that there were live on until they are old.
    if (kept.wasBelieved) return;
    for (const { pod, reporter } of this.#runs.values()) if (pod === kept.pod && reporter === kept.reporter) return;
    this.#totals.forget(kept);
  }
}

/** Undefined where none were said. */
function totalsOf({ inboundTotals, outboundTotals }: LedgerReport): TotalsByDirection | undefined {
  if (inboundTotals === undefined && outboundTotals === undefined) return undefined;
  return { inbound: inboundTotals ?? NO_TOTALS, outbound: outboundTotals ?? NO_TOTALS };
}

export interface SavedLedger {
  readonly instances: readonly LedgerInstance[];
  readonly totals: readonly SavedTotals[];
}

function storeKey(kept: KeptRun, entry: LedgerEntry): string {
  return `${runKey(kept)}\n${entryKey(entry)}`;
}

/** All but the newest so many. */
function oldest(runs: readonly KeptRun[], keep: number): readonly KeptRun[] {
  return runs.slice(0, Math.max(0, runs.length - keep));
}
