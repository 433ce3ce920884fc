// From delta ADS resources to MeshSnapshots: published once both types have arrived, and again, whole, after each change.

import { HandfastError } from '../errors.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Service, TrafficPolicy, Workload } from '../policy/model.ts';
import { Registry } from '../policy/registry.ts';
import type { Snapshot } from '../snapshot.ts';
import type { ResourceChange } from './resource-cache.ts';
import { typeUrls } from './type-urls.ts';
import { type AddressObject, decodeAddress, decodeTrafficPolicy } from './workload-codec.ts';

export const meshTypeUrls = [typeUrls.address, typeUrls.trafficPolicy] as const;

export class MeshSource {
  readonly #mesh: Snapshot<MeshSnapshot>;
  readonly #addresses = new Map<string, AddressObject>();
  readonly #policies = new Map<string, TrafficPolicy>();
  readonly #arrived = new Set<string>();
  #scheduled = false;

  constructor(mesh: Snapshot<MeshSnapshot>) {
    this.#mesh = mesh;
  }

  /** Throws, changing nothing, when any resource of the change cannot be used. */
  apply(typeUrl: string, change: ResourceChange): void {
    if (typeUrl === typeUrls.address) update(this.#addresses, change, decodeAddress);
    else update(this.#policies, change, decodePolicyOf);
    this.#arrived.add(typeUrl);
    if (this.#arrived.size === meshTypeUrls.length) this.#publishSoon();
  }

  /** One edit of a file changes both types in a row: they are published together. */
  #publishSoon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const workloads: Workload[] = [];
      const services: Service[] = [];
      for (const object of this.#addresses.values()) {
        if (object.kind === 'workload') workloads.push(object.value);
        else services.push(object.value);
      }
      this.#mesh.replace(Object.freeze({ registry: new Registry({ workloads, services }), policies: new Map(this.#policies) }));
    });
  }
}

/** A policy is looked up by its workload: one under another's name would govern the wrong pod. */
function decodePolicyOf(bytes: Uint8Array, name: string): TrafficPolicy {
  const policy = decodeTrafficPolicy(bytes);
  if (policy.workload === name) return policy;
  throw new HandfastError('OBJECT_INVALID', `the TrafficPolicy named ${name} is for ${policy.workload}`);
}

function update<T>(held: Map<string, T>, change: ResourceChange, decode: (bytes: Uint8Array, name: string) => T): void {
  const decoded = [...change.upserts].map(([name, bytes]) => [name, decode(bytes, name)] as const);
  for (const name of change.removed) held.delete(name);
  for (const [name, value] of decoded) held.set(name, value);
}
