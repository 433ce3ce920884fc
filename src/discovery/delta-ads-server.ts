// The serving side of delta ADS over a ResourceCache: control serves agents with it, agents relay to their proxies with it.

import { randomUUID } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import type { ResourceCache } from './resource-cache.ts';
import type { DiscoveryLog } from './stream.ts';

export type DeltaStream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/** One type on one stream: what the client holds, and the response it has not answered yet. */
interface Subscription {
  readonly held: Map<string, string>;
  initial: boolean;
  /** Something changed while a response was unanswered. */
  stale: boolean;
  unanswered: { readonly nonce: string; readonly changed: readonly Resource[]; readonly removed: readonly string[] } | undefined;
}

/** Serves one stream until it ends. Subscriptions are wildcards: every client gets every resource of a type it asks for. */
export function serveDeltaStream(call: DeltaStream, deps: { cache: ResourceCache; peer: string; log: DiscoveryLog }): void {
  const { cache, log, peer } = deps;
  const subscriptions = new Map<string, Subscription>();

  const push = (typeUrl: string) => {
    const subscription = subscriptions.get(typeUrl);
    const resources = cache.resources(typeUrl);
    // While a response is unanswered later changes gather, and go out as one.
    if (subscription === undefined || resources === undefined) return;
    if (subscription.unanswered !== undefined) {
      subscription.stale = true;
      return;
    }
    subscription.stale = false;
    const { held } = subscription;
    const changed: Resource[] = [];
    for (const [name, { version, value }] of resources) {
      if (held.get(name) !== version) changed.push({ name, version, aliases: [], resource: { typeUrl, value: Buffer.from(value) } });
    }
    const removed = [...held.keys()].filter((name) => !resources.has(name));
    if (changed.length === 0 && removed.length === 0 && !subscription.initial) return;
    subscription.unanswered = { nonce: randomUUID(), changed, removed };
    call.write({ systemVersionInfo: '', typeUrl, nonce: subscription.unanswered.nonce, resources: changed, removedResources: removed });
  };

  const unsubscribe = cache.subscribe(push);
  call.on('data', (request: DeltaDiscoveryRequest) => {
    const subscription = subscriptions.get(request.typeUrl);
    if (subscription === undefined) {
      // What the client holds from an earlier stream is not sent again; what is gone since then is taken back.
      const held = new Map(Object.entries(request.initialResourceVersions));
      subscriptions.set(request.typeUrl, { held, initial: true, stale: false, unanswered: undefined });
    } else if (request.responseNonce === subscription.unanswered?.nonce) {
      const { changed, removed } = subscription.unanswered;
      subscription.unanswered = undefined;
      if (request.errorDetail !== undefined) {
        log.warn({ peer, typeUrl: request.typeUrl, reason: request.errorDetail.message }, 'resources refused (NACK)');
        // Nothing of it is in force there: all of it goes out again with the next change, which may have come already, and not before.
        if (!subscription.stale) return;
        push(request.typeUrl);
        return;
      }
      subscription.initial = false;
      for (const { name, version } of changed) subscription.held.set(name, version);
      for (const name of removed) subscription.held.delete(name);
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
