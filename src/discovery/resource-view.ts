// What a serving stream offers its client: resources by type and name, and word when they change.

import { createHash } from 'node:crypto';

export interface VersionedResource {
  readonly version: string;
  /** Encoded protobuf. */
  readonly value: Uint8Array;
}

export interface ResourceView {
  /** Undefined until the type was filled for the first time: "nothing known yet" is not "nothing there". */
  resources(typeUrl: string): ReadonlyMap<string, VersionedResource> | undefined;
  /** Calls back with the type that changed, and which of its names where that is known. Returns the way to stop. */
  subscribe(onChange: (typeUrl: string, names?: readonly string[]) => void): () => void;
}

/** A version is its content's digest: the same after a restart, so nothing is sent twice. */
export function versionOf(value: Uint8Array): string {
  return createHash('sha256').update(value).digest('base64url').slice(0, 22);
}

/** What the client of a stream has answered, for those who keep track of it. `version` is the one sent last under that name. */
export interface StreamAnswers {
  acked?(acked: { readonly typeUrl: string; readonly versions: ReadonlyMap<string, string> }): void;
  /** After each ACK: all that the client holds of the type now, versions by name. */
  settled?(now: { readonly typeUrl: string; readonly held: ReadonlyMap<string, string> }): void;
  nacked?(refused: { readonly typeUrl: string; readonly versions: ReadonlyMap<string, string>; readonly reason: string }): void;
  /** No longer asked for. */
  dropped?(dropped: { readonly typeUrl: string; readonly names: readonly string[] }): void;
}

/** The names of a subscription: those asked for, or everything there is. */
export type SubscribedNames = ReadonlySet<string> | 'everything';

/** The resources of a subscription. */
export function subscribed(names: SubscribedNames, resources: ReadonlyMap<string, VersionedResource>): [string, VersionedResource][] {
  if (names === 'everything') return [...resources];
  return [...names].flatMap((name): [string, VersionedResource][] => {
    const resource = resources.get(name);
    return resource === undefined ? [] : [[name, resource]];
  });
}
