// Resources by type and name, with versions: what a delta ADS server serves, whoever filled it.

import { type ResourceView, type VersionedResource, versionOf } from './resource-view.ts';

/** What changed in one type: new or changed resources by name, and names that are gone. */
export interface ResourceChange {
  readonly upserts: ReadonlyMap<string, Uint8Array>;
  readonly removed: readonly string[];
}

export class ResourceCache implements ResourceView {
  readonly #types = new Map<string, Map<string, VersionedResource>>();
  readonly #subscribers = new Set<(typeUrl: string) => void>();

  resources(typeUrl: string): ReadonlyMap<string, VersionedResource> | undefined {
    return this.#types.get(typeUrl);
  }

  apply(typeUrl: string, change: ResourceChange): void {
    const resources = new Map(this.#types.get(typeUrl));
    for (const name of change.removed) resources.delete(name);
    for (const [name, value] of change.upserts) resources.set(name, { version: versionOf(value), value });
    this.#publish(typeUrl, resources);
  }

  /** Replaces the whole type. */
  replace(typeUrl: string, all: ReadonlyMap<string, Uint8Array>): void {
    this.#publish(typeUrl, new Map([...all].map(([name, value]) => [name, { version: versionOf(value), value }])));
  }

  subscribe(subscriber: (typeUrl: string) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  #publish(typeUrl: string, resources: Map<string, VersionedResource>): void {
    this.#types.set(typeUrl, resources);
    for (const subscriber of [...this.#subscribers]) subscriber(typeUrl);
  }
}
