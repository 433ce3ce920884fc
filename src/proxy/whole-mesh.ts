// Whether a mesh can be used by a pod as it is: one that names a policy of the pod's that is still on its way is not whole.

import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { PipelineSettings } from './context.ts';

/** For MeshSource. */
export function isWholeFor({ workloadUid }: Pick<PipelineSettings, 'workloadUid'>): (mesh: MeshSnapshot) => boolean {
  return ({ registry, authorizations }) => {
    const self = registry.workloadOf(workloadUid);
    return self === undefined || authorizations.of(self).missing.length === 0;
  };
}
