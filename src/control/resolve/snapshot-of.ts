// The mesh as a sidecar sees it, made from objects in one step: for questions about policy that no connection asks.

import { Authorizations } from '../../policy/authorizations.ts';
import type { MeshSnapshot } from '../../policy/mesh-snapshot.ts';
import type { Selections } from '../../policy/policy-object.ts';
import { Registry } from '../../policy/registry.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';
import { resolveMesh } from './resolve.ts';

export interface SnapshotContext {
  readonly trustDomain: string;
  /** Whom rollouts have come to. */
  readonly selections: Selections;
}

export function snapshotOf(objects: MeshObjects, context: SnapshotContext): MeshSnapshot {
  const { workloads, services, policies, authorizations } = resolveMesh(objects, context);
  return Object.freeze({
    knows: () => true,
    registry: new Registry({ workloads, services }),
    policies: new Map(policies.map((policy) => [policy.workload, policy])),
    authorizations: new Authorizations(authorizations),
  });
}
