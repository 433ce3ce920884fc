// Who may receive which secret. Whatever no policy says nobody may. Pure.

import { type SpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';

export interface SecretPolicy {
  readonly namespace: string;
  readonly name: string;
  /** Names of secrets in its own namespace. */
  readonly secrets: ReadonlySet<string>;
  /** SPIFFE IDs. */
  readonly ids: ReadonlySet<string>;
  /** What SPIFFE IDs begin with; each has the whole namespace in it. */
  readonly prefixes: readonly string[];
  /** As they were written, for people. */
  readonly recipients: readonly string[];
}

/** `key`: `namespace/name` of a secret, whether there is one or not. */
export function mayReceive(policies: Iterable<SecretPolicy>, { key, id }: { key: string; id: SpiffeId }): boolean {
  // The mesh's own parts are no workloads.
  if (workloadOf(id) === undefined) return false;
  for (const policy of policies) if (isAbout(policy, key) && names(policy, id)) return true;
  return false;
}

/** Whether the policy says who may receive the secret. */
export function isAbout({ namespace, secrets }: SecretPolicy, key: string): boolean {
  return key.startsWith(`${namespace}/`) && secrets.has(key.slice(namespace.length + 1));
}

function names({ ids, prefixes }: SecretPolicy, { uri }: SpiffeId): boolean {
  return ids.has(uri) || prefixes.some((prefix) => uri.startsWith(prefix));
}
