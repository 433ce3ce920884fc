// One set of objects: names, hosts and addresses are unique, and nothing stands where it would hold for nobody.

import { defaultMeshConfig, type MeshConfig } from '../../policy/kinds/mesh-config.ts';
import { podAddresses } from '../../policy/kinds/pod.ts';
import { hostnameOf, serviceAddresses } from '../../policy/kinds/service.ts';
import { serviceKey } from '../../policy/model.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { ObjectEntries, ObjectEntry, ObjectKind, Place } from './object-kinds.ts';
import { type Owner, strayEndpoint } from './slice-conflicts.ts';

/** Conflicts are added to `problems`, each with its place. `config`: what holds where no MeshConfig is among the objects. */
export function collect(entries: readonly ObjectEntry[], problems: string[], config: MeshConfig = defaultMeshConfig): MeshObjects {
  const chosen = objectsOf(entries, 'MeshConfig')[0] ?? config;
  const unique = new Map<string, Place>();
  for (const entry of entries) {
    for (const claim of claimsOf(entry)) {
      const first = unique.get(claim);
      if (first === undefined) unique.set(claim, entry.place);
      else problems.push(`${entry.place}: ${claim} is already at ${first}; names and addresses must be unique`);
    }
    const misplaced = misplacedPeerAuthentication(entry, chosen.rootNamespace);
    if (misplaced !== undefined)
      problems.push(
        `${entry.place}: ${misplaced.path}: ${misplaced.name} has a selector in the root namespace, where it would select nobody; put it into the workload's namespace`,
      );
  }
  problems.push(...strayEndpoints(entries));
  return Object.freeze({
    config: chosen,
    peerAuthentications: objectsOf(entries, 'PeerAuthentication'),
    authorizationPolicies: objectsOf(entries, 'AuthorizationPolicy'),
    destinationRules: objectsOf(entries, 'DestinationRule'),
    requestAuthentications: objectsOf(entries, 'RequestAuthentication'),
    scopeConfigs: objectsOf(entries, 'ScopeConfig'),
    serviceEntries: objectsOf(entries, 'ServiceEntry'),
    pods: objectsOf(entries, 'Pod'),
    services: objectsOf(entries, 'Service'),
    endpointSlices: objectsOf(entries, 'EndpointSlice'),
  });
}

function strayEndpoints(entries: readonly ObjectEntry[]): string[] {
  const slices = entries.filter((entry) => isOf(entry, 'EndpointSlice'));
  if (slices.length === 0) return [];
  const owners = new Map<string, Owner>();
  for (const entry of entries) for (const claim of claimsOf(entry)) owners.set(claim, { name: nameOf(entry), entry, isNode: false });
  return slices.flatMap(({ object, place }) => {
    const stray = object.ofHosts ? undefined : strayEndpoint(object, (address) => owners.get(addressClaim(address)));
    return stray === undefined ? [] : [`${place}: ${stray}`];
  });
}

function objectsOf<K extends ObjectKind>(entries: readonly ObjectEntry[], kind: K): ObjectEntries[K]['object'][] {
  return entries.filter((entry) => isOf(entry, kind)).map(({ object }) => object);
}

function isOf<K extends ObjectKind>(entry: ObjectEntry, kind: K): entry is ObjectEntries[K] {
  return entry.kind === kind;
}

/** What only one object may have. */
export function claimsOf(entry: ObjectEntry): string[] {
  const claims = [nameOf(entry)];
  switch (entry.kind) {
    case 'Pod':
      claims.push(...podAddresses(entry.object).map(addressClaim));
      break;
    case 'Service':
      claims.push(...serviceAddresses(entry.object).map(addressClaim));
      claims.push(hostClaim({ namespace: entry.object.metadata.namespace, hostname: hostnameOf(entry.object) }));
      break;
    case 'ServiceEntry': {
      const { hosts, addresses, endpoints } = entry.object.spec;
      const own = endpoints.map(({ address }) => address);
      // A thing outside is often called by the address it stands at.
      claims.push(...[...new Set(addresses.filter((address) => !own.includes(address))), ...own].map(addressClaim));
      claims.push(...hosts.map((hostname) => hostClaim({ namespace: entry.object.metadata.namespace, hostname })));
      break;
    }
    default:
  }
  return claims;
}

/** Such as `Pod foo/web-1`; there is one MeshConfig, whatever its name. */
export function nameOf(entry: ObjectEntry): string {
  if (entry.kind === 'MeshConfig') return 'MeshConfig';
  const { namespace, name } = 'metadata' in entry.object ? entry.object.metadata : entry.object;
  return `${entry.kind} ${namespace}/${name}`;
}

export const addressClaim = (address: string) => `address ${address}`;
const hostClaim = (of: { namespace: string; hostname: string }) => `host ${serviceKey(of)}`;

/** One that would select nobody where it stands: the path of its selector, and its name. */
export function misplacedPeerAuthentication(entry: ObjectEntry, rootNamespace: string): { path: string; name: string } | undefined {
  if (entry.kind !== 'PeerAuthentication' && entry.kind !== 'ScopeConfig') return undefined;
  const { object } = entry;
  if ('wrapped' in object && object.wrapped.kind !== 'PeerAuthentication') return undefined;
  const policy = 'wrapped' in object ? object.wrapped.policy : object;
  if (policy.namespace !== rootNamespace || policy.selector === undefined) return undefined;
  const name = `PeerAuthentication ${policy.namespace}/${policy.name}`;
  return policy.scopeConfig === undefined
    ? { path: 'spec.selector', name }
    : { path: 'spec.object.spec.selector', name: `${name} in ScopeConfig ${policy.scopeConfig.key}` };
}
