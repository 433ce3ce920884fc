// The Secret with the webhook's certificate, shared by its replicas: whoever finds it missing, broken or due makes it anew, and the resourceVersion decides who was first.

import { HandfastError, messageOf } from '../errors.ts';
import { type KubeApi, type KubeObject, readIfThere } from '../kube/api.ts';
import type { Log } from '../observe/log.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import {
  dueOf,
  LIFETIMES,
  type Lifetimes,
  makeServing,
  readServing,
  renewLeaf,
  type ServingMaterial,
  secretData,
} from './serving-material.ts';

export interface ServingSecretOptions {
  readonly api: KubeApi;
  readonly namespace: string;
  readonly name: string;
  readonly dnsNames: readonly string[];
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly lifetimes?: Lifetimes;
}

/** Whoever loses this often meets something else than another replica. */
const ATTEMPTS = 5;

export class ServingSecret {
  readonly #options: ServingSecretOptions;
  readonly #path: string;

  constructor(options: ServingSecretOptions) {
    this.#options = options;
    this.#path = `/api/v1/namespaces/${options.namespace}/secrets`;
  }

  /**
   * What is to be served now, made or renewed where it must be. `shown` is what is served so far: where the Secret is gone, its authority stays trusted, or
   * other replicas would be cut off until they have looked. Throws what the API server says, and UNAVAILABLE.
   */
  async current(shown?: Pick<ServingMaterial, 'caCertificate'>): Promise<ServingMaterial> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const secret = await readIfThere(this.#options.api, { path: `${this.#path}/${this.#options.name}` });
      const held = secret === undefined ? undefined : this.#held(secret);
      const next = await this.#next(held, shown);
      if (next === held && held !== undefined) return held;
      if (await this.#write(next, secret)) {
        this.#options.log.info({ secret: this.#options.name, was: held === undefined ? 'absent' : 'due' }, 'serving certificate made');
        return next;
      }
    }
    throw new HandfastError('UNAVAILABLE', `Secret ${this.#options.namespace}/${this.#options.name} changes faster than it can be written`);
  }

  /** Undefined for what cannot be served with: it is replaced. */
  #held({ data }: KubeObject): ServingMaterial | undefined {
    try {
      return readServing(isJsonObject(data) ? data : {});
    } catch (error) {
      this.#options.log.warn({ secret: this.#options.name, reason: messageOf(error) }, 'the Secret is broken and will be replaced');
      return undefined;
    }
  }

  #next(
    held: ServingMaterial | undefined,
    shown: Pick<ServingMaterial, 'caCertificate'> | undefined,
  ): Promise<ServingMaterial> | ServingMaterial {
    const { dnsNames, lifetimes = LIFETIMES } = this.#options;
    const making = { dnsNames, lifetimes, now: this.#options.now() };
    if (held === undefined) return makeServing({ ...making, previousCa: shown?.caCertificate });
    const due = dueOf(held, making);
    if (due === 'nothing') return held;
    return due === 'leaf' ? renewLeaf(held, making) : makeServing({ ...making, previousCa: held.caCertificate });
  }

  /** False if somebody else was first. */
  async #write(material: ServingMaterial, secret: KubeObject | undefined): Promise<boolean> {
    const { api, namespace, name, now } = this.#options;
    const data = secretData(material, now());
    try {
      if (secret === undefined) {
        const body = { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace }, type: 'Opaque', data };
        await api.request({ method: 'POST', path: this.#path, body });
      } else {
        // With the metadata that was read, resourceVersion among it.
        await api.request({ method: 'PUT', path: `${this.#path}/${name}`, body: { ...secret, data } });
      }
      return true;
    } catch (error) {
      if (error instanceof HandfastError && (error.code === 'KUBE_CONFLICT' || error.code === 'KUBE_NOT_FOUND')) return false;
      throw error;
    }
  }
}
