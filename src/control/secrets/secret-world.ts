// All secrets and who may have them, as one value; and where it comes from.

import type { SecretPolicy } from '../../policy/secret-policy.ts';
import type { WorkloadSecret } from '../../policy/workload-secret.ts';
import type { Snapshot } from '../../snapshot.ts';

/** A secret that did not change keeps its identity from one world to the next. */
export interface SecretWorld {
  /** By `namespace/name`. */
  readonly secrets: ReadonlyMap<string, WorkloadSecret>;
  readonly policies: readonly SecretPolicy[];
  /** Those about each secret, by its key. */
  readonly policiesOf: ReadonlyMap<string, readonly SecretPolicy[]>;
}

export interface SecretSource {
  readonly world: Snapshot<SecretWorld>;
  /** Resolves when there is a first world; follows until the signal aborts. */
  start(signal: AbortSignal): Promise<void>;
  /** False where others may know what we have not heard. */
  readonly isInTouch: boolean;
}

export function secretWorld(of: { secrets: Iterable<WorkloadSecret>; policies: readonly SecretPolicy[] }): SecretWorld {
  const policiesOf = new Map<string, SecretPolicy[]>();
  for (const policy of of.policies)
    for (const name of policy.secrets) {
      const key = `${policy.namespace}/${name}`;
      policiesOf.set(key, [...(policiesOf.get(key) ?? []), policy]);
    }
  return { secrets: new Map([...of.secrets].map((secret) => [secret.key, secret])), policies: of.policies, policiesOf };
}
