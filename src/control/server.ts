// Control's side of discovery: delta ADS for agents, on a socket that only they may open.

import type { Server } from '@grpc/grpc-js';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-ads-server.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';

export function addControlService(server: Server, deps: { cache: ResourceCache; log: Log }): void {
  const service: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) => serveDeltaStream(call, { ...deps, peer: 'agent' }),
  };
  server.addService(AggregatedDiscoveryServiceService, service);
}
