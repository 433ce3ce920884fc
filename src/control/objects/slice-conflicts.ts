// What an EndpointSlice must not claim: whoever may write one in a namespace would have everybody's calls go past a sidecar, or to somebody else (CVE-2021-25740).

import type { EndpointSlice } from '../../policy/kinds/endpoint-slice.ts';
import { TLS_MODE_LABEL } from '../../policy/kinds/pod.ts';
import type { ServiceEntry } from '../../policy/kinds/service-entry.ts';
import type { ObjectEntry } from './object-kinds.ts';

/** Whose an address is. `entry` is undefined for what has it without being registered; `isNode`: it is the node's, which pods share with others. */
export interface Owner {
  readonly name: string;
  readonly entry: ObjectEntry | undefined;
  readonly isNode: boolean;
}

/** Why the slice is not believed; undefined if nothing is against it. */
export function strayEndpoint(slice: EndpointSlice, ownerOf: (address: string) => Owner | undefined): string | undefined {
  for (const { address } of slice.endpoints) {
    const owner = ownerOf(address);
    if (owner !== undefined && !maySay(slice, { address, owner }))
      return `endpoint ${address} is ${owner.name}'s: an EndpointSlice may name pods of its own namespace, and what is outside the mesh`;
  }
  return undefined;
}

function maySay({ namespace }: EndpointSlice, { address, owner: { entry, isNode } }: { address: string; owner: Owner }): boolean {
  if (isNode) return true;
  if (entry?.kind === 'Pod') return entry.object.metadata.namespace === namespace;
  return entry?.kind === 'ServiceEntry' && !meshEndpoints(entry.object).includes(address);
}

/** Addresses of a ServiceEntry that are dialled with mTLS, or must prove an identity. */
export function meshEndpoints({ spec }: ServiceEntry): string[] {
  return spec.endpoints.flatMap(({ address, labels, serviceAccount }) => {
    const isMeshed = spec.location === 'MESH_INTERNAL' && labels[TLS_MODE_LABEL] === 'istio';
    return isMeshed || serviceAccount !== undefined ? [address] : [];
  });
}
