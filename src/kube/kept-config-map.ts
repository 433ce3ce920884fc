// One key of a ConfigMap, kept as we say: written only when it differs, tried again until it can be, and put back when somebody else has changed it.

import { setTimeout as wait } from 'node:timers/promises';
import { Backoff } from '../backoff.ts';
import { messageOf } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { type KubeApi, readIfThere } from './api.ts';

export interface KeptConfigMapOptions {
  readonly api: KubeApi;
  readonly namespace: string;
  readonly name: string;
  /** Of its `data`; whatever else is in it stays as it is. */
  readonly key: string;
  /** Once for each time that it begins to fail. */
  readonly onFailed: (reason: string) => void;
  readonly onWritten: () => void;
}

const LOOK_EVERY_MS = 60_000;
const RETRY = { baseMs: 500, maxMs: 30_000 };

export class KeptConfigMap {
  readonly #options: KeptConfigMapOptions;
  readonly #collection: string;
  #value: string;
  #wake = new AbortController();

  constructor(options: KeptConfigMapOptions & { readonly value: string }) {
    this.#options = options;
    this.#value = options.value;
    this.#collection = `/api/v1/namespaces/${options.namespace}/configmaps`;
  }

  /** What it is to say from now on. */
  replace(value: string): void {
    this.#value = value;
    this.#wake.abort();
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(RETRY);
    let failing = false;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      let pauseMs = LOOK_EVERY_MS;
      try {
        if ((await this.write(signal)) === 'written') this.#options.onWritten();
        failing = false;
        backoff.reset();
      } catch (error) {
        if (signal.aborted) return;
        if (!failing) this.#options.onFailed(messageOf(error));
        failing = true;
        pauseMs = backoff.next();
      }
      // Neither an abort nor a new value is a failure here.
      await wait(pauseMs, undefined, { signal: AbortSignal.any([signal, this.#wake.signal]) }).catch(() => undefined);
    }
  }

  /** Once. Throws what the API server says; KUBE_CONFLICT when somebody else was first. */
  async write(signal: AbortSignal): Promise<'written' | 'unchanged'> {
    const { api, namespace, name, key } = this.#options;
    const value = this.#value;
    const held = await readIfThere(api, { path: `${this.#collection}/${name}`, signal });
    const data = isJsonObject(held?.data) ? held.data : {};
    if (data[key] === value) return 'unchanged';
    const path = this.#collection;
    if (held === undefined) {
      const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data: { [key]: value } };
      await api.request({ method: 'POST', path, body, signal });
    } else {
      // With the metadata that was read, resourceVersion among it.
      await api.request({ method: 'PUT', path: `${path}/${name}`, body: { ...held, data: { ...data, [key]: value } }, signal });
    }
    return 'written';
  }
}
