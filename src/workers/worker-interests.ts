// A worker's half of what the agent is asked for: which addresses its connections use, as the main thread hears of it; many connections to one address are one word.

import type { AddressInterests } from '../proxy/context.ts';
import type { AddressUse } from './messages.ts';

/** An address that is used again within this time was in use all along. */
const LINGER_MS = 1_000;
/** An address is asked for again after this time, which is well before it is forgotten. */
const ASKED_MS = 10_000;
const MAX_ASKED = 4_000;

export class WorkerInterests implements AddressInterests {
  readonly #send: (use: AddressUse) => void;
  readonly #now: () => number;
  readonly #holds = new Map<string, number>();
  readonly #idle = new Set<string>();
  /** When each was asked for last. */
  readonly #askedAt = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;
  #held: string[] = [];
  #asked: string[] = [];
  #isScheduled = false;

  constructor(send: (use: AddressUse) => void, now: () => number = () => performance.now()) {
    this.#send = send;
    this.#now = now;
    this.#timer = setInterval(() => this.#release(), LINGER_MS).unref();
  }

  hold(address: string): () => void {
    const holds = this.#holds.get(address);
    this.#holds.set(address, (holds ?? 0) + 1);
    if (holds === undefined) {
      this.#held.push(address);
      this.#sayLater();
    }
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const left = (this.#holds.get(address) ?? 1) - 1;
      this.#holds.set(address, left);
      if (left === 0) this.#idle.add(address);
    };
  }

  ask(address: string): void {
    const now = this.#now();
    if (now - (this.#askedAt.get(address) ?? Number.NEGATIVE_INFINITY) < ASKED_MS) return;
    if (this.#askedAt.size >= MAX_ASKED) this.#askedAt.clear();
    this.#askedAt.set(address, now);
    this.#asked.push(address);
    this.#sayLater();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #release(): void {
    const released = [...this.#idle].filter((address) => this.#holds.get(address) === 0);
    this.#idle.clear();
    for (const address of released) this.#holds.delete(address);
    if (released.length > 0) this.#send({ held: [], asked: [], released });
  }

  #sayLater(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      const [held, asked] = [this.#held, this.#asked];
      this.#held = [];
      this.#asked = [];
      this.#send({ held, asked, released: [] });
    });
  }
}
