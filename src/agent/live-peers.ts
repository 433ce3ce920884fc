// The open connections of this node's sidecars, as they report them: for operators, and for the one who asks before revoking.

import type { Server, ServerDuplexStream } from '@grpc/grpc-js';
import {
  type ConnectionReport,
  type LivePeer,
  type ReportServiceServer,
  ReportServiceService,
  type ReportSummary,
} from '../wire/gen/handfast/report/v1/report.ts';
import type { StreamSessions } from './stream-session.ts';

/** Who reported: a workload's SPIFFE ID, and what it said last. */
export interface ReportedPeers {
  readonly reporter: string;
  readonly peers: readonly LivePeer[];
}

/** A sidecar has a few dozen peers; a report of more is cut off here. */
const MAX_PEERS = 10_000;

export class LivePeers {
  readonly #reports = new Map<object, ReportedPeers>();

  get reports(): readonly ReportedPeers[] {
    return [...this.#reports.values()];
  }

  /** Everything, as this node reports it on. */
  get all(): LivePeer[] {
    return this.reports.flatMap(({ peers }) => peers);
  }

  /** Takes a stream's reports until the returned function is called. */
  follow(call: ServerDuplexStream<ConnectionReport, ReportSummary>, reporter: string): () => void {
    call.on('data', ({ peers }: ConnectionReport) => this.#reports.set(call, { reporter, peers: peers.slice(0, MAX_PEERS) }));
    call.on('end', () => call.end());
    return () => this.#reports.delete(call);
  }
}

export function addReportService(server: Server, deps: { opener: StreamSessions; livePeers: LivePeers }): void {
  const service: ReportServiceServer = {
    report: (call) => deps.opener.open(call, ({ identity }) => deps.livePeers.follow(call, identity.svid.id.uri)),
  };
  server.addService(ReportServiceService, service);
}
