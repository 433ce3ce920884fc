// Registry and switches as one frozen value: a connection reads one of these, taken when it was accepted.

import type { TrafficPolicy } from './model.ts';
import type { Registry } from './registry.ts';

export interface MeshSnapshot {
  readonly registry: Registry;
  /** By workload uid. */
  readonly policies: ReadonlyMap<string, TrafficPolicy>;
}
