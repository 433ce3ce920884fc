// An API server for tests, in memory: objects with resource versions, lists in pages, watches that a test can end, stall or make forget.

import { PassThrough, Readable } from 'node:stream';
import { HandfastError } from '../../src/errors.ts';
import type { KubeObject, KubeRequest, WatchableKubeApi } from '../../src/kube/api.ts';

interface Stored {
  readonly path: string;
  readonly object: KubeObject;
}

export class FakeKubeApi implements WatchableKubeApi {
  /** Every request and watch, as `list /api/v1/pods` and `watch /api/v1/pods`. */
  readonly asked: string[] = [];
  /** Collections that are not installed. */
  readonly absent = new Set<string>();
  /** Thrown by everything while it is set. */
  away: HandfastError | undefined;
  /** Watches from before this version are told that it is gone. */
  oldest = 0;
  readonly #objects = new Map<string, Stored>();
  readonly #watches = new Set<{ readonly path: string; readonly selector: string | null; readonly body: PassThrough }>();
  readonly #log: { readonly version: number; readonly path: string; readonly type: string; readonly object: KubeObject }[] = [];
  #version = 1;
  readonly #waiting = new Set<() => void>();

  /** `path`: of the collection. Adds it, or replaces the one of its name. */
  put(path: string, object: KubeObject & { readonly metadata: KubeObject }): void {
    const key = `${path} ${String(object.metadata.namespace)}/${String(object.metadata.name)}`;
    const version = ++this.#version;
    const type = this.#objects.has(key) ? 'MODIFIED' : 'ADDED';
    const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
    this.#objects.set(key, { path, object: stored });
    this.#tell(type, path, stored);
  }

  remove(path: string, name: string): void {
    const key = `${path} ${name}`;
    const stored = this.#objects.get(key);
    if (stored === undefined) throw new Error(`there is no ${key}`);
    this.#objects.delete(key);
    const version = ++this.#version;
    this.#tell('DELETED', path, {
      ...stored.object,
      metadata: { ...(stored.object.metadata as KubeObject), resourceVersion: String(version) },
    });
  }

  /** Ends every watch, as a restart or a timeout does. */
  endWatches(): void {
    for (const { body } of this.#watches) body.end();
  }

  /** The watches of a collection that are open now say nothing any more, as one does that lags. */
  mute(path: string): void {
    for (const watch of this.#watches) if (watch.path === path) this.#watches.delete(watch);
  }

  /** Something raw into every watch of a collection. */
  say(path: string, text: string): void {
    for (const watch of this.#watches) if (watch.path === path) watch.body.write(text);
  }

  /** Resolves when this has been asked so many times in all. */
  async askedTimes(what: string, times: number): Promise<void> {
    while (this.asked.filter((one) => one === what).length < times) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  async request({ method, path, body, signal }: KubeRequest): Promise<KubeObject> {
    signal?.throwIfAborted();
    const url = new URL(path, 'https://kube');
    if (method === 'PATCH') return this.#patch(url.pathname, body);
    this.#note(`list ${url.pathname}`);
    if (method !== 'GET') throw new Error(`${method} is not there`);
    this.#check(url.pathname);
    const selector = url.searchParams.get('labelSelector');
    const all = [...this.#objects.values()].flatMap((stored) =>
      stored.path === url.pathname && isSelected(stored.object, selector) ? [stored.object] : [],
    );
    const from = Number(url.searchParams.get('continue') ?? 0);
    const limit = Number(url.searchParams.get('limit') ?? all.length);
    const rest = from + limit < all.length ? { continue: String(from + limit) } : {};
    return { kind: 'List', metadata: { resourceVersion: String(this.#version), ...rest }, items: all.slice(from, from + limit) };
  }

  async open(path: string, signal: AbortSignal): Promise<Readable> {
    signal.throwIfAborted();
    const url = new URL(path, 'https://kube');
    this.#note(`watch ${url.pathname}`);
    if (url.pathname === '/readyz') return Readable.from(['ok']);
    this.#check(url.pathname);
    const body = new PassThrough();
    const selector = url.searchParams.get('labelSelector');
    const watch = { path: url.pathname, selector, body };
    this.#watches.add(watch);
    body.once('close', () => this.#watches.delete(watch));
    signal.addEventListener('abort', () => body.destroy(), { once: true });
    const from = Number(url.searchParams.get('resourceVersion'));
    if (from < this.oldest) body.end(line('ERROR', { kind: 'Status', code: 410, message: 'too old resource version', metadata: {} }));
    else
      for (const { version, path: of, type, object } of this.#log)
        if (version > from && of === url.pathname && isSelected(object, selector)) body.write(line(type, object));
    return body;
  }

  /** A merge patch of a status, as the only thing that is patched here. */
  #patch(path: string, body: unknown): KubeObject {
    this.#note(`patch ${path}`);
    const [, collection = '', namespace, name] = /^(.*?)(?:\/namespaces\/([^/]+))?\/([^/]+\/[^/]+)\/status$/.exec(path) ?? [];
    const [plural, object] = (name ?? '').split('/');
    const of = `${collection}/${plural}`;
    this.#check(of);
    const stored = this.#objects.get(`${of} ${namespace}/${object}`);
    if (stored === undefined) throw new HandfastError('KUBE_NOT_FOUND', `${path} is not there`);
    const { metadata } = stored.object;
    const patched = { ...stored.object, metadata: metadata as KubeObject, status: (body as { status: unknown }).status };
    this.put(of, patched);
    return patched;
  }

  #check(path: string): void {
    if (this.away !== undefined) throw this.away;
    if (this.absent.has(path)) throw new HandfastError('KUBE_NOT_FOUND', `${path} is not installed`);
  }

  #note(what: string): void {
    this.asked.push(what);
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  #tell(type: string, path: string, object: KubeObject): void {
    this.#log.push({ version: this.#version, path, type, object });
    for (const watch of this.#watches) if (watch.path === path && isSelected(object, watch.selector)) watch.body.write(line(type, object));
  }
}

/** `name`, `name=value` and `name!=value`, all of them. */
function isSelected({ metadata }: KubeObject, selector: string | null): boolean {
  const labels = (metadata as { labels?: Readonly<Record<string, string>> }).labels ?? {};
  return (selector ?? '').split(',').every((term) => {
    const [name = '', value] = term.split(/!?=/);
    if (value === undefined) return name === '' || labels[name] !== undefined;
    return (labels[name] === value) !== term.includes('!=');
  });
}

function line(type: string, object: KubeObject): string {
  return `${JSON.stringify({ type, object })}\n`;
}
