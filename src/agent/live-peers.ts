// The open connections of this node's sidecars, as they report them: for operators, and for the one who asks before revoking.

import { status } from '@grpc/grpc-js';
import { believedPeers } from '../discovery/believed-peers.ts';
import type { Connections } from '../discovery/fit-report.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import type { ConnectionReport, LivePeer } from '../wire/gen/handfast/report/v1/report.ts';
import { statusError } from '../wire/grpc.ts';
import type { Reporter, ReportStream } from './report-stream.ts';

/** Who reported: a workload's SPIFFE ID, and what it said last. `truncated`: it has more than that. */
export interface ReportedPeers {
  readonly reporter: string;
  readonly peers: readonly LivePeer[];
  readonly truncated: boolean;
}

type Call = ReportStream<ConnectionReport>;

interface Stream extends ReportedPeers {
  readonly connection: string;
}

/** Of one workload, on all its streams: a sidecar has a few dozen peers. */
const MAX_PEERS = 1_000;
/** A sidecar reports once a second at most. */
const REPORTS = { burst: 20, perSecond: 5 };

export class LivePeers {
  readonly #streams = new Map<Call, Stream>();
  /** Made when it is asked for, and again after a change alone: it is asked for each second. */
  #together: Connections | undefined;

  get reports(): readonly ReportedPeers[] {
    return [...this.#streams.values()].map(({ reporter, peers, truncated }) => ({ reporter, peers, truncated }));
  }

  /** Everything, as this node reports it on: the reporters take turns, so that wherever it is cut nobody's part has been crowded out by another's. */
  get together(): Connections {
    this.#together ??= { peers: takingTurns(this.reports), truncated: this.reports.some(({ truncated }) => truncated) };
    return this.#together;
  }

  /** Takes a stream's reports until the returned function is called. */
  follow(call: Call, { spiffeId: reporter, connection, stillProven }: Reporter): () => void {
    // One sidecar, one stream; the newer one is the one that lives.
    for (const [other, stream] of [...this.#streams]) {
      if (stream.reporter === reporter && stream.connection === connection)
        other.emit('error', statusError(status.ABORTED, 'another stream of reports took its place'));
    }
    const limit = requestLimit(REPORTS);
    let over = false;
    const keep = (peers: readonly LivePeer[], truncated: boolean) => {
      this.#streams.set(call, { reporter, connection, peers, truncated });
      this.#together = undefined;
    };
    keep([], false);
    call.on('data', (report: ConnectionReport) => {
      if (over || !stillProven()) return;
      try {
        limit();
      } catch (error) {
        call.emit('error', error);
        return;
      }
      const believed = believedPeers(report, { reporter, max: this.#room(call, reporter) });
      keep(believed.peers, believed.truncated);
    });
    call.on('end', () => call.end());
    return () => {
      over = true;
      this.#streams.delete(call);
      this.#together = undefined;
    };
  }

  /** How many peers a stream may name, beside the workload's other streams. */
  #room(call: Call, reporter: string): number {
    let taken = 0;
    for (const [other, stream] of this.#streams) if (other !== call && stream.reporter === reporter) taken += stream.peers.length;
    return Math.max(0, MAX_PEERS - taken);
  }
}

/** The first of each reporter, then the second of each, and so on. */
function takingTurns(reports: readonly ReportedPeers[]): LivePeer[] {
  const queues = [...Map.groupBy(reports, ({ reporter }) => reporter).values()].map((of) => of.flatMap(({ peers }) => peers));
  const longest = queues.reduce((max, queue) => Math.max(max, queue.length), 0);
  return Array.from({ length: longest }, (_, turn) => queues.flatMap((queue) => queue[turn] ?? [])).flat();
}
