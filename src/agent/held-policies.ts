// What each sidecar of this node has confirmed of its own pod's policies, for those who have written them.

import { ownPoliciesDigest } from '../discovery/own-policies.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { parseSpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import type { HeldPolicies as Held } from '../wire/gen/handfast/report/v1/report.ts';

/** What one stream of a sidecar has taken, by type, name and version. */
export interface TakenPolicies {
  /** `namespace/name`, by the sidecar's word. */
  readonly pod: string;
  /** SPIFFE ID that it has proven. */
  readonly reporter: string;
  taken(typeUrl: string): ReadonlyMap<string, string>;
}

export class HeldPolicies {
  readonly #streams = new Set<TakenPolicies>();

  /** Until the returned function is called. */
  follow(stream: TakenPolicies): () => void {
    this.#streams.add(stream);
    return () => this.#streams.delete(stream);
  }

  /** Of those whose pod is in their own namespace, and that have a policy for it. */
  get all(): readonly Held[] {
    return [...this.#streams].flatMap(({ pod, reporter, taken }) => {
      const [namespace] = pod.split('/');
      const trafficPolicy = [...taken(typeUrls.trafficPolicy)].find(([name]) => name.endsWith(`//Pod/${pod}`))?.[1];
      if (trafficPolicy === undefined || workloadOf(parseSpiffeId(reporter))?.namespace !== namespace) return [];
      return [{ pod, reporter, digest: ownPoliciesDigest({ trafficPolicy, authorizations: taken(typeUrls.authorization) }) }];
    });
  }
}
