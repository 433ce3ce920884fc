// One workload's certificate, kept fresh: a new key and CSR at half life with jitter, retried until it works. Keys live in memory alone.

import { setTimeout as delay } from 'node:timers/promises';
import type { CaClient } from '../ca/client.ts';
import { Backoff } from '../discovery/backoff.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import { createCsr } from '../spiffe/csr.ts';
import type { Identity } from '../spiffe/identity.ts';
import { generateP256, pkcs8Pem } from '../spiffe/p256.ts';
import { parseTrustBundle } from '../spiffe/trust-bundle.ts';
import { parseX509Svid } from '../spiffe/x509-svid.ts';

export interface RotationPlan {
  /** Renew this often, in milliseconds, whatever the lifetime. Undefined: at half life. */
  readonly rotateEveryMs: number | undefined;
  readonly now: () => number;
}

export class SvidRotator {
  readonly identity = new Snapshot<Identity>();
  /** Rejects when the first certificate is refused, resolves when it is there. */
  readonly ready: Promise<Identity>;
  readonly #deps: { token: string; ca: CaClient; plan: RotationPlan; log: Log };
  readonly #abort = new AbortController();

  constructor(deps: { token: string; ca: CaClient; plan: RotationPlan; log: Log }) {
    this.#deps = deps;
    this.ready = this.#issue();
    this.ready.then(
      (identity) => void this.#keepFresh(identity),
      () => undefined,
    );
  }

  stop(): void {
    this.#abort.abort();
  }

  async #issue(): Promise<Identity> {
    const keys = await generateP256();
    const { chain, bundle } = await this.#deps.ca.sign({ csr: createCsr(keys), token: this.#deps.token });
    const svid = parseX509Svid({ chain, key: pkcs8Pem(keys.privateKey) });
    const identity = Object.freeze({ svid, bundle: parseTrustBundle(bundle, svid.id.trustDomain) });
    this.identity.replace(identity);
    return identity;
  }

  async #keepFresh(first: Identity): Promise<void> {
    const { plan, log } = this.#deps;
    const { signal } = this.#abort;
    const backoff = new Backoff({ baseMs: 500, maxMs: 30_000 });
    let waitMs = renewalDelay(first, plan);
    while (!signal.aborted) {
      await delay(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        const identity = await this.#issue();
        backoff.reset();
        waitMs = renewalDelay(identity, plan);
        log.info({ spiffeId: identity.svid.id.uri, serial: identity.svid.serial }, 'certificate renewed');
      } catch (error) {
        waitMs = backoff.next();
        const notAfter = this.identity.current?.svid.notAfter ?? 0;
        log.error(
          {
            spiffeId: first.svid.id.uri,
            reason: messageOf(error),
            retryInMs: Math.round(waitMs),
            ...(error instanceof HandfastError && error.code === 'TOKEN_REFUSED'
              ? { mend: "write a new token to the workload's token file" }
              : {}),
            certificateDiesInS: Math.round((notAfter - plan.now()) / 1000),
          },
          'certificate not renewed, the old one stays in use',
        );
      }
    }
  }
}

/** Half of what is left of the lifetime, give or take a tenth of it, so that a fleet does not renew in step. */
export function renewalDelay(identity: Identity, plan: RotationPlan, random: () => number = Math.random): number {
  if (plan.rotateEveryMs !== undefined) return plan.rotateEveryMs;
  const left = Math.max(0, identity.svid.notAfter - plan.now());
  return Math.min(2 ** 31 - 1, left * (0.45 + 0.1 * random()));
}
