// One worker thread as the main thread has it: what was told to it, what it said last, and what must be undone when it ends.

import { Worker } from 'node:worker_threads';
import { HandfastError } from '../errors.ts';
import { type Duplicate, discard } from '../net/hand-over.ts';
import type { SightingSink } from '../observe/ledger.ts';
import type { AddressInterests } from '../proxy/context.ts';
import type { AddressUse, FromWorker, LivePeers, ToWorker, WorkerSetup, WorkerState } from './messages.ts';
import { WorkerSightings } from './worker-sightings.ts';

/** The source runs as it is and compiled; a URL is rewritten by nobody. */
const ENTRY = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url);
/** As V8 has it for the main thread. */
const MAX_YOUNG_GENERATION_MB = 48;
/** A worker says how it is twice a second. */
const SILENT_MS = 5_000;

export interface WorkerThreadOptions {
  readonly setup: WorkerSetup;
  readonly state: WorkerState;
  readonly ledger: SightingSink;
  readonly interests: AddressInterests;
  readonly writeLog: (lines: string) => void;
  /** Another entry than the compiled one, for tests. */
  readonly entry?: URL | undefined;
  readonly maxOldGenerationSizeMb?: number | undefined;
}

export class WorkerThread {
  /** Rejects when it cannot: with CONFIG_INVALID for a port in use. */
  readonly listening: Promise<{ readonly inbound: number; readonly outbound: number }>;
  /** Why it ended; undefined when it was told to. Never rejects. */
  readonly ended: Promise<Error | undefined>;
  readonly number: number;
  readonly #worker: Worker;
  readonly #options: WorkerThreadOptions;
  readonly #sightings: WorkerSightings;
  readonly #listening = Promise.withResolvers<{ readonly inbound: number; readonly outbound: number }>();
  /** The addresses that its connections use. */
  readonly #holds = new Map<string, () => void>();
  /** Sent, and not known to be a socket of the worker's yet. */
  readonly #onTheWay = new Map<number, Duplicate>();
  #sent = 0;
  #isListening = false;
  #tunnels = 0;
  #missing: readonly string[] = [];
  #peers: LivePeers = [];
  #heardAt = performance.now();
  #failure: Error | undefined;
  #stopped = false;

  constructor(options: WorkerThreadOptions) {
    this.#options = options;
    this.number = options.setup.worker;
    this.#sightings = new WorkerSightings(options.ledger);
    this.listening = this.#listening.promise;
    this.listening.catch(() => undefined);
    const maxOldGenerationSizeMb = options.maxOldGenerationSizeMb;
    this.#worker = new Worker(options.entry ?? ENTRY, {
      workerData: options.setup,
      name: `worker ${options.setup.worker}`,
      resourceLimits: {
        maxYoungGenerationSizeMb: MAX_YOUNG_GENERATION_MB,
        ...(maxOldGenerationSizeMb === undefined ? {} : { maxOldGenerationSizeMb }),
      },
    });
    this.#worker.on('message', (message: FromWorker) => this.#take(message));
    this.#worker.on('error', (error: unknown) => {
      this.#failure = error instanceof Error ? error : new Error(String(error));
    });
    this.ended = new Promise((resolve) => {
      this.#worker.once('exit', (code) => resolve(this.#end(code)));
    });
    this.#say({ kind: 'begin', state: options.state });
  }

  get isListening(): boolean {
    return this.#isListening;
  }

  /** Connections for tunnels that it has or is about to have. */
  get tunnels(): number {
    return this.#tunnels;
  }

  get peers(): LivePeers {
    return this.#peers;
  }

  /** Why it cannot serve. */
  get missing(): readonly string[] {
    if (!this.#isListening) return ['it is starting'];
    const silentMs = performance.now() - this.#heardAt;
    return silentMs > SILENT_MS ? [`it has said nothing for ${Math.round(silentMs / 1000)} s`] : this.#missing;
  }

  change(state: WorkerState): void {
    this.#say({ kind: 'change', state });
  }

  takeTunnel(duplicate: Duplicate): void {
    const nth = this.#sent++;
    this.#onTheWay.set(nth, duplicate);
    this.#tunnels++;
    this.#say({ kind: 'tunnel', fd: duplicate.fd, nth });
  }

  /** It drains, and ends by itself. */
  stop(): void {
    this.#say({ kind: 'stop' });
  }

  /** For one that does not. */
  async terminate(): Promise<void> {
    this.#stopped = true;
    await this.#worker.terminate();
  }

  #say(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #take(message: FromWorker): void {
    this.#heardAt = performance.now();
    switch (message.kind) {
      case 'listening':
        this.#isListening = true;
        // Until it has said that nothing is.
        this.#missing = ['it is starting'];
        this.#listening.resolve(message.ports);
        break;
      case 'failed':
        this.#failure = new HandfastError(message.code ?? 'UNAVAILABLE', message.reason);
        break;
      case 'status':
        this.#missing = message.missing;
        this.#peers = message.peers ?? this.#peers;
        break;
      case 'seen':
        this.#sightings.take(message.seen);
        break;
      case 'addresses':
        this.#use(message.use);
        break;
      case 'log':
        this.#options.writeLog(message.lines);
        break;
      case 'attached':
        this.#onTheWay.delete(message.nth);
        break;
      case 'tunnel-closed':
        this.#tunnels--;
        break;
      case 'stopped':
        this.#stopped = true;
        break;
      default:
        message satisfies never;
    }
  }

  #use({ held, released, asked }: AddressUse): void {
    const { interests } = this.#options;
    for (const address of held) if (!this.#holds.has(address)) this.#holds.set(address, interests.hold(address));
    for (const address of asked) interests.ask(address);
    for (const address of released) this.#release(address);
  }

  #release(address: string): void {
    this.#holds.get(address)?.();
    this.#holds.delete(address);
  }

  #end(code: number): Error | undefined {
    this.#isListening = false;
    this.#peers = [];
    this.#sightings.end();
    for (const address of this.#holds.keys()) this.#release(address);
    for (const duplicate of this.#onTheWay.values()) discard(duplicate);
    this.#onTheWay.clear();
    const failure = this.#failure ?? (this.#stopped ? undefined : new Error(`it ended with code ${code}`));
    this.#listening.reject(failure ?? new Error('it was stopped before it listened'));
    return failure;
  }
}
