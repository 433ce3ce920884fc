// The labels of a pod's namespace, which decide whether it is injected: asked of the API server, remembered for a moment, since pods come in swarms.

import { HandfastError, messageOf } from '../errors.ts';
import type { KubeApi } from '../kube/api.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';

export interface NamespaceLabels {
  /** Rejects with UNAVAILABLE when nobody can say. */
  labelsOf(name: string): Promise<Readonly<Record<string, string>>>;
}

/** What was relabelled is injected otherwise after this, at the latest. */
const REMEMBERED_MS = 5_000;
const TIMEOUT_MS = 5_000;
const MAX_REMEMBERED = 1_000;

export class KubeNamespaceLabels implements NamespaceLabels {
  readonly #api: KubeApi;
  readonly #now: () => number;
  readonly #asked = new Map<string, { readonly at: number; readonly labels: Promise<Readonly<Record<string, string>>> }>();

  /** `now` in milliseconds of a clock that never goes back. */
  constructor({ api, now }: { api: KubeApi; now: () => number }) {
    this.#api = api;
    this.#now = now;
  }

  labelsOf(name: string): Promise<Readonly<Record<string, string>>> {
    const at = this.#now();
    const remembered = this.#asked.get(name);
    if (remembered !== undefined && at - remembered.at < REMEMBERED_MS) return remembered.labels;
    if (this.#asked.size >= MAX_REMEMBERED) this.#asked.clear();
    const labels = this.#ask(name);
    const entry = { at, labels };
    this.#asked.set(name, entry);
    // A failure is nobody's but of those who wait for it.
    labels.catch(() => {
      if (this.#asked.get(name) === entry) this.#asked.delete(name);
    });
    return labels;
  }

  async #ask(name: string): Promise<Readonly<Record<string, string>>> {
    try {
      const path = `/api/v1/namespaces/${encodeURIComponent(name)}`;
      const { kind, metadata } = await this.#api.request({ method: 'GET', path, signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (kind !== 'Namespace' || !isJsonObject(metadata)) throw new Error('the answer is no Namespace');
      const labels = isJsonObject(metadata.labels) ? metadata.labels : {};
      return Object.fromEntries(Object.entries(labels).map(([label, value]) => [label, String(value)]));
    } catch (cause) {
      throw new HandfastError('UNAVAILABLE', `the labels of namespace ${name} cannot be read: ${messageOf(cause)}`, { cause });
    }
  }
}
