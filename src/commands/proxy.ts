// handfast proxy: the sidecar.

import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import { IdentitySource, secretNames } from '../discovery/identity-source.ts';
import { MeshSource, meshTypeUrls } from '../discovery/mesh-source.ts';
import { runSdsClient } from '../discovery/sds-client.ts';
import { TokenFile } from '../discovery/token-file.ts';
import { originalDestination } from '../net/original-destination.ts';
import { openLog } from '../observe/log.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { parseProxyConfig } from '../proxy/config.ts';
import { Sidecar } from '../proxy/sidecar.ts';
import { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { clientContext } from '../tls/context.ts';
import { aborted } from './aborted.ts';

/** Runs until the signal aborts and connections are drained. */
export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseProxyConfig(argv);
  const { log, close } = openLog({ role: 'proxy', level: config['log-level'] });
  const now = Date.now;
  const identity = new Snapshot<Identity>();
  const mesh = new Snapshot<MeshSnapshot>();
  const discovery = new AbortController();
  const token = new TokenFile(config['token-file']);
  const identitySource = new IdentitySource({ identity, prove: clientContext, log, now });
  const meshSource = new MeshSource(mesh);
  try {
    await token.start(discovery.signal);
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
      mesh,
      originalDestination,
      log,
      now,
    });
    log.info({ ports: sidecar.ports, pod: `${config['pod-namespace']}/${config['pod-name']}`, agent: config.agent }, 'sidecar listening');
    const common = {
      address: config.agent,
      nodeId: `sidecar~${config['pod-namespace']}~${config['pod-name']}`,
      token: token.value,
      log,
      signal: discovery.signal,
    };
    const streams = [
      runSdsClient({
        ...common,
        resourceNames: [secretNames.svid, secretNames.bundle],
        accept: (secrets) => identitySource.accept(secrets),
      }),
      runDeltaAdsClient({ ...common, typeUrls: meshTypeUrls, apply: (typeUrl, change) => meshSource.apply(typeUrl, change) }),
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
