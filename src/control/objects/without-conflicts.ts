// Of objects that claim the same name or address, the one that is to be believed. An API server refuses none of them, and the rest of the mesh must not wait for it to be mended.

import { BelievedSlices } from './believed-slices.ts';
import { addressClaim, claimsOf, misplacedPeerAuthentication } from './collect-objects.ts';
import type { KubeReading } from './kube-kinds.ts';
import type { ObjectEntry } from './object-kinds.ts';
import type { Owner } from './slice-conflicts.ts';

/** What people write stands behind what the cluster itself says. */
const RANK: Readonly<Partial<Record<ObjectEntry['kind'], number>>> = { Service: 0, Pod: 1 };
const LAST_RANK = 2;
/** Of nobody else's: the pod's own, the node's link (where clouds keep credentials), and none at all. */
const NOBODYS = /^(127\.|169\.254\.|0\.0\.0\.0$|::1?$|fe[89ab][0-9a-f]:)/;

interface Claimant {
  readonly entry: ObjectEntry;
  readonly name: string;
  readonly rank: number;
  readonly isGoing: boolean;
  readonly createdAt: number;
}

/** The entries that hold. `problems` gets the reason for each that is left out, by its object's name. */
export function withoutConflicts(readings: readonly KubeReading[], problems: Map<string, string>): ObjectEntry[] {
  // What is not registered has its addresses all the same: a Service without a selector, a pod on its node's network.
  const owners = new Map<string, Owner>();
  for (const { entry, addresses, name, onHostNetwork } of readings)
    if (entry === undefined)
      for (const address of addresses) owners.set(addressClaim(address), { name, entry, isNode: onHostNetwork !== undefined });
  const slices = new BelievedSlices((address) => owners.get(addressClaim(address)));
  let rootNamespace = 'istio-system';
  const kept: { entry: ObjectEntry; name: string }[] = [];
  for (const { entry, name } of readings.flatMap(claimantOf).sort(compare)) {
    if (entry.kind === 'EndpointSlice' && !slices.areAskedFor(entry.object)) continue;
    const claims = claimsOf(entry);
    const problem = takenOf(claims, owners) ?? slices.against(entry) ?? nobodysOf(entry);
    if (problem !== undefined) {
      problems.set(name, problem);
      continue;
    }
    for (const claim of claims) owners.set(claim, { name, entry, isNode: false });
    slices.take(entry, name);
    if (entry.kind === 'MeshConfig') ({ rootNamespace } = entry.object);
    kept.push({ entry, name });
  }
  return kept.flatMap(({ entry, name }) => {
    const misplaced = misplacedPeerAuthentication(entry, rootNamespace);
    if (misplaced === undefined) return [entry];
    problems.set(name, `${misplaced.path}: a selector in the root namespace selects nobody; put it into the workload's namespace`);
    return [];
  });
}

function takenOf(claims: readonly string[], owners: ReadonlyMap<string, Owner>): string | undefined {
  const taken = claims.find((claim) => owners.has(claim));
  return taken === undefined ? undefined : `${taken} is ${owners.get(taken)?.name}'s already`;
}

function nobodysOf(entry: ObjectEntry): string | undefined {
  const nobodys = entry.kind === 'ServiceEntry' ? entry.object.spec.addresses.find((address) => NOBODYS.test(address)) : undefined;
  return nobodys === undefined ? undefined : `address ${nobodys} is of no service`;
}

function claimantOf({ entry, name, createdAt }: KubeReading): Claimant[] {
  if (entry === undefined) return [];
  // Its address may be its successor's by now. Any other pod keeps what it has: whoever comes later with the same address is mistaken, or a thief.
  const isGoing = entry.kind === 'Pod' && entry.object.metadata.deletionTimestamp != null;
  return [{ entry, name, createdAt, isGoing, rank: RANK[entry.kind] ?? LAST_RANK }];
}

/** Whoever is believed first. Names settle ties, so that everybody who looks decides alike. */
function compare(a: Claimant, b: Claimant): number {
  return (
    a.rank - b.rank ||
    Number(a.isGoing) - Number(b.isGoing) ||
    a.createdAt - b.createdAt ||
    (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
  );
}
