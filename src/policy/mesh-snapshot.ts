// Registry, switches and authorizations as one frozen value: a connection reads one of these, taken when it was accepted.

import type { AuthorizationSet } from './authorization.ts';
import type { TrafficPolicy, Workload } from './model.ts';
import type { Registry } from './registry.ts';

export interface MeshSnapshot {
  /** Whether what stands here of an address is all that there is. Of one that is not known the registry may have nothing, or half: that says nothing. */
  knows(address: string): boolean;
  readonly registry: Registry;
  /** By workload uid. */
  readonly policies: { get(uid: string): TrafficPolicy | undefined };
  /** What holds for a workload: GLOBAL, its namespace's, and those it names. */
  readonly authorizations: { of(workload: Workload): AuthorizationSet };
}
