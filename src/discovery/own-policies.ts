// One word for all policies that a sidecar holds for its own pod: control knows the one that it should be, the agent the one that the sidecar has confirmed.

import { createHash } from 'node:crypto';
import { typeUrls } from './type-urls.ts';

/** Versions by name. */
export interface OwnPolicies {
  /** Of the pod's TrafficPolicy. */
  readonly trafficPolicy: string;
  readonly authorizations: ReadonlyMap<string, string>;
}

/** The same for the same names and versions, in whatever order. */
export function ownPoliciesDigest({ trafficPolicy, authorizations }: OwnPolicies): string {
  const lines = [...authorizations].map(([name, version]) => `${typeUrls.authorization} ${name} ${version}`).sort();
  return createHash('sha256')
    .update([`${typeUrls.trafficPolicy} ${trafficPolicy}`, ...lines].join('\n'))
    .digest('base64url')
    .slice(0, 22);
}
