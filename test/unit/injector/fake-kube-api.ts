// The Kubernetes API in memory, as far as the injector uses it: objects by path, resourceVersions, conflicts, and days on which nobody answers.

import { HandfastError } from '../../../src/errors.ts';
import type { KubeApi, KubeObject, KubeRequest } from '../../../src/kube/api.ts';
import { isJsonObject } from '../../../src/spiffe/strict-json.ts';

export class FakeKubeApi implements KubeApi {
  readonly objects = new Map<string, KubeObject>();
  readonly asked: string[] = [];
  /** Set, every request fails. */
  away = false;
  /** Called before a write is judged: another client's chance to be first. */
  beforeWrite: (() => void) | undefined;
  #version = 0;

  /** As if somebody else had written it. */
  put(path: string, object: KubeObject): void {
    const metadata = isJsonObject(object.metadata) ? object.metadata : {};
    this.objects.set(path, { ...object, metadata: { ...metadata, resourceVersion: String(++this.#version) } });
  }

  async request({ method, path, body }: KubeRequest): Promise<KubeObject> {
    this.asked.push(`${method} ${path}`);
    if (this.away) throw new HandfastError('UNAVAILABLE', `${method} ${path}: nobody answers`);
    if (method === 'GET' && path.includes('?')) return this.#labelled(path);
    if (method === 'GET') return this.#held(path);
    const interfere = this.beforeWrite;
    this.beforeWrite = undefined;
    interfere?.();
    if (method === 'DELETE') {
      const held = this.#held(path);
      this.objects.delete(path);
      return held;
    }
    const object = structuredClone(isJsonObject(body) ? body : {});
    const metadata = isJsonObject(object.metadata) ? object.metadata : {};
    const target = method === 'POST' ? `${path}/${String(metadata.name)}` : path;
    if (method === 'POST') {
      if (this.objects.has(target)) throw new HandfastError('KUBE_CONFLICT', `${target} already exists`);
    } else {
      const held = this.#held(target).metadata;
      if (!isJsonObject(held) || held.resourceVersion !== metadata.resourceVersion)
        throw new HandfastError('KUBE_CONFLICT', `${target}: the object has been modified`);
    }
    this.put(target, object);
    return this.#held(target);
  }

  /** Of one label, as the only selector that is asked for here. */
  #labelled(path: string): KubeObject {
    const url = new URL(path, 'https://kube');
    const [key = '', value] = (url.searchParams.get('labelSelector') ?? '').split('=');
    const items = [...this.objects].flatMap(([of, { metadata, ...object }]) => {
      const labels = isJsonObject(metadata) && isJsonObject(metadata.labels) ? metadata.labels : {};
      return of.startsWith(`${url.pathname}/`) && labels[key] === value ? { ...object, metadata } : [];
    });
    return { items };
  }

  #held(path: string): KubeObject {
    const object = this.objects.get(path);
    if (object === undefined) throw new HandfastError('KUBE_NOT_FOUND', `${path} not found`);
    return structuredClone(object);
  }
}
