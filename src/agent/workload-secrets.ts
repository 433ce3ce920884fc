// One workload's secrets as its agent has them: asked of control in the workload's own name, kept in memory, and handed to nobody while its identity is blocked.

import type { SecretAnswer, SecretFeed } from '../discovery/secret-feed.ts';
import { WORKLOAD_METADATA } from '../discovery/secret-feed.ts';
import { SecretSubscription } from '../discovery/secret-subscription.ts';
import { HandfastError } from '../errors.ts';
import type { NodeTrust } from '../node/node-trust.ts';
import type { Log } from '../observe/log.ts';
import { TokenBucket } from '../rate-limit.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { type GrpcTarget, isUnixAddress } from '../wire/grpc-target.ts';

/** Control, as a workload reaches it. Undefined where it has no secrets to give: istiod in its place. */
export type SecretsFrom = ((identity: () => Identity | undefined) => () => GrpcTarget) | undefined;

export interface WorkloadSecretsDeps {
  readonly from: NonNullable<SecretsFrom>;
  readonly identity: Snapshot<Identity>;
  readonly trust: Snapshot<NodeTrust>;
  readonly log: Log;
}

/** Of one workload instance, however many streams it has: more than any application needs, and fewer than control takes on one stream. */
const MAX_NAMES = 256;
/** Each new one is a question to control. */
const NEW_NAMES = { burst: 512, perSecond: 10 };

export class WorkloadSecrets implements SecretFeed {
  readonly #subscription: SecretSubscription;
  readonly #identity: Snapshot<Identity>;
  readonly #trust: Snapshot<NodeTrust>;
  readonly #keys = new Map<string, number>();
  readonly #stop = new AbortController();
  readonly #newNames = new TokenBucket(NEW_NAMES);

  constructor({ from, identity, trust, log }: WorkloadSecretsDeps) {
    this.#identity = identity;
    this.#trust = trust;
    this.#subscription = new SecretSubscription({
      target: from(() => identity.current),
      nodeId: 'agent',
      token: undefined,
      describe: (metadata, { address }) => {
        const id = identity.current?.svid.id.uri;
        if (id !== undefined && isUnixAddress(address)) metadata.set(WORKLOAD_METADATA, id);
      },
      log,
      signal: this.#stop.signal,
    });
  }

  /** Throws RATE_LIMITED for too many names, or too many new ones. */
  hold(key: string): () => void {
    if (!this.#keys.has(key)) {
      if (this.#keys.size >= MAX_NAMES) throw new HandfastError('RATE_LIMITED', `more than ${MAX_NAMES} secrets of one workload`);
      if (this.#newNames.take() > 0) throw new HandfastError('RATE_LIMITED', `more than ${NEW_NAMES.perSecond} new secrets a second`);
    }
    this.#keys.set(key, (this.#keys.get(key) ?? 0) + 1);
    const release = this.#subscription.hold(key);
    let released = false;
    return () => {
      if (released) return;
      released = true;
      release();
      const left = (this.#keys.get(key) ?? 1) - 1;
      if (left === 0) this.#keys.delete(key);
      else this.#keys.set(key, left);
    };
  }

  /** Control turns a blocked identity away, and could not tell it anything: so we do. */
  answer(key: string): SecretAnswer {
    return this.#isBlocked(this.#trust.current) ? 'none' : this.#subscription.answer(key);
  }

  subscribe(onChange: (keys: readonly string[]) => void): () => void {
    const unsubscribe = this.#subscription.subscribe(onChange);
    const stopWatching = this.#trust.subscribe((next, previous) => {
      if (this.#isBlocked(next) !== this.#isBlocked(previous)) onChange([...this.#keys.keys()]);
    });
    return () => {
      unsubscribe();
      stopWatching();
    };
  }

  stop(): void {
    this.#stop.abort();
  }

  #isBlocked(trust: NodeTrust | undefined): boolean {
    const id = this.#identity.current?.svid.id.uri;
    return id !== undefined && trust?.crl.blockedIds.has(id) === true;
  }
}
