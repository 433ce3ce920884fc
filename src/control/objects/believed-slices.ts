// Which EndpointSlices of a cluster are taken: those that a Service without a selector asks for, that lead nowhere they must not, and not too many.

import type { EndpointSlice } from '../../policy/kinds/endpoint-slice.ts';
import type { ObjectEntry } from './object-kinds.ts';
import { meshEndpoints, type Owner, strayEndpoint } from './slice-conflicts.ts';

/** Of one namespace: every sidecar hears of each. */
const MAX_SLICE_ENDPOINTS = 5_000;

/** EndpointSlices claim no address for themselves: several services may have one server outside. They and the mesh's own ServiceEntries keep out of each other's way, whoever came first. */
export class BelievedSlices {
  readonly #ownerOf: (address: string) => Owner | undefined;
  /** Services without a selector. */
  readonly #asking = new Set<string>();
  readonly #outside = new Map<string, string>();
  readonly #counts = new Map<string, number>();

  constructor(ownerOf: (address: string) => Owner | undefined) {
    this.#ownerOf = ownerOf;
  }

  /** The others mirror pods, or are of nobody. */
  areAskedFor({ namespace, service }: EndpointSlice): boolean {
    return service !== undefined && this.#asking.has(`${namespace}/${service}`);
  }

  against(entry: ObjectEntry): string | undefined {
    if (entry.kind === 'ServiceEntry') {
      const outside = meshEndpoints(entry.object).find((address) => this.#outside.has(address));
      return outside === undefined ? undefined : `address ${outside} is an endpoint outside the mesh by ${this.#outside.get(outside)}`;
    }
    if (entry.kind !== 'EndpointSlice') return undefined;
    const { namespace, endpoints } = entry.object;
    if ((this.#counts.get(namespace) ?? 0) + endpoints.length > MAX_SLICE_ENDPOINTS)
      return `the EndpointSlices of namespace ${namespace} have more than ${MAX_SLICE_ENDPOINTS} endpoints; the newest are left out`;
    return strayEndpoint(entry.object, this.#ownerOf);
  }

  take(entry: ObjectEntry, name: string): void {
    if (entry.kind === 'Service' && Object.keys(entry.object.spec.selector ?? {}).length === 0) {
      const { namespace, name: service } = entry.object.metadata;
      this.#asking.add(`${namespace}/${service}`);
    }
    if (entry.kind !== 'EndpointSlice') return;
    const { namespace, endpoints } = entry.object;
    this.#counts.set(namespace, (this.#counts.get(namespace) ?? 0) + endpoints.length);
    for (const { address } of endpoints) if (this.#ownerOf(address) === undefined) this.#outside.set(address, name);
  }
}
