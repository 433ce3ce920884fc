// Registry and policy over delta ADS: everything of each type from control to the agent, and what a sidecar asks for from there.

import type { Snapshot } from '../snapshot.ts';
import { AggregatedDiscoveryServiceClient } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import { registryChannelOptions } from '../wire/grpc.ts';
import { type GrpcTarget, openStream } from '../wire/grpc-target.ts';
import { type DeltaClientOptions, runDeltaClient } from './delta-client.ts';
import type { ResourceChange } from './resource-cache.ts';
import type { DiscoveryLog } from './stream.ts';

export interface DeltaAdsClientOptions {
  /** A function is asked for each stream: where several say the same, one may take another's place. */
  readonly target: GrpcTarget | (() => GrpcTarget);
  readonly nodeId: string;
  readonly token: Snapshot<string> | undefined;
  readonly typeUrls: readonly string[];
  /** Of types of which not everything is asked for. */
  readonly names?: DeltaClientOptions['subscriptions'];
  /** Throws to refuse a response; nothing of it may be in force then. */
  readonly apply: (typeUrl: string, change: ResourceChange) => void;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export function runDeltaAdsClient(options: DeltaAdsClientOptions): Promise<void> {
  const { target } = options;
  return runDeltaClient({
    ...options,
    name: 'ads',
    open: (metadata) =>
      openStream(
        AggregatedDiscoveryServiceClient,
        { target: typeof target === 'function' ? target() : target, options: registryChannelOptions },
        (client) => client.deltaAggregatedResources(metadata),
      ),
    subscriptions: new Map(options.typeUrls.map((typeUrl) => [typeUrl, options.names?.get(typeUrl) ?? []])),
  });
}
