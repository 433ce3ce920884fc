// The certificates of one caller's workloads, held for as long as it listens: a session with the CA for each registration.

import { Backoff } from '../backoff.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import { isRefusal } from './workload-api-errors.ts';
import type { Registration } from './workload-registrations.ts';

/** A workload's certificate, renewed until it is released. `ready` rejects when the first one is refused. */
export interface WorkloadSession {
  readonly ready: Promise<Identity>;
  readonly identity: Snapshot<Identity>;
  release(): void;
}

export interface WorkloadIdentityProvider {
  acquire(token: string): WorkloadSession;
}

interface HeldDeps {
  readonly identities: WorkloadIdentityProvider;
  readonly log: Log;
  readonly onChange: () => void;
}

/** One registration's: the session of its newest token, and the one before until that is ready. */
class HeldWorkload {
  readonly #registration: Registration;
  readonly #deps: HeldDeps;
  readonly #unsubscribe: () => void;
  readonly #backoff = new Backoff({ baseMs: 500, maxMs: 30_000 });
  #retry: NodeJS.Timeout | undefined;
  #session: WorkloadSession | undefined;
  #stopListening: (() => void) | undefined;
  /** Under way to replace the session. */
  #next: WorkloadSession | undefined;
  identity: Identity | undefined;
  /** Why there is no certificate. Neither of the two: nothing is known yet. */
  failure: unknown;

  constructor(registration: Registration, deps: HeldDeps) {
    this.#registration = registration;
    this.#deps = deps;
    this.#unsubscribe = registration.token.subscribe(() => this.#acquire());
    this.#acquire();
  }

  release(): void {
    clearTimeout(this.#retry);
    this.#unsubscribe();
    this.#dropNext();
    this.#dropSession();
  }

  #acquire(): void {
    clearTimeout(this.#retry);
    const token = this.#registration.token.current;
    if (token === undefined) {
      this.failure = new HandfastError('NO_IDENTITY', `${this.#registration.tokenFile} holds no token`);
      return;
    }
    this.#dropNext();
    let next: WorkloadSession;
    try {
      next = this.#deps.identities.acquire(token);
    } catch (error) {
      this.#failed(error);
      return;
    }
    this.#next = next;
    next.ready.then(
      (first) => {
        if (this.#next !== next) return;
        this.#next = undefined;
        this.#dropSession();
        this.#session = next;
        this.#backoff.reset();
        this.#stopListening = next.identity.subscribe((identity) => this.#take(identity));
        this.#take(next.identity.current ?? first);
      },
      (error: unknown) => {
        if (this.#next !== next) return;
        this.#dropNext();
        this.#failed(error);
      },
    );
  }

  #take(identity: Identity): void {
    const registered = this.#registration.spiffeId.uri;
    const proven = identity.svid.id.uri;
    if (proven === registered) {
      this.identity = identity;
      this.failure = undefined;
    } else {
      // The file says one name and the token proves another: nothing is served, neither of the two.
      const { tokenFile } = this.#registration;
      this.#deps.log.error({ registered, proven, tokenFile }, 'registration refused: its token proves another SPIFFE ID');
      this.#dropSession();
      this.identity = undefined;
      this.failure = new HandfastError('IDENTITY_MISMATCH', `${tokenFile} does not prove ${registered}`);
    }
    this.#deps.onChange();
  }

  #failed(error: unknown): void {
    const retryInMs = this.#backoff.next();
    const { spiffeId } = this.#registration;
    this.#deps.log.warn(
      { spiffeId: spiffeId.uri, reason: messageOf(error), retryInMs: Math.round(retryInMs) },
      'no certificate for a registered workload',
    );
    this.#retry = setTimeout(() => this.#acquire(), retryInMs).unref();
    // A certificate that is there already stays in use.
    if (this.identity !== undefined) return;
    this.failure = error;
    this.#deps.onChange();
  }

  #dropNext(): void {
    this.#next?.release();
    this.#next = undefined;
  }

  #dropSession(): void {
    this.#stopListening?.();
    this.#session?.release();
    this.#session = this.#stopListening = undefined;
  }
}

/** What there is to serve: undefined while it is not known yet, otherwise certificates in the order of the file, or why there are none. */
export type HeldOutcome = undefined | { readonly svids: readonly X509Svid[] } | { readonly failure: unknown };

export class HeldWorkloads {
  readonly #deps: HeldDeps;
  #held = new Map<Registration, HeldWorkload>();
  #served = false;

  constructor(deps: HeldDeps) {
    this.#deps = deps;
  }

  /** Holds these and no others. */
  hold(registrations: readonly Registration[]): void {
    const held = new Map(registrations.map((each) => [each, this.#held.get(each) ?? new HeldWorkload(each, this.#deps)]));
    for (const [registration, workload] of this.#held) if (!held.has(registration)) workload.release();
    this.#held = held;
  }

  outcome(now: number): HeldOutcome {
    const workloads = [...this.#held.values()];
    // Once something was served, those that are still under way hold nothing up.
    if (!this.#served && workloads.some(({ identity, failure }) => identity === undefined && failure === undefined)) return undefined;
    // The first is the default identity: that the CA does not answer for it must not make another one the default.
    const [first] = workloads;
    if (!this.#served && first?.identity === undefined && !isRefusal(first?.failure)) return { failure: first?.failure };
    const svids = workloads.flatMap(({ identity }) => (identity !== undefined && now < identity.svid.notAfter ? [identity.svid] : []));
    if (svids.length === 0)
      return { failure: workloads.find(({ failure }) => failure !== undefined && !isRefusal(failure))?.failure ?? first?.failure };
    this.#served = true;
    return { svids };
  }

  release(): void {
    this.hold([]);
  }
}
