// The serving side of delta ADS over a ResourceCache: control serves agents with it, agents relay to their proxies with it.

import { randomUUID } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import type { ResourceCache } from './resource-cache.ts';
import type { DiscoveryLog } from './stream.ts';

export type DeltaStream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/** One type on one stream: what the client has, and the response it has not answered yet. */
interface Subscription {
  readonly sent: Map<string, string>;
  initial: boolean;
  unanswered: string | undefined;
}

/** Serves one stream until it ends. Subscriptions are wildcards: every client gets every resource of a type it asks for. */
export function serveDeltaStream(call: DeltaStream, deps: { cache: ResourceCache; peer: string; log: DiscoveryLog }): void {
  const { cache, log, peer } = deps;
  const subscriptions = new Map<string, Subscription>();

  const push = (typeUrl: string) => {
    const subscription = subscriptions.get(typeUrl);
    const resources = cache.resources(typeUrl);
    // While a response is unanswered later changes gather, and go out as one.
    if (subscription === undefined || resources === undefined || subscription.unanswered !== undefined) return;
    const changed: Resource[] = [];
    for (const [name, { version, value }] of resources) {
      if (subscription.sent.get(name) === version) continue;
      changed.push({ name, version, aliases: [], resource: { typeUrl, value: Buffer.from(value) } });
      subscription.sent.set(name, version);
    }
    const removed = [...subscription.sent.keys()].filter((name) => !resources.has(name));
    for (const name of removed) subscription.sent.delete(name);
    if (changed.length === 0 && removed.length === 0 && !subscription.initial) return;
    subscription.initial = false;
    subscription.unanswered = randomUUID();
    call.write({ systemVersionInfo: '', typeUrl, nonce: subscription.unanswered, resources: changed, removedResources: removed });
  };

  const unsubscribe = cache.subscribe(push);
  call.on('data', (request: DeltaDiscoveryRequest) => {
    const subscription = subscriptions.get(request.typeUrl);
    if (subscription === undefined) {
      // What the client holds from an earlier stream is not sent again; what is gone since then is taken back.
      const sent = new Map(Object.entries(request.initialResourceVersions));
      subscriptions.set(request.typeUrl, { sent, initial: true, unanswered: undefined });
    } else if (request.responseNonce === subscription.unanswered) {
      subscription.unanswered = undefined;
      if (request.errorDetail !== undefined) {
        log.warn({ peer, typeUrl: request.typeUrl, reason: request.errorDetail.message }, 'resources refused (NACK)');
      }
    }
    push(request.typeUrl);
  });
  call.on('error', unsubscribe);
  call.on('cancelled', unsubscribe);
  call.on('end', () => {
    unsubscribe();
    call.end();
  });
}
