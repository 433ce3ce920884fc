// What one stream is told of the mesh: all of a type where it asks for everything, and otherwise what belongs to the names that it asks for.

import { status } from '@grpc/grpc-js';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import { statusError } from '../wire/grpc.ts';
import type { Follower, MeshIndex } from './mesh-index.ts';
import type { StreamNames } from './name-budget.ts';
import type { AskedNames, Resources, ResourceView, Touched, VersionedResource } from './resource-view.ts';
import { typeUrls } from './type-urls.ts';

/** A sidecar asks for fewer, and lets go of those that it does not use. */
const MAX_NAMES = 4_096;
/** Of a type whose names are workloads': a sidecar asks for its own. */
const MAX_WORKLOADS = 4;
const MAX_NAME_LENGTH = 512;
/** A sidecar that comes back names all of them at once. */
const NAMES: Rate = { burst: 10_000, perSecond: 1_000 };

/** What belongs together: in the order in which changes of one have to be heard before those of another. */
const MESH_TYPES: readonly string[] = [typeUrls.address, typeUrls.authorization, typeUrls.trafficPolicy];

export class AddressView implements ResourceView, AskedNames, Follower {
  readonly typeUrls = MESH_TYPES;
  readonly #index: MeshIndex;
  readonly #budget: StreamNames;
  readonly #rate = new TokenBucket(NAMES);
  /** By type; one without an entry is asked for as a whole. */
  readonly #names = new Map<string, Set<string>>();
  /** Workloads and services, and how many of the names they belong to. */
  readonly #shown = new Map<string, number>();
  readonly #holding = new Set<string>();
  #touched = new Map<string, Set<string>>();
  #onChange: ((typeUrl: string, names?: readonly string[], along?: Touched) => void) | undefined;
  #isFilled: boolean;

  constructor(index: MeshIndex, budget: StreamNames) {
    this.#index = index;
    this.#budget = budget;
    this.#isFilled = this.#areAllThere();
  }

  get asked(): AskedNames {
    return this;
  }

