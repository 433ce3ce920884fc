// Who stands behind the services of a namespace that choose nobody by labels: what their EndpointSlices say, address by address.

import type { SliceEndpoint } from '../../policy/kinds/endpoint-slice.ts';
import { type Pod, podAddresses } from '../../policy/kinds/pod.ts';
import { type ServiceObject, tcpPorts } from '../../policy/kinds/service.ts';
import type { ServicePort } from '../../policy/model.ts';
import type { NamespaceObjects } from './namespace-objects.ts';

/** One of a service's endpoints, with the ports that lead to it. */
export interface Member {
  readonly service: ServiceObject;
  readonly ports: readonly ServicePort[];
}

export interface Memberships {
  /** What slices add to what labels say. */
  ofPod(pod: Pod): readonly Member[];
  /** By address: what is no pod of this namespace. */
  readonly outside: ReadonlyMap<string, readonly Member[]>;
}

const NONE: Memberships = { ofPod: () => [], outside: new Map() };

export function memberships(objects: Pick<NamespaceObjects, 'services' | 'pods' | 'endpointSlices'>): Memberships {
  if (objects.endpointSlices.length === 0) return NONE;
  const byAddress = new Map<string, Member[]>();
  for (const service of objects.services)
    for (const [address, ports] of endpointsOf(service, objects)) {
      const members = byAddress.get(address) ?? [];
      members.push({ service, ports: [...ports].map(([servicePort, targetPort]) => ({ servicePort, targetPort })) });
      byAddress.set(address, members);
    }
  const ofPods = new Set(objects.pods.flatMap(podAddresses));
  return {
    ofPod: (pod) => {
      const found = podAddresses(pod).flatMap((address) => byAddress.get(address) ?? []);
      // Under its two addresses it is in two slices.
      return found.filter(({ service }, index) => found.findIndex((other) => other.service === service) === index);
    },
    outside: new Map([...byAddress].filter(([address]) => !ofPods.has(address))),
  };
}

/** By address: target ports by the service's ports. Those that are ending serve where nobody else does, as with kube-proxy. */
function endpointsOf(
  service: ServiceObject,
  { endpointSlices }: Pick<NamespaceObjects, 'endpointSlices'>,
): Map<string, Map<number, number>> {
  // Slices of a service that selects pods mirror these.
  const selects = Object.keys(service.spec.selector ?? {}).length > 0;
  const slices = endpointSlices.filter((slice) => slice.service === service.metadata.name && slice.ofHosts === selects);
  const isAnyReady = slices.some(({ endpoints }) => endpoints.some(({ state }) => state === 'ready'));
  const wanted: SliceEndpoint['state'] = isAnyReady ? 'ready' : 'draining';
  const found = new Map<string, Map<number, number>>();
  for (const { endpoints, ports } of slices)
    for (const { address, state } of endpoints) {
      if (state !== wanted) continue;
      const known = found.get(address) ?? new Map<number, number>();
      for (const { name = '', port } of tcpPorts(service)) {
        const target = ports.get(name);
        if (target !== undefined && !known.has(port)) known.set(port, target);
      }
      if (known.size > 0) found.set(address, known);
    }
  return found;
}
