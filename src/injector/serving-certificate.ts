// The webhook's certificate through the years: looked at once a minute, renewed in time, and shown only when API servers can verify it.

import { setTimeout as wait } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import type { KubeApi } from '../kube/api.ts';
import type { Log } from '../observe/log.ts';
import { caBundleOf, endOf, type ServingMaterial } from './serving-material.ts';
import type { ServingSecret } from './serving-secret.ts';
import { putCaBundle } from './webhook-configuration.ts';

export interface ServingCertificateOptions {
  readonly api: KubeApi;
  readonly secret: ServingSecret;
  /** Name of the MutatingWebhookConfiguration. */
  readonly webhookConfiguration: string;
  readonly log: Log;
  readonly now: () => number;
}

const LOOK_EVERY_MS = 60_000;
const RETRY_MS = 5_000;

export class ServingCertificate {
  readonly #options: ServingCertificateOptions;
  #shown: ServingMaterial | undefined;
  #said = '';

  constructor(options: ServingCertificateOptions) {
    this.#options = options;
  }

  /** The first one, as soon as it can be had. Rejects when the signal aborts. */
  async first(signal: AbortSignal): Promise<ServingMaterial> {
    for (;;) {
      await this.look();
      if (this.#shown !== undefined) return this.#shown;
      await wait(RETRY_MS, undefined, { signal });
    }
  }

  /** Until the signal aborts. */
  async run({ signal, show }: { signal: AbortSignal; show: (material: ServingMaterial) => void }): Promise<void> {
    let settled = true;
    while (!signal.aborted) {
      // An abort is no failure here: it ends the loop.
      await wait(settled ? LOOK_EVERY_MS : RETRY_MS, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      const before = this.#shown;
      settled = await this.look();
      if (this.#shown !== undefined && this.#shown !== before) show(this.#shown);
    }
  }

  /** What is to be shown now; undefined before the first one. */
  get shown(): ServingMaterial | undefined {
    return this.#shown;
  }

  /** One look at Secret and configuration. False if there is something to be looked at again soon. */
  async look(): Promise<boolean> {
    const { api, secret, webhookConfiguration: name, log, now } = this.#options;
    try {
      const material = await secret.current(this.#shown);
      const bundle = caBundleOf(material, now());
      // Without the bundle nobody can verify a new authority's certificate; the one that is shown serves meanwhile.
      const state = await putCaBundle({ api, name, bundle }).catch((error: unknown) => {
        this.#say(`failed: ${messageOf(error)}`, () =>
          log.error({ webhookConfiguration: name, reason: messageOf(error) }, 'CA bundle not written'),
        );
        return 'failed' as const;
      });
      if (state === 'absent')
        this.#say(state, () =>
          log.warn({ webhookConfiguration: name }, 'there is no such MutatingWebhookConfiguration; nobody will ask until there is'),
        );
      if (state === 'changed') this.#say(state, () => log.info({ webhookConfiguration: name }, 'CA bundle written'));
      if (state === 'unchanged') this.#said = '';
      if (this.#mayShow(material, state)) this.#show(material);
      return state === 'unchanged' && this.#shown?.certificate === material.certificate;
    } catch (error) {
      this.#say(`failed: ${messageOf(error)}`, () =>
        log.error({ reason: messageOf(error) }, 'serving certificate cannot be had or renewed'),
      );
      return false;
    }
  }

  /** An API server hears of a new bundle a moment after it was written: the next look finds it there, and then everybody has it. */
  #mayShow(material: ServingMaterial, state: 'unchanged' | 'changed' | 'absent' | 'failed'): boolean {
    const shown = this.#shown;
    if (shown === undefined || endOf(shown) <= this.#options.now()) return true;
    return shown.caCertificate === material.caCertificate || state === 'unchanged' || state === 'absent';
  }

  #show(material: ServingMaterial): void {
    if (material.certificate === this.#shown?.certificate) return;
    this.#shown = material;
    this.#options.log.info({ until: new Date(endOf(material)).toISOString() }, 'serving certificate in force');
  }

  /** Once for each state, not at every look. */
  #say(state: string, log: () => void): void {
    if (state === this.#said) return;
    this.#said = state;
    log();
  }
}
