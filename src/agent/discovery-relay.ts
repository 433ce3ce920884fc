// Delta ADS on the agent's socket, from what control sent: proxies that prove themselves get what they ask for, also while control is away.

import type { Server } from '@grpc/grpc-js';
import type { DeltaStream } from '../discovery/delta-server.ts';
import type { MeshStreams } from '../discovery/mesh-streams.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import type { StreamSessions } from './stream-session.ts';

export function addDiscoveryRelay(server: Server, { opener, mesh }: { opener: StreamSessions; mesh: MeshStreams }): void {
  const service: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) =>
      opener.open(call, ({ identity, rules }) => mesh.serve(call, { spiffeId: identity.svid.id.uri, rules })),
  };
  server.addService(AggregatedDiscoveryServiceService, service);
}
