// The addresses that a sidecar asks its agent about: each once, kept for as long as it is in use and a while longer, and let go of again.

import { performance } from 'node:perf_hooks';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import type { DeltaDiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { addressName, addressOf } from './address-name.ts';
import type { ChangingNames } from './delta-client.ts';
import type { DiscoveryLog } from './stream.ts';

/** `most` is below what an agent takes on one stream. Times in milliseconds. */
export interface InterestLimits {
  readonly most: number;
  /** An address that nobody has used for so long is let go of. */
  readonly idleMs: number;
  /** How often that is looked at. */
  readonly sweepMs: number;
  /** How many are let go of at once for new ones, the longest unused first. */
  readonly makeRoomFor: number;
}

const LIMITS: InterestLimits = { most: 4_000, idleMs: 300_000, sweepMs: 30_000, makeRoomFor: 256 };
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
  readonly #wanted = new Set<string>();
  readonly #unwanted = new Set<string>();
  /** How many are on their way out. */
  #leaving = 0;
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
    this.#now = options.now ?? (() => performance.now());
    this.#pace = new TokenBucket(REQUESTS, this.#now);
    const sweep = setInterval(() => this.#letIdleGo(), this.#limits.sweepMs).unref();
    options.signal.addEventListener('abort', () => clearInterval(sweep), { once: true });
  }

  /** How many addresses are asked for. */
  get size(): number {
    return this.#interests.size;
  }

  /** The address is in use until the returned function is called: it is asked for, and stays so. */
  hold(address: string): () => void {
    const interest = this.#use(address);
    if (interest === undefined) return () => undefined;
    interest.holds++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      interest.holds--;
      interest.usedAt = this.#now();
    };
  }

  /** Asks for the address, which may be let go of when it is not asked for again. */
  ask(address: string): void {
    this.#use(address);
  }

  opened(send: Send): readonly string[] {
    this.#send = send;
    this.#isSettled = false;
    this.#unwanted.clear();
    this.#leaving = 0;
    const names = [this.#self];
    for (const [name, interest] of this.#interests) {
      if (interest.state === 'answered') names.push(name);
      else if (interest.state === 'leaving' && !isWantedAgain(interest)) this.#interests.delete(name);
      else this.#want(name, interest);
    }
    return names;
  }

  closed(): void {
    this.#send = undefined;
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
      else this.#interests.delete(name);
    }
    if (this.#unwanted.size > 0) this.#sayLater();
  }

  #use(address: string): Interest | undefined {
    const name = addressName(address);
    const interest = this.#interests.get(name) ?? this.#add(name);
    if (interest !== undefined) interest.usedAt = this.#now();
    return interest;
  }

  #add(name: string): Interest | undefined {
    if (this.#interests.size >= this.#limits.most) {
      this.#makeRoom();
      this.#complain();
      return undefined;
    }
    const interest: Interest = { state: 'wanted', holds: 0, usedAt: this.#now() };
    this.#interests.set(name, interest);
    this.#want(name, interest);
    // Before it is full, so that those who come meanwhile need not be turned away.
    if (this.#interests.size - this.#leaving > this.#limits.most - this.#limits.makeRoomFor) this.#makeRoom();
    return interest;
  }

  #want(name: string, interest: Interest): void {
    interest.state = 'wanted';
    this.#wanted.add(name);
    this.#sayLater();
  }

  #makeRoom(): void {
    if (this.#unwanted.size > 0) return;
    const idle = this.#idle(this.#now()).sort(([, a], [, b]) => a.usedAt - b.usedAt);
    this.#letGo(idle.slice(0, this.#limits.makeRoomFor).map(([name]) => name));
  }

  #letIdleGo(): void {
    const before = this.#now() - this.#limits.idleMs;
    this.#letGo(this.#idle(before).map(([name]) => name));
  }

  /** What was wanted and not asked for in time; and what is known, but not while nobody is there to ask again: it goes on to be of use. */
  #idle(before: number): [string, Interest][] {
    const isHeard = this.#send !== undefined && this.#isSettled;
    const givenUp = Math.min(before, this.#now() - WANTED_MS);
    return [...this.#interests].filter(([, { state, holds, usedAt }]) => {
      if (holds > 0) return false;
      return state === 'wanted' ? usedAt <= givenUp : state === 'answered' && isHeard && usedAt <= before;
    });
  }

  #letGo(names: readonly string[]): void {
    for (const name of names) {
      // Whoever waited for it has gone, and nobody else has heard of it.
      if (this.#wanted.delete(name)) this.#interests.delete(name);
      else this.#unwanted.add(name);
    }
    if (this.#unwanted.size > 0) this.#sayLater();
  }

  #complain(): void {
    const now = this.#now();
    if (now - this.#complainedAt < COMPLAIN_EVERY_MS) return;
    this.#complainedAt = now;
    this.#log.warn(
      { addresses: this.#interests.size },
      'this pod speaks to so many addresses at once that the agent is not asked for more of them',
    );
  }

  /** What comes up in one turn of the event loop is said at once; what comes faster than the agent takes it, together. */
  #sayLater(): void {
    if (this.#send === undefined || this.#scheduled !== 'no') return;
    this.#scheduled = 'soon';
    setImmediate(() => this.#say());
  }

  #say(): void {
    this.#scheduled = 'no';
    const send = this.#send;
    if (send === undefined || (this.#wanted.size === 0 && this.#unwanted.size === 0)) return;
    const waitMs = this.#pace.take();
    if (waitMs > 0) {
      this.#scheduled = 'later';
      setTimeout(() => this.#say(), waitMs).unref();
      return;
    }
    const dropped = this.#dropUnwanted();
    const added = [...this.#wanted].slice(0, MAX_ASKED);
    for (const name of added) {
      this.#wanted.delete(name);
      const interest = this.#interests.get(name);
      if (interest !== undefined) interest.state = 'asked';
    }
    if (added.length > 0 || dropped.length > 0) send({ added, dropped });
    if (this.#wanted.size > 0) this.#sayLater();
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
