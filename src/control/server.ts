// Control's side of discovery: delta ADS for agents, and what they report of their sidecars' connections.

import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { isPlausibleEntry, isPlausibleReport } from '../discovery/believed-ledger.ts';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { nodeOf } from '../spiffe/system-ids.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { callerOf } from '../wire/caller.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import {
  type ConnectionReport,
  type LedgerReport,
  type ReportServiceServer,
  ReportServiceService,
  type ReportSummary,
} from '../wire/gen/handfast/report/v1/report.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import type { MeshLedger } from './ledger/mesh-ledger.ts';
import { NodeReports } from './node-reports.ts';

export interface ControlServiceDeps {
  readonly cache: ResourceCache;
  readonly ledger: MeshLedger;
  readonly trustDomain: string;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
}

export function addControlServices(server: Server, deps: ControlServiceDeps): NodeReports {
  const reports = new NodeReports();
  /** The agent's name, kept until its stream ends. */
  const admit = (call: ServerDuplexStream<unknown, unknown>): string | undefined => {
    const node = admitAgent(call, deps);
    if (node === undefined) return undefined;
    reports.connect(call, node);
    const end = () => reports.end(call);
    whenOver(call, end);
    return node;
  };
  const discovery: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) => {
      const peer = admit(call);
      if (peer !== undefined) serveDeltaStream(call, { view: deps.cache, peer, log: deps.log });
    },
  };
  server.addService(AggregatedDiscoveryServiceService, discovery);
  const reporting: ReportServiceServer = {
    report: (call: ServerDuplexStream<ConnectionReport, ReportSummary>) => {
      const node = admit(call);
      if (node === undefined) return;
      call.on('data', (report: ConnectionReport) => reports.report(call, { node, report }));
      call.on('end', () => call.end());
    },
    record: (call: ServerDuplexStream<LedgerReport, ReportSummary>) => {
      const node = admit(call);
      if (node === undefined) return;
      let over = false;
      let taken = 0;
      // It is the last word that counts: an agent that does not read gets fewer, instead of a queue in our memory.
      const answer = () => {
        if (!over && !call.writableNeedDrain) call.write({ taken });
      };
      call.on('drain', answer);
      call.on('data', (report: LedgerReport) => {
        // What still comes of a stream that has ended would stay open for ever.
        if (over) return;
        takeLedger(deps, { call, node, report });
        taken++;
        answer();
      });
      whenOver(call, () => {
        over = true;
        deps.ledger.end(call);
      });
      call.on('end', () => call.end());
    },
  };
  server.addService(ReportServiceService, reporting);
  return reports;
}

/** An agent has looked at it before; but one node's agent must not be able to spoil what is asked of all. */
function takeLedger({ ledger, now }: ControlServiceDeps, from: { call: object; node: string; report: LedgerReport }): void {
  const { call, node, report } = from;
  const at = now();
  if (!isPlausibleReport(report, at)) return;
  const entries = report.entries.filter((entry) => isPlausibleEntry(entry, at));
  ledger.take(call, { node, report: { ...report, entries, dropped: report.dropped + report.entries.length - entries.length } });
}

/** The agent's name; undefined for anybody else, whose stream is ended. */
function admitAgent(call: ServerDuplexStream<unknown, unknown>, { trustDomain, now }: ControlServiceDeps): string | undefined {
  const caller = callerOf(call);
  if (caller?.kind === 'unix') return 'local';
  const node = caller?.kind === 'tls' && isValid(caller.peer, { trustDomain, now: now() }) ? nodeOf(caller.peer.id) : undefined;
  if (node === undefined) call.emit('error', statusError(status.PERMISSION_DENIED, 'only agents are served here'));
  return node;
}

/** One of ours, whose certificate has not ended since it connected. */
function isValid({ id, notAfter }: VerifiedPeer, ours: { trustDomain: string; now: number }): boolean {
  return id.trustDomain === ours.trustDomain && ours.now <= notAfter;
}
