// The sidecar on several cores: a Sidecar in each of N threads, and one listener for tunnels, one readiness, one ledger and one state for all of them.

import { setTimeout as delay } from 'node:timers/promises';
import type { ResourceChange } from '../discovery/resource-cache.ts';
import { HandfastError, messageOf } from '../errors.ts';
import { Ledger, type SightingSink } from '../observe/ledger.ts';
import type { Log, LogLevel } from '../observe/log.ts';
import type { AddressInterests, PipelineSettings } from '../proxy/context.ts';
import type { SidecarPorts } from '../proxy/sidecar.ts';
import type { Snapshot } from '../snapshot.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { dealTunnel } from './deal-tunnel.ts';
import { DeathCount } from './death-count.ts';
import { type Front, openFront } from './front.ts';
import { textsOf } from './identity-texts.ts';
import { MeshState } from './mesh-state.ts';
import type { LivePeers, WorkerState } from './messages.ts';
import { summed } from './summed-peers.ts';
import { WorkerThread } from './worker-thread.ts';

export interface SidecarWorkersOptions {
  /** From 1. */
  readonly workers: number;
  readonly settings: PipelineSettings;
  readonly ports: SidecarPorts;
  readonly drainTimeoutMs: number;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  /** What the agent is asked for, for all workers together. */
  readonly interests: AddressInterests;
  readonly log: Log;
  readonly logLevel: LogLevel;
  /** Takes the workers' lines. */
  readonly writeLog: (lines: string) => void;
  readonly now: () => number;
  readonly warnings?: () => readonly string[];
  /** Where connections are noted. Default: a ledger of the pod's. */
  readonly sightings?: SightingSink;
  readonly entry?: URL;
  readonly maxOldGenerationSizeMb?: number;
}

/** Beyond its drain time and the grace after it, a worker is not waited for. */
const STOP_GRACE_MS = 5_000;
const QUIET_MS = 1_000;

export class SidecarWorkers {
  /** Of the whole pod: its agent takes one run of one sidecar. Empty where sightings go to another. */
  readonly ledger: Ledger;
  /** Rejects when workers die faster than it makes sense to replace them. */
  readonly failed: Promise<never>;
  readonly #options: SidecarWorkersOptions;
  readonly #mesh = new MeshState();
  readonly #threads: WorkerThread[] = [];
  readonly #deaths = new DeathCount();
  readonly #giveUp = Promise.withResolvers<never>();
  readonly #unsubscribe: (() => void)[] = [];
  #ports: SidecarPorts;
  #front: Front | undefined;
  #lastDealt: WorkerThread | undefined;
  #isStarted = false;
  #isStopping = false;
  #quietUntil = 0;

