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
    if (method === 'GET') return this.#held(path);
    const interfere = this.beforeWrite;
    this.beforeWrite = undefined;
    interfere?.();
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

  #held(path: string): KubeObject {
    const object = this.objects.get(path);
    if (object === undefined) throw new HandfastError('KUBE_NOT_FOUND', `${path} not found`);
    return structuredClone(object);
  }
}
