// The serving side of delta xDS over a ResourceView: control serves agents with it, agents serve registry, policy and secrets to their proxies.

import { randomUUID } from 'node:crypto';
import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import { refusalText, shortened } from './answer.ts';
import { type ResourceView, type StreamAnswers, type SubscribedNames, subscribed } from './resource-view.ts';
import { type ResponseRules, ResponseWriter } from './response-writer.ts';
import type { DiscoveryLog } from './stream.ts';

export type DeltaStream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/** One type on one stream: what the client wants and holds, and the response it has not answered yet. */
interface Subscription {
  names: SubscribedNames;
  readonly held: Map<string, string>;
  /** What was refused goes out again with the next change alone: it may have been refused for another's sake. */
  readonly refused: Map<string, string>;
  initial: boolean;
  /** What happened while a response was unanswered, or one of any type was on its way out. */
  missed: Cause;
  unanswered: { readonly nonce: string; readonly versions: ReadonlyMap<string, string>; readonly removed: readonly string[] } | undefined;
}

type Cause = 'request' | 'change';

export interface DeltaServerOptions extends ResponseRules {
  readonly view: ResourceView;
  /** Who is served, for the log. */
  readonly peer: string;
  readonly log: DiscoveryLog;
  readonly answers?: StreamAnswers;
  /** Throws to end the stream: for a name this client may not have. */
  readonly admit?: (request: DeltaDiscoveryRequest) => void;
  /** The one type of the service, where it has only one: what a request means that names none. */
  readonly typeUrl?: string;
}

/** Of one stream: more than any mesh has types, and names that one client can want. */
const MAX_TYPES = 16;
const MAX_NAMES = 100_000;

/** Serves one stream until it ends. A subscription without names is a wildcard: every resource of the type. */
export function serveDeltaStream(call: DeltaStream, options: DeltaServerOptions): void {
  const { view, log, peer, answers, admit } = options;
  const subscriptions = new Map<string, Subscription>();

  let ended = false;
  /** Of these types something is to be said once there is room. */
  const waiting = new Set<string>();
  const writer = new ResponseWriter(call, options, () => {
    const types = [...waiting];
    waiting.clear();
    for (const typeUrl of types) push(typeUrl, subscriptions.get(typeUrl)?.missed ?? 'request');
  });

  const push = (typeUrl: string, why: Cause) => {
    const subscription = subscriptions.get(typeUrl);
    const resources = view.resources(typeUrl);
    // While a response is unanswered later changes gather, and go out as one.
    if (ended || subscription === undefined || resources === undefined) return;
    if (subscription.unanswered !== undefined || !writer.free) {
      if (why === 'change') subscription.missed = why;
      if (subscription.unanswered === undefined) waiting.add(typeUrl);
      return;
    }
    const { held, refused, names, initial } = subscription;
    const missing = subscribed(names, resources).filter(([name, { version }]) => held.get(name) !== version);
    const fresh = missing.filter(([name, { version }]) => refused.get(name) !== version);
    const removed = [...held.keys()].filter((name) => !resources.has(name));
    if (fresh.length === 0 && removed.length === 0 && !initial) return;
    if (!writer.mayPush()) return;
    const changed = why === 'change' ? missing : fresh;
    const versions = new Map(changed.map(([name, { version }]) => [name, version]));
    subscription.initial = false;
    subscription.missed = 'request';
    subscription.unanswered = { nonce: randomUUID(), versions, removed };
    writer.write({
      systemVersionInfo: '',
      typeUrl,
      nonce: subscription.unanswered.nonce,
      resources: changed.map(
        ([name, { version, value }]): Resource => ({ name, version, aliases: [], resource: { typeUrl, value: Buffer.from(value) } }),
      ),
      removedResources: removed,
    });
  };

  /** The answer to the response that has none yet; any other says nothing. */
  const judge = (typeUrl: string, subscription: Subscription, { responseNonce, errorDetail }: DeltaDiscoveryRequest) => {
    const { unanswered, held, refused } = subscription;
    if (unanswered === undefined || responseNonce !== unanswered.nonce) return;
    const { versions, removed } = unanswered;
    subscription.unanswered = undefined;
    writer.answered(responseNonce);
    if (errorDetail !== undefined) {
      const reason = refusalText(errorDetail);
      log.warn({ peer, typeUrl, reason }, 'resources refused (NACK)');
      answers?.nacked?.({ typeUrl, versions, reason });
      for (const [name, version] of versions) refused.set(name, version);
      return;
    }
    for (const [name, version] of versions) {
      held.set(name, version);
      refused.delete(name);
    }
    for (const name of removed) held.delete(name);
    const { names } = subscription;
    const wanted = [...versions].filter(([name]) => names === 'everything' || names.has(name));
    answers?.acked?.({ typeUrl, versions: new Map(wanted) });
  };

  const unsubscribe = view.subscribe((typeUrl) => push(typeUrl, 'change'));
  call.on('data', (request: DeltaDiscoveryRequest) => {
    // What was sent before the refusal was read.
    if (ended) return;
    const { typeUrl = '' } = request.typeUrl === '' ? options : request;
    try {
      if (options.typeUrl !== undefined && typeUrl !== options.typeUrl)
        throw statusError(status.INVALID_ARGUMENT, `${shortened(typeUrl)} is not served here, only ${options.typeUrl}`);
      admit?.(request);
      const subscription = subscriptions.get(typeUrl);
      if (subscription === undefined) {
        if (subscriptions.size >= MAX_TYPES) throw statusError(status.INVALID_ARGUMENT, `more than ${MAX_TYPES} types on one stream`);
        subscriptions.set(typeUrl, firstSubscription(request));
      } else {
        judge(typeUrl, subscription, request);
        const dropped = changeNames(subscription, request);
        if (dropped.length > 0) answers?.dropped?.({ typeUrl, names: dropped });
      }
    } catch (error) {
      call.emit('error', error);
      return;
    }
    push(typeUrl, subscriptions.get(typeUrl)?.missed ?? 'request');
  });
  whenOver(call, () => {
    ended = true;
    writer.end();
    unsubscribe();
  });
  call.on('end', () => call.end());
}

