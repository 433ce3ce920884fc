// One stream's keeping of a TypeOrder: which part of what is to be said may be said now, and which waits for the client's answer to something else.

import { type Difference, differenceOf, type NamedResource, type Subscription } from './delta-subscription.ts';
import type { TypeOrder } from './mesh-order.ts';
import type { ResourceView } from './resource-view.ts';
import type { DiscoveryLog } from './stream.ts';

export interface StreamOrderOptions {
  readonly rule: TypeOrder;
  readonly view: ResourceView;
  readonly subscriptions: ReadonlyMap<string, Subscription>;
  /** Says what may be said of a type. */
  readonly push: (typeUrl: string) => void;
  /** Who is served, for the log. */
  readonly peer: string;
  readonly log: Pick<DiscoveryLog, 'warn'>;
}

/** A client subscribes to both types at once, but its requests may arrive apart; one that wants only one of them is not kept waiting for longer. */
const BOTH_WITHIN_MS = 1_000;

const NEVER = -1;
const MAX_LOGGED = 5;

/**
 * No two can wait for each other: what is named waits, if at all, for all that names; that waits only for the part of the named which never waits, and for the answer to it.
 * After a refusal: a policy that stays as far-reaching as it was, or that held without being named and is gone, waits for an answer alone, so that a client with a bad address does not keep old rules.
 */
