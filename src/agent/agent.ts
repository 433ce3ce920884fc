// The node agent: certificates (SDS and the SPIFFE Workload API) and the discovery relay on unix sockets that any workload may open; who it
// is, its token says, or what the kernel knows of its process.

import { CaClient } from '../ca/client.ts';
import { ConfirmedPolicies } from '../discovery/confirmed-policies.ts';
import { MeshIndex } from '../discovery/mesh-index.ts';
import { MeshStreams } from '../discovery/mesh-streams.ts';
import { ReceiptBook } from '../discovery/receipt-book.ts';
import { ResourceCache } from '../discovery/resource-cache.ts';
import { TokenFile } from '../discovery/token-file.ts';
import { HandfastError } from '../errors.ts';
import { MeshNode, type MeshNodeOptions } from '../node/mesh-node.ts';
import { jwtTrustOf } from '../node/node-trust.ts';
import { controlId } from '../spiffe/system-ids.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { listenUnix } from '../wire/grpc-listener.ts';
import { type GrpcTarget, isUnixAddress } from '../wire/grpc-target.ts';
import { serveOperators } from '../wire/operator-server.ts';
import { Attestor } from './attestor.ts';
import { followControls, inTurns } from './controls.ts';
import { addDiscoveryRelay } from './discovery-relay.ts';
import { serveIdentitySocket } from './identity-socket.ts';
import { followIstiod } from './istiod.ts';
import { JwtSvidCache } from './jwt-svid-cache.ts';
import { addJwtSvidService } from './jwt-svid-service.ts';
import { Ledgers } from './ledgers.ts';
import { LivePeers } from './live-peers.ts';
import { followOwnIdentity } from './own-identity.ts';
import { PodCgroups } from './pod-cgroups.ts';
import { addReportService } from './report-service.ts';
import { addSdsService } from './sds-server.ts';
import { SdsStreams } from './sds-streams.ts';
import { SocketSecrets } from './socket-secrets.ts';
import { agentStatus } from './status.ts';
import type { StreamCounts } from './stream-limits.ts';
import { StreamSessions } from './stream-session.ts';
import { serveWorkloadApi } from './workload-api.ts';
import { WorkloadRegistrations } from './workload-registrations.ts';
import type { SecretsFrom } from './workload-secrets.ts';
import { WorkloadSessions } from './workload-sessions.ts';

