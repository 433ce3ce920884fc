// A mesh's objects, namespace by namespace: what one namespace is resolved from, and whether it changed.

import type { MeshObjects } from '../objects/mesh-objects.ts';

export type NamespaceObjects = { -readonly [K in Exclude<keyof MeshObjects, 'config'>]: MeshObjects[K][number][] };

export function emptyNamespace(): NamespaceObjects {
  return {
    peerAuthentications: [],
    authorizationPolicies: [],
    destinationRules: [],
    requestAuthentications: [],
    scopeConfigs: [],
    serviceEntries: [],
    pods: [],
    services: [],
    endpointSlices: [],
  };
}

export function byNamespace(objects: MeshObjects): Map<string, NamespaceObjects> {
  const found = new Map<string, NamespaceObjects>();
  const of = (namespace: string): NamespaceObjects => {
    let own = found.get(namespace);
    if (own === undefined) {
      own = emptyNamespace();
      found.set(namespace, own);
    }
    return own;
  };
  for (const object of objects.peerAuthentications) of(object.namespace).peerAuthentications.push(object);
  for (const object of objects.authorizationPolicies) of(object.namespace).authorizationPolicies.push(object);
  for (const object of objects.destinationRules) of(object.namespace).destinationRules.push(object);
  for (const object of objects.requestAuthentications) of(object.namespace).requestAuthentications.push(object);
  for (const object of objects.scopeConfigs) of(object.namespace).scopeConfigs.push(object);
  for (const object of objects.serviceEntries) of(object.metadata.namespace).serviceEntries.push(object);
  for (const object of objects.pods) of(object.metadata.namespace).pods.push(object);
  for (const object of objects.services) of(object.metadata.namespace).services.push(object);
  for (const object of objects.endpointSlices) of(object.namespace).endpointSlices.push(object);
  return found;
}

/** The same objects in the same order. */
export function sameObjects(a: NamespaceObjects, b: NamespaceObjects): boolean {
  return (
    samePolicies(a, b) &&
    sameList(a.serviceEntries, b.serviceEntries) &&
    sameList(a.pods, b.pods) &&
    sameList(a.services, b.services) &&
    sameList(a.endpointSlices, b.endpointSlices)
  );
}

/** Of the root namespace's objects, only these reach others. */
export function samePolicies(a: NamespaceObjects, b: NamespaceObjects): boolean {
  return (
    sameList(a.peerAuthentications, b.peerAuthentications) &&
    sameList(a.authorizationPolicies, b.authorizationPolicies) &&
    sameList(a.destinationRules, b.destinationRules) &&
    sameList(a.requestAuthentications, b.requestAuthentications) &&
    sameList(a.scopeConfigs, b.scopeConfigs)
  );
}

function sameList(a: readonly unknown[], b: readonly unknown[]): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}
