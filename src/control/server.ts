// Control's side of discovery: delta ADS for agents, and for sidecars that have none; secrets for workloads; and what is reported of connections and secrets.

import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { isPlausibleEntry, isPlausibleReport } from '../discovery/believed-ledger.ts';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { mayReceive } from '../policy/secret-policy.ts';
import { type SpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import { nodeOf } from '../spiffe/system-ids.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { addressOfCaller, callerOf } from '../wire/caller.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import {
  type ConnectionReport,
  type LedgerReport,
  type ReportServiceServer,
  ReportServiceService,
  type ReportSummary,
  type SecretReceipts,
} from '../wire/gen/handfast/report/v1/report.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import type { MeshLedger } from './ledger/mesh-ledger.ts';
import { MeshForSidecars } from './mesh-for-sidecars.ts';
import { NodeReports } from './node-reports.ts';
import { leaveWhenOutOfTouch } from './out-of-touch.ts';
import { NodeReceipts } from './secrets/node-receipts.ts';
import { addSecretService, type SecretServiceDeps } from './secrets/secret-service.ts';
import { WorkloadReports, type WorkloadStream } from './workload-reports.ts';

export interface ControlServiceDeps {
  readonly cache: ResourceCache;
  readonly ledger: MeshLedger;
  readonly trustDomain: string;
  /** Sidecars without an agent come themselves. */
  readonly servesSidecars: boolean;
  readonly secrets?: SecretServiceDeps['secrets'];
  /** Whether we know what there is to know; where others may know more when we do not. */
  readonly isInTouch: () => boolean;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
}

export function addControlServices(server: Server, deps: ControlServiceDeps): { reports: NodeReports; receipts: NodeReceipts } {
  const reports = new NodeReports();
  const { secrets, now } = deps;
  const receipts = new NodeReceipts({
    audit: secrets?.audit,
    canHave: ({ key, version, id }) => {
      const { secrets: known, policiesOf } = secrets?.source.world.current ?? {};
      const mayNow = known?.get(key)?.versions.has(version) === true && mayReceive(policiesOf?.get(key) ?? [], { key, id });
      return mayNow || secrets?.handed.has({ id: id.uri, key, version }) === true;
    },
    now,
  });
  const workloads = new WorkloadReports();
  const mesh = new MeshForSidecars({ ...deps, confirmed: reports.sidecars });
  /** Whom it is served as, kept until its stream ends. */
  const admit = (call: ServerDuplexStream<unknown, unknown>): Admitted | undefined => {
    const caller = admitted(call, deps);
    if (caller === undefined) return undefined;
    reports.connect(call, caller.name);
    whenOver(call, () => reports.end(call));
    return caller;
  };
  /** With what a workload's reports must go through; undefined when the stream has ended instead. */
  const admitReports = (call: ServerDuplexStream<unknown, unknown>): { node: string; workload: WorkloadStream | undefined } | undefined => {
    const caller = admit(call);
    if (caller?.workload === undefined) return caller === undefined ? undefined : { node: caller.name, workload: undefined };
    try {
      const workload = workloads.open(caller.workload.uri);
      whenOver(call, () => workload.end());
      return { node: caller.name, workload };
    } catch (error) {
      call.emit('error', error);
      return undefined;
    }
  };
  const discovery: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) => {
      const caller = admit(call);
      if (caller === undefined) return;
      leaveWhenOutOfTouch(call, deps.isInTouch);
      if (caller.workload === undefined) serveDeltaStream(call, { view: deps.cache, peer: caller.name, log: deps.log });
      else mesh.serve(call, caller.workload.uri);
    },
  };
  server.addService(AggregatedDiscoveryServiceService, discovery);
  const reporting: ReportServiceServer = {
    report: (call: ServerDuplexStream<ConnectionReport, ReportSummary>) => {
      const from = admitReports(call);
      if (from === undefined) return;
      const { node, workload } = from;
      call.on('data', (report: ConnectionReport) =>
        orEnd(call, () => reports.report(call, { node, report: workload?.peers(report) ?? report })),
      );
      call.on('end', () => call.end());
    },
    record: (call: ServerDuplexStream<LedgerReport, ReportSummary>) => {
      const from = admitReports(call);
      if (from === undefined) return;
      const { node, workload } = from;
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
        orEnd(call, () => {
          takeLedger(deps, { call, node, report: workload?.ledger(report) ?? report });
          taken++;
          answer();
        });
      });
      whenOver(call, () => {
        over = true;
        deps.ledger.end(call);
      });
      call.on('end', () => call.end());
    },
    confirm: (call: ServerDuplexStream<SecretReceipts, ReportSummary>) => {
      const caller = admit(call);
      if (caller === undefined) return;
      const stream = receipts.open({ node: caller.name, reporter: caller.workload?.uri });
      call.on('data', (report: SecretReceipts) => orEnd(call, () => stream.take(report)));
      whenOver(call, () => stream.end());
      call.on('end', () => call.end());
    },
  };
  server.addService(ReportServiceService, reporting);
  addSecretService(server, deps);
  return { reports, receipts };
}

function orEnd(call: ServerDuplexStream<unknown, unknown>, act: () => void): void {
  try {
    act();
  } catch (error) {
    call.emit('error', error);
  }
}

/** An agent has looked at it before; but one node's agent must not be able to spoil what is asked of all. */
function takeLedger({ ledger, now }: ControlServiceDeps, from: { call: object; node: string; report: LedgerReport }): void {
  const { call, node, report } = from;
  const at = now();
  if (!isPlausibleReport(report, at)) return;
  const entries = report.entries.filter((entry) => isPlausibleEntry(entry, at));
  ledger.take(call, { node, report: { ...report, entries, dropped: report.dropped + report.entries.length - entries.length } });
}

/** An agent, or where they come themselves a workload's sidecar. */
interface Admitted {
  /** Of the node, or of the workload and where its pod is: no node's name has a slash. */
  readonly name: string;
  readonly workload: SpiffeId | undefined;
}

/** Undefined for anybody else, whose stream is ended. */
function admitted(
  call: ServerDuplexStream<unknown, unknown>,
  { trustDomain, servesSidecars, now }: ControlServiceDeps,
): Admitted | undefined {
  const caller = callerOf(call);
  if (caller?.kind === 'unix') return { name: 'local', workload: undefined };
  if (caller?.kind === 'tls' && isValid(caller.peer, { trustDomain, now: now() })) {
    const { id } = caller.peer;
    const node = nodeOf(id);
    if (node !== undefined) return { name: node, workload: undefined };
    if (servesSidecars && workloadOf(id) !== undefined) {
      return { name: `workload ${id.path.slice(1)} at ${addressOfCaller(call)}`, workload: id };
    }
  }
  call.emit(
    'error',
    statusError(status.PERMISSION_DENIED, servesSidecars ? 'only agents and sidecars are served here' : 'only agents are served here'),
  );
  return undefined;
}

/** One of ours, whose certificate has not ended since it connected. */
function isValid({ id, notAfter }: VerifiedPeer, ours: { trustDomain: string; now: number }): boolean {
  return id.trustDomain === ours.trustDomain && ours.now <= notAfter;
}
