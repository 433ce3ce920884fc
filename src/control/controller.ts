// Control: objects in, resources out. Resolves every published set of objects into the cache that discovery serves.

import type { ResourceCache } from '../discovery/resource-cache.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { encodeService, encodeTrafficPolicy, encodeWorkload } from '../discovery/workload-codec.ts';
import type { Log } from '../observe/log.ts';
import type { MeshObjects, ObjectSource } from './mesh-objects.ts';
import { resolveMesh } from './resolve.ts';

export function startController(deps: {
  source: ObjectSource;
  cache: ResourceCache;
  trustDomain: string;
  log: Log;
  signal: AbortSignal;
}): void {
  const publish = (objects: MeshObjects) => {
    const { workloads, services, policies } = resolveMesh(objects, deps.trustDomain);
    deps.cache.replace(
      typeUrls.address,
      new Map([
        ...workloads.map((workload) => [workload.uid, encodeWorkload(workload)] as const),
        ...services.map((service) => [service.key, encodeService(service)] as const),
      ]),
    );
    deps.cache.replace(typeUrls.trafficPolicy, new Map(policies.map((policy) => [policy.workload, encodeTrafficPolicy(policy)])));
    deps.log.info({ workloads: workloads.length, services: services.length }, 'mesh resolved');
  };
  if (deps.source.objects.current !== undefined) publish(deps.source.objects.current);
  const unsubscribe = deps.source.objects.subscribe(publish);
  deps.signal.addEventListener('abort', unsubscribe, { once: true });
}
