// Objects resolved into what proxies need, all at once: what MeshResolver does from nothing.

import type { Authorization } from '../../policy/authorization.ts';
import type { Service, TrafficPolicy, Workload } from '../../policy/model.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';
import { MeshResolver } from './mesh-resolver.ts';

export interface ResolvedMesh {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly TrafficPolicy[];
  readonly authorizations: readonly Authorization[];
}

/** `selections`: whom each rollout has come to. */
export function resolveMesh(objects: MeshObjects, of: { trustDomain: string; selections: Selections }): ResolvedMesh {
  const { workloads, services, policies, authorizations } = new MeshResolver(of).replace(objects, of.selections);
  return {
    workloads: [...workloads.upserts.values()],
    services: [...services.upserts.values()],
    policies: [...policies.upserts.values()],
    authorizations: [...authorizations.upserts.values()],
  };
}
