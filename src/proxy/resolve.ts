// Where an outbound connection goes: one of a service's endpoints, a registered pod, or, if policy allows, an address nobody registered.

import { HandfastError } from '../errors.ts';
import { clientTlsFor } from '../policy/client-tls.ts';
import type { ClientTlsMode, Endpoint, Service, TrafficPolicy } from '../policy/model.ts';
import type { WorkloadEndpoint } from '../policy/registry.ts';
import type { Governed } from './connection.ts';
import { show } from './connection-record.ts';

/** Candidates in the order to try them; or the original destination as it stands. */
export type Route = { readonly kind: 'mesh'; readonly candidates: readonly WorkloadEndpoint[] } | { readonly kind: 'passthrough' };

/** Throws NO_HEALTHY_ENDPOINT for a service without one, DESTINATION_UNKNOWN under REGISTRY_ONLY. */
export function route(governed: Governed, load: (endpoint: WorkloadEndpoint) => number): Route {
  const { originalDestination: destination, mesh, policy } = governed;
  const resolution = mesh.registry.resolve(destination);
  switch (resolution.kind) {
    case 'service': {
      // One thing under several names, and nobody knows by which it was looked up.
      const [only, ...others] = resolution.aliases;
      const service =
        others.length === 0 || only === undefined ? resolution.service : strictest(resolution.aliases, { policy, port: destination.port });
      const endpoints = service === resolution.service ? resolution.endpoints : mesh.registry.endpointsOf(service, destination);
      if (endpoints.length === 0) {
        throw new HandfastError(
          'NO_HEALTHY_ENDPOINT',
          `service ${resolution.service.key} has no healthy endpoint for port ${destination.port}`,
        );
      }
      return { kind: 'mesh', candidates: leastLoadedFirst(endpoints, load) };
    }
    case 'workload':
      return { kind: 'mesh', candidates: [resolution.endpoint] };
    case 'unknown':
      if (policy.outbound === 'ALLOW_ANY') return { kind: 'passthrough' };
      throw unknownDestination(destination);
    default:
      return resolution satisfies never;
  }
}

export function unknownDestination(destination: Endpoint): HandfastError {
  return new HandfastError('DESTINATION_UNKNOWN', `${show(destination)} is not in the registry and outboundTrafficPolicy is REGISTRY_ONLY`);
}

const STRICTNESS: Readonly<Record<ClientTlsMode | 'auto', number>> = { DISABLE: 0, auto: 1, SIMPLE: 2, MUTUAL: 3, ISTIO_MUTUAL: 4 };

/** The name whose rule asks for most. */
function strictest(aliases: readonly Service[], { policy, port }: { policy: TrafficPolicy; port: number }): Service {
  const strictness = (service: Service) => STRICTNESS[clientTlsFor(policy, { service, port })?.mode ?? 'auto'];
  return aliases.reduce((most, service) => (strictness(service) > strictness(most) ? service : most));
}

/** Equally loaded ones in random order, so that many idle sidecars do not all pick the first. */
function leastLoadedFirst(endpoints: readonly WorkloadEndpoint[], load: (endpoint: WorkloadEndpoint) => number): WorkloadEndpoint[] {
  if (endpoints.length === 1) return [...endpoints];
  return endpoints
    .map((endpoint) => ({ endpoint, load: load(endpoint), tie: Math.random() }))
    .sort((a, b) => a.load - b.load || a.tie - b.tie)
    .map(({ endpoint }) => endpoint);
}
