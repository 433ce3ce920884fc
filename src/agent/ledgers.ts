// The ledgers of this node's sidecars, each kept while its sidecar's stream lives, and on until every control has heard that it has ended, or one of them long since.

import { status } from '@grpc/grpc-js';
import { isPlausibleReport } from '../discovery/believed-ledger.ts';
import type { ReportedLedger } from '../discovery/ledger-client.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import type { LedgerEntry, LedgerReport } from '../wire/gen/handfast/report/v1/report.ts';
import { statusError } from '../wire/grpc.ts';
import type { Reporter, ReportStream } from './report-stream.ts';
import { SidecarLedger } from './sidecar-ledger.ts';

type Call = ReportStream<LedgerReport>;

/** As many as a sidecar keeps itself. */
const MAX_ENTRIES = 5_000;
/** Of one workload, all replicas on this node together: no workload may fill the node's memory, on however many streams. */
const MAX_OF_WORKLOAD = 50_000;
/** While control is away. */
const MAX_ENDED = 64;
/** A sidecar with a newer token comes again at once, and has not ended. */
const COMES_AGAIN_MS = 5_000;
/** After it has ended it waits so long for controls that are away, where one at least has it: they learn it from what that one saves. */
const WAITS_FOR_OTHERS_MS = 120_000;
/** Once a second at most, but a full ledger takes a dozen messages. */
const REPORTS = { burst: 60, perSecond: 20 };

interface Followed {
  readonly reporter: string;
  readonly connection: string;
  /** Undefined until it has said something that could be so. */
  kept: { readonly pod: string; readonly ledger: SidecarLedger } | undefined;
}

interface Ended extends ReportedLedger {
  readonly ledger: SidecarLedger;
  /** Unix milliseconds. */
  readonly endedAt: number;
  /** The controls that have it all. */
  readonly takenBy: Set<number>;
}

/** For operators. */
export interface LedgerSummary {
  readonly reporter: string;
  readonly pod: string;
  readonly instance: string;
  /** Unix milliseconds. */
  readonly observedSince: number;
  readonly dropped: number;
  readonly forgotten: number;
  readonly size: number;
}

export class Ledgers {
  readonly #now: () => number;
  readonly #streams = new Map<Call, Followed>();
  #ended: Ended[] = [];

  constructor(now: () => number) {
    this.#now = now;
  }

  get summaries(): readonly LedgerSummary[] {
    return this.#live.map(({ reporter, pod, ledger }) => {
      const { instance, observedSince, dropped, forgotten, size } = ledger;
      return { reporter, pod, instance, observedSince, dropped, forgotten, size };
    });
  }

  get all(): readonly (LedgerSummary & { readonly entries: readonly LedgerEntry[] })[] {
    const live = this.#live;
    return this.summaries.map((summary, index) => ({ ...summary, entries: live[index]?.ledger.changedAfter(-1) ?? [] }));
  }

  /** What control is to know. */
  get reported(): readonly ReportedLedger[] {
    const now = this.#now();
    this.#ended = this.#ended.filter(({ endedAt, takenBy }) => takenBy.size === 0 || now - endedAt < WAITS_FOR_OTHERS_MS);
    return [...this.#ended.filter(({ endedAt }) => now - endedAt >= COMES_AGAIN_MS), ...this.#live];
  }

  /** One of so many controls has heard that it has ended. */
  taken({ ledger }: ReportedLedger, { control, controls }: { control: number; controls: number }): void {
    const ended = this.#ended.find((one) => one.ledger === ledger);
    ended?.takenBy.add(control);
    if (ended?.takenBy.size === controls) this.#ended = this.#ended.filter((one) => one !== ended);
  }

  /** Takes a stream's reports until the returned function is called. */
  follow(call: Call, { spiffeId: reporter, connection, stillProven }: Reporter): () => void {
    // One sidecar, one stream; the newer one is the one that lives.
    for (const [other, followed] of [...this.#streams]) {
      if (followed.reporter === reporter && followed.connection === connection)
        other.emit('error', statusError(status.ABORTED, 'another stream of its ledger took its place'));
    }
    const limit = requestLimit(REPORTS);
    const followed: Followed = { reporter, connection, kept: undefined };
    let over = false;
    this.#streams.set(call, followed);
    call.on('data', (report: LedgerReport) => {
      if (over || !stillProven()) return;
      try {
        limit();
        this.#take(followed, report);
      } catch (error) {
        call.emit('error', error);
      }
    });
    call.on('end', () => call.end());
    return () => {
      if (over) return;
      over = true;
      this.#streams.delete(call);
      this.#end(followed);
    };
  }

  #take(followed: Followed, report: LedgerReport): void {
    const { reporter } = followed;
    const { pod } = report;
    const now = this.#now();
    if (!isPlausibleReport({ ...report, reporter }, now))
      throw statusError(status.INVALID_ARGUMENT, 'a ledger of no pod of its own namespace, or of no time that has been');
    const { kept } = followed;
    if (kept !== undefined && (kept.pod !== pod || kept.ledger.instance !== report.instance))
      throw statusError(status.INVALID_ARGUMENT, 'one stream is the ledger of one run of one sidecar');
    const ledger = kept?.ledger ?? new SidecarLedger(report, MAX_ENTRIES);
    if (kept === undefined) {
      followed.kept = { pod, ledger };
      // It has come again, by a newer token: it has not ended at all.
      this.#ended = this.#ended.filter((ended) => ended.ledger.instance !== report.instance || ended.reporter !== reporter);
    }
    ledger.take(report, { now, maxEntries: Math.min(MAX_ENTRIES, ledger.size + this.#roomFor(reporter)) });
  }

  /** How many entries more the streams of one workload may hold together. */
  #roomFor(reporter: string): number {
    let taken = 0;
    for (const followed of this.#streams.values()) if (followed.reporter === reporter) taken += followed.kept?.ledger.size ?? 0;
    return Math.max(0, MAX_OF_WORKLOAD - taken);
  }

  #end({ reporter, kept }: Followed): void {
    if (kept === undefined) return;
    const again = this.#live.some((live) => live.reporter === reporter && live.ledger.instance === kept.ledger.instance);
    if (again) return;
    this.#ended.push({ reporter, ...kept, ended: true, endedAt: this.#now(), takenBy: new Set() });
    if (this.#ended.length > MAX_ENDED) this.#makeRoom();
  }

  /** One that some control has, or that has let nobody in unproven, goes first; what goes with any other is missing from another run of its pod, so that nothing is called safe without it. */
  #makeRoom(): void {
    const index = Math.max(
      0,
      this.#ended.findIndex(({ ledger, takenBy }) => takenBy.size > 0 || ledger.unproven === 0),
    );
    const [gone] = this.#ended.splice(index, 1);
    if (gone === undefined || gone.takenBy.size > 0 || gone.ledger.unproven === 0) return;
    const runs = [...this.#live, ...this.#ended.toReversed()].filter(({ reporter }) => reporter === gone.reporter);
    (runs.find(({ pod }) => pod === gone.pod) ?? runs[0])?.ledger.lacks(gone.ledger.unproven);
  }

  get #live(): (ReportedLedger & { readonly ledger: SidecarLedger })[] {
    return [...this.#streams.values()].flatMap(({ reporter, kept }) => (kept === undefined ? [] : [{ reporter, ...kept, ended: false }]));
  }
}
