// Resources by type and name, with versions: what a delta ADS server serves, whoever filled it.

import { type ResourceView, type VersionedResource, versionOf } from './resource-view.ts';

/** What changed in one type: new or changed resources by name, and names that are gone. */
export interface ResourceChange {
  readonly upserts: ReadonlyMap<string, Uint8Array>;
  readonly removed: readonly string[];
  /** Addresses that were asked for: what is known of them is all that there is from now on, or is kept no longer. */
  readonly answered?: readonly string[];
  readonly forgotten?: readonly string[];
}

export class ResourceCache implements ResourceView {
  readonly #types = new Map<string, Map<string, VersionedResource>>();
  readonly #subscribers = new Set<(typeUrl: string, names: readonly string[]) => void>();

  resources(typeUrl: string): ReadonlyMap<string, VersionedResource> | undefined {
    return this.#types.get(typeUrl);
  }

  /** What is as it was is no change, and nobody hears of it; the first word of a type is heard even if it is empty. */
  apply(typeUrl: string, change: ResourceChange): void {
    const known = this.#types.get(typeUrl);
    const resources = known ?? new Map<string, VersionedResource>();
    this.#types.set(typeUrl, resources);
    const changed = change.removed.filter((name) => !change.upserts.has(name) && resources.delete(name));
    for (const [name, value] of change.upserts) {
      const version = versionOf(value);
      if (resources.get(name)?.version === version) continue;
      resources.set(name, { version, value });
      changed.push(name);
    }
    if (changed.length === 0 && known !== undefined) return;
    for (const subscriber of [...this.#subscribers]) subscriber(typeUrl, changed);
  }

  /** Replaces the whole type. */
  replace(typeUrl: string, all: ReadonlyMap<string, Uint8Array>): void {
    const gone = [...(this.#types.get(typeUrl)?.keys() ?? [])].filter((name) => !all.has(name));
    this.apply(typeUrl, { upserts: all, removed: gone });
  }

  subscribe(subscriber: (typeUrl: string, names: readonly string[]) => void): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }
}
