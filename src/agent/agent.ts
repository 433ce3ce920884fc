// The node agent: certificates (SDS and the SPIFFE Workload API) and the discovery relay on unix sockets that any workload may open; who it
// is, its token says, or what the kernel knows of its process.

import { CaClient } from '../ca/client.ts';
import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import { runLedgerClient } from '../discovery/ledger-client.ts';
import { meshTypeUrls } from '../discovery/mesh-source.ts';
import { runReportClient } from '../discovery/report-client.ts';
import { ResourceCache } from '../discovery/resource-cache.ts';
import { HandfastError } from '../errors.ts';
import { MeshNode, type MeshNodeOptions } from '../node/mesh-node.ts';
import { controlId } from '../spiffe/system-ids.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { listenUnix } from '../wire/grpc-listener.ts';
import { isUnixAddress } from '../wire/grpc-target.ts';
import { serveOperators } from '../wire/operator-server.ts';
import { Attestor } from './attestor.ts';
import { addDiscoveryRelay } from './discovery-relay.ts';
import { Ledgers } from './ledgers.ts';
import { LivePeers } from './live-peers.ts';
import { PodCgroups } from './pod-cgroups.ts';
import { addReportService } from './report-service.ts';
import { addSdsService } from './sds-server.ts';
import { SdsStreams } from './sds-streams.ts';
import { agentStatus } from './status.ts';
import type { StreamCounts } from './stream-limits.ts';
import { StreamSessions } from './stream-session.ts';
import { serveWorkloadApi } from './workload-api.ts';
import { WorkloadRegistrations } from './workload-registrations.ts';
import { WorkloadSessions } from './workload-sessions.ts';

export interface AgentOptions extends MeshNodeOptions {
  /** Path of the socket that sidecars use: SDS and discovery. */
  readonly socket: string;
  /** Path of the SPIFFE Workload API's socket. */
  readonly workloadSocket: string;
  /** Path of the socket that only root may open. */
  readonly operatorSocket: string;
  /** Which local process may be which workload; without it a token stands alone and the Workload API serves nobody. */
  readonly workloadsFile: string | undefined;
  /** Kubelet's --cgroup-root: a process must be in the pod that its token is bound to, by its cgroups; undefined where there are no pods. */
  readonly podCgroups?: string | undefined;
  /** gRPC address of control. */
  readonly control: string;
  readonly rotateEveryMs: number | undefined;
  /** How long a client may take to answer a discovery response before its stream is ended; a minute unless told otherwise. */
  readonly answerTimeoutMs?: number;
  /** How many streams one peer and one workload may hold; enough for a full node unless told otherwise. */
  readonly streamCounts?: Partial<StreamCounts>;
}

/** A report of 10,000 peers, which is the most that is taken. */
const MAX_REQUEST_BYTES = 2 * 1024 * 1024;
/** Of one sidecar's connection, or of whoever opens streams for many workloads. */
const MAX_STREAMS = 128;

/** Serves until `stop` is called. Throws CONFIG_INVALID, STATE_INVALID, JOIN_TOKEN_REFUSED or UNAVAILABLE when it cannot begin. */
export async function startAgent(options: AgentOptions): Promise<{ stop(): Promise<void> }> {
  const { log, now } = options;
  const running: (() => unknown)[] = [];
  const stop = async () => {
    for (const end of running.reverse()) await end();
  };
  try {
    const stopping = new AbortController();
    if (isUnixAddress(options.ca) && !isUnixAddress(options.control))
      throw new HandfastError(
        'CONFIG_INVALID',
        '--control HOST:PORT needs a certificate: give --ca HOST:PORT, --trust-bundle and --join-token-file too',
      );
    const pods = options.podCgroups === undefined ? undefined : new PodCgroups(options.podCgroups);
    const node = await MeshNode.start(options);
    running.push(() => node.stop());
    const ca = new CaClient(node.ca);
    running.push(() => ca.close());
    const registrations = options.workloadsFile === undefined ? undefined : new WorkloadRegistrations({ file: options.workloadsFile, log });
    await registrations?.start(stopping.signal);
    const attestor = new Attestor(registrations, pods);
    const trust = node.trust.trust;
    const sessions = new WorkloadSessions({ signer: signerOf(ca, node), trust, plan: { rotateEveryMs: options.rotateEveryMs, now }, log });
    const streams = new SdsStreams(now);
    const opener = new StreamSessions({ sessions, attestor, log, answerTimeoutMs: options.answerTimeoutMs, counts: options.streamCounts });
    const livePeers = new LivePeers();
    const ledgers = new Ledgers(now);
    const cache = new ResourceCache();

    const server = newServer({ maxMessageBytes: MAX_REQUEST_BYTES, maxStreams: MAX_STREAMS });
    addSdsService(server, { opener, streams, log });
    addDiscoveryRelay(server, { opener, cache, log });
    addReportService(server, { opener, livePeers, ledgers });
    const onRefused = (refusal: object) => log.warn(refusal, 'connection refused');
    const listener = await listenUnix({ server, path: options.socket, mode: 0o666, takeOver: true, onRefused });
    // The path is let go first, so that nobody finds a server that is about to end.
    running.push(async () => {
      await listener.close();
      sessions.stop();
      await stopServer(server);
    });
    const workloadApi = await serveWorkloadApi({
      path: options.workloadSocket,
      attestor,
      identities: sessions,
      trust,
      signer: ca,
      log,
      now,
    });
    running.push(() => workloadApi.close());
    const operators = await serveOperators({
      path: options.operatorSocket,
      takeOver: true,
      routes: [
        { method: 'GET', path: '/status', handle: () => agentStatus({ node, sessions, streams, livePeers, ledgers, now }) },
        { method: 'GET', path: '/ledger', handle: () => ({ ledgers: ledgers.all }) },
      ],
    });
    running.push(() => operators.close());

    node.followTrust((signal) => streams.taken(signal));
    const control = node.reach(options.control, { spiffeIds: [controlId(options.trustDomain).uri] });
    const toControl = { target: control, token: undefined, log, signal: stopping.signal };
    const apply = (typeUrl: string, change: Parameters<typeof cache.apply>[1]) => cache.apply(typeUrl, change);
    const upstream = [
      runDeltaAdsClient({ ...toControl, nodeId: 'agent', typeUrls: meshTypeUrls, apply }),
      runReportClient({ ...toControl, peers: () => livePeers.together.peers, truncated: () => livePeers.together.truncated }),
      runLedgerClient({ ...toControl, ledgers: () => ledgers.reported, onEndedTaken: (ledger) => ledgers.forget(ledger) }),
    ];
    running.push(async () => {
      stopping.abort();
      await Promise.all(upstream);
    });
    const { socket, workloadSocket, ca: caAddress } = options;
    log.info({ socket, workloadSocket, ca: caAddress, control: options.control }, 'agent listening');
    return { stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Istio's CA has no word for its bundle but the root at the end of each answer; ours publishes it. */
function signerOf(ca: CaClient, node: MeshNode): { sign(request: { csr: string; token: string }): Promise<{ chain: string }> } {
  if (node.caKind !== 'istio') return ca;
  return {
    sign: async (request) => {
      const signed = await ca.sign(request);
      node.trust.useBundle(signed.bundle);
      return signed;
    },
  };
}
