// From delta ADS resources to MeshSnapshots: published once every type has arrived, and again after each change; a change costs what it touches.

import { HandfastError } from '../errors.ts';
import type { Authorization } from '../policy/authorization.ts';
import { Authorizations } from '../policy/authorizations.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Service, TrafficPolicy, Workload } from '../policy/model.ts';
import { OverlayMap } from '../policy/overlay-map.ts';
import { Registry } from '../policy/registry.ts';
import type { Snapshot } from '../snapshot.ts';
import { decodeAuthorization } from './authorization-codec.ts';
import type { ResourceChange } from './resource-cache.ts';
import { typeUrls } from './type-urls.ts';
import { decodeAddress, decodeTrafficPolicy } from './workload-codec.ts';

/** In the order in which they are subscribed to. Addresses wait for both others, and come first: which policies belong to them, and which of those that are gone go after them, is found by what is asked for. */
export const meshTypeUrls = [typeUrls.address, typeUrls.trafficPolicy, typeUrls.authorization] as const;

/** How long a snapshot may wait for what it names and what has not arrived. */
const WHOLE_WITHIN_MS = 1_000;

export class MeshSource {
  readonly #mesh: Snapshot<MeshSnapshot>;
  readonly #isWhole: (mesh: MeshSnapshot) => boolean;
  /** Workload uid or service key to which of the two it is. */
  readonly #kinds = new Map<string, 'workload' | 'service'>();
  readonly #authorizations = new Map<string, Authorization>();
  readonly #arrived = new Set<string>();
  #next: MeshSnapshot = {
    knows: () => false,
    registry: new Registry({ workloads: [], services: [] }),
    policies: new OverlayMap(),
    authorizations: new Authorizations([]),
  };
  #policies = new OverlayMap<string, TrafficPolicy>();
  #known = new OverlayMap<string, true>();
  #scheduled = false;
  #waitingSince: number | undefined;

  /** `isWhole`: whether a snapshot can be used as it is. One that names what is still on its way waits for it, but not long: it refuses what it must then. */
  constructor(mesh: Snapshot<MeshSnapshot>, isWhole: (mesh: MeshSnapshot) => boolean = () => true) {
    this.#mesh = mesh;
    this.#isWhole = isWhole;
  }

  /** Throws, changing nothing, when any resource of the change cannot be used. */
  apply(typeUrl: string, change: ResourceChange): void {
    switch (typeUrl) {
      case typeUrls.address:
        this.#next = { ...this.#next, registry: this.#changedRegistry(change), knows: this.#changedKnowledge(change) };
        break;
      case typeUrls.authorization:
        this.#changeAuthorizations(change);
        this.#next = { ...this.#next, authorizations: new Authorizations(this.#authorizations.values()) };
        break;
      default:
        this.#policies = this.#policies.with(changesOf(change, decodePolicyOf));
        this.#next = { ...this.#next, policies: this.#policies };
    }
    // Letting go of what was asked for is no arrival.
    if (change.forgotten === undefined) this.#arrived.add(typeUrl);
    if (this.#arrived.size === meshTypeUrls.length) this.#publishSoon();
  }

  /** One edit of a file changes several types in a row: they are published together. */
  #publishSoon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#publish());
  }

  #publish(): void {
    this.#scheduled = false;
    const now = performance.now();
    if (!this.#isWhole(this.#next) && now - (this.#waitingSince ?? now) < WHOLE_WITHIN_MS) {
      this.#waitingSince ??= now;
      this.#scheduled = true;
      setTimeout(() => this.#publish(), 20).unref();
      return;
    }
    this.#waitingSince = undefined;
    this.#mesh.replace(Object.freeze(this.#next));
  }

  #changedKnowledge({ answered = [], forgotten = [] }: ResourceChange): MeshSnapshot['knows'] {
    const changes = new Map<string, true | undefined>(forgotten.map((address) => [address, undefined]));
    for (const address of answered) changes.set(address, true);
    if (changes.size === 0) return this.#next.knows;
    const known = this.#known.with(changes);
    this.#known = known;
    return (address) => known.get(address) === true;
  }

  #changedRegistry(change: ResourceChange): Registry {
    const decoded = [...change.upserts].map(([name, bytes]) => [name, decodeAddress(bytes)] as const);
    const gone = { workload: [] as string[], service: [] as string[] };
    const forget = (name: string) => {
      const kind = this.#kinds.get(name);
      if (kind !== undefined) gone[kind].push(name);
      this.#kinds.delete(name);
    };
    for (const name of change.removed) forget(name);
    const workloads: Workload[] = [];
    const services: Service[] = [];
    for (const [name, object] of decoded) {
      forget(name);
      this.#kinds.set(name, object.kind);
      if (object.kind === 'workload') workloads.push(object.value);
      else services.push(object.value);
    }
    return this.#next.registry.changed({
      workloads: { upserts: workloads, removed: gone.workload },
      services: { upserts: services, removed: gone.service },
    });
  }

  #changeAuthorizations(change: ResourceChange): void {
    for (const [name, policy] of changesOf(change, decodeAuthorization)) {
      if (policy === undefined) this.#authorizations.delete(name);
      else this.#authorizations.set(name, policy);
    }
  }
}

/** A policy is looked up by its workload: one under another's name would govern the wrong pod. */
function decodePolicyOf(bytes: Uint8Array, name: string): TrafficPolicy {
  const policy = decodeTrafficPolicy(bytes);
  if (policy.workload === name) return policy;
  throw new HandfastError('OBJECT_INVALID', `the TrafficPolicy named ${name} is for ${policy.workload}`);
}

/** Names to what they are from now on; undefined for what is gone. */
function changesOf<T>(change: ResourceChange, decode: (bytes: Uint8Array, name: string) => T): Map<string, T | undefined> {
  const changes = new Map<string, T | undefined>(change.removed.map((name) => [name, undefined]));
  for (const [name, bytes] of change.upserts) changes.set(name, decode(bytes, name));
  return changes;
}
