// The node agent: SDS and the discovery relay on one unix socket that any workload may open; who it is, its token says.

import { CaClient } from '../ca/client.ts';
import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import { meshTypeUrls } from '../discovery/mesh-source.ts';
import { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { listenUnix, newServer, stopServer } from '../wire/grpc.ts';
import { addDiscoveryRelay } from './discovery-relay.ts';
import { addSdsService } from './sds-server.ts';
import { WorkloadSessions } from './workload-sessions.ts';

export interface AgentOptions {
  /** Path of the socket that workloads use. */
  readonly socket: string;
  /** gRPC addresses. */
  readonly ca: string;
  readonly control: string;
  readonly rotateEveryMs: number | undefined;
  readonly log: Log;
  readonly now: () => number;
}

/** Serves until `stop` is called. */
export async function startAgent(options: AgentOptions): Promise<{ stop(): Promise<void> }> {
  const { log, now } = options;
  const ca = new CaClient(options.ca);
  const sessions = new WorkloadSessions({ ca, plan: { rotateEveryMs: options.rotateEveryMs, now }, log });
  const cache = new ResourceCache();
  const server = newServer();
  addSdsService(server, { sessions, log });
  addDiscoveryRelay(server, { sessions, cache, log });
  await listenUnix(server, options.socket, 0o666);

  const upstream = new AbortController();
  const relay = runDeltaAdsClient({
    address: options.control,
    nodeId: 'agent',
    token: undefined,
    typeUrls: meshTypeUrls,
    apply: (typeUrl, change) => cache.apply(typeUrl, change),
    log,
    signal: upstream.signal,
  });
  log.info({ socket: options.socket, ca: options.ca, control: options.control }, 'agent listening');
  return {
    stop: async () => {
      upstream.abort();
      sessions.stop();
      await stopServer(server);
      await relay;
      ca.close();
    },
  };
}
