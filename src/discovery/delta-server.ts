// The serving side of delta xDS over a ResourceView: control serves agents with it, agents serve registry, policy and secrets to their proxies.

import { randomUUID } from 'node:crypto';
import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import { refusalText, shortened } from './answer.ts';
import {
  type Cause,
  changeAsked,
  changeNames,
  type Difference,
  differenceOf,
  firstNames,
  firstSubscription,
  keepTouched,
  type Subscription,
} from './delta-subscription.ts';
import { meshOrder, type TypeOrder } from './mesh-order.ts';
import type { ResourceView, StreamAnswers, Touched } from './resource-view.ts';
import { type ResponseRules, ResponseWriter } from './response-writer.ts';
import type { DiscoveryLog } from './stream.ts';
import { StreamOrder } from './stream-order.ts';

export type DeltaStream = ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

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
  /** The mesh's unless told otherwise: a server that forgot about it would let somebody in. */
  readonly order?: TypeOrder;
}

/** Of one stream: more than any mesh has. */
const MAX_TYPES = 16;

const NOTHING: Difference = { missing: [], removed: [] };
/** Instead of a version: what was refused was the word that it is gone. */
const GONE = '';

/** Serves one stream until it ends. A subscription without names is a wildcard: every resource of the type. */
export function serveDeltaStream(call: DeltaStream, options: DeltaServerOptions): void {
  const { view, log, peer, answers, admit } = options;
  const subscriptions = new Map<string, Subscription>();
  /** Those of them whose names the view stands for. */
  const named = new Set<string>();

  let ended = false;
  /** Of these types something is to be said once there is room. */
  const waiting = new Set<string>();
  const writer = new ResponseWriter(call, options, () => {
    const types = [...waiting];
    waiting.clear();
    for (const typeUrl of types) speak(typeUrl);
  });
  const order = new StreamOrder({ rule: options.order ?? meshOrder, view, subscriptions, push: (typeUrl) => speak(typeUrl), peer, log });

  /** Says what is to be said of the type, and then of those that may have waited for it. */
  const speak = (typeUrl: string, why?: Cause) => {
    push(typeUrl, why ?? subscriptions.get(typeUrl)?.missed ?? 'request');
    for (const other of order.waitingFor(typeUrl)) push(other, subscriptions.get(other)?.missed ?? 'request');
  };

  const push = (typeUrl: string, why: Cause) => {
    const subscription = subscriptions.get(typeUrl);
    const resources = view.resources(typeUrl);
    // While a response is unanswered later changes gather, and go out as one.
    if (ended || subscription === undefined || resources === undefined) return;
    if (subscription.unanswered !== undefined || !writer.free || !order.admits(typeUrl)) {
      if (why === 'change') subscription.missed = why;
      if (subscription.unanswered === undefined && !writer.free) waiting.add(typeUrl);
      return;
    }
    const { refused, initial, owed } = subscription;
    const difference = differenceOf(subscription, resources);
    const { missing, removed } = order.sayable(typeUrl, difference);
    const isHeldBack = !isAll({ missing, removed }, difference);
    const fresh = {
      missing: missing.filter(([name, { version }]) => refused.get(name) !== version),
      removed: removed.filter((name) => refused.get(name) !== GONE),
    };
    if (isHeldBack && why === 'change') subscription.missed = why;
    // What has come meanwhile answers for itself.
    const due = [...owed].filter((name) => view.asked?.isUnknown?.(typeUrl, name) !== true);
    const nobody = due.filter((name) => view.asked?.isAnswered(typeUrl, name) !== true);
    const isNothing = fresh.missing.length === 0 && fresh.removed.length === 0 && nobody.length === 0;
    // The first word is not that nothing is known yet.
    if (isNothing && initial && due.length < owed.size) return;
    if (isNothing && !initial) {
      keepTouched(subscription, difference, NOTHING);
      order.said(typeUrl, { whole: isAll(NOTHING, difference), response: false });
      return;
    }
    if (!writer.mayPush()) return;
    const sent = why === 'change' ? { missing, removed } : fresh;
    const versions = new Map(sent.missing.map(([name, { version }]) => [name, version]));
    keepTouched(subscription, difference, sent);
    subscription.initial = false;
    subscription.missed = isHeldBack ? why : 'request';
    subscription.unanswered = { nonce: randomUUID(), versions, removed: sent.removed, paid: due };
    for (const name of due) owed.delete(name);
    for (const name of versions.keys()) subscription.again.delete(name);
    order.said(typeUrl, { whole: isAll(sent, difference), response: true });
    writer.write({
      systemVersionInfo: '',
      typeUrl,
      nonce: subscription.unanswered.nonce,
      resources: sent.missing.map(
        ([name, { version, value }]): Resource => ({
          name,
          version,
          aliases: view.asked?.aliasesOf(typeUrl, name) ?? [],
          resource: { typeUrl, value: Buffer.from(value) },
        }),
      ),
      removedResources: [...new Set([...sent.removed, ...nobody])],
    });
  };

  /** The answer to the response that has none yet; any other says nothing. */
  const judge = (typeUrl: string, subscription: Subscription, { responseNonce, errorDetail }: DeltaDiscoveryRequest) => {
    const { unanswered, held, refused, again } = subscription;
    if (unanswered === undefined || responseNonce !== unanswered.nonce) return;
    const { versions, removed, paid } = unanswered;
    subscription.unanswered = undefined;
    writer.answered(responseNonce);
    order.answered(typeUrl, { taken: errorDetail === undefined });
    if (errorDetail !== undefined) {
      const reason = refusalText(errorDetail);
      log.warn({ peer, typeUrl, reason }, 'resources refused (NACK)');
      answers?.nacked?.({ typeUrl, versions, reason });
      for (const [name, version] of versions) if (!again.has(name)) refused.set(name, version);
      for (const name of removed) refused.set(name, GONE);
      // It goes out again with the next change, and so does the word of what is gone.
      for (const name of [...versions.keys(), ...removed]) subscription.touched?.add(name);
      // Nothing of the response was taken, and it was not for their sake.
      for (const name of paid) subscription.owed.add(name);
      return;
    }
    for (const [name, version] of versions) {
      refused.delete(name);
      if (!again.has(name)) held.set(name, version);
    }
    for (const name of removed) {
      held.delete(name);
      refused.delete(name);
    }
    const { names } = subscription;
    const wanted = [...versions].filter(([name]) => names === 'everything' || names.has(name));
    answers?.acked?.({ typeUrl, versions: new Map(wanted) });
    answers?.settled?.({ typeUrl, held });
  };

  /** All of it is known before anything is said of any: what is to be said first depends on it. */
  const heed = (touched: Touched) => {
    for (const [typeUrl, names] of touched) {
      const subscription = subscriptions.get(typeUrl);
      if (names === undefined && subscription !== undefined) subscription.touched = undefined;
      for (const name of names ?? []) subscription?.touched?.add(name);
      order.changed(typeUrl);
    }
  };

  const change = (typeUrl: string, subscription: Subscription, names: { added: readonly string[]; dropped: readonly string[] }) => {
    named.add(typeUrl);
    const touched = view.asked === undefined ? [] : [...changeAsked(subscription, { ...names, typeUrl, asked: view.asked })];
    heed(touched);
    return touched;
  };

  const unsubscribe = view.subscribe((typeUrl, names, along = []) => {
    const touched = [[typeUrl, names] as const, ...along];
    heed(touched);
    for (const [changed] of touched) speak(changed, 'change');
  });
  call.on('data', (request: DeltaDiscoveryRequest) => {
    // What was sent before the refusal was read.
    if (ended) return;
    const { typeUrl = '' } = request.typeUrl === '' ? options : request;
    let touched: Touched = [];
    try {
      if (options.typeUrl !== undefined && typeUrl !== options.typeUrl)
        throw statusError(status.INVALID_ARGUMENT, `${shortened(typeUrl)} is not served here, only ${options.typeUrl}`);
      admit?.(request);
      const subscription = subscriptions.get(typeUrl);
      if (subscription === undefined) {
        if (view.asked?.typeUrls.includes(typeUrl) === false)
          throw statusError(status.INVALID_ARGUMENT, `${shortened(typeUrl)} is not served here`);
        if (subscriptions.size >= MAX_TYPES) throw statusError(status.INVALID_ARGUMENT, `more than ${MAX_TYPES} types on one stream`);
        const first = firstSubscription(request);
        subscriptions.set(typeUrl, first);
        order.subscribed(typeUrl);
        const names = firstNames(first, view.asked);
        if (names !== undefined) touched = change(typeUrl, first, { added: names, dropped: [] });
      } else if (named.has(typeUrl)) {
        judge(typeUrl, subscription, request);
        const { resourceNamesSubscribe: added, resourceNamesUnsubscribe: dropped } = request;
        touched = change(typeUrl, subscription, { added, dropped });
      } else {
        judge(typeUrl, subscription, request);
        if (view.asked !== undefined && request.resourceNamesSubscribe.length + request.resourceNamesUnsubscribe.length > 0)
          throw statusError(status.INVALID_ARGUMENT, 'a stream asks for everything of a type, or for names: open another one');
        const dropped = changeNames(subscription, request);
        if (dropped.length > 0) answers?.dropped?.({ typeUrl, names: dropped });
      }
    } catch (error) {
      call.emit('error', error);
      return;
    }
    speak(typeUrl);
    for (const [changed] of touched) if (changed !== typeUrl) speak(changed);
  });
  whenOver(call, () => {
    ended = true;
    order.end();
    writer.end();
    unsubscribe();
  });
  call.on('end', () => call.end());
}

function isAll(part: Difference, whole: Difference): boolean {
  return part.missing.length === whole.missing.length && part.removed.length === whole.removed.length;
}