export interface AgentOptions extends MeshNodeOptions {
  /** Path of the socket that sidecars use: SDS and discovery. */
  readonly socket: string;
  /** Path of the SPIFFE Workload API's socket; without it there is none. */
  readonly workloadSocket: string | undefined;
  /** Path of the socket for the same callers that speaks HTTP; without it there is none. */
  readonly identitySocket?: string | undefined;
  /** Path of the socket that only root may open; without it there is none. */
  readonly operatorSocket: string | undefined;
  /** Which local process may be which workload; without it a token stands alone and the Workload API serves nobody. */
  readonly workloadsFile: string | undefined;
  /** Kubelet's --cgroup-root: a process must be in the pod that its token is bound to, by its cgroups; undefined where there are no pods. */
  readonly podCgroups?: string | undefined;
  /** gRPC addresses of control: of all its replicas, where there are several. */
  readonly controls: readonly string[];
  /** They are istiods: known by a DNS name, and told who asks by the token in this file. */
  readonly istiod?: { readonly tokenFile: string; readonly serverName: string | undefined; readonly clusterId: string } | undefined;
  /** It is alone with one workload, in its pod: this file has that workload's token. Its sidecar follows control itself. */
  readonly inPod?: { readonly tokenFile: string } | undefined;
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

export interface RunningAgent {
  /** Control, as this agent reaches it; another replica each time, where there are several. */
  readonly control: () => GrpcTarget;
  stop(): Promise<void>;
}

/** Serves until `stop` is called. Throws CONFIG_INVALID, STATE_INVALID, JOIN_TOKEN_REFUSED or UNAVAILABLE when it cannot begin. */
export async function startAgent(options: AgentOptions): Promise<RunningAgent> {
  const { log, now } = options;
  const running: (() => unknown)[] = [];
  const stop = async () => {
    for (const end of running.reverse()) await end();
  };
  try {
    const stopping = new AbortController();
    if (isUnixAddress(options.ca) && !options.controls.every(isUnixAddress))
      throw new HandfastError(
        'CONFIG_INVALID',
        '--control HOST:PORT needs a certificate: give --ca HOST:PORT, --trust-bundle and --join-token-file too',
      );
    if (options.identitySocket !== undefined && options.workloadsFile === undefined)
      throw new HandfastError('CONFIG_INVALID', '--identity-socket serves registered processes: give --workloads FILE too');
    const pods = options.podCgroups === undefined ? undefined : new PodCgroups(options.podCgroups);
    const token = options.inPod === undefined ? undefined : new TokenFile(options.inPod.tokenFile);
    await token?.start(stopping.signal);
    const node = await MeshNode.start({ ...options, workloadToken: token?.value });
    running.push(() => node.stop());
    const ca = new CaClient(node.ca);
    running.push(() => ca.close());
    const registrations = options.workloadsFile === undefined ? undefined : new WorkloadRegistrations({ file: options.workloadsFile, log });
    await registrations?.start(stopping.signal);
    const attestor = new Attestor(registrations, pods);
    const trust = node.trust.trust;
    const plan = { rotateEveryMs: options.rotateEveryMs, now };
    const secretsFrom = secretsFromControl(options, node);
    const sessions = new WorkloadSessions({ signer: signerOf(ca, node), trust, plan, secretsFrom, log });
    const streams = new SdsStreams(now);
    const opener = new StreamSessions({ sessions, attestor, log, answerTimeoutMs: options.answerTimeoutMs, counts: options.streamCounts });
    const livePeers = new LivePeers();
    const ledgers = new Ledgers(now);
    const receipts = new ReceiptBook();
    const held = new ConfirmedPolicies();
    const index = new MeshIndex(new ResourceCache());

    const server = newServer({ maxMessageBytes: MAX_REQUEST_BYTES, maxStreams: MAX_STREAMS });
    addSdsService(server, { opener, streams, receipts, log, now });
    if (options.inPod === undefined) addDiscoveryRelay(server, { opener, mesh: new MeshStreams({ index, confirmed: held, log }) });
    const jwtTrust = () => (trust.current === undefined ? undefined : jwtTrustOf(trust.current));
    const jwtSvids = new JwtSvidCache({ signer: ca, trust: jwtTrust, now });
    addJwtSvidService(server, { attestor, signer: jwtSvids, log });
    addReportService(server, { opener, livePeers, ledgers, receipts });
    const onRefused = (refusal: object) => log.warn(refusal, 'connection refused');
    const listener = await listenUnix({ server, path: options.socket, mode: 0o666, takeOver: true, onRefused });
    // The path is let go first, so that nobody finds a server that is about to end.
    running.push(async () => {
      await listener.close();
      sessions.stop();
      await stopServer(server);
    });
    if (options.workloadSocket !== undefined) {
      const path = options.workloadSocket;
      const workloadApi = await serveWorkloadApi({ path, attestor, identities: sessions, trust, signer: jwtSvids, log, now });
      running.push(() => workloadApi.close());
    }
    if (options.identitySocket !== undefined) {
      const secrets = new SocketSecrets({ sessions, receipts, now });
      const path = options.identitySocket;
      const identity = await serveIdentitySocket({ path, attestor, signer: jwtSvids, trust: jwtTrust, secrets, log, now });
      running.push(() => identity.close());
    }
    if (options.operatorSocket !== undefined) {
      const operators = await serveOperators({
        path: options.operatorSocket,
        takeOver: true,
        routes: [
          { method: 'GET', path: '/status', handle: () => agentStatus({ node, sessions, streams, livePeers, ledgers, now }) },
          { method: 'GET', path: '/ledger', handle: () => ({ ledgers: ledgers.all }) },
        ],
      });
      running.push(() => operators.close());
    }
    if (token !== undefined) {
      const following = followOwnIdentity({ sessions, token: token.value, identity: node.identity, log, signal: stopping.signal });
      running.push(() => following);
    }

    node.followTrust((signal) => streams.taken(signal));
    const upstream = await followUpstream(options, { node, index, livePeers, held, ledgers, receipts, signal: stopping.signal });
    running.push(async () => {
      stopping.abort();
      await upstream.ended;
    });
    const { socket, workloadSocket, ca: caAddress } = options;
    log.info({ socket, workloadSocket, ca: caAddress, control: options.controls.join(',') }, 'agent listening');
    return { control: upstream.control, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Whoever knows the mesh: control, or istiod in its place. */
async function followUpstream(
  { controls, istiod, inPod, trustDomain, log }: AgentOptions,
  of: {
    node: MeshNode;
    index: MeshIndex;
    livePeers: LivePeers;
    held: ConfirmedPolicies;
    ledgers: Ledgers;
    receipts: ReceiptBook;
    signal: AbortSignal;
  },
): Promise<{ control: () => GrpcTarget; ended: Promise<void> }> {
  const { node, index, ...rest } = of;
  if (istiod === undefined) {
    const targets = controls.map((address) => node.reach(address, { spiffeIds: [controlId(trustDomain).uri] }));
    const following = { ...rest, mesh: inPod === undefined ? index : undefined, controls: targets, log };
    // A workload is nobody to control before it has its certificate.
    const known = inPod === undefined ? Promise.resolve() : node.identity.first(of.signal);
    return { control: inTurns(targets), ended: known.then(() => followControls(following)) };
  }
  const token = new TokenFile(istiod.tokenFile);
  await token.start(of.signal);
  const targets = controls.map((address) => node.reach(address, { dnsName: istiod.serverName ?? address.replace(/:\d+$/, '') }));
  const control = inTurns(targets);
  return { control, ended: followIstiod({ ...rest, mesh: index, clusterId: istiod.clusterId, target: control, token: token.value, log }) };
}

/** Control gives a workload's secrets to the workload alone: it is asked in each one's own name. */
function secretsFromControl({ controls, istiod, trustDomain }: AgentOptions, node: MeshNode): SecretsFrom {
  if (istiod !== undefined) return undefined;
  const expected = { spiffeIds: [controlId(trustDomain).uri] };
  return (identity) => inTurns(controls.map((address) => node.reachAs(identity, address, expected)));
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