export class StreamOrder {
  readonly #options: StreamOrderOptions;
  /** Changes of the naming type are counted: how many there were, had been at the last change of the named one, and are in what the client has taken, or answered. */
  #changes = 0;
  #barrier = 0;
  #taken = NEVER;
  #answered = NEVER;
  #inFlight: { readonly changes: number; readonly whole: boolean } | undefined;
  #bothAwaited = true;
  /** It was said that the naming type waits for what was refused. */
  #isWaitLogged = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: StreamOrderOptions) {
    this.#options = options;
  }

  /** The types that may have waited for this one. */
  waitingFor(typeUrl: string): readonly string[] {
    const { named, naming, first = naming } = this.#options.rule;
    if (typeUrl === naming) return [named, first];
    return typeUrl === named || typeUrl === first ? [naming] : [];
  }

  subscribed(typeUrl: string): void {
    const other = this.#otherOf(typeUrl);
    if (other === undefined) return;
    if (this.#options.subscriptions.has(other)) this.#stopWaiting();
    else if (this.#bothAwaited)
      this.#timer = setTimeout(() => {
        this.#stopWaiting();
        this.#options.push(typeUrl);
      }, BOTH_WITHIN_MS).unref();
  }

  changed(typeUrl: string): void {
    if (typeUrl === this.#options.rule.naming) this.#changes++;
    if (typeUrl === this.#options.rule.named) this.#barrier = this.#changes;
  }

  /** Whether anything may be said of the type now. */
  admits(typeUrl: string): boolean {
    const { rule, view, subscriptions } = this.#options;
    if (typeUrl !== rule.naming) return true;
    if (this.#isFirstToSay()) return false;
    const named = subscriptions.get(rule.named);
    if (named === undefined) return !this.#bothAwaited;
    const resources = view.resources(rule.named);
    if (resources === undefined || named.initial) return false;
    const first = differenceOf(named, resources).missing.filter((each) => this.#goesBefore(named, each));
    if (first.length > 0) {
      this.#logWait(named, first);
      return false;
    }
    this.#isWaitLogged = false;
    return ![...(named.unanswered?.versions ?? [])].some(([name, version]) => {
      const resource = resources.get(name);
      if (resource === undefined || rule.onlyByName(resource)) return false;
      // What is under way is taken as soon as it is read, but it may be refused: then what is held goes on to hold.
      const held = named.held.get(name);
      const others = [...(held === undefined ? [] : [held]), ...(version === resource.version ? [] : [version])];
      return others.some((other) => rule.heldByName(other) !== false);
    });
  }

  /** Of a difference, what may be said now. */
  sayable(typeUrl: string, { missing, removed }: Difference): Difference {
    const { rule, subscriptions } = this.#options;
    if (typeUrl === rule.first) {
      const naming = subscriptions.get(rule.naming);
      const isThere = (name: string) => naming?.held.has(name) === true || naming?.unanswered?.versions.has(name) === true;
      return { missing, removed: removed.filter((name) => !isThere(name)) };
    }
    if (typeUrl !== rule.named) return { missing, removed };
    const held = subscriptions.get(typeUrl)?.held;
    const [taken, answered] = [this.#hasCaughtUp(this.#taken), this.#hasCaughtUp(this.#answered)];
    return {
      missing: missing.filter(([name, resource]) => {
        const version = held?.get(name);
        // Always asked, so that the version is known when the client holds it.
        const byName = rule.onlyByName(resource);
        return version === undefined || !byName || taken || (answered && rule.heldByName(version) === true);
      }),
      removed: removed.filter((name) => taken || (answered && rule.heldByName(held?.get(name) ?? '') === false)),
    };
  }

  /** A response of the type goes out, or there is nothing to say that was not refused: `whole` when it leaves no difference. */
  said(typeUrl: string, { whole, response }: { whole: boolean; response: boolean }): void {
    if (typeUrl !== this.#options.rule.naming) return;
    this.#inFlight = { changes: this.#changes, whole };
    if (!response) this.answered(typeUrl, { taken: true });
  }

  answered(typeUrl: string, { taken }: { taken: boolean }): void {
    if (typeUrl !== this.#options.rule.naming || this.#inFlight === undefined) return;
    this.#answered = this.#inFlight.changes;
    if (taken && this.#inFlight.whole) this.#taken = this.#inFlight.changes;
    this.#inFlight = undefined;
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #otherOf(typeUrl: string): string | undefined {
    const { named, naming } = this.#options.rule;
    return typeUrl === named ? naming : typeUrl === naming ? named : undefined;
  }

  /** There is something of the first type that has not been sent. */
  #isFirstToSay(): boolean {
    const { rule, view, subscriptions } = this.#options;
    if (rule.first === undefined) return false;
    const [subscription, resources] = [subscriptions.get(rule.first), view.resources(rule.first)];
    if (subscription === undefined || resources === undefined) return false;
    const { initial, refused, unanswered } = subscription;
    const isToSay = ([name, { version }]: NamedResource) => refused.get(name) !== version && unanswered?.versions.get(name) !== version;
    // The word that it is gone is under way, and it is there again.
    const isTakenBack = unanswered?.removed.some((name) => resources.has(name)) === true;
    return initial || isTakenBack || differenceOf(subscription, resources).missing.some(isToSay);
  }

  #stopWaiting(): void {
    this.#bothAwaited = false;
    clearTimeout(this.#timer);
  }

  #hasCaughtUp(changes: number): boolean {
    if (this.#options.subscriptions.has(this.#options.rule.naming)) return changes >= this.#barrier;
    return !this.#bothAwaited;
  }

  /** Once, until it goes on: whoever looks for a pod that the client does not know finds why. */
  #logWait({ refused }: Subscription, first: readonly NamedResource[]): void {
    const { rule, view, subscriptions, peer, log } = this.#options;
    const names = first.filter(([name, { version }]) => refused.get(name) === version).map(([name]) => name);
    const [naming, resources] = [subscriptions.get(rule.naming), view.resources(rule.naming)];
    if (this.#isWaitLogged || names.length === 0 || naming === undefined || resources === undefined) return;
    const { missing, removed } = differenceOf(naming, resources);
    if (missing.length === 0 && removed.length === 0) return;
    this.#isWaitLogged = true;
    log.warn({ peer, typeUrl: rule.naming, refused: names.slice(0, MAX_LOGGED) }, 'resources held back: what goes before them was refused');
  }

  /** Not sent yet; or refused, where those that name it are all that it holds for until it is taken. */
  #goesBefore({ held, refused }: Subscription, [name, resource]: NamedResource): boolean {
    const { rule } = this.#options;
    const version = held.get(name);
    if (version !== undefined && rule.onlyByName(resource)) return false;
    return refused.get(name) !== resource.version || (version !== undefined && rule.heldByName(version) === true);
  }
}
