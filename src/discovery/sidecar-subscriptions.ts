// What a sidecar asks its agent for: its own workload with what holds for it, and the addresses that its connections use.

import type { DeltaAdsClientOptions } from './delta-ads-client.ts';
import type { ChangingNames } from './delta-client.ts';
import type { Interests } from './interests.ts';
import { meshTypeUrls } from './mesh-source.ts';
import { typeUrls } from './type-urls.ts';

/** `self` is the name of its workload. Policies come with the workloads that are asked for. */
export function sidecarSubscriptions(self: string, interests: Interests): Pick<DeltaAdsClientOptions, 'typeUrls' | 'names'> {
  return {
    typeUrls: meshTypeUrls,
    names: new Map<string, ChangingNames | readonly string[]>([
      [typeUrls.address, interests],
      [typeUrls.trafficPolicy, [self]],
      [typeUrls.authorization, [self]],
    ]),
  };
}
