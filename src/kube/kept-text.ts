// A text that is kept in the API server, as ControlState objects: compressed, in parts where it is too long for one object, replaced whole, and never over what somebody else has written meanwhile.

import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { type KubeApi, type KubeObject, readIfThere, specOf } from './api.ts';

export interface KeptTextOptions {
  readonly api: KubeApi;
  readonly namespace: string;
  /** Of the object. */
  readonly name: string;
  /** Bytes of base64 in one object; etcd takes 1.5 MB unless told otherwise. */
  readonly partBytes?: number;
}

export const CONTROL_STATES = 'controlstates';
const API_VERSION = 'handfast.io/v1alpha1';
/** Which text a part is of. */
const PART_OF = 'handfast.io/part-of';
const PART_BYTES = 768 * 1024;
/** Far more than any mesh's: what unpacks to more was not written by us. */
const MAX_BYTES = 512 * 1024 * 1024;
/** Replaced so often while it was being read. */
const READ_ATTEMPTS = 5;
const TIMEOUT_MS = 10_000;
/** Parts that nobody names and that are older than this were left by a writer that is gone. */
const LEFT_AFTER_MS = 10 * 60_000;

const pack = promisify(gzip);
const unpack = promisify(gunzip);

export class KeptText {
  readonly #options: KeptTextOptions;
  readonly #path: string;
  /** As it was read or written last, without its text. */
  #known: KubeObject | undefined;
  #isKnown = false;

  constructor(options: KeptTextOptions) {
    this.#options = options;
    this.#path = `/apis/${API_VERSION}/namespaces/${options.namespace}/${CONTROL_STATES}`;
  }

  get place(): string {
    return `ControlState ${this.#options.namespace}/${this.#options.name}`;
  }

  /** Undefined where there is none. Throws STATE_INVALID for what was not written whole, and what the API server says. */
  async read(): Promise<string | undefined> {
    for (let attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
      const head = await this.#get(this.#options.name);
      this.#know(head);
      if (head === undefined) return undefined;
      const { data, parts } = specOf(head);
      if (typeof data === 'string') return this.#text(data);
      const pieces = await this.#pieces(Array.isArray(parts) ? parts.map(String) : []);
      if (pieces !== undefined) return this.#text(pieces.join(''));
    }
    throw new HandfastError('STATE_INVALID', `${this.place}: parts of it are missing; delete it, and what it knew is begun anew`);
  }

  /** Throws KUBE_CONFLICT when somebody else has written since we read or wrote, until it is read again: nothing of ours is there then. */
  async write(text: string): Promise<void> {
    const { name, partBytes = PART_BYTES } = this.#options;
    if (!this.#isKnown) this.#know(await this.#get(name));
    const before = partsOf(this.#known);
    const data = (await pack(text)).toString('base64');
    if (data.length <= partBytes) {
      await this.#replace({ data });
    } else {
      const pieces = Array.from({ length: Math.ceil(data.length / partBytes) }, (_, at) =>
        data.slice(at * partBytes, (at + 1) * partBytes),
      );
      const parts = await this.#add(pieces);
      try {
        await this.#replace({ parts });
      } catch (error) {
        // Whatever became of it: one that is not named is nobody's.
        if (error instanceof HandfastError && error.code === 'KUBE_CONFLICT') await this.#remove(parts);
        throw error;
      }
    }
    await this.#remove(before);
    await this.#sweep();
  }

  /** Keeps the object for people to look at, under another name: where that is, in words. */
  async setAside(now: number): Promise<string> {
    const { api, namespace, name } = this.#options;
    const head = await this.#get(name);
    const { data } = specOf(head ?? {});
    if (typeof data !== 'string') return 'nowhere: it lies in parts';
    const aside = `${name}-broken-${now}`;
    const body = { apiVersion: API_VERSION, kind: 'ControlState', metadata: { name: aside, namespace }, spec: { data } };
    await api.request({ method: 'POST', path: this.#path, body, signal: deadline() });
    return `ControlState ${namespace}/${aside}`;
  }

  async #replace(spec: KubeObject): Promise<void> {
    const { api, namespace, name } = this.#options;
    const known = this.#known;
    const head = { apiVersion: API_VERSION, kind: 'ControlState' };
    try {
      this.#know(
        known === undefined
          ? await api.request({
              method: 'POST',
              path: this.#path,
              body: { ...head, metadata: { name, namespace }, spec },
              signal: deadline(),
            })
          : await api.request({ method: 'PUT', path: `${this.#path}/${name}`, body: { ...head, ...known, spec }, signal: deadline() }),
      );
    } catch (error) {
      // What we know stays what we read: were it written all the same, the next one is refused, and whoever writes must read first.
      if (known !== undefined && error instanceof HandfastError && error.code === 'KUBE_NOT_FOUND')
        throw new HandfastError('KUBE_CONFLICT', `${this.place} was deleted meanwhile`, { cause: error });
      throw error;
    }
  }

  #know(head: KubeObject | undefined): void {
    this.#known = head === undefined ? undefined : { metadata: head.metadata, spec: { parts: specOf(head).parts } };
    this.#isKnown = true;
  }

  async #add(pieces: readonly string[]): Promise<readonly string[]> {
    const { api, namespace, name } = this.#options;
    const of = randomBytes(6).toString('hex');
    const names: string[] = [];
    for (const [index, data] of pieces.entries()) {
      const part = `${name}-${of}-${index}`;
      const metadata = { name: part, namespace, labels: { [PART_OF]: name } };
      await api.request({
        method: 'POST',
        path: this.#path,
        body: { apiVersion: API_VERSION, kind: 'ControlState', metadata, spec: { data } },
        signal: deadline(),
      });
      names.push(part);
    }
    return names;
  }

