// One kind of object, followed: listed in pages, then watched from that moment on, and listed anew when the API server has forgotten where we were.

import { setTimeout as delay } from 'node:timers/promises';
import { Backoff } from '../backoff.ts';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import type { KubeObject, WatchableKubeApi } from './api.ts';
import { refusalOfEvent } from './status.ts';
import { type WatchEvent, WatchEvents } from './watch-events.ts';

/** Pino's logger fits. */
export interface KubeLog {
  warn(fields: object, message: string): void;
}

export interface ReflectorOptions<T> {
  readonly api: WatchableKubeApi;
  /** Of the collection: `/api/v1/pods`; with several versions that are understood, the one to be preferred first. */
  readonly paths: readonly string[];
  /** Of one object alone. */
  readonly name?: string;
  /** What is kept of an object; undefined for nothing. Called once for each version of it. `previous`: what was kept of the version before. */
  readonly read: (object: KubeObject, previous: T | undefined) => T | undefined;
  /** Items have changed: once for each piece that arrives, and once for a list. */
  readonly onChange: () => void;
  readonly log: KubeLog;
  /** A kind that may not be installed: an absent one is an empty one, and looked for again. */
  readonly optional?: boolean;
  /** Of labels: objects without them are not sent at all, and come and go as if they were made and deleted. */
  readonly labelSelector?: string | undefined;
  /** A watch that says nothing for so long is taken for dead. API servers send a bookmark about every minute. */
  readonly stallMs?: number;
  /** How many objects to ask for at a time: 500 unless told otherwise. */
  readonly page?: number;
  /** Between two looks for a kind that is not installed. */
  readonly absentRetryMs?: number;
}

/** Objects in an answer. */
const PAGE = 500;
const STALL_MS = 150_000;
/** A watch that ends sooner, and said nothing, is no watch. */
const SHORT_MS = 5_000;
const ABSENT_RETRY_MS = 10_000;
const FIRST_ABSENT_RETRY_MS = 500;
/** How often in a row a kind that was there must be missing before it is believed. */
const ABSENT_TIMES = 6;
/** The API server ends a watch after this long, and no two of ours at the same moment. */
const WATCH_SECONDS = { least: 240, most: 480 };

interface Item<T> {
  readonly version: string;
  readonly kept: T | undefined;
}

