// What sidecars without an agent report themselves: believed of their own pods alone, and bounded as an agent bounds it, because a workload is trusted with less than a node.

import { status } from '@grpc/grpc-js';
import { believedPeers } from '../discovery/believed-peers.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import { entryKey } from '../observe/ledger-entry.ts';
import type { ConnectionReport, LedgerReport } from '../wire/gen/handfast/report/v1/report.ts';
import { statusError } from '../wire/grpc.ts';

const BOUNDS = {
  /** Peers in one report. */
  peers: 1_000,
  /** Entries of one run, as many as a sidecar keeps itself. */
  entries: 5_000,
  /** Of one workload, all its pods together. */
  entriesOfWorkload: 50_000,
  streamsOfWorkload: 1_000,
} as const;
/** Once a second at most, but a full ledger takes a dozen messages. */
const REPORTS = { burst: 60, perSecond: 20 };

export interface WorkloadStream {
  /** Throws the status to end the stream with. */
  peers(report: ConnectionReport): ConnectionReport;
  /** The same. What goes beyond the bounds is counted as dropped. */
  ledger(report: LedgerReport): LedgerReport;
  end(): void;
}

export class WorkloadReports {
  readonly #bounds: Readonly<Record<keyof typeof BOUNDS, number>>;
  readonly #held = new Map<string, { streams: number; entries: number }>();

  constructor(bounds: Partial<typeof BOUNDS> = {}) {
    this.#bounds = { ...BOUNDS, ...bounds };
  }

  /** One stream of a workload (its SPIFFE ID). Throws the status to refuse it with. */
  open(workload: string): WorkloadStream {
    const held = this.#held.get(workload) ?? { streams: 0, entries: 0 };
    if (held.streams >= this.#bounds.streamsOfWorkload)
      throw statusError(status.RESOURCE_EXHAUSTED, `more than ${this.#bounds.streamsOfWorkload} streams of one workload`);
    this.#held.set(workload, held);
    held.streams++;
    const limit = requestLimit(REPORTS);
    const keys = new Set<string>();
    let run: { readonly pod: string; readonly instance: string } | undefined;
    let over = false;
    return {
      peers: (report) => {
        limit();
        return { ...believedPeers(report, { reporter: workload, max: this.#bounds.peers }), held: [] };
      },
      ledger: (report) => {
        limit();
        const { pod, instance } = report;
        run ??= { pod, instance };
        if (run.pod !== pod || run.instance !== instance)
          throw statusError(status.INVALID_ARGUMENT, 'one stream is the ledger of one run of one sidecar');
        const entries = report.entries.filter((entry) => {
          const key = entryKey(entry);
          if (keys.has(key)) return true;
          if (keys.size >= this.#bounds.entries || held.entries >= this.#bounds.entriesOfWorkload) return false;
          keys.add(key);
          held.entries++;
          return true;
        });
        return { ...report, reporter: workload, entries, dropped: report.dropped + report.entries.length - entries.length };
      },
      end: () => {
        if (over) return;
        over = true;
        held.streams--;
        held.entries -= keys.size;
        if (held.streams === 0) this.#held.delete(workload);
      },
    };
  }
}
