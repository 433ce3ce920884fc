// One type on one delta stream: what its client wants and holds, and what there is to tell it.

import { status } from '@grpc/grpc-js';
import type { DeltaDiscoveryRequest } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { statusError } from '../wire/grpc.ts';
import {
  type AskedNames,
  type Resources,
  type SubscribedNames,
  subscribed,
  type Touched,
  type VersionedResource,
} from './resource-view.ts';

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
  /** Where the view stands for what is asked for: names that an answer is owed to, if only that nobody has them, or that they are not asked for any more. */
  readonly owed: Set<string>;
  /** Asked for since they were sent: the answer to what is under way is none to that. */
  readonly again: Set<string>;
  /** What happened while nothing could be said: a response was unanswered, one of any type was on its way out, or another type had to go first. */
  missed: Cause;
  unanswered: Unanswered | undefined;
}

/** A response that was sent: `paid` are the names that were owed an answer, and got it. */
export interface Unanswered {
  readonly nonce: string;
  readonly versions: ReadonlyMap<string, string>;
  readonly removed: readonly string[];
  readonly paid: readonly string[];
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
  return {
    names,
    held,
    refused: new Map(),
    touched: undefined,
    initial: true,
    owed: new Set(),
    again: new Set(),
    missed: 'request',
    unanswered: undefined,
  };
}

/** The same for a view in which names stand for others: what it offers is what the client wants. Undefined where the client asks for everything, or the view has only names of its own. */
export function firstNames(subscription: Subscription, asked: AskedNames | undefined): readonly string[] | undefined {
  const { names } = subscription;
  if (asked === undefined || names === 'everything') return undefined;
  subscription.names = 'everything';
  return [...names];
}

/** Names of a subscription that the view stands for. Returns what has changed by it, in whatever types. */
export function changeAsked(
  subscription: Subscription,
  { typeUrl, asked, added, dropped }: { typeUrl: string; asked: AskedNames; added: readonly string[]; dropped: readonly string[] },
): Touched {
  const { held, refused, owed, again, initial } = subscription;
  const { answers, touched } = asked.change(typeUrl, { added, dropped });
  // What a client names that comes back is what it holds; later it asks because it wants to hear.
  for (const name of initial ? [] : answers) {
    held.delete(name);
    refused.delete(name);
    again.add(name);
    subscription.touched?.add(name);
  }
  for (const name of [...added, ...dropped]) owed.add(name);
  return touched;
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

export function differenceOf({ names, held, refused, touched }: Subscription, resources: Resources): Difference {
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
  const differing = new Set([...difference.missing.map(([name]) => name), ...difference.removed]);
  // Back at what the client holds: whatever comes next of it is news, also if it was refused before.
  for (const name of subscription.touched ?? [...subscription.refused.keys()]) if (!differing.has(name)) subscription.refused.delete(name);
  subscription.touched = new Set([...differing].filter((name) => !said.has(name)));
}

function tooManyNames(): Error {
  return statusError(status.RESOURCE_EXHAUSTED, `more than ${MAX_NAMES} names on one stream`);
}
