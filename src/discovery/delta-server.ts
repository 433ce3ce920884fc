// The serving side of delta xDS over a ResourceView: control serves agents with it, agents serve registry, policy and secrets to their proxies.

import { randomUUID } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { type ResourceView, type StreamAnswers, type SubscribedNames, subscribed } from './resource-view.ts';
import type { DiscoveryLog } from './stream.ts';

export type DeltaStream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/** One type on one stream: what the client wants and holds, and the response it has not answered yet. */
interface Subscription {
  names: SubscribedNames;
  readonly held: Map<string, string>;
  initial: boolean;
  /** Something changed while a response was unanswered. */
  stale: boolean;
  unanswered: { readonly nonce: string; readonly changed: readonly Resource[]; readonly removed: readonly string[] } | undefined;
}

export interface DeltaServerOptions {
  readonly view: ResourceView;
  /** Who is served, for the log. */
  readonly peer: string;
  readonly log: DiscoveryLog;
  readonly answers?: StreamAnswers;
  /** Throws to end the stream: for a name this client may not have. */
  readonly admit?: (request: DeltaDiscoveryRequest) => void;
}

/** Serves one stream until it ends. A subscription without names is a wildcard: every resource of the type. */
export function serveDeltaStream(call: DeltaStream, options: DeltaServerOptions): void {
  const { view, log, peer, answers, admit } = options;
  const subscriptions = new Map<string, Subscription>();

  const push = (typeUrl: string) => {
    const subscription = subscriptions.get(typeUrl);
    const resources = view.resources(typeUrl);
    // While a response is unanswered later changes gather, and go out as one.
    if (subscription === undefined || resources === undefined) return;
    if (subscription.unanswered !== undefined) {
      subscription.stale = true;
      return;
    }
    subscription.stale = false;
    const { held, names } = subscription;
    const wanted = subscribed(names, resources);
    const changed = wanted
      .filter(([name, { version }]) => held.get(name) !== version)
      .map(([name, { version, value }]): Resource => ({ name, version, aliases: [], resource: { typeUrl, value: Buffer.from(value) } }));
    const removed = [...held.keys()].filter((name) => !resources.has(name));
    if (changed.length === 0 && removed.length === 0 && !subscription.initial) return;
    subscription.unanswered = { nonce: randomUUID(), changed, removed };
    call.write({ systemVersionInfo: '', typeUrl, nonce: subscription.unanswered.nonce, resources: changed, removedResources: removed });
  };

  const unsubscribe = view.subscribe(push);
  call.on('data', (request: DeltaDiscoveryRequest) => {
    try {
      admit?.(request);
    } catch (error) {
      call.emit('error', error);
      return;
    }
    const { typeUrl } = request;
    const subscription = subscriptions.get(typeUrl);
    if (subscription === undefined) {
      // What the client holds from an earlier stream is not sent again; what is gone since then is taken back.
      const held = new Map(Object.entries(request.initialResourceVersions));
      subscriptions.set(typeUrl, { names: firstNames(request), held, initial: true, stale: false, unanswered: undefined });
    } else {
      changeNames(subscription, request);
      if (subscription.unanswered !== undefined && request.responseNonce === subscription.unanswered.nonce) {
        const { changed, removed } = subscription.unanswered;
        const versions = new Map(changed.map(({ name, version }) => [name, version]));
        subscription.unanswered = undefined;
        if (request.errorDetail !== undefined) {
          const reason = request.errorDetail.message;
          log.warn({ peer, typeUrl, reason }, 'resources refused (NACK)');
          answers?.nacked?.({ typeUrl, versions, reason });
          // Nothing of it is in force there: all of it goes out again with the next change, which may have come already, and not before.
          if (subscription.stale) push(typeUrl);
          return;
        }
        subscription.initial = false;
        for (const [name, version] of versions) subscription.held.set(name, version);
        for (const name of removed) subscription.held.delete(name);
        answers?.acked?.({ typeUrl, versions });
      }
    }
    push(typeUrl);
  });
  call.on('error', unsubscribe);
  call.on('cancelled', unsubscribe);
  call.on('end', () => {
    unsubscribe();
    call.end();
  });
}

function firstNames({ resourceNamesSubscribe: names }: DeltaDiscoveryRequest): SubscribedNames {
  return names.length === 0 || names.includes('*') ? 'everything' : new Set(names);
}

/** Names are added and dropped while the stream runs; a name asked for again is sent again. */
function changeNames(
  subscription: Subscription,
  { resourceNamesSubscribe: added, resourceNamesUnsubscribe: dropped }: DeltaDiscoveryRequest,
): void {
  if (added.length === 0 && dropped.length === 0) return;
  if (added.includes('*')) subscription.names = 'everything';
  for (const name of added) subscription.held.delete(name);
  if (subscription.names === 'everything') {
    if (dropped.includes('*')) subscription.names = new Set(added.filter((name) => name !== '*'));
    return;
  }
  const gone = new Set(dropped);
  subscription.names = new Set([...subscription.names, ...added].filter((name) => !gone.has(name)));
  for (const name of dropped) subscription.held.delete(name);
}
