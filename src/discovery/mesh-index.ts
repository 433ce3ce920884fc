// What belongs to an address: its services, their endpoints, and the workloads behind it. One index for all streams of the agent, of which a change costs what it touches.

import { HandfastError } from '../errors.ts';
import { addressName } from './address-name.ts';
import { decodeAuthorization } from './authorization-codec.ts';
import { AuthorizationScopes, type Scoped } from './authorization-scopes.ts';
import type { ResourceCache, ResourceChange } from './resource-cache.ts';
import { typeUrls } from './type-urls.ts';
import { decodeAddress, decodeTrafficPolicy } from './workload-codec.ts';

/** A workload or a service, as far as others are found by it. */
interface Entry extends Scoped {
  readonly kind: 'workload' | 'service';
  /** What it answers to beside its own name. */
  readonly aliases: readonly string[];
  /** Of a workload: the keys of those it belongs to. */
  readonly services: readonly string[];
}

/** Somebody who wants to know what belongs to a name. */
export interface Follower {
  /** What belongs to one of its names is another from now on, or has changed. */
  moved(change: { readonly shown: readonly string[]; readonly hidden: readonly string[]; readonly changed: readonly string[] }): void;
  policyChanged(workload: string): void;
  authorizationsChanged(names: readonly string[]): void;
  /** All of one change has been said. */
  settle(): void;
}

interface Followed {
  reach: ReadonlySet<string>;
  readonly followers: Set<Follower>;
}

const NOTHING: ReadonlySet<string> = new Set();

export class MeshIndex {
  readonly cache: ResourceCache;
  readonly authorizations = new AuthorizationScopes();
  readonly #entries = new Map<string, Entry>();
  readonly #byAlias = new Map<string, Set<string>>();
  /** Service key to the uids of its endpoints. */
  readonly #members = new Map<string, Set<string>>();
  readonly #followed = new Map<string, Followed>();
  readonly #followers = new Set<Follower>();
  /** What of a change was read before it is known what of it is new. */
  #read: Reading | undefined;

