// Delta ADS on the agent's socket, from what control sent: proxies that prove themselves get it, also while control is away.

import type { Server } from '@grpc/grpc-js';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-ads-server.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import { StreamSession } from './stream-session.ts';
import type { WorkloadSessions } from './workload-sessions.ts';

export function addDiscoveryRelay(server: Server, deps: { sessions: WorkloadSessions; cache: ResourceCache; log: Log }): void {
  const service: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) => {
      const session = StreamSession.open(call, deps);
      if (session === undefined) return;
      // Requests wait in the stream until the token is proven.
      call.pause();
      session.rotator.ready.then(
        ({ svid }) => {
          if (session.ended) return;
          serveDeltaStream(call, { cache: deps.cache, peer: svid.id.uri, log: deps.log });
          call.resume();
        },
        () => undefined,
      );
    },
  };
  server.addService(AggregatedDiscoveryServiceService, service);
}
