// Delta ADS on the agent's socket, from what control sent: proxies that prove themselves get it, also while control is away.

import type { Server } from '@grpc/grpc-js';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import { requestLimit } from './request-limit.ts';
import type { StreamSessions } from './stream-session.ts';

export function addDiscoveryRelay(server: Server, deps: { opener: StreamSessions; cache: ResourceCache; log: Log }): void {
  const service: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) =>
      deps.opener.open(call, ({ identity, rules }) => {
        serveDeltaStream(call, { ...rules, view: deps.cache, peer: identity.svid.id.uri, log: deps.log, admit: requestLimit() });
        return () => undefined;
      }),
  };
  server.addService(AggregatedDiscoveryServiceService, service);
}
