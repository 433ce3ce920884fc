// handfast proxy: the sidecar.

import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import { watchExpiry } from '../discovery/expiry-watchdog.ts';
import { runIdentityStreams } from '../discovery/identity-streams.ts';
import { Interests } from '../discovery/interests.ts';
import { runLedgerClient } from '../discovery/ledger-client.ts';
import { MeshSource } from '../discovery/mesh-source.ts';
import { runReportClient } from '../discovery/report-client.ts';
import type { ResourceChange } from '../discovery/resource-cache.ts';
import { sidecarSubscriptions } from '../discovery/sidecar-subscriptions.ts';
import { TokenFile } from '../discovery/token-file.ts';
import { originalDestination } from '../net/original-destination.ts';
import { returnMemory } from '../net/return-memory.ts';
import { Ledger, type SightingSink } from '../observe/ledger.ts';
import { type LogSink, openLog } from '../observe/log.ts';
import { TrafficCounters } from '../observe/metrics-traffic.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { podUid } from '../policy/model.ts';
import { type ProxyConfig, parseProxyConfig } from '../proxy/config.ts';
import { Sidecar, type SidecarOptions, type SidecarPorts } from '../proxy/sidecar.ts';
import type { ConnectionTracker } from '../proxy/tracker.ts';
import { isWholeFor } from '../proxy/whole-mesh.ts';
import { Snapshot } from '../snapshot.ts';
import { noRevocations, type RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { clientContext } from '../tls/context.ts';
import { unixTarget } from '../wire/grpc-target.ts';
import { SidecarWorkers } from '../workers/sidecar-workers.ts';
import { aborted } from './aborted.ts';
import { openIdentityPort } from './identity-port.ts';
import type { InPodAgent } from './in-pod-agent.ts';
import { sdsSource } from './sds-source.ts';
import { appProbesOf, openStatusPort, PASSTHROUGH_SOURCE } from './status-port.ts';

/** Runs until the signal aborts and connections are drained. */
export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseProxyConfig(argv);
  const probes = appProbesOf(config);
  const sink = openLog({ role: 'proxy', level: config['log-level'] });
  const { log, close } = sink;
  const now = Date.now;
  const identity = new Snapshot<Identity>();
  const discovery = new AbortController();
  const token = new TokenFile(config['token-file']);
  const sds = sdsSource(config, now);
  const sdsToken = config['sds-token-file'] === undefined ? undefined : new TokenFile(config['sds-token-file']);
  const revocations = new Snapshot<RevocationList>(sds.crl === undefined ? noRevocations : undefined);
  const ledger = new Ledger({ log, now });
  const traffic = new TrafficCounters(ledger);
  const quit = new AbortController();
  let inPod: InPodAgent | undefined;
  const pod = `${config['pod-namespace']}/${config['pod-name']}`;
  const self = podUid(pod);
  const interests = new Interests({ self, log, signal: discovery.signal });
  try {
    await token.start(discovery.signal);
    await sdsToken?.start(discovery.signal);
    // The agent's code is memory that a sidecar beside an agent does not need.
    if (config.ca !== undefined) inPod = await (await import('./in-pod-agent.ts')).startInPodAgent(config, { log, now });
    const watchdog = watchExpiry({ identity, log, now, signal: discovery.signal });
    const warnings = () => [watchdog.warning() ?? [], outdated(revocations.current, now())].flat();
    const serving = await serve(config, { identity, revocations, interests, sightings: traffic, log: sink, now, warnings });
    const status = await openStatusPort(config, {
      ...{ identity, revocations, ledger, traffic, probes, log, now },
      standing: { missing: () => serving.missing(), warnings },
      onQuit: () => quit.abort(),
    }).catch(async (error: unknown) => {
      await serving.stop();
      throw error;
    });
    const toAgent = { target: unixTarget(config.agent), token: token.value, log, signal: discovery.signal };
    const nodeId = `sidecar~${config['pod-namespace']}~${config['pod-name']}`;
    const application = await openIdentityPort({
      ...toAgent,
      port: config['identity-port'],
      secrets: { pod, identity, preload: config.secret },
      ...{ nodeId, now },
    }).catch(async (error: unknown) => {
      await serving.stop();
      await status.close();
      throw error;
    });
    const ports = { ...serving.ports, status: status.port, identity: application?.port };
    log.info({ ports, pod, agent: config.agent }, 'sidecar listening');
    returnMemory(discovery.signal);
    // Control knows the sidecar by its certificate.
    const known = inPod === undefined ? Promise.resolve() : identity.first(discovery.signal);
    const toControl = inPod === undefined ? {} : { target: inPod.discovery, token: undefined };
    const toSds = {
      ...toAgent,
      token: config.sds === undefined ? token.value : sdsToken?.value,
      protocol: config['sds-protocol'],
      nodeId,
    };
    const streams = [
      runIdentityStreams({ ...toSds, ...sds, identity, revocations, prove: clientContext, now }),
      known.then(() =>
        runDeltaAdsClient({
          ...toAgent,
          ...toControl,
          ...sidecarSubscriptions(self, interests),
          nodeId,
          apply: (typeUrl, change) => serving.apply(typeUrl, change),
        }),
      ),
      runReportClient({ ...toAgent, peers: () => serving.livePeers().map((peer) => ({ pod, ...peer })) }),
      runLedgerClient({ ...toAgent, ledgers: () => [{ pod, reporter: '', ended: false, ledger }] }),
    ];
    // Whatever broke the workers, those that are left drain.
    const failure = await Promise.race([aborted(signal), aborted(quit.signal), serving.failed.catch((error: unknown) => error)]);
    // Discovery goes on while connections drain: a revocation or a new switch still reaches them.
    await serving.stop();
    await status.close();
    await application?.close();
    discovery.abort();
    await Promise.all(streams);
    await inPod?.stop();
    inPod = undefined;
    if (failure !== undefined) throw failure;
    log.info('stopped');
    return 0;
  } finally {
    discovery.abort();
    await inPod?.stop();
    close();
  }
}

