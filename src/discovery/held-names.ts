// What a delta client holds of one type, and how it says so on a new stream: by naming it all, or, where that is too much for one request, by asking for everything again.

import type { DeltaDiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';

/** Far below what the agent takes in one request, 2 MiB. */
const MAX_NAMED_BYTES = 1024 * 1024;
/** Of the map's entry around a name and its version, at most. */
const ENTRY_BYTES = 12;

type Said = Pick<DeltaDiscoveryResponse, 'resources' | 'removedResources'>;

export class HeldNames {
  readonly #versions = new Map<string, string>();
  /**
   * While the first good response of a stream that was told of nothing has not come: the names that there are. Our servers say everything in that one response (the registry travels in one, so that
   * nobody acts on half of it): what is not in it is gone. Names of refused ones count, too: a server need not send again with the next what it has sent.
   */
  #present: Set<string> | undefined;

  /** For the first request of a stream. */
  named(): Record<string, string> {
    this.#present = this.#bytes() > MAX_NAMED_BYTES ? new Set() : undefined;
    return this.#present === undefined ? Object.fromEntries(this.#versions) : {};
  }

  /** What is gone with this response. */
  removedBy({ resources, removedResources }: Said): readonly string[] {
    const present = this.#present;
    if (present === undefined) return removedResources;
    for (const name of removedResources) present.delete(name);
    for (const { name } of resources) present.add(name);
    const gone = new Set(removedResources);
    for (const name of this.#versions.keys()) if (!present.has(name)) gone.add(name);
    return [...gone];
  }

  /** The response was taken, and with it the word of what is gone. */
  take({ resources }: Said, removed: readonly string[]): void {
    this.#present = undefined;
    for (const name of removed) this.#versions.delete(name);
    for (const { name, version } of resources) this.#versions.set(name, version);
  }

  #bytes(): number {
    let bytes = 0;
    for (const [name, version] of this.#versions) bytes += Buffer.byteLength(name) + Buffer.byteLength(version) + ENTRY_BYTES;
    return bytes;
  }
}
