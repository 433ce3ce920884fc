// Workloads and services, indexed so that a connection's look-up is a map look-up, and so that a change costs what it changes.

import { type Endpoint, isPod, type Service, type ServicePort, type Workload } from './model.ts';
import { type Indexes, indexed, type RegistryChange, reindexed } from './registry-indexes.ts';

/** What a destination address means. `endpoints` carry the port to dial; `aliases`: every service at the address, one thing under several names. */
export type Resolution =
  | {
      readonly kind: 'service';
      readonly service: Service;
      readonly aliases: readonly Service[];
      readonly endpoints: readonly WorkloadEndpoint[];
    }
  | { readonly kind: 'workload'; readonly endpoint: WorkloadEndpoint }
  | { readonly kind: 'unknown' };

/** One pod to dial, and the service it is dialled for where there is one. `servicePort`: the service's, or the pod's where there is none. */
export interface WorkloadEndpoint extends Endpoint {
  readonly workload: Workload;
  readonly service: Service | undefined;
  readonly servicePort: number;
}

export class Registry {
  readonly #indexes: Indexes;

  constructor(objects: { workloads: readonly Workload[]; services: readonly Service[] } | Indexes) {
    this.#indexes = 'byUid' in objects ? objects : indexed(objects);
    Object.freeze(this);
  }

  /** The registry after a change; this one stays as it is. */
  changed(change: RegistryChange): Registry {
    return new Registry(reindexed(this.#indexes, change));
  }

  workload(namespace: string, name: string): Workload | undefined {
    return this.#indexes.byName.get(`${namespace}/${name}`)?.[0];
  }

  workloadOf(uid: string): Workload | undefined {
    return this.#indexes.byUid.get(uid);
  }

  /** The workload at an address, whatever its ports: a pod before anybody else who says he is there. */
  workloadAt(address: string): Workload | undefined {
    return this.#indexes.byAddress.get(address)?.[0];
  }

  service(key: string): Service | undefined {
    return this.#indexes.services.get(key);
  }

  workloads(): Iterable<Workload> {
    return this.#indexes.byUid.values();
  }

  /** A pod's address on any port, a service's own on one of its ports, another workload's on any port, or unknown. */
  resolve(destination: Endpoint): Resolution {
    const workload = this.workloadAt(destination.address);
    const aliases = this.#indexes.serviceByAddress.get(destination.address) ?? [];
    const [service] = aliases;
    // A service that is given a pod's address is not to have the pod's callers.
    if (service !== undefined && (workload === undefined || !isPod(workload)))
      return { kind: 'service', service, aliases, endpoints: this.endpointsOf(service, destination) };
    if (workload === undefined) return { kind: 'unknown' };
    const found = this.#serviceOf(workload, destination.port);
    const endpoint = { ...destination, workload, service: found?.service, servicePort: found?.port.servicePort ?? destination.port };
    return { kind: 'workload', endpoint };
  }

  /** Whom a call to a service's port may go to. */
  endpointsOf(service: Service, destination: Endpoint): readonly WorkloadEndpoint[] {
    const members = this.#indexes.endpoints.get(service.key) ?? NOBODY;
    let known = endpoints.get(service);
    if (known?.members !== members) {
      known = { members, lists: new Map() };
      endpoints.set(service, known);
    }
    const family = destination.address.includes(':');
    const key = `${destination.port} ${family}`;
    const list = known.lists.get(key) ?? endpointsFor(service, { members, port: destination.port, family });
    // Ports that nobody serves are too many to remember.
    if (list.length > 0) known.lists.set(key, list);
    return list;
  }

  /** The service a direct call to the pod's port belongs to: it names the SNI, and its extra identities are allowed. */
  #serviceOf(workload: Workload, targetPort: number): { service: Service; port: ServicePort } | undefined {
    for (const [key, ports] of workload.services) {
      const port = ports.find((candidate) => candidate.targetPort === targetPort);
      const service = port === undefined ? undefined : this.#indexes.services.get(key);
      if (port !== undefined && service !== undefined) return { service, port };
    }
    return undefined;
  }
}

const NOBODY: readonly Workload[] = Object.freeze([]);

/** A service's endpoints by port and family, made once for each change of the service or its members. */
const endpoints = new WeakMap<
  Service,
  { readonly members: readonly Workload[]; readonly lists: Map<string, readonly WorkloadEndpoint[]> }
>();

function endpointsFor(service: Service, of: { members: readonly Workload[]; port: number; family: boolean }): readonly WorkloadEndpoint[] {
  const isOfFamily = (address: string) => address.includes(':') === of.family;
  const all = of.members.flatMap((workload) => {
    const port = workload.services.get(service.key)?.find((candidate) => candidate.servicePort === of.port);
    // A pod may have one family only: prefer the caller's, take what there is.
    const address = workload.addresses.find(isOfFamily) ?? workload.addresses[0];
    return port === undefined || address === undefined || !workload.healthy
      ? []
      : [{ address, port: port.targetPort, workload, service, servicePort: of.port }];
  });
  // An EndpointSlice has one family: there the other one's is another slice.
  const own = all.filter(({ address, workload }) => workload.sharesAddress !== true || isOfFamily(address));
  return own.length > 0 ? own : all;
}
