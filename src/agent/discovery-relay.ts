// Delta ADS on the agent's socket, from what control sent: proxies that prove themselves get what they ask for, also while control is away.

import type { Server } from '@grpc/grpc-js';
import { AddressView } from '../discovery/address-view.ts';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import { type HeldPolicies, TakenByStream } from '../discovery/held-policies.ts';
import type { MeshIndex } from '../discovery/mesh-index.ts';
import { NameBudget } from '../discovery/name-budget.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import type { Log } from '../observe/log.ts';
import type { Rate } from '../rate-limit.ts';
import { type AggregatedDiscoveryServiceServer, AggregatedDiscoveryServiceService } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import type { DeltaDiscoveryRequest } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import type { StreamSessions } from './stream-session.ts';

/** A sidecar asks some 25 times a second at most, and answers what it is told; a mesh may change often. */
const REQUESTS: Rate = { burst: 400, perSecond: 200 };

export function addDiscoveryRelay(server: Server, deps: { opener: StreamSessions; index: MeshIndex; held: HeldPolicies; log: Log }): void {
  const budget = new NameBudget();
  const service: AggregatedDiscoveryServiceServer = {
    deltaAggregatedResources: (call: DeltaStream) =>
      deps.opener.open(call, ({ identity, rules }) => {
        const view = new AddressView(deps.index, budget);
        const { uri } = identity.svid.id;
        const held = new TakenByStream(uri);
        const limit = requestLimit(REQUESTS);
        const admit = (request: DeltaDiscoveryRequest) => {
          limit();
          held.hear(request);
        };
        serveDeltaStream(call, { ...rules, view, peer: uri, log: deps.log, admit, answers: held });
        return deps.held.follow(held);
      }),
  };
  server.addService(AggregatedDiscoveryServiceService, service);
}