  /** Of what is in the cache already, and of what comes. */
  constructor(cache: ResourceCache) {
    this.cache = cache;
    for (const typeUrl of [typeUrls.address, typeUrls.authorization]) this.#changed(typeUrl, [...(cache.resources(typeUrl)?.keys() ?? [])]);
    cache.subscribe((typeUrl, names) => this.#changed(typeUrl, names));
  }

  /** Fills the cache. Throws, changing nothing, when a sidecar could not use any resource of the change: an address must not seem to be nobody's because of it. */
  apply(typeUrl: string, change: ResourceChange): void {
    this.#read = readingOf(typeUrl, change);
    try {
      this.cache.apply(typeUrl, change);
    } finally {
      this.#read = undefined;
    }
  }

  /** Whether there is anybody of this name or at this address. */
  has(name: string): boolean {
    return this.#byAlias.has(name) || this.#entries.has(name);
  }

  /** Whoever has the name or the address, without what belongs to them. */
  at(name: string): readonly string[] {
    return this.#entries.has(name) ? [name] : [...(this.#byAlias.get(name) ?? [])];
  }

  aliasesOf(name: string): readonly string[] {
    return this.#entries.get(name)?.aliases ?? [];
  }

  /** The authorizations that hold for a workload. */
  holdingFor(uid: string): Iterable<string> {
    const workload = this.#entries.get(uid);
    return workload?.kind === 'workload' ? this.authorizations.holdingFor(workload) : [];
  }

  holdsFor(authorization: string, uid: string): boolean {
    const workload = this.#entries.get(uid);
    return workload?.kind === 'workload' && this.authorizations.holdsFor(authorization, workload);
  }

  join(follower: Follower): void {
    this.#followers.add(follower);
  }

  leave(follower: Follower): void {
    this.#followers.delete(follower);
  }

  /** From now on the follower hears of what belongs to the name. Returns what does now. */
  follow(name: string, follower: Follower): ReadonlySet<string> {
    const followed = this.#followed.get(name) ?? { reach: this.#reach(name), followers: new Set() };
    this.#followed.set(name, followed);
    followed.followers.add(follower);
    return followed.reach;
  }

  /** Returns what belonged to the name last. */
  unfollow(name: string, follower: Follower): ReadonlySet<string> {
    const followed = this.#followed.get(name);
    if (followed === undefined) return NOTHING;
    followed.followers.delete(follower);
    if (followed.followers.size === 0) this.#followed.delete(name);
    return followed.reach;
  }

  /** A service with all its endpoints; a workload with the services that it belongs to. */
  #reach(name: string): ReadonlySet<string> {
    const reach = new Set<string>();
    for (const one of this.at(name)) {
      reach.add(one);
      for (const member of this.#members.get(one) ?? []) reach.add(member);
      for (const key of this.#entries.get(one)?.services ?? []) if (this.#entries.has(key)) reach.add(key);
    }
    return reach;
  }

  #changed(typeUrl: string, names: readonly string[]): void {
    const read = this.#read ?? this.#readFromCache(typeUrl, names);
    switch (typeUrl) {
      case typeUrls.address:
        this.#addressesChanged(names, read);
        break;
      case typeUrls.trafficPolicy:
        for (const name of names) {
          const concerned = new Set<string>();
          this.#concern(name, concerned);
          for (const follower of this.#followersOf(concerned)) follower.policyChanged(name);
        }
        break;
      case typeUrls.authorization:
        for (const name of names) this.authorizations.set(name, read.scopes.get(name));
        for (const follower of this.#followers) follower.authorizationsChanged(names);
        break;
      default:
        return;
    }
    for (const follower of this.#followers) follower.settle();
  }

  /** Whoever fills the cache itself has not had it read. */
  #readFromCache(typeUrl: string, names: readonly string[]): Reading {
    const all = this.cache.resources(typeUrl);
    const upserts = new Map<string, Uint8Array>();
    for (const name of names) {
      const value = all?.get(name)?.value;
      if (value !== undefined) upserts.set(name, value);
    }
    return readingOf(typeUrl, { upserts, removed: [] });
  }

  #addressesChanged(names: readonly string[], read: Reading): void {
    const concerned = new Set<string>();
    for (const name of names) this.#concern(name, concerned);
    for (const name of names) this.#set(name, read.entries.get(name));
    for (const name of names) this.#concern(name, concerned);
    const all = new Set(names);
    for (const name of concerned) {
      const followed = this.#followed.get(name);
      if (followed === undefined) continue;
      const [before, after] = [followed.reach, this.#reach(name)];
      followed.reach = after;
      const moved = {
        shown: [...after].filter((each) => !before.has(each)),
        hidden: [...before].filter((each) => !after.has(each)),
        changed: [...after].filter((each) => all.has(each) && before.has(each)),
      };
      for (const follower of followed.followers) follower.moved(moved);
    }
  }

  /** The names that somebody follows and that a workload or service has a part in. */
  #concern(name: string, into: Set<string>): void {
    const add = (each: string) => {
      if (this.#followed.has(each)) into.add(each);
    };
    const entry = this.#entries.get(name);
    for (const each of [name, ...(entry?.aliases ?? [])]) add(each);
    const others = entry?.kind === 'workload' ? entry.services : (this.#members.get(name) ?? []);
    for (const other of others) for (const each of [other, ...(this.#entries.get(other)?.aliases ?? [])]) add(each);
  }

  #set(name: string, entry: Entry | undefined): void {
    const old = this.#entries.get(name);
    for (const alias of old?.aliases ?? []) without(this.#byAlias, alias, name);
    for (const key of old?.services ?? []) without(this.#members, key, name);
    if (entry === undefined) {
      this.#entries.delete(name);
      return;
    }
    this.#entries.set(name, entry);
    for (const alias of entry.aliases) withAdded(this.#byAlias, alias, name);
    for (const key of entry.services) withAdded(this.#members, key, name);
  }

  #followersOf(names: Iterable<string>): Set<Follower> {
    const all = new Set<Follower>();
    for (const name of names) for (const follower of this.#followed.get(name)?.followers ?? []) all.add(follower);
    return all;
  }
}

interface Reading {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly scopes: ReadonlyMap<string, Scoped & { readonly scope: string }>;
}

function readingOf(typeUrl: string, { upserts }: ResourceChange): Reading {
  const entries = new Map<string, Entry>();
  const scopes = new Map<string, Scoped & { readonly scope: string }>();
  for (const [name, bytes] of upserts) {
    if (typeUrl === typeUrls.address) entries.set(name, entryOf(name, bytes));
    if (typeUrl === typeUrls.authorization) {
      const { scope, namespace } = decodeAuthorization(bytes, name);
      scopes.set(name, { scope, namespace, authorizationPolicies: [] });
    }
    if (typeUrl === typeUrls.trafficPolicy) checkName(name, decodeTrafficPolicy(bytes).workload);
  }
  return { entries, scopes };
}

function entryOf(name: string, bytes: Uint8Array): Entry {
  const { kind, value } = decodeAddress(bytes);
  checkName(name, kind === 'workload' ? value.uid : value.key);
  const { namespace } = value;
  const aliases = value.addresses.map(addressName);
  if (kind === 'service') return { kind, namespace, aliases, services: [], authorizationPolicies: [] };
  return { kind, namespace, aliases, services: [...value.services.keys()], authorizationPolicies: value.authorizationPolicies };
}

/** It is found by the one, and taken back by the other. */
function checkName(name: string, inside: string): void {
  if (name !== inside) throw new HandfastError('OBJECT_INVALID', `the resource named ${name} is ${inside}`);
}

function withAdded(sets: Map<string, Set<string>>, key: string, member: string): void {
  const set = sets.get(key);
  if (set === undefined) sets.set(key, new Set([member]));
  else set.add(member);
}

function without(sets: Map<string, Set<string>>, key: string, member: string): void {
  const set = sets.get(key);
  set?.delete(member);
  if (set?.size === 0) sets.delete(key);
}
