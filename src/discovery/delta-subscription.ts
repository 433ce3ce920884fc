// One type on one delta stream: what its client wants and holds, and what there is to tell it.

import { status } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { statusError } from '../wire/grpc.ts';
import { type SubscribedNames, subscribed, type VersionedResource } from './resource-view.ts';

/** Why something is said: what was refused goes out again with a change alone. */
export type Cause = 'request' | 'change';

export type NamedResource = readonly [name: string, resource: VersionedResource];

export interface Subscription {
  names: SubscribedNames;
  /** Names to versions that the client has taken. */
  readonly held: Map<string, string>;
  /** What was refused goes out again with the next change alone: it may have been refused for another's sake. */
  readonly refused: Map<string, string>;
  /** What may differ from what the client holds; undefined: anything may. A mesh has too many names to look at all of them for each change. */
  touched: Set<string> | undefined;
  initial: boolean;
  /** What happened while nothing could be said: a response was unanswered, one of any type was on its way out, or another type had to go first. */
  missed: Cause;
  unanswered: { readonly nonce: string; readonly versions: ReadonlyMap<string, string>; readonly removed: readonly string[] } | undefined;
}

/** What there is that the client does not hold, and what it holds that is gone. */
export interface Difference {
  readonly missing: readonly NamedResource[];
  readonly removed: readonly string[];
}

/** Names that one client can want on one stream; more than any mesh has. */
const MAX_NAMES = 100_000;

/** What the client holds from an earlier stream is not sent again; what is gone since then is taken back. */
export function firstSubscription(request: DeltaDiscoveryRequest): Subscription {
  const { resourceNamesSubscribe: asked, initialResourceVersions } = request;
  const names = asked.length === 0 || asked.includes('*') ? 'everything' : new Set(asked);
  const held = new Map(Object.entries(initialResourceVersions));
  if (held.size > MAX_NAMES || (names !== 'everything' && names.size > MAX_NAMES)) throw tooManyNames();
  return { names, held, refused: new Map(), touched: undefined, initial: true, missed: 'request', unanswered: undefined };
}

/** Names are added and dropped while the stream runs; a name asked for again is sent again. Returns the names that are not asked for any more. */
export function changeNames(
  subscription: Subscription,
  { resourceNamesSubscribe: added, resourceNamesUnsubscribe: dropped }: DeltaDiscoveryRequest,
): readonly string[] {
  if (added.length === 0 && dropped.length === 0) return [];
  const { held, refused } = subscription;
  if (added.includes('*')) subscription.names = 'everything';
  subscription.touched = undefined;
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

export function differenceOf(
  { names, held, refused, touched }: Subscription,
  resources: ReadonlyMap<string, VersionedResource>,
): Difference {
  const candidates: SubscribedNames =
    touched === undefined ? names : names === 'everything' ? touched : new Set([...touched].filter((name) => names.has(name)));
  return {
    missing: subscribed(candidates, resources).filter(([name, { version }]) => held.get(name) !== version),
    // A client that came back with more than it could name may hold what it has refused since.
    removed: [...(touched ?? new Set([...held.keys(), ...refused.keys()]))].filter(
      (name) => (held.has(name) || refused.has(name)) && !resources.has(name),
    ),
  };
}

/** The names that differ and were not sent now, because they were refused or have to wait, are looked at again the next time. */
export function keepTouched(subscription: Subscription, difference: Difference, sent: Difference): void {
  const said = new Set([...sent.missing.map(([name]) => name), ...sent.removed]);
  const differing = [...difference.missing.map(([name]) => name), ...difference.removed];
  subscription.touched = new Set(differing.filter((name) => !said.has(name)));
}

function tooManyNames(): Error {
  return statusError(status.RESOURCE_EXHAUSTED, `more than ${MAX_NAMES} names on one stream`);
}