  /** Undefined when one of them is gone: a newer text has taken its place. */
  async #pieces(names: readonly string[]): Promise<readonly string[] | undefined> {
    const pieces: string[] = [];
    for (const name of names) {
      const { data } = specOf((await this.#get(name)) ?? {});
      if (typeof data !== 'string') return undefined;
      pieces.push(data);
    }
    return pieces.length === 0 ? undefined : pieces;
  }

  /** Parts of writers that were ended half-way: old ones alone, since another writer's newest are named by nobody yet. What cannot be removed now is the next time. */
  async #sweep(): Promise<void> {
    const { api, name } = this.#options;
    const kept = new Set(partsOf(this.#known));
    const before = Date.now() - LEFT_AFTER_MS;
    try {
      const { items } = await api.request({
        method: 'GET',
        path: `${this.#path}?labelSelector=${encodeURIComponent(`${PART_OF}=${name}`)}`,
        signal: deadline(),
      });
      const all = Array.isArray(items) ? items.filter(isJsonObject) : [];
      await this.#remove(all.filter((part) => !kept.has(nameOf(part)) && createdAt(part) < before).map(nameOf));
    } catch {
      // The text itself is written.
    }
  }

  async #remove(names: readonly string[]): Promise<void> {
    for (const name of names)
      await this.#options.api.request({ method: 'DELETE', path: `${this.#path}/${name}`, signal: deadline() }).catch(() => undefined);
  }

  #get(name: string): Promise<KubeObject | undefined> {
    return readIfThere(this.#options.api, { path: `${this.#path}/${name}`, signal: deadline() });
  }

  async #text(data: string): Promise<string> {
    try {
      return (await unpack(Buffer.from(data, 'base64'), { maxOutputLength: MAX_BYTES })).toString('utf8');
    } catch (cause) {
      throw new HandfastError('STATE_INVALID', `${this.place}: ${messageOf(cause)}; delete it, and what it knew is begun anew`, { cause });
    }
  }
}

function deadline(): AbortSignal {
  return AbortSignal.timeout(TIMEOUT_MS);
}

function partsOf(head: KubeObject | undefined): readonly string[] {
  const { parts } = specOf(head ?? {});
  return Array.isArray(parts) ? parts.map(String) : [];
}

/** Now, where nothing says when. */
function createdAt({ metadata }: KubeObject): number {
  const at = isJsonObject(metadata) ? Date.parse(String(metadata.creationTimestamp)) : Number.NaN;
  return Number.isNaN(at) ? Date.now() : at;
}

function nameOf({ metadata }: KubeObject): string {
  return isJsonObject(metadata) ? String(metadata.name) : '';
}