/** The data path, in this thread or in several. */
interface Serving {
  readonly ports: SidecarPorts;
  /** Why new connections cannot be served now; empty when they can. */
  missing(): readonly string[];
  livePeers(): ReturnType<ConnectionTracker['livePeers']>;
  /** Throws, changing nothing, when any resource of the change cannot be used. */
  apply(typeUrl: string, change: ResourceChange): void;
  /** Rejects when it cannot go on. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

interface Shared extends Pick<SidecarOptions, 'identity' | 'revocations' | 'interests' | 'now'> {
  readonly sightings: SightingSink;
  readonly log: LogSink;
  readonly warnings: () => readonly string[];
}

async function serve(config: ProxyConfig, shared: Shared): Promise<Serving> {
  const settings = {
    podName: config['pod-name'],
    podNamespace: config['pod-namespace'],
    workloadUid: podUid(`${config['pod-namespace']}/${config['pod-name']}`),
    dialTimeoutMs: config['dial-timeout'],
    handshakeTimeoutMs: config['handshake-timeout'],
    sniffSilenceMs: config['sniff-silence'],
    halfCloseTimeoutMs: config['half-close-timeout'],
    passthroughSource: PASSTHROUGH_SOURCE,
    forwardClientCert: config['forward-client-cert'],
  };
  const ports = {
    inbound: config['inbound-port'],
    outbound: config['outbound-port'],
    tunnel: config['tunnel-port'],
    readiness: config['readiness-port'],
  };
  const { log, write } = shared.log;
  const common = { ...shared, settings, ports, drainTimeoutMs: config['drain-timeout'], log };
  if (config.workers > 1) {
    return SidecarWorkers.start({ ...common, workers: config.workers, logLevel: config['log-level'], writeLog: write });
  }
  const mesh = new Snapshot<MeshSnapshot>();
  const source = new MeshSource(mesh, isWholeFor(settings));
  const sidecar = await Sidecar.start({ ...common, mesh, originalDestination });
  return {
    ports: sidecar.ports,
    missing: sidecar.missing,
    livePeers: () => sidecar.tracker.livePeers(),
    apply: (typeUrl, change) => source.apply(typeUrl, change),
    failed: new Promise(() => undefined),
    stop: () => sidecar.stop(),
  };
}

/** A list is used until a newer one comes; that none does should be known. */
function outdated(list: RevocationList | undefined, now: number): string[] {
  if (list === undefined || list.nextUpdate === 0 || now <= list.nextUpdate) return [];
  return [`the revocation list was to be replaced by ${new Date(list.nextUpdate).toISOString()}, and no newer one has come`];
}
