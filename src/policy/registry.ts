// Workloads and services, indexed once per change so that a connection's look-up is a map look-up.

import type { Endpoint, Service, Workload } from './model.ts';

/** What a destination address means. `endpoints` carry the port to dial. */
export type Resolution =
  | { readonly kind: 'service'; readonly service: Service; readonly endpoints: readonly WorkloadEndpoint[] }
  | { readonly kind: 'workload'; readonly endpoint: WorkloadEndpoint }
  | { readonly kind: 'unknown' };

/** One pod to dial, and the service it is dialled for where there is one. */
export interface WorkloadEndpoint extends Endpoint {
  readonly workload: Workload;
  readonly service: Service | undefined;
}

export class Registry {
  readonly #byName = new Map<string, Workload>();
  readonly #byAddress = new Map<string, Workload>();
  readonly #services = new Map<string, Service>();
  readonly #serviceByAddress = new Map<string, Service>();
  readonly #endpoints = new Map<string, Workload[]>();

  constructor(objects: { workloads: readonly Workload[]; services: readonly Service[] }) {
    for (const service of objects.services) {
      this.#services.set(service.key, service);
      for (const address of service.addresses) this.#serviceByAddress.set(address, service);
    }
    for (const workload of objects.workloads) {
      this.#byName.set(`${workload.namespace}/${workload.name}`, workload);
      for (const address of workload.addresses) this.#byAddress.set(address, workload);
      for (const key of workload.services.keys()) {
        const members = this.#endpoints.get(key);
        if (members === undefined) this.#endpoints.set(key, [workload]);
        else members.push(workload);
      }
    }
    Object.freeze(this);
  }

  workload(namespace: string, name: string): Workload | undefined {
    return this.#byName.get(`${namespace}/${name}`);
  }

  service(key: string): Service | undefined {
    return this.#services.get(key);
  }

  /** A service's own address on one of its ports, a workload's address on any port, or unknown. */
  resolve(destination: Endpoint): Resolution {
    const service = this.#serviceByAddress.get(destination.address);
    if (service !== undefined) return { kind: 'service', service, endpoints: this.#endpointsOf(service, destination) };
    const workload = this.#byAddress.get(destination.address);
    if (workload === undefined) return { kind: 'unknown' };
    return { kind: 'workload', endpoint: { ...destination, workload, service: this.#serviceOf(workload, destination.port) } };
  }

  #endpointsOf(service: Service, destination: Endpoint): WorkloadEndpoint[] {
    const family = destination.address.includes(':');
    return (this.#endpoints.get(service.key) ?? []).flatMap((workload) => {
      const port = workload.services.get(service.key)?.find((candidate) => candidate.servicePort === destination.port);
      // A pod may have one family only: prefer the caller's, take what there is.
      const address = workload.addresses.find((candidate) => candidate.includes(':') === family) ?? workload.addresses[0];
      return port === undefined || address === undefined || !workload.healthy
        ? []
        : [{ address, port: port.targetPort, workload, service }];
    });
  }

  /** The service a direct call to the pod's port belongs to: it names the SNI, and its extra identities are allowed. */
  #serviceOf(workload: Workload, targetPort: number): Service | undefined {
    for (const [key, ports] of workload.services) {
      if (ports.some((port) => port.targetPort === targetPort)) return this.#services.get(key);
    }
    return undefined;
  }
}
