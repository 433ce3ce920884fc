// The sidecar's port 15020 put together: what it shows, which probes it answers, and who may end the sidecar by it.

import { HandfastError, messageOf } from '../errors.ts';
import { SIDECAR_PORTS } from '../injector/own-parts.ts';
import type { Ledger } from '../observe/ledger.ts';
import type { HttpListener } from '../observe/listen-http.ts';
import type { Log } from '../observe/log.ts';
import { Metrics } from '../observe/metrics.ts';
import type { TrafficCounters } from '../observe/metrics-traffic.ts';
import type { Standing } from '../observe/readiness.ts';
import { canonicalIp } from '../policy/ip.ts';
import { parseAppProbers } from '../probes/app-probers.ts';
import { AppProbes } from '../probes/app-probes.ts';
import { serveStatus } from '../probes/status-server.ts';
import type { ProxyConfig } from '../proxy/config.ts';
import { TokenBucket } from '../rate-limit.ts';
import type { Snapshot } from '../snapshot.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { versionOf } from './version.ts';

/** Where connections to the application come from, by which the redirection knows them: iptables/README.md. */
export const PASSTHROUGH_SOURCE = { v4: '127.0.0.6', v6: '::6' } as const;

/** Throws CONFIG_INVALID with everything that is wrong about the probes. */
export function appProbesOf(config: ProxyConfig): AppProbes {
  const ownPorts = (['inbound', 'outbound', 'tunnel', 'readiness', 'status', 'identity'] as const).map((name) => config[`${name}-port`]);
  const probers = parseAppProbers(config['app-probers'] ?? '{}', new Set([...SIDECAR_PORTS, ...ownPorts]));
  const podIp = config['pod-ip'];
  if (podIp === undefined && probers.size > 0)
    throw new HandfastError('CONFIG_INVALID', '--pod-ip ADDRESS is needed where --app-probers names probes: it is what they dial');
  return new AppProbes({ probers, podIp: podIp === undefined ? '' : podIpOf(podIp), source: PASSTHROUGH_SOURCE });
}

function podIpOf(text: string): string {
  try {
    return canonicalIp(text);
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `--pod-ip: ${messageOf(cause)}`, { cause });
  }
}

export interface StatusPortParts {
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  readonly ledger: Ledger;
  readonly traffic: TrafficCounters;
  readonly standing: Standing;
  readonly probes: AppProbes;
  readonly log: Log;
  readonly now: () => number;
  readonly onQuit: () => void;
}

/** Throws CONFIG_INVALID for a port in use. */
export async function openStatusPort(config: ProxyConfig, parts: StatusPortParts): Promise<HttpListener> {
  const { standing, probes, log } = parts;
  const metrics = new Metrics({ ...parts, missing: standing.missing, workers: config.workers, version: versionOf() });
  const complaints = new TokenBucket({ burst: 1, perSecond: 1 });
  try {
    const server = await serveStatus({
      port: config['status-port'],
      standing,
      metrics: { text: () => metrics.text(), audience: config.metrics },
      probes,
      onQuit: () => {
        log.info('asked to quit from inside the pod');
        parts.onQuit();
      },
      onError: (error) => {
        if (complaints.take() === 0) log.error({ reason: messageOf(error) }, 'status connection not accepted');
      },
    });
    return {
      port: server.port,
      close: async () => {
        metrics.close();
        await server.close();
      },
    };
  } catch (error) {
    metrics.close();
    throw error;
  }
}
