// Control's side of discovery: delta ADS for agents, and what they report of their sidecars' connections.

import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { nodeOf } from '../spiffe/system-ids.ts';
import { callerOf } from '../wire/caller.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import {
  type ConnectionReport,
  type LivePeer,
  type ReportServiceServer,
  ReportServiceService,
  type ReportSummary,
} from '../wire/gen/handfast/report/v1/report.ts';
import { statusError } from '../wire/grpc.ts';

/** What the sidecars of a node are connected to now. */
export interface NodeReport {
  readonly node: string;
  readonly peers: readonly LivePeer[];
}

export function addControlServices(server: Server, deps: { cache: ResourceCache; log: Log }): ReadonlyMap<object, NodeReport> {
  const reports = new Map<object, NodeReport>();
  const discovery: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) => {
      const peer = admitAgent(call);
      if (peer !== undefined) serveDeltaStream(call, { view: deps.cache, peer, log: deps.log });
    },
  };
  server.addService(AggregatedDiscoveryServiceService, discovery);
  const reporting: ReportServiceServer = {
    report: (call: ServerDuplexStream<ConnectionReport, ReportSummary>) => {
      const node = admitAgent(call);
      if (node === undefined) return;
      const end = () => reports.delete(call);
      call.on('data', ({ peers }: ConnectionReport) => reports.set(call, { node, peers }));
      call.on('cancelled', end);
      call.on('error', end);
      call.on('end', () => {
        end();
        call.end();
      });
    },
  };
  server.addService(ReportServiceService, reporting);
  return reports;
}

/** The agent's name; undefined for anybody else, whose stream is ended. */
function admitAgent(call: ServerDuplexStream<unknown, unknown>): string | undefined {
  const caller = callerOf(call);
  if (caller?.kind === 'unix') return 'local';
  const node = caller?.kind === 'tls' ? nodeOf(caller.peer.id) : undefined;
  if (node === undefined) call.emit('error', statusError(status.PERMISSION_DENIED, 'only agents are served here'));
  return node;
}
