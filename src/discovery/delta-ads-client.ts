// The asking side of delta ADS: wildcard subscriptions, ACK or NACK for each response, and what is held is named again on reconnection.

import { credentials, status } from '@grpc/grpc-js';
import { messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import { AggregatedDiscoveryServiceClient } from '../wire/gen/envoy/service/discovery/v3/ads.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { registryChannelOptions } from '../wire/grpc.ts';
import type { ResourceChange } from './resource-cache.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';

export interface DeltaAdsClientOptions {
  readonly address: string;
  readonly nodeId: string;
  readonly token: Snapshot<string> | undefined;
  readonly typeUrls: readonly string[];
  /** Throws to refuse a response; nothing of it may be in force then. */
  readonly apply: (typeUrl: string, change: ResourceChange) => void;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export async function runDeltaAdsClient(options: DeltaAdsClientOptions): Promise<void> {
  const client = new AggregatedDiscoveryServiceClient(options.address, credentials.createInsecure(), registryChannelOptions);
  const held = new Map(options.typeUrls.map((typeUrl) => [typeUrl, new Map<string, string>()]));
  const node = { id: options.nodeId, cluster: '', metadata: undefined, userAgentName: 'handfast', userAgentVersion: '' };

  await maintainStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>({
    name: 'ads',
    open: (metadata) => client.deltaAggregatedResources(metadata),
    token: options.token,
    onOpen: (send) => {
      for (const [typeUrl, versions] of held) send(request({ typeUrl, node, initialResourceVersions: Object.fromEntries(versions) }));
    },
    onMessage: (response, send) => {
      const { typeUrl, nonce } = response;
      try {
        const versions = held.get(typeUrl);
        if (versions === undefined) throw new Error(`resources of type ${typeUrl} were not asked for`);
        options.apply(typeUrl, changeOf(response));
        for (const name of response.removedResources) versions.delete(name);
        for (const { name, version } of response.resources) versions.set(name, version);
        send(request({ typeUrl, responseNonce: nonce }));
      } catch (error) {
        const message = messageOf(error);
        options.log.warn({ typeUrl, reason: message }, 'resources refused (NACK), the last good ones stay in force');
        send(request({ typeUrl, responseNonce: nonce, errorDetail: { code: status.INVALID_ARGUMENT, message, details: [] } }));
      }
    },
    log: options.log,
    signal: options.signal,
  });
  client.close();
}

function request(fields: Partial<DeltaDiscoveryRequest> & { typeUrl: string }): DeltaDiscoveryRequest {
  return {
    node: undefined,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: {},
    responseNonce: '',
    errorDetail: undefined,
    ...fields,
  };
}

function changeOf(response: DeltaDiscoveryResponse): ResourceChange {
  const upserts = new Map<string, Uint8Array>();
  for (const { name, resource } of response.resources) {
    if (resource === undefined || resource.typeUrl !== response.typeUrl) throw new Error(`resource ${name} is not a ${response.typeUrl}`);
    upserts.set(name, resource.value);
  }
  return { upserts, removed: response.removedResources };
}