  resources(typeUrl: string): Resources | undefined {
    const all = this.#index.cache.resources(typeUrl);
    // What belongs together is not told in part: an address without an answer is better than one with half of it.
    if (all === undefined || !this.#names.has(typeUrl)) return all;
    if (!this.#isFilled) return undefined;
    return new Part(all, typeUrl === typeUrls.authorization ? this.#holding : this.#shown);
  }

  subscribe(onChange: (typeUrl: string, names?: readonly string[], along?: Touched) => void): () => void {
    this.#onChange = onChange;
    this.#index.join(this);
    const unsubscribe = this.#index.cache.subscribe((typeUrl, names) => {
      if (!this.#names.has(typeUrl)) onChange(typeUrl, names);
      if (this.#isFilled || !this.#areAllThere()) return;
      this.#isFilled = true;
      this.#say(MESH_TYPES.filter((each) => this.#names.has(each)).map((each) => [each, undefined]));
    });
    return () => {
      this.#onChange = undefined;
      unsubscribe();
      this.#index.leave(this);
      for (const names of this.#names.values()) for (const name of names) this.#index.unfollow(name, this);
      this.#names.clear();
      this.#budget.give(this.#budget.count);
    };
  }

  change(
    typeUrl: string,
    { added, dropped }: { readonly added: readonly string[]; readonly dropped: readonly string[] },
  ): { readonly answers: readonly string[]; readonly touched: Touched } {
    const names = this.#names.get(typeUrl) ?? new Set<string>();
    let isChanged = false;
    this.#names.set(typeUrl, names);
    for (const name of dropped) {
      if (!names.delete(name)) continue;
      isChanged = true;
      this.#budget.give(1);
      if (!this.#isAskedFor(name)) this.#count(this.#index.unfollow(name, this), -1);
    }
    for (const name of added) {
      this.#admit(typeUrl, { name, names });
      if (names.has(name)) continue;
      isChanged = true;
      if (!this.#isAskedFor(name)) this.#count(this.#index.follow(name, this), 1);
      names.add(name);
    }
    if (isChanged && typeUrl === typeUrls.authorization) this.#holdAnew();
    const answers = typeUrl === typeUrls.address ? added.flatMap((name) => this.#index.at(name)) : [];
    return { answers, touched: this.#takeTouched() };
  }

  isAnswered(typeUrl: string, name: string): boolean {
    if (this.#names.get(typeUrl)?.has(name) !== true) return false;
    // Only whoever asks for an address is to be told that it is nobody's.
    return typeUrl !== typeUrls.address || this.#index.has(name);
  }

  aliasesOf(typeUrl: string, name: string): string[] {
    const names = this.#names.get(typeUrl);
    if (typeUrl !== typeUrls.address || names === undefined) return [];
    // Of the others nobody has asked, and what stands behind them is perhaps not told.
    return this.#index.aliasesOf(name).filter((alias) => names.has(alias));
  }

  moved({ shown, hidden, changed }: Parameters<Follower['moved']>[0]): void {
    this.#count(shown, 1);
    this.#count(hidden, -1);
    for (const name of changed) this.#touch(typeUrls.address, name);
    const own = this.#names.get(typeUrls.authorization);
    if (own !== undefined && [shown, hidden, changed].some((names) => names.some((name) => own.has(name)))) this.#holdAnew();
  }

  policyChanged(workload: string): void {
    this.#touch(typeUrls.trafficPolicy, workload);
  }

  authorizationsChanged(names: readonly string[]): void {
    const own = [...(this.#names.get(typeUrls.authorization) ?? [])];
    if (own.length === 0) return;
    for (const name of names) {
      const held = this.#holding.delete(name);
      const holds = own.some((uid) => this.#index.holdsFor(name, uid));
      if (holds) this.#holding.add(name);
      if (held || holds) this.#touch(typeUrls.authorization, name);
    }
  }

  settle(): void {
    this.#say(this.#takeTouched());
  }

  #areAllThere(): boolean {
    return MESH_TYPES.every((typeUrl) => this.#index.cache.resources(typeUrl) !== undefined);
  }

  #admit(typeUrl: string, { name, names }: { name: string; names: ReadonlySet<string> }): void {
    if (name === '*') throw statusError(status.INVALID_ARGUMENT, 'a stream asks for everything of a type, or for names: open another one');
    if (name.length > MAX_NAME_LENGTH) throw statusError(status.INVALID_ARGUMENT, `a name of more than ${MAX_NAME_LENGTH} characters`);
    if (this.#rate.take() > 0)
      throw statusError(status.RESOURCE_EXHAUSTED, `more than ${NAMES.perSecond} names a second asked for on one stream`);
    if (names.has(name)) return;
    if (typeUrl !== typeUrls.address && names.size >= MAX_WORKLOADS)
      throw statusError(status.INVALID_ARGUMENT, `more than ${MAX_WORKLOADS} workloads' ${typeUrl} asked for on one stream`);
    if (this.#budget.count >= MAX_NAMES)
      throw statusError(status.RESOURCE_EXHAUSTED, `more than ${MAX_NAMES} names asked for on one stream`);
    this.#budget.take();
  }

  #isAskedFor(name: string): boolean {
    for (const names of this.#names.values()) if (names.has(name)) return true;
    return false;
  }

  /** The authorizations that hold for whoever is asked for by that type's names. */
  #holdAnew(): void {
    const now = new Set<string>();
    for (const uid of this.#names.get(typeUrls.authorization) ?? []) for (const name of this.#index.holdingFor(uid)) now.add(name);
    for (const name of this.#holding) {
      if (now.has(name)) continue;
      this.#holding.delete(name);
      this.#touch(typeUrls.authorization, name);
    }
    for (const name of now) {
      if (this.#holding.has(name)) continue;
      this.#holding.add(name);
      this.#touch(typeUrls.authorization, name);
    }
  }

  #count(names: Iterable<string>, by: 1 | -1): void {
    for (const name of names) {
      const before = this.#shown.get(name) ?? 0;
      const after = before + by;
      if (after > 0) this.#shown.set(name, after);
      else this.#shown.delete(name);
      if (before > 0 && after > 0) continue;
      this.#touch(typeUrls.address, name);
      this.#touch(typeUrls.trafficPolicy, name);
    }
  }

  #touch(typeUrl: string, name: string): void {
    const names = this.#touched.get(typeUrl) ?? new Set();
    this.#touched.set(typeUrl, names.add(name));
  }

  #takeTouched(): (readonly [string, readonly string[]])[] {
    const touched = this.#touched;
    if (touched.size === 0) return [];
    this.#touched = new Map();
    return MESH_TYPES.flatMap((typeUrl) => {
      const names = this.#names.has(typeUrl) ? touched.get(typeUrl) : undefined;
      return names === undefined ? [] : [[typeUrl, [...names]] as const];
    });
  }

  #say(touched: readonly (readonly [string, readonly string[] | undefined])[]): void {
    const [first, ...along] = touched;
    if (first !== undefined) this.#onChange?.(...first, along);
  }
}

/** The resources of a type that are shown. */
class Part implements Resources {
  readonly #all: ReadonlyMap<string, VersionedResource>;
  readonly #shown: { has(name: string): boolean; keys(): Iterable<string> };

  constructor(all: ReadonlyMap<string, VersionedResource>, shown: { has(name: string): boolean; keys(): Iterable<string> }) {
    this.#all = all;
    this.#shown = shown;
  }

  get(name: string): VersionedResource | undefined {
    return this.#shown.has(name) ? this.#all.get(name) : undefined;
  }

  has(name: string): boolean {
    return this.#shown.has(name) && this.#all.has(name);
  }

  *[Symbol.iterator](): Iterator<[string, VersionedResource]> {
    for (const name of this.#shown.keys()) {
      const resource = this.#all.get(name);
      if (resource !== undefined) yield [name, resource];
    }
  }
}
