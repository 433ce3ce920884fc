// handfast proxy: the sidecar.

import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import { watchExpiry } from '../discovery/expiry-watchdog.ts';
import { runIdentityStreams } from '../discovery/identity-streams.ts';
import { runLedgerClient } from '../discovery/ledger-client.ts';
import { MeshSource, meshTypeUrls } from '../discovery/mesh-source.ts';
import { runReportClient } from '../discovery/report-client.ts';
import { TokenFile } from '../discovery/token-file.ts';
import { originalDestination } from '../net/original-destination.ts';
import { openLog } from '../observe/log.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { parseProxyConfig } from '../proxy/config.ts';
import { Sidecar } from '../proxy/sidecar.ts';
import { Snapshot } from '../snapshot.ts';
import { noRevocations, type RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { clientContext } from '../tls/context.ts';
import { unixTarget } from '../wire/grpc-target.ts';
import { aborted } from './aborted.ts';
import { sdsSource } from './sds-source.ts';

/** Runs until the signal aborts and connections are drained. */
export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseProxyConfig(argv);
  const { log, close } = openLog({ role: 'proxy', level: config['log-level'] });
  const now = Date.now;
  const identity = new Snapshot<Identity>();
  const mesh = new Snapshot<MeshSnapshot>();
  const discovery = new AbortController();
  const token = new TokenFile(config['token-file']);
  const sds = sdsSource(config, now);
  const sdsToken = config['sds-token-file'] === undefined ? undefined : new TokenFile(config['sds-token-file']);
  const revocations = new Snapshot<RevocationList>(sds.crl === undefined ? noRevocations : undefined);
  const meshSource = new MeshSource(mesh, ({ registry, authorizations }) => {
    const self = registry.workload(config['pod-namespace'], config['pod-name']);
    return self === undefined || authorizations.of(self).missing.length === 0;
  });
  try {
    await token.start(discovery.signal);
    await sdsToken?.start(discovery.signal);
    const watchdog = watchExpiry({ identity, log, now, signal: discovery.signal });
    const sidecar = await Sidecar.start({
      settings: {
        podName: config['pod-name'],
        podNamespace: config['pod-namespace'],
        dialTimeoutMs: config['dial-timeout'],
        handshakeTimeoutMs: config['handshake-timeout'],
        sniffSilenceMs: config['sniff-silence'],
        halfCloseTimeoutMs: config['half-close-timeout'],
        passthroughSource: { v4: '127.0.0.6', v6: '::6' },
      },
      ports: { inbound: config['inbound-port'], outbound: config['outbound-port'], readiness: config['readiness-port'] },
      drainTimeoutMs: config['drain-timeout'],
      identity,
      revocations,
      mesh,
      originalDestination,
      log,
      now,
      warnings: () => [watchdog.warning() ?? [], outdated(revocations.current, now())].flat(),
    });
    log.info({ ports: sidecar.ports, pod: `${config['pod-namespace']}/${config['pod-name']}`, agent: config.agent }, 'sidecar listening');
    const toAgent = { target: unixTarget(config.agent), token: token.value, log, signal: discovery.signal };
    const nodeId = `sidecar~${config['pod-namespace']}~${config['pod-name']}`;
    const pod = `${config['pod-namespace']}/${config['pod-name']}`;
    const toSds = {
      ...toAgent,
      token: config.sds === undefined ? token.value : sdsToken?.value,
      protocol: config['sds-protocol'],
      nodeId,
    };
    const streams = [
      runIdentityStreams({ ...toSds, ...sds, identity, revocations, prove: clientContext, now }),
      runDeltaAdsClient({ ...toAgent, nodeId, typeUrls: meshTypeUrls, apply: (typeUrl, change) => meshSource.apply(typeUrl, change) }),
      runReportClient({ ...toAgent, peers: () => sidecar.tracker.livePeers().map((peer) => ({ pod, ...peer })) }),
      runLedgerClient({ ...toAgent, ledgers: () => [{ pod, reporter: '', ended: false, ledger: sidecar.tracker.ledger }] }),
    ];
    await aborted(signal);
    // Discovery goes on while connections drain: a revocation or a new switch still reaches them.
    await sidecar.stop();
    discovery.abort();
    await Promise.all(streams);
    log.info('stopped');
    return 0;
  } finally {
    discovery.abort();
    close();
  }
}

/** A list is used until a newer one comes; that none does should be known. */
function outdated(list: RevocationList | undefined, now: number): string[] {
  if (list === undefined || list.nextUpdate === 0 || now <= list.nextUpdate) return [];
  return [`the revocation list was to be replaced by ${new Date(list.nextUpdate).toISOString()}, and no newer one has come`];
}
