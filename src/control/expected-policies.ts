// What each pod's sidecar should hold for its own pod by now, as one digest, to be held against what sidecars have confirmed.

import { AuthorizationScopes } from '../discovery/authorization-scopes.ts';
import { ownPoliciesDigest } from '../discovery/own-policies.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { podUid, type Workload } from '../policy/model.ts';
import type { ResolvedChange } from './resolve/mesh-resolver.ts';

export class ExpectedPolicies {
  readonly #cache: ResourceCache;
  readonly #workloads = new Map<string, Workload>();
  readonly #scopes = new AuthorizationScopes();

  constructor(cache: ResourceCache) {
    this.#cache = cache;
  }

  /** What was resolved and has gone into the cache. */
  apply({ workloads, authorizations }: ResolvedChange): void {
    for (const uid of workloads.removed) this.#workloads.delete(uid);
    for (const [uid, workload] of workloads.upserts) this.#workloads.set(uid, workload);
    for (const name of authorizations.removed) this.#scopes.set(name, undefined);
    for (const [name, authorization] of authorizations.upserts) this.#scopes.set(name, authorization);
  }

  /** `pod`: `namespace/name`. Undefined for one that nothing is known of. */
  digestFor(pod: string): string | undefined {
    const workload = this.#workloads.get(podUid(pod));
    const trafficPolicy = this.#cache.resources(typeUrls.trafficPolicy)?.get(podUid(pod))?.version;
    if (workload === undefined || trafficPolicy === undefined) return undefined;
    const known = this.#cache.resources(typeUrls.authorization);
    const authorizations = new Map<string, string>();
    for (const name of this.#scopes.holdingFor(workload)) {
      const version = known?.get(name)?.version;
      if (version !== undefined) authorizations.set(name, version);
    }
    return ownPoliciesDigest({ trafficPolicy, authorizations });
  }
}
