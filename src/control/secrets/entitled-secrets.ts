// The secrets of one workload, as control offers them on its stream: judged by who it has proven to be, again with each change of secrets or policies.

import type { HeldSecret, SecretAnswer, SecretFeed } from '../../discovery/secret-feed.ts';
import { encodeWorkloadSecret } from '../../discovery/workload-secret-codec.ts';
import { mayReceive } from '../../policy/secret-policy.ts';
import { type WorkloadSecret, wipe } from '../../policy/workload-secret.ts';
import type { Snapshot } from '../../snapshot.ts';
import type { SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { SecretAudit } from './secret-audit.ts';
import type { SecretWorld } from './secret-world.ts';

/** Encoded once for all workloads. */
const encoded = new WeakMap<WorkloadSecret, HeldSecret>();

export class EntitledSecrets implements SecretFeed {
  readonly #world: Snapshot<SecretWorld>;
  readonly #id: SpiffeId;
  readonly #audit: SecretAudit;
  readonly #from: string;
  readonly #held = new Map<string, number>();

  constructor(of: { world: Snapshot<SecretWorld>; id: SpiffeId; audit: SecretAudit; from: string }) {
    this.#world = of.world;
    this.#id = of.id;
    this.#audit = of.audit;
    this.#from = of.from;
  }

  hold(key: string): () => void {
    this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
    this.#noteRefusal(key);
    return () => {
      const left = (this.#held.get(key) ?? 1) - 1;
      if (left === 0) this.#held.delete(key);
      else this.#held.set(key, left);
    };
  }

  /** The policies are asked first, and for every name: whether a secret exists is nothing to whoever may not have it. */
  answer(key: string): SecretAnswer {
    const world = this.#world.current;
    if (world === undefined) return undefined;
    return answerOf(world, { key, id: this.#id });
  }

  subscribe(onChange: (keys: readonly string[]) => void): () => void {
    return this.#world.subscribe((next, previous) => {
      const changed = [...this.#held.keys()].filter((key) => {
        const before = previous === undefined ? undefined : answerOf(previous, { key, id: this.#id });
        return before !== answerOf(next, { key, id: this.#id });
      });
      if (changed.length > 0) onChange(changed);
    });
  }

  #noteRefusal(key: string): void {
    if (this.answer(key) !== 'none') return;
    const policies = this.#world.current?.policiesOf.get(key) ?? [];
    const reason = mayReceive(policies, { key, id: this.#id }) ? 'there is no such secret' : 'no SecretPolicy entitles it';
    this.#audit.refused({ secret: key, spiffeId: this.#id.uri, from: this.#from, reason });
  }
}

/** Nobody has it any more, and what was made of it on its way out goes with it. */
export function wipeSecret(secret: WorkloadSecret): void {
  for (const data of secret.versions.values()) wipe(data);
  encoded.get(secret)?.resource.value.fill(0);
  encoded.delete(secret);
}

function answerOf(world: SecretWorld, { key, id }: { key: string; id: SpiffeId }): HeldSecret | 'none' {
  const entitled = mayReceive(world.policiesOf.get(key) ?? [], { key, id });
  const secret = world.secrets.get(key);
  if (!entitled || secret === undefined) return 'none';
  const held = encoded.get(secret) ?? { secret, resource: encodeWorkloadSecret(secret) };
  encoded.set(secret, held);
  return held;
}
