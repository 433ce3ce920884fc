// The mesh as it was last said, kept as bytes for workers that start later; what no worker could use is refused here, once for all.

import { MeshSource } from '../discovery/mesh-source.ts';
import type { ResourceChange } from '../discovery/resource-cache.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { Snapshot } from '../snapshot.ts';
import type { MeshChange } from './messages.ts';

export class MeshState {
  /** For its verdict alone: nobody here asks for the mesh. */
  readonly #source = new MeshSource(new Snapshot<MeshSnapshot>());
  readonly #resources = new Map<string, Map<string, Uint8Array>>();
  readonly #known = new Set<string>();

  /** All of it, as far as it has arrived. */
  get whole(): readonly MeshChange[] {
    return [...this.#resources].map(([typeUrl, upserts]) => ({
      typeUrl,
      change: { upserts, removed: [], ...(typeUrl === typeUrls.address ? { answered: [...this.#known] } : {}) },
    }));
  }

  /** Throws, changing nothing, when any resource of the change cannot be used. Returns what workers are to be told. */
  apply(typeUrl: string, change: ResourceChange): MeshChange {
    this.#source.apply(typeUrl, change);
    const { upserts, removed, answered = [], forgotten } = change;
    for (const address of forgotten ?? []) this.#known.delete(address);
    for (const address of answered) this.#known.add(address);
    // No arrival: there may be none yet.
    if (forgotten !== undefined) return { typeUrl, change };
    // Bytes of their own: a view is cloned and kept with the whole message that it was read from.
    const copied = new Map([...upserts].map(([name, bytes]) => [name, Uint8Array.from(bytes)]));
    const resources = this.#resources.get(typeUrl) ?? new Map<string, Uint8Array>();
    this.#resources.set(typeUrl, resources);
    for (const name of removed) resources.delete(name);
    for (const [name, bytes] of copied) resources.set(name, bytes);
    return { typeUrl, change: { upserts: copied, removed, answered } };
  }
}
