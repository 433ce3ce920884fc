// Whom a pod is registered as: the yardstick for whoever reports in its name.

import { workloadSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { MeshObjects, ObjectSource } from '../objects/mesh-objects.ts';

/** By `namespace/name`, as the objects are when it is asked. */
export function registeredIds({ objects }: ObjectSource, trustDomain: string): (pod: string) => string | undefined {
  let indexed: { of: MeshObjects; ids: ReadonlyMap<string, string> } | undefined;
  return (pod) => {
    const { current } = objects;
    if (current === undefined) return undefined;
    if (indexed?.of !== current) {
      const ids = current.pods.map(({ metadata: { namespace, name }, spec: { serviceAccountName: serviceAccount } }) => {
        return [`${namespace}/${name}`, workloadSpiffeId({ trustDomain, namespace, serviceAccount }).uri] as const;
      });
      indexed = { of: current, ids: new Map(ids) };
    }
    return indexed.ids.get(pod);
  };
}