  private constructor(options: SidecarWorkersOptions) {
    this.#options = options;
    this.#ports = options.ports;
    this.ledger = new Ledger(options);
    this.failed = this.#giveUp.promise;
    this.failed.catch(() => undefined);
    const { identity, revocations } = options;
    this.#unsubscribe.push(
      identity.subscribe((next) => this.#tell({ identity: textsOf(next) })),
      revocations.subscribe((next) => this.#tell({ revocations: next })),
    );
  }

  /** Resolves when every worker listens. Throws CONFIG_INVALID for a port in use. */
  static async start(options: SidecarWorkersOptions): Promise<SidecarWorkers> {
    const all = new SidecarWorkers(options);
    try {
      await all.#start();
      return all;
    } catch (error) {
      await all.stop();
      throw error;
    }
  }

  get ports(): SidecarPorts {
    return this.#ports;
  }

  /** How many connections for tunnels each worker has. */
  get tunnels(): readonly number[] {
    return this.#threads.map(({ tunnels }) => tunnels);
  }

  /** Open connections by the certificate their peer proved itself with, of all workers together. */
  livePeers(): LivePeers {
    return summed(this.#threads.map(({ peers }) => peers));
  }

  /** Why new connections cannot be served now; empty when they can. */
  missing(): string[] {
    if (this.#isStopping) return ['draining'];
    return this.#threads.flatMap(({ number, missing }) => missing.map((reason) => `worker ${number}: ${reason}`));
  }

  /** A change of the mesh. Throws, changing nothing, when any resource of it cannot be used. */
  apply(typeUrl: string, change: ResourceChange): void {
    this.#tell({ mesh: [this.#mesh.apply(typeUrl, change)] });
  }

  /** As Sidecar's: each worker drains; then everything is closed. Always resolves. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const closing = [this.#front?.tunnel.close()];
    for (const thread of this.#threads) thread.stop();
    const limit = new AbortController();
    const late = delay(this.#options.drainTimeoutMs + STOP_GRACE_MS, undefined, { signal: limit.signal }).catch(() => undefined);
    await Promise.race([Promise.all(this.#threads.map(({ ended }) => ended)), late]);
    limit.abort();
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    await Promise.all([...closing, this.#front?.readiness.close()]);
  }

  async #start(): Promise<void> {
    const { ports, workers, warnings = () => [] } = this.#options;
    this.#front = await openFront({
      ports,
      onTunnel: (socket) => this.#deal(socket),
      missing: () => this.missing(),
      warnings,
      onError: (error) => this.#complain(error),
    });
    this.#ports = { ...ports, tunnel: this.#front.tunnel.port, readiness: this.#front.readiness.port };
    // Its ports are everybody's.
    this.#ports = { ...this.#ports, ...(await this.#spawn(1).listening) };
    for (let worker = 2; worker <= workers; worker++) this.#spawn(worker);
    const died = this.#threads.map(({ ended }) => ended.then((failure) => Promise.reject(failure)));
    await Promise.race([Promise.all(this.#threads.map(({ listening }) => listening)), ...died]);
    this.#isStarted = true;
    for (const never of died) never.catch(() => undefined);
  }

  #spawn(worker: number): WorkerThread {
    const { settings, drainTimeoutMs, logLevel, writeLog, entry, maxOldGenerationSizeMb } = this.#options;
    const thread = new WorkerThread({
      setup: { worker, settings, ports: this.#ports, drainTimeoutMs, logLevel },
      state: this.#state(),
      ledger: this.#options.sightings ?? this.ledger,
      interests: this.#options.interests,
      writeLog,
      entry,
      maxOldGenerationSizeMb,
    });
    this.#threads[worker - 1] = thread;
    void thread.ended.then((failure) => this.#replace(thread, failure));
    return thread;
  }

  #state(): WorkerState {
    const { identity, revocations } = this.#options;
    return {
      ...(identity.current === undefined ? {} : { identity: textsOf(identity.current) }),
      ...(revocations.current === undefined ? {} : { revocations: revocations.current }),
      mesh: this.#mesh.whole,
    };
  }

  #tell(state: WorkerState): void {
    for (const thread of this.#threads) thread.change(state);
  }

  #replace(thread: WorkerThread, failure: Error | undefined): void {
    if (this.#isStopping || !this.#isStarted) return;
    const { count, isTooMany } = this.#deaths.add(performance.now());
    const reason = messageOf(failure);
    this.#options.log.error({ worker: thread.number, reason, stack: failure?.stack, deathsInAMinute: count }, 'worker died');
    if (isTooMany) {
      this.#giveUp.reject(new HandfastError('UNAVAILABLE', `workers died ${count} times within a minute, the last one: ${reason}`));
      return;
    }
    const next = this.#spawn(thread.number);
    void next.listening.then(
      () => this.#options.log.warn({ worker: thread.number }, 'another worker took its place'),
      () => undefined,
    );
  }

  #deal(socket: Parameters<typeof dealTunnel>[0]): void {
    try {
      this.#lastDealt = dealTunnel(socket, this.#threads, this.#lastDealt);
    } catch (error) {
      this.#complain(error);
    }
  }

  #complain(error: unknown): void {
    const now = performance.now();
    if (now < this.#quietUntil) return;
    this.#quietUntil = now + QUIET_MS;
    this.#options.log.error({ reason: messageOf(error) }, 'connection not accepted');
  }
}
