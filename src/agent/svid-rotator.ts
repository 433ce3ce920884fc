// One workload's certificate, kept fresh: a new key and CSR at half life with jitter, sooner when the CA changes its root, retried until it
// works. Keys live in memory alone.

import { Backoff } from '../backoff.ts';
import { AlarmClock } from '../discovery/alarm-clock.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { NodeTrust } from '../node/node-trust.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import { createCsr } from '../spiffe/csr.ts';
import type { Identity } from '../spiffe/identity.ts';
import { checkOwnCertificate } from '../spiffe/own-certificate.ts';
import { generateP256, pkcs8Pem } from '../spiffe/p256.ts';
import { firstRootChanged } from '../spiffe/trust-bundle.ts';
import { chainsTo, parseX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';

export interface RotationPlan {
  /** Renew this often, in milliseconds, whatever the lifetime. Undefined: at half life. */
  readonly rotateEveryMs: number | undefined;
  readonly now: () => number;
}

/** The CA, as far as a rotator needs it: a chain (PEM, leaf first, no root) for a CSR and the token that proves whose it is. */
export interface SvidSigner {
  sign(request: { csr: string; token: string }): Promise<{ chain: string }>;
}

export interface RotatorDeps {
  readonly token: string;
  readonly signer: SvidSigner;
  readonly trust: Snapshot<NodeTrust>;
  readonly plan: RotationPlan;
  readonly log: Log;
}

/** After a change of root a node's workloads renew within this time, not all at once. */
const ROOT_CHANGE_SPREAD_MS = 5_000;

export class SvidRotator {
  readonly identity = new Snapshot<Identity>();
  /** Rejects when the first certificate is refused, resolves when it is there. */
  readonly ready: Promise<Identity>;
  readonly #deps: RotatorDeps;
  readonly #abort = new AbortController();
  readonly #clock = new AlarmClock();
  #spreadMs = 0;

  constructor(deps: RotatorDeps) {
    this.#deps = deps;
    const unsubscribe = deps.trust.subscribe((next, previous) => this.#trustChanged(next, previous));
    this.#abort.signal.addEventListener('abort', unsubscribe, { once: true });
    this.ready = this.#issue();
    this.ready.then(
      (identity) => void this.#keepFresh(identity),
      () => unsubscribe(),
    );
  }

  stop(): void {
    this.#abort.abort();
  }

  async #issue(): Promise<Identity> {
    const { signer, token, trust } = this.#deps;
    const keys = await generateP256();
    const { chain } = await signer.sign({ csr: createCsr(keys), token });
    const svid = parseX509Svid({ chain, key: pkcs8Pem(keys.privateKey) });
    this.#check(svid);
    const bundles = (await trust.first(this.#abort.signal))?.bundles;
    if (bundles === undefined || !chainsTo(svid.certificates, bundles.own))
      throw new HandfastError('UNAVAILABLE', `the certificate ${svid.serial} does not chain to the trust bundle of this node yet`);
    const identity = Object.freeze({ svid, bundles });
    this.identity.replace(identity);
    return identity;
  }

  /** Throws for a certificate that is of no use by our clock, or of another workload: a stream may not come to speak for somebody else. */
  #check(svid: X509Svid): void {
    checkOwnCertificate(svid, this.#deps.plan.now());
    const served = this.identity.current?.svid.id.uri ?? svid.id.uri;
    if (svid.id.uri !== served)
      throw new HandfastError('IDENTITY_MISMATCH', `the CA made a certificate of ${svid.id.uri} for the token of ${served}`);
  }

  /** The new bundle is in force at once; a new first root is the CA's word that everything should be signed below it. A revoked certificate is replaced. */
  #trustChanged({ bundles, crl }: NodeTrust, previous: NodeTrust | undefined): void {
    const { current } = this.identity;
    if (current === undefined) return;
    if (crl !== previous?.crl && crl.serials.has(current.svid.serial)) this.#renewWithin(0);
    if (bundles === previous?.bundles) return;
    const chained = chainsTo(current.svid.certificates, bundles.own);
    if (chained) this.identity.replace(Object.freeze({ svid: current.svid, bundles }));
    if (!chained || firstRootChanged(current.bundles, bundles)) this.#renewWithin(ROOT_CHANGE_SPREAD_MS);
  }

  #renewWithin(spreadMs: number): void {
    this.#spreadMs = spreadMs;
    this.#clock.ring();
  }

  async #keepFresh(first: Identity): Promise<void> {
    const { plan, log } = this.#deps;
    const { signal } = this.#abort;
    const backoff = new Backoff({ baseMs: 500, maxMs: 30_000 });
    let waitMs = renewalDelay(first, plan);
    while (!signal.aborted) {
      const due = { now: plan.now, signal };
      if (await this.#clock.waitUntil(plan.now() + waitMs, due))
        await this.#clock.wait(Math.min(this.#spreadMs, waitMs) * Math.random(), signal);
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
  const { notBefore, notAfter } = identity.svid;
  // No longer than its whole life, whatever our clock says.
  const left = Math.max(0, Math.min(notAfter - plan.now(), notAfter - notBefore));
  return Math.min(2 ** 31 - 1, left * (0.45 + 0.1 * random()));
}
