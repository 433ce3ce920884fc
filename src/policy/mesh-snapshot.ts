// Registry, switches and authorizations as one frozen value: a connection reads one of these, taken when it was accepted.

import type { AuthorizationSet } from './authorization.ts';
import type { TrafficPolicy, Workload } from './model.ts';
import type { Registry } from './registry.ts';

export interface MeshSnapshot {
  readonly registry: Registry;
  /** By workload uid. */
  readonly policies: { get(uid: string): TrafficPolicy | undefined };
  /** What holds for a workload: GLOBAL, its namespace's, and those it names. */
  readonly authorizations: { of(workload: Workload): AuthorizationSet };
}
