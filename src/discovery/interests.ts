// The addresses that a sidecar asks its agent about: each once, kept for as long as it is in use and a while longer, and let go of again.

import { performance } from 'node:perf_hooks';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import type { DeltaDiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { addressName, addressOf } from './address-name.ts';
import type { ChangingNames } from './delta-client.ts';
import type { DiscoveryLog } from './stream.ts';
import { WantedNames } from './wanted-names.ts';

/** `most` is below what an agent takes on one stream. Times in milliseconds. */
export interface InterestLimits {
  readonly most: number;
  /** An address that nobody has used for so long is let go of. */
  readonly idleMs: number;
  /** How often that is looked at. */
  readonly sweepMs: number;
  /** How many are let go of at once for new ones, the longest unused first. */
  readonly makeRoomFor: number;
  /** An agent that takes no more takes so many from everybody. */
  readonly few: number;
}

const LIMITS: InterestLimits = { most: 4_000, idleMs: 300_000, sweepMs: 30_000, makeRoomFor: 256, few: 32 };
/** Of one request. What an agent takes is more than this, and the answers to it. */
const MAX_ASKED = 32;
const REQUESTS: Rate = { burst: 50, perSecond: 25 };
const COMPLAIN_EVERY_MS = 60_000;
/** Whoever asked and does not hold has waited for no longer. */
const WANTED_MS = 2_000;

/**
 * `leaving`: the agent was told, and has not said yet that it heard; until then nobody can tell the word of what is taken back from an answer, so nothing is asked anew.
 */
type State = 'wanted' | 'asked' | 'answered' | 'leaving';

interface Interest {
  state: State;
  /** By how many it is in use now. */
  holds: number;
  usedAt: number;
}

const NEVER = Number.NEGATIVE_INFINITY;

/** Somebody came while it was on its way out. */
function isWantedAgain({ holds, usedAt }: Interest): boolean {
  return holds > 0 || usedAt > NEVER;
}

type Send = Parameters<ChangingNames['opened']>[0];

export class Interests implements ChangingNames {
  readonly #self: string;
  readonly #limits: InterestLimits;
  readonly #log: DiscoveryLog;
  readonly #now: () => number;
  readonly #pace: TokenBucket;
  readonly #interests = new Map<string, Interest>();
  /** What nobody has held yet, the longest unused first: others may have brought it up, so it has half of the room at most, and goes first. */
  readonly #asks = new Map<string, Interest>();
  /** To be asked for, as soon as there is room. */
  readonly #wanted = new WantedNames();
  readonly #unwanted = new Set<string>();
  /** How many are on their way out. */
  #leaving = 0;
  /** How many the agent is asked for at once: what it has taken, as far as that is known. */
  #most: number;
  #send: Send | undefined;
  /** The first response of this stream was taken: what is said from now on of a name is said of what was asked on it. */
  #isSettled = false;
  #scheduled: 'no' | 'soon' | 'later' = 'no';
  #complainedAt = NEVER;

  /** `self` is the name of the sidecar's own workload, which is always asked for. */
  constructor(options: { self: string; log: DiscoveryLog; signal: AbortSignal; limits?: Partial<InterestLimits>; now?: () => number }) {
    this.#self = options.self;
    this.#log = options.log;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#most = this.#limits.most;
    this.#now = options.now ?? (() => performance.now());
    this.#pace = new TokenBucket(REQUESTS, this.#now);
    const sweep = setInterval(() => this.#sweep(), this.#limits.sweepMs).unref();
    options.signal.addEventListener('abort', () => clearInterval(sweep), { once: true });
  }

  /** How many addresses the agent was asked for. */
  get size(): number {
    return this.#interests.size - this.#wanted.size;
  }

  /** How many that are in use the agent was not asked for yet. */
  get waiting(): number {
    return this.#wanted.held;
  }

  /** The address is in use until the returned function is called: it is asked for, as soon as there is room where there is none, and stays so. */
  hold(address: string): () => void {
    const name = addressName(address);
    const interest = this.#use(name);
    this.#asks.delete(name);
    interest.holds++;
    if (interest.state === 'wanted') {
      this.#wanted.hold(name);
      if (this.#room <= 0) this.#complain();
      this.#makeRoomForHolds();
    }
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      interest.holds--;
      interest.usedAt = this.#now();
      if (interest.holds > 0) return;
      // Nobody has heard of it, and nobody waits for it any more.
      if (this.#wanted.has(name)) this.#forget(name);
      else this.#makeRoomForHolds();
    };
  }

  /** Asks for the address, which may be let go of when it is not asked for again. It is left out where too many are asked for. */
  ask(address: string): void {
    const name = addressName(address);
    if (!this.#interests.has(name) && !this.#hasRoomForAsk()) {
      this.#complain();
      return;
    }
    const isNew = !this.#interests.has(name);
    const interest = this.#use(name);
    if (!isNew && !this.#asks.delete(name)) return;
    this.#asks.set(name, interest);
  }

  opened(send: Send): readonly string[] {
    this.#send = send;
    this.#isSettled = false;
    this.#unwanted.clear();
    this.#leaving = 0;
    const names = [this.#self];
    for (const [name, interest] of this.#interests) {
      if (interest.state === 'answered') names.push(name);
      else if (interest.state === 'leaving' && !isWantedAgain(interest)) this.#forget(name);
      else this.#want(name, interest);
    }
    return names;
  }

  closed(isTooMuch = false): readonly string[] {
    this.#send = undefined;
    return isTooMuch && this.size > this.#limits.few ? this.#comeDown() : [];
  }

  answeredBy({ resources, removedResources }: DeltaDiscoveryResponse): readonly string[] {
    const said = [...resources.flatMap(({ aliases }) => aliases), ...removedResources];
    return said.flatMap((name) => (this.#interests.get(name)?.state === 'asked' ? (addressOf(name) ?? []) : []));
  }

  taken(response: DeltaDiscoveryResponse): void {
    this.#isSettled = true;
    for (const address of this.answeredBy(response)) {
      const interest = this.#interests.get(addressName(address));
      if (interest !== undefined) interest.state = 'answered';
    }
    for (const name of response.removedResources) {
      const interest = this.#interests.get(name);
      if (interest?.state !== 'leaving') continue;
      this.#leaving--;
      if (isWantedAgain(interest)) this.#want(name, interest);
      else this.#forget(name);
    }
    this.#makeRoomForHolds();
    this.#sayLater();
  }

  /** How many more may be asked for now. */
  get #room(): number {
    return this.#most - this.size;
  }

  #use(name: string): Interest {
    const interest = this.#interests.get(name) ?? this.#add(name);
    interest.usedAt = this.#now();
    return interest;
  }

  #add(name: string): Interest {
    const interest: Interest = { state: 'wanted', holds: 0, usedAt: this.#now() };
    this.#interests.set(name, interest);
    this.#want(name, interest);
    // Before it is full, so that those who come meanwhile need not wait.
    if (this.#interests.size - this.#leaving > this.#most - this.#limits.makeRoomFor) this.#makeRoom();
    return interest;
  }

  #forget(name: string): void {
    this.#interests.delete(name);
    this.#asks.delete(name);
    this.#wanted.delete(name);
  }

  #want(name: string, interest: Interest): void {
    interest.state = 'wanted';
    this.#wanted.add(name, { isHeld: interest.holds > 0 });
    this.#sayLater();
  }

  /** Half of all, so that whoever calls this pod does not keep it from calling others. */
  #hasRoomForAsk(): boolean {
    const most = Math.ceil(this.#most / 2);
    if (this.#asks.size >= most && this.#unwanted.size === 0) {
      const isIdle = this.#isIdle(this.#now());
      const idle: string[] = [];
      // Not faster than others can be asked for in their place.
      const atOnce = Math.min(this.#limits.makeRoomFor, MAX_ASKED);
      let looked = 0;
      for (const [name, interest] of this.#asks) {
        if (looked++ >= atOnce) break;
        if (isIdle(interest)) idle.push(name);
      }
      this.#letGo(idle);
    }
    return this.#asks.size < most;
  }

  #makeRoomForHolds(): void {
    if (this.#wanted.held > 0 && this.#room <= 0) this.#makeRoom();
  }

  #makeRoom(): void {
    if (this.#unwanted.size > 0) return;
    const isAsk = (name: string) => Number(this.#asks.has(name));
    const idle = this.#idle(this.#now()).sort(([a, { usedAt }], [b, other]) => isAsk(b) - isAsk(a) || usedAt - other.usedAt);
    this.#letGo(idle.slice(0, this.#limits.makeRoomFor).map(([name]) => name));
  }

  #sweep(): void {
    this.#letGo(this.#idle(this.#now() - this.#limits.idleMs).map(([name]) => name));
    // Others have let go of theirs, perhaps.
    if (this.#send !== undefined && this.#isSettled) this.#most = Math.min(this.#limits.most, 2 * this.#most);
    this.#makeRoomForHolds();
    this.#sayLater();
  }

  #idle(before: number): [string, Interest][] {
    const isIdle = this.#isIdle(before);
    return [...this.#interests].filter(([, interest]) => isIdle(interest));
  }

  /** What was wanted and not asked for in time; and what is known, but not while nobody is there to ask again: it goes on to be of use. */
  #isIdle(before: number): (interest: Interest) => boolean {
    const isHeard = this.#send !== undefined && this.#isSettled;
    const givenUp = Math.min(before, this.#now() - WANTED_MS);
    return ({ state, holds, usedAt }) => {
      if (holds > 0) return false;
      return state === 'wanted' ? usedAt <= givenUp : state === 'answered' && isHeard && usedAt <= before;
    };
  }

  #letGo(names: readonly string[]): void {
    for (const name of names) {
      // Whoever waited for it has gone, and nobody else has heard of it.
      if (this.#wanted.has(name)) this.#forget(name);
      else this.#unwanted.add(name);
    }
    if (this.#unwanted.size > 0) this.#sayLater();
  }

  /** The agent takes no more: it is asked for what is in use alone, and when it was asked for nothing else, for half of that. Returns what is not known any more. */
  #comeDown(): readonly string[] {
    const known = [...this.#interests].filter(([, { state }]) => state === 'answered');
    const inUse = known.filter(([, { holds }]) => holds > 0).length;
    this.#most = Math.max(this.#limits.few, inUse < known.length ? inUse : Math.floor(this.size / 2));
    const isInUse = ({ holds }: Interest) => (holds > 0 ? 1 : 0);
    const gone = known.sort(([, a], [, b]) => isInUse(b) - isInUse(a) || b.usedAt - a.usedAt).slice(this.#most);
    for (const [name, interest] of gone) {
      if (interest.holds > 0) this.#want(name, interest);
      else this.#forget(name);
    }
    this.#complain();
    return gone.flatMap(([name]) => addressOf(name) ?? []);
  }

  #complain(): void {
    const now = this.#now();
    if (now - this.#complainedAt < COMPLAIN_EVERY_MS) return;
    this.#complainedAt = now;
    this.#log.warn(
      { addresses: this.size, waiting: this.waiting, most: this.#most },
      'this pod speaks to so many addresses at once, or is called from so many, that the agent is not asked for all of them',
    );
  }

  /** What comes up in one turn of the event loop is said at once; what comes faster than the agent takes it, together. */
  #sayLater(): void {
    if (this.#send === undefined || this.#scheduled !== 'no' || !this.#hasToSay()) return;
    this.#scheduled = 'soon';
    setImmediate(() => this.#say());
  }

  #hasToSay(): boolean {
    return this.#unwanted.size > 0 || (this.#room > 0 && this.#wanted.size > 0);
  }

  #say(): void {
    this.#scheduled = 'no';
    const send = this.#send;
    if (send === undefined || !this.#hasToSay()) return;
    const waitMs = this.#pace.take();
    if (waitMs > 0) {
      this.#scheduled = 'later';
      setTimeout(() => this.#say(), waitMs).unref();
      return;
    }
    const dropped = this.#dropUnwanted();
    const added = this.#wanted.take(Math.min(MAX_ASKED, this.#room));
    for (const name of added) {
      const interest = this.#interests.get(name);
      if (interest !== undefined) interest.state = 'asked';
    }
    if (added.length > 0 || dropped.length > 0) send({ added, dropped });
    this.#sayLater();
  }

  /** Those that are still not in use. */
  #dropUnwanted(): string[] {
    const dropped: string[] = [];
    for (const name of this.#unwanted) {
      const interest = this.#interests.get(name);
      if (interest === undefined || interest.state !== 'answered' || interest.holds > 0) continue;
      interest.state = 'leaving';
      this.#leaving++;
      interest.usedAt = NEVER;
      dropped.push(name);
    }
    this.#unwanted.clear();
    return dropped;
  }
}