/** What the client holds from an earlier stream is not sent again; what is gone since then is taken back. */
function firstSubscription(request: DeltaDiscoveryRequest): Subscription {
  const { resourceNamesSubscribe: asked, initialResourceVersions } = request;
  const names = asked.length === 0 || asked.includes('*') ? 'everything' : new Set(asked);
  const held = new Map(Object.entries(initialResourceVersions));
  if (held.size > MAX_NAMES || (names !== 'everything' && names.size > MAX_NAMES)) throw tooManyNames();
  return { names, held, refused: new Map(), initial: true, missed: 'request', unanswered: undefined };
}

/** Names are added and dropped while the stream runs; a name asked for again is sent again. Returns the names that are not asked for any more. */
function changeNames(
  subscription: Subscription,
  { resourceNamesSubscribe: added, resourceNamesUnsubscribe: dropped }: DeltaDiscoveryRequest,
): readonly string[] {
  if (added.length === 0 && dropped.length === 0) return [];
  const { held, refused } = subscription;
  if (added.includes('*')) subscription.names = 'everything';
  for (const name of added) {
    held.delete(name);
    refused.delete(name);
  }
  const { names } = subscription;
  const gone = new Set(dropped);
  if (names === 'everything' && !gone.has('*')) return [];
  const before = names === 'everything' ? [...held.keys()] : [...names];
  const now = new Set([...(names === 'everything' ? [] : names), ...added].filter((name) => name !== '*' && !gone.has(name)));
  if (now.size > MAX_NAMES) throw tooManyNames();
  subscription.names = now;
  const lost = before.filter((name) => !now.has(name));
  for (const name of lost) {
    held.delete(name);
    refused.delete(name);
  }
  return lost;
}

function tooManyNames(): Error {
  return statusError(status.RESOURCE_EXHAUSTED, `more than ${MAX_NAMES} names on one stream`);
}
