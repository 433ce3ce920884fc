// The maps of a registry, and how a change makes new ones of them: an overlay on what both share.

import { isPod, type Service, type Workload } from './model.ts';
import { OverlayMap } from './overlay-map.ts';

/** What is new or changed, and the uids or keys of what is gone. */
export interface RegistryChange {
  readonly workloads: { readonly upserts: readonly Workload[]; readonly removed: readonly string[] };
  readonly services: { readonly upserts: readonly Service[]; readonly removed: readonly string[] };
}

export interface Indexes {
  readonly byUid: OverlayMap<string, Workload>;
  /** By `namespace/name`, and by address: several may say they are it, and the first of them answers. */
  readonly byName: OverlayMap<string, readonly Workload[]>;
  readonly byAddress: OverlayMap<string, readonly Workload[]>;
  readonly services: OverlayMap<string, Service>;
  /** A service with several names is several services at one address: the first by key answers. */
  readonly serviceByAddress: OverlayMap<string, readonly Service[]>;
  readonly endpoints: OverlayMap<string, readonly Workload[]>;
}

/** From nothing. */
export function indexed({ workloads, services }: { workloads: readonly Workload[]; services: readonly Service[] }): Indexes {
  const empty: Indexes = {
    byUid: new OverlayMap(),
    byName: new OverlayMap(),
    byAddress: new OverlayMap(),
    services: new OverlayMap(),
    serviceByAddress: new OverlayMap(),
    endpoints: new OverlayMap(),
  };
  return reindexed(empty, { workloads: { upserts: workloads, removed: [] }, services: { upserts: services, removed: [] } });
}

/** A map about to be made from another: reads see what was written. */
class Draft<V> {
  readonly #from: OverlayMap<string, V>;
  readonly #changes = new Map<string, V | undefined>();

  constructor(from: OverlayMap<string, V>) {
    this.#from = from;
  }

  get(key: string): V | undefined {
    return this.#changes.has(key) ? this.#changes.get(key) : this.#from.get(key);
  }

  set(key: string, value: V | undefined): void {
    this.#changes.set(key, value);
  }

  finish(): OverlayMap<string, V> {
    return this.#from.with(this.#changes);
  }
}

/** Lists of which one member changes at a time; a list is copied once a change, however many of its members that touches. */
class ListDraft<T> {
  readonly #from: OverlayMap<string, readonly T[]>;
  readonly #idOf: (member: T) => string;
  readonly #lists = new Map<string, Map<string, T>>();

  constructor(from: OverlayMap<string, readonly T[]>, idOf: (member: T) => string) {
    this.#from = from;
    this.#idOf = idOf;
  }

  add(key: string, member: T): void {
    this.#list(key).set(this.#idOf(member), member);
  }

  remove(key: string, member: T): void {
    this.#list(key).delete(this.#idOf(member));
  }

  finish(sort?: (a: T, b: T) => number): OverlayMap<string, readonly T[]> {
    const changes = new Map<string, readonly T[] | undefined>();
    for (const [key, members] of this.#lists) {
      const list = [...members.values()];
      changes.set(key, list.length === 0 ? undefined : sort === undefined ? list : list.sort(sort));
    }
    return this.#from.with(changes);
  }

  #list(key: string): Map<string, T> {
    let list = this.#lists.get(key);
    if (list === undefined) {
      list = new Map((this.#from.get(key) ?? []).map((member) => [this.#idOf(member), member]));
      this.#lists.set(key, list);
    }
    return list;
  }
}

/** A tenant can give an object of his own the address of another's pod, or its name: it must neither hide the pod, nor make mTLS to it plaintext. */
function whoAnswers(a: Workload, b: Workload): number {
  return Number(isPod(b)) - Number(isPod(a)) || Number(b.meshed) - Number(a.meshed) || (a.uid < b.uid ? -1 : 1);
}

/** After a change; those it is made from stay as they are. */
export function reindexed(from: Indexes, change: RegistryChange): Indexes {
  const byUid = new Draft(from.byUid);
  const byName = new ListDraft(from.byName, ({ uid }) => uid);
  const byAddress = new ListDraft(from.byAddress, ({ uid }) => uid);
  const endpoints = new ListDraft(from.endpoints, ({ uid }) => uid);
  const forget = (uid: string) => {
    const old = byUid.get(uid);
    if (old === undefined) return;
    byUid.set(uid, undefined);
    byName.remove(`${old.namespace}/${old.name}`, old);
    if (old.sharesAddress !== true) for (const address of old.addresses) byAddress.remove(address, old);
    for (const key of old.services.keys()) endpoints.remove(key, old);
  };
  for (const uid of change.workloads.removed) forget(uid);
  for (const { uid } of change.workloads.upserts) forget(uid);
  for (const workload of change.workloads.upserts) {
    byUid.set(workload.uid, workload);
    byName.add(`${workload.namespace}/${workload.name}`, workload);
    if (workload.sharesAddress !== true) for (const address of workload.addresses) byAddress.add(address, workload);
    for (const key of workload.services.keys()) endpoints.add(key, workload);
  }

  const services = new Draft(from.services);
  const serviceByAddress = new ListDraft(from.serviceByAddress, ({ key }) => key);
  const forgetService = (key: string) => {
    const old = services.get(key);
    if (old === undefined) return;
    services.set(key, undefined);
    for (const address of old.addresses) serviceByAddress.remove(address, old);
  };
  for (const key of change.services.removed) forgetService(key);
  for (const { key } of change.services.upserts) forgetService(key);
  for (const service of change.services.upserts) {
    services.set(service.key, service);
    for (const address of service.addresses) serviceByAddress.add(address, service);
  }
  return {
    byUid: byUid.finish(),
    byName: byName.finish(whoAnswers),
    byAddress: byAddress.finish(whoAnswers),
    endpoints: endpoints.finish(),
    services: services.finish(),
    serviceByAddress: serviceByAddress.finish((a, b) => (a.key < b.key ? -1 : 1)),
  };
}