export class Reflector<T> {
  readonly #options: ReflectorOptions<T>;
  #items = new Map<string, Item<T>>();
  #synced = false;
  #version = '';
  /** Which of the paths. */
  #at = 0;
  #page: number;
  /** Objects that watches have told of. */
  #events = 0;
  #said = '';
  /** By performance.now(); undefined while it can be followed. */
  #lostAt: number | undefined;
  /** Those who wait for a list that has yet to begin. */
  readonly #waiting = new Set<() => void>();
  #endWatch: () => void = () => undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#page = options.page ?? PAGE;
  }

  /** It has been listed at least once, or is known not to be installed. */
  get synced(): boolean {
    return this.#synced;
  }

  /** For how long it could not be followed; 0 while it can, or is known not to be installed. A watch that is silent is noticed when it has stalled. */
  get lostMs(): number {
    return this.#lostAt === undefined ? 0 : performance.now() - this.#lostAt;
  }

  /** Lists anew, whatever the watch says. Resolves when a list that began after this call is in force: watches may lag, a list says what is. */
  listAnew(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.add(resolve);
      this.#endWatch();
    });
  }

  /** What `read` kept. */
  *values(): IterableIterator<T> {
    for (const { kept } of this.#items.values()) if (kept !== undefined) yield kept;
  }

  /** Follows until the signal aborts; never rejects. What is known stays known while the API server is away. */
  async run(signal: AbortSignal): Promise<void> {
    const { paths, optional, absentRetryMs = ABSENT_RETRY_MS } = this.#options;
    const backoff = new Backoff({ baseMs: 200, maxMs: 30_000 });
    let mustList = true;
    let absences = 0;
    while (!signal.aborted) {
      const began = performance.now();
      const events = this.#events;
      try {
        if (mustList || this.#waiting.size > 0) await this.#list(signal);
        mustList = false;
        absences = 0;
        await this.#watch(signal);
        if (this.#waiting.size > 0) continue;
        // Longer than this, or with something to say: such a watch has ended as watches do.
        if (this.#events > events || performance.now() - began > SHORT_MS) this.#recovered(backoff);
        else await pause(backoff.next(), signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#lostAt ??= performance.now();
        if (this.#events > events || performance.now() - began > SHORT_MS) this.#recovered(backoff);
        const code = error instanceof HandfastError ? error.code : undefined;
        // Too long away, or installed anew: what happened meanwhile can only be told from a new list.
        if (code === 'KUBE_GONE' || code === 'KUBE_NOT_FOUND') mustList = true;
        if (code === 'KUBE_TOO_LONG' && this.#page > 1) {
          this.#page = Math.ceil(this.#page / 2);
          continue;
        }
        if (code === 'KUBE_NOT_FOUND' && optional === true) {
          this.#at = (this.#at + 1) % paths.length;
          if (this.#at > 0) continue;
          if (await this.#isAbsent(++absences, signal)) {
            this.#replace(new Map());
            this.#lostAt = undefined;
            this.#tell([...this.#waiting]);
          }
          this.#complain('it is not installed: no object of this kind is in force');
          await pause(this.#synced ? absentRetryMs : Math.min(absentRetryMs, FIRST_ABSENT_RETRY_MS), signal);
          continue;
        }
        this.#complain(messageOf(error));
        await pause(backoff.next(), signal);
      }
    }
  }

  get #path(): string {
    return this.#options.paths[this.#at] ?? '';
  }

  get #selecting(): string {
    const { name, labelSelector } = this.#options;
    const field = name === undefined ? '' : `fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}&`;
    return labelSelector === undefined ? field : `${field}labelSelector=${encodeURIComponent(labelSelector)}&`;
  }

  #recovered(backoff: Backoff): void {
    backoff.reset();
    this.#said = '';
  }

  /** Once for each reason, not at every try. */
  #complain(reason: string): void {
    if (reason !== this.#said)
      this.#options.log.warn({ path: this.#path, reason }, 'the API server cannot be followed; what is known stays in force');
    this.#said = reason;
  }

  /** An API server that is just starting may not know its own kinds yet, and an empty set of policies lets everybody in. */
  async #isAbsent(times: number, signal: AbortSignal): Promise<boolean> {
    if (this.#items.size > 0) return times >= ABSENT_TIMES;
    if (this.#synced) return true;
    // Asked again after it has said that it is ready.
    return times > 1 && (await this.#isReady(signal));
  }

  async #isReady(signal: AbortSignal): Promise<boolean> {
    try {
      (await this.#options.api.open('/readyz', signal)).destroy();
      return true;
    } catch {
      return false;
    }
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { api } = this.#options;
    const path = this.#path;
    const items = new Map<string, Item<T>>();
    const waiting = [...this.#waiting];
    let next = '';
    do {
      const page = await api.request({
        method: 'GET',
        path: `${path}?${this.#selecting}limit=${this.#page}${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`,
        signal,
      });
      const { resourceVersion, continue: more } = isJsonObject(page.metadata) ? page.metadata : {};
      if (!Array.isArray(page.items) || typeof resourceVersion !== 'string')
        throw new HandfastError('UNAVAILABLE', `GET ${path}: the answer is no list`);
      for (const object of page.items) this.#keep(items, object);
      this.#version = resourceVersion;
      next = typeof more === 'string' ? more : '';
    } while (next !== '');
    this.#replace(items);
    this.#tell(waiting);
  }

  #tell(waiting: readonly (() => void)[]): void {
    for (const tell of waiting) {
      this.#waiting.delete(tell);
      tell();
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { api, stallMs = STALL_MS } = this.#options;
    const path = this.#path;
    const seconds = WATCH_SECONDS.least + Math.floor(Math.random() * (WATCH_SECONDS.most - WATCH_SECONDS.least));
    const query = `${this.#selecting}watch=1&allowWatchBookmarks=true&resourceVersion=${encodeURIComponent(this.#version)}&timeoutSeconds=${seconds}`;
    const body = await api.open(`${path}?${query}`, signal);
    this.#lostAt = undefined;
    const events = new WatchEvents(`watch ${path}`);
    let endsForList = false;
    this.#endWatch = () => {
      endsForList = true;
      body.destroy();
    };
    // Asked for while it was opened.
    if (this.#waiting.size > 0) this.#endWatch();
    const stalled = setTimeout(
      () => body.destroy(new HandfastError('UNAVAILABLE', `watch ${path}: nothing came for ${stallMs} ms`)),
      stallMs,
    );
    try {
      for await (const bytes of body) {
        stalled.refresh();
        this.#take(events.push(Buffer.from(bytes)));
      }
    } catch (error) {
      if (!endsForList) throw error;
    } finally {
      this.#endWatch = () => undefined;
      clearTimeout(stalled);
      body.destroy();
    }
  }

  #take(events: readonly WatchEvent[]): void {
    let changed = false;
    try {
      for (const { type, object } of events) {
        if (type === 'ERROR') throw refusalOfEvent(object, `watch ${this.#path}`);
        const { resourceVersion } = isJsonObject(object.metadata) ? object.metadata : {};
        if (type === 'DELETED') this.#items.delete(keyOf(object));
        else if (type !== 'BOOKMARK') this.#keep(this.#items, object);
        if (typeof resourceVersion === 'string') this.#version = resourceVersion;
        if (type === 'BOOKMARK') continue;
        this.#events++;
        changed = true;
      }
    } finally {
      // What came before an error has happened all the same.
      if (changed) this.#options.onChange();
    }
  }

  /** An object of the same version stays what it was made to be. */
  #keep(items: Map<string, Item<T>>, object: unknown): void {
    if (!isJsonObject(object)) return;
    const key = keyOf(object);
    const { resourceVersion } = isJsonObject(object.metadata) ? object.metadata : {};
    const version = typeof resourceVersion === 'string' ? resourceVersion : '';
    const known = this.#items.get(key);
    items.set(
      key,
      known !== undefined && version !== '' && known.version === version
        ? known
        : { version, kept: this.#options.read(object, known?.kept) },
    );
  }

  #replace(items: Map<string, Item<T>>): void {
    const same = this.#synced && items.size === this.#items.size && [...items].every(([key, item]) => this.#items.get(key) === item);
    this.#items = items;
    this.#synced = true;
    if (!same) this.#options.onChange();
  }
}

/** `namespace/name`. */
function keyOf(object: KubeObject): string {
  const { namespace = '', name = '' } = isJsonObject(object.metadata) ? object.metadata : {};
  return `${String(namespace)}/${String(name)}`;
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal, ref: false }).catch(() => undefined);
}
