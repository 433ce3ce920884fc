// What a serving stream offers its client: resources by type and name, and word when they change.

import { createHash } from 'node:crypto';

export interface VersionedResource {
  readonly version: string;
  /** Encoded protobuf. */
  readonly value: Uint8Array;
}

/** Resources by name: the part of a map that serving them takes. */
export interface Resources extends Iterable<[string, VersionedResource]> {
  get(name: string): VersionedResource | undefined;
  has(name: string): boolean;
}

/** Types and which of their names have changed; undefined: perhaps all of them. */
export type Touched = Iterable<readonly [typeUrl: string, names: readonly string[] | undefined]>;

export interface ResourceView {
  /** Undefined until the type was filled for the first time: "nothing known yet" is not "nothing there". */
  resources(typeUrl: string): Resources | undefined;
  /** Calls back with the type that changed, which of its names where that is known, and what has changed with it in other types. Returns the way to stop. */
  subscribe(onChange: (typeUrl: string, names?: readonly string[], along?: Touched) => void): () => void;
  /** Where a name that is asked for need not be a resource's own. */
  readonly asked?: AskedNames | undefined;
}

/** What a client has asked for by name, where one name can stand for several resources; the view offers those, and what belongs to them. */
export interface AskedNames {
  /** There are no others. */
  readonly typeUrls: readonly string[];
  /** Takes names that are asked for from now on, and that are no longer. Returns which resources answer for the former, to be sent though the client may have them, and what has changed by it. Throws the status to end the stream with. */
  change(
    typeUrl: string,
    names: { readonly added: readonly string[]; readonly dropped: readonly string[] },
  ): { readonly answers: readonly string[]; readonly touched: Touched };
  /** Whether anything stands for a name that is asked for. */
  isAnswered(typeUrl: string, name: string): boolean;
  /** Whether that is not known yet: the answer is owed until it is. Where there is no such word all is known. */
  isUnknown?(typeUrl: string, name: string): boolean;
  /** The names under which a resource was asked for, beside its own. */
  aliasesOf(typeUrl: string, name: string): string[];
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
export function subscribed(names: SubscribedNames, resources: Resources): [string, VersionedResource][] {
  if (names === 'everything') return [...resources];
  return [...names].flatMap((name): [string, VersionedResource][] => {
    const resource = resources.get(name);
    return resource === undefined ? [] : [[name, resource]];
  });
}
