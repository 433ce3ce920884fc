// The order in which policies and the workloads that name them reach a client: at no moment may a policy that is to hold for somebody be bound to nobody.

import { BinaryReader } from '@bufbuild/protobuf/wire';
import { Scope } from '../wire/gen/istio/security/authorization.ts';
import type { VersionedResource } from './resource-view.ts';
import { typeUrls } from './type-urls.ts';

/**
 * Two types, of which `naming`'s resources may name `named`'s. What is new, or holds without being named, goes out before those that may name it or name it no longer; what is to hold
 * from now on only for those that name it, and what is gone, after them. A third type, `first`, has the names of `naming`'s resources that it is for: what is new of it goes out before them, what is gone after them.
 */
export interface TypeOrder {
  readonly named: string;
  readonly naming: string;
  readonly first?: string;
  /** Whether it holds only for those that name it. */
  readonly onlyByName: (resource: VersionedResource) => boolean;
  /** The same of a version that a client holds; undefined where it is not known (any more). */
  readonly heldByName: (version: string) => boolean | undefined;
}

const MAX_KNOWN = 20_000;
/** By version, which is the content's digest: what a client holds is known by its version alone. What was asked for last is kept. */
const known = new Map<string, boolean>();

export const meshOrder: TypeOrder = {
  named: typeUrls.authorization,
  naming: typeUrls.address,
  // Nobody should meet a workload without its policy.
  first: typeUrls.trafficPolicy,
  onlyByName: ({ version, value }) => kept(version) ?? keep(version, isSelecting(value)),
  heldByName: kept,
};

function kept(version: string): boolean | undefined {
  const byName = known.get(version);
  return byName === undefined ? undefined : keep(version, byName);
}

function keep(version: string, byName: boolean): boolean {
  known.delete(version);
  known.set(version, byName);
  const [oldest] = known.keys();
  if (known.size > MAX_KNOWN && oldest !== undefined) known.delete(oldest);
  return byName;
}

const SCOPE_FIELD = 3;

/** Reads the scope alone: a policy may have ten thousand blocks, and is looked at for each stream. */
function isSelecting(bytes: Uint8Array): boolean {
  let scope: number = Scope.GLOBAL;
  try {
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [field, wireType] = reader.tag();
      if (field === SCOPE_FIELD) scope = reader.int32();
      else reader.skip(wireType, field);
    }
  } catch {
    // What cannot be read is refused by whoever gets it.
    return false;
  }
  return scope === Scope.WORKLOAD_SELECTOR;
}
