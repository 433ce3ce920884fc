// Which of several replicas leads: a Lease of the API server (coordination.k8s.io/v1), held by one, renewed while it lives, and taken over when it has not been for as long as it said.

import { setTimeout as delay } from 'node:timers/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { Snapshot } from '../snapshot.ts';
import { type KubeApi, type KubeObject, readIfThere, specOf } from './api.ts';
import type { KubeLog } from './reflector.ts';

export interface LeaseTimes {
  /** Whoever does not renew it for so long has lost it. */
  readonly durationMs: number;
  /** Whoever could not renew it for so long leads no more, well before another may. */
  readonly deadlineMs: number;
  readonly retryMs: number;
}

export const leaseTimes: LeaseTimes = Object.freeze({ durationMs: 10_000, deadlineMs: 6_000, retryMs: 2_000 });

/** A clock that never goes back, in milliseconds, and waiting by it; whoever waits is let go when the signal aborts. */
export interface LeaseClock {
  now(): number;
  wait(ms: number, signal: AbortSignal): Promise<void>;
}

const steadyClock: LeaseClock = {
  now: () => performance.now(),
  wait: (ms, signal) => delay(ms, undefined, { signal, ref: false }).catch(() => undefined),
};

export interface LeaderLeaseOptions {
  readonly api: KubeApi;
  readonly namespace: string;
  readonly name: string;
  /** Of this process, like no other's: a container that is started again in its pod is another one. */
  readonly identity: string;
  readonly log: KubeLog & { info(fields: object, message: string): void };
  /** Unix milliseconds, for people alone: nothing is decided by another machine's clock. */
  readonly now: () => number;
  readonly times?: LeaseTimes;
  readonly clock?: LeaseClock;
}

/** How long the last word, that it is free, may take when we end. */
const RELEASE_MS = 2_000;

/** What a Lease says of its holder, and when on our own clock we saw it say so first. */
interface Seen {
  readonly text: string;
  readonly at: number;
}

export class LeaderLease {
  /** Whether we lead. A change is heard of at once; whoever is about to write asks `leads`. */
  readonly leading = new Snapshot<boolean>(false);
  readonly #options: LeaderLeaseOptions;
  readonly #times: LeaseTimes;
  readonly #clock: LeaseClock;
  readonly #path: string;
  /** On our clock: until which we lead without another word of the API server. */
  #until = 0;
  #seen: Seen | undefined;
  #said = '';

  constructor(options: LeaderLeaseOptions) {
    this.#options = options;
    this.#times = options.times ?? leaseTimes;
    this.#clock = options.clock ?? steadyClock;
    this.#path = `/apis/coordination.k8s.io/v1/namespaces/${options.namespace}/leases`;
  }

  /** True only while nobody else can have taken it, whatever became of our timers. */
  get leads(): boolean {
    return this.#clock.now() < this.#until;
  }

  /** Takes part until the signal aborts, and lets go then; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#turn(signal);
        this.#said = '';
      } catch (error) {
        if (signal.aborted) break;
        this.#complain(error);
      }
      if (!this.leads) this.#lose();
      await this.#clock.wait(this.leads ? Math.min(this.#times.retryMs, this.#left) : this.#times.retryMs, signal);
    }
    if (this.leads) await this.#release();
    this.#lose();
  }

  get #ownPath(): string {
    return `${this.#path}/${this.#options.name}`;
  }

  /** For how long we lead without another word, in milliseconds. */
  get #left(): number {
    return this.#until - this.#clock.now();
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const began = this.#clock.now();
    // An answer that hangs must neither keep us from the next try nor from saying that we lead no more.
    const within = AbortSignal.any([signal, AbortSignal.timeout(this.leads ? Math.ceil(this.#left) : this.#times.deadlineMs)]);
    const lease = await readIfThere(this.#options.api, { path: this.#ownPath, signal: within });
    if (lease !== undefined && !this.#isOurs(lease) && !this.#isOver(lease)) {
      this.#lose();
      return;
    }
    await this.#write(lease, { holder: this.#options.identity, signal: within });
    this.#lead(began);
  }

  #isOurs(lease: KubeObject): boolean {
    return specOf(lease).holderIdentity === this.#options.identity;
  }

  /** Nobody's, or not renewed for as long as its holder said, by our own clock from when we first saw it so. */
  #isOver(lease: KubeObject): boolean {
    const { holderIdentity, leaseDurationSeconds, renewTime, leaseTransitions } = specOf(lease);
    if (typeof holderIdentity !== 'string' || holderIdentity === '') return true;
    const text = JSON.stringify([holderIdentity, renewTime, leaseTransitions]);
    if (this.#seen?.text !== text) this.#seen = { text, at: this.#clock.now() };
    const lastsMs = typeof leaseDurationSeconds === 'number' ? leaseDurationSeconds * 1_000 : this.#times.durationMs;
    return this.#clock.now() - this.#seen.at >= lastsMs;
  }

  /** With the resourceVersion that was read: of two that take it at once one is refused. */
  async #write(lease: KubeObject | undefined, { holder, signal }: { holder: string; signal: AbortSignal }): Promise<void> {
    const { api, namespace, name, now } = this.#options;
    const before = lease === undefined ? {} : specOf(lease);
    const at = new Date(now()).toISOString().replace('Z', '000Z');
    const changes = before.holderIdentity !== holder;
    const transitions = typeof before.leaseTransitions === 'number' ? before.leaseTransitions : 0;
    const spec = {
      holderIdentity: holder,
      leaseDurationSeconds: Math.ceil(this.#times.durationMs / 1_000),
      acquireTime: changes ? at : before.acquireTime,
      renewTime: at,
      leaseTransitions: changes && holder !== '' ? transitions + 1 : transitions,
    };
    const head = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' };
    const path = this.#path;
    if (lease === undefined) await api.request({ method: 'POST', path, body: { ...head, metadata: { name, namespace }, spec }, signal });
    else await api.request({ method: 'PUT', path: this.#ownPath, body: { ...lease, spec }, signal });
  }

  /** From the moment before we asked: the answer may have been long on its way. */
  #lead(since: number): void {
    const wasLeading = this.leading.current === true;
    this.#until = since + this.#times.deadlineMs;
    if (wasLeading || !this.leads) return;
    this.#options.log.info({ lease: this.#options.name }, 'leading');
    this.leading.replace(true);
  }

  #lose(): void {
    this.#until = 0;
    if (this.leading.current !== true) return;
    this.#options.log.warn({ lease: this.#options.name }, 'leading no more');
    this.leading.replace(false);
  }

  /** So that the next one need not wait until it is over. */
  async #release(): Promise<void> {
    const signal = AbortSignal.timeout(RELEASE_MS);
    try {
      const lease = await readIfThere(this.#options.api, { path: this.#ownPath, signal });
      if (lease !== undefined && this.#isOurs(lease)) await this.#write(lease, { holder: '', signal });
    } catch (error) {
      this.#complain(error);
    }
  }

  /** Once for each reason. Another replica that was first is no failure. */
  #complain(error: unknown): void {
    if (error instanceof HandfastError && error.code === 'KUBE_CONFLICT') {
      this.#lose();
      return;
    }
    const reason = messageOf(error);
    if (reason !== this.#said) this.#options.log.warn({ lease: this.#options.name, reason }, 'the lease cannot be held');
    this.#said = reason;
  }
}
