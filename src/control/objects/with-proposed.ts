// A set of objects with some of them replaced: what would be in force if a proposal were.

import { HandfastError } from '../../errors.ts';
import { defaultMeshConfig } from '../../policy/kinds/mesh-config.ts';
import { collect, nameOf } from './collect-objects.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { ObjectEntry } from './object-kinds.ts';

/**
 * The current objects with the proposed ones in place of those of the same kind, namespace and name. A proposed set without a MeshConfig leaves the current one.
 * Throws OBJECT_INVALID where the two do not go together.
 */
export function withProposed(current: MeshObjects, proposed: MeshObjects): MeshObjects {
  const added = entriesOf(proposed, 'proposed');
  const replaced = new Set(added.map(nameOf));
  const kept = entriesOf(current, 'in force').filter((entry) => !replaced.has(nameOf(entry)));
  const problems: string[] = [];
  const config = proposed.config === defaultMeshConfig ? current.config : proposed.config;
  const objects = collect([...kept, ...added], problems, config);
  if (problems.length > 0) throw new HandfastError('OBJECT_INVALID', problems.join('\n'));
  return objects;
}

function entriesOf(objects: MeshObjects, place: string): ObjectEntry[] {
  return [
    ...objects.peerAuthentications.map((object): ObjectEntry => ({ kind: 'PeerAuthentication', place, object })),
    ...objects.authorizationPolicies.map((object): ObjectEntry => ({ kind: 'AuthorizationPolicy', place, object })),
    ...objects.destinationRules.map((object): ObjectEntry => ({ kind: 'DestinationRule', place, object })),
    ...objects.requestAuthentications.map((object): ObjectEntry => ({ kind: 'RequestAuthentication', place, object })),
    ...objects.scopeConfigs.map((object): ObjectEntry => ({ kind: 'ScopeConfig', place, object })),
    ...objects.serviceEntries.map((object): ObjectEntry => ({ kind: 'ServiceEntry', place, object })),
    ...objects.pods.map((object): ObjectEntry => ({ kind: 'Pod', place, object })),
    ...objects.services.map((object): ObjectEntry => ({ kind: 'Service', place, object })),
    ...objects.endpointSlices.map((object): ObjectEntry => ({ kind: 'EndpointSlice', place, object })),
  ];
}
