// Every Authorization there is, indexed once per change: what holds for a workload is found without looking at the others.

import { type Authorization, type AuthorizationSet, authorizationKey } from './authorization.ts';
import type { Workload } from './model.ts';

export class Authorizations {
  readonly #byKey = new Map<string, Authorization>();
  readonly #global: Authorization[] = [];
  readonly #byNamespace = new Map<string, Authorization[]>();
  /** Whoever is asked for is asked for often. */
  readonly #sets = new WeakMap<Workload, AuthorizationSet>();

  constructor(all: Iterable<Authorization>) {
    for (const policy of all) {
      this.#byKey.set(authorizationKey(policy), policy);
      if (policy.scope === 'GLOBAL') this.#global.push(policy);
      if (policy.scope !== 'NAMESPACE') continue;
      const others = this.#byNamespace.get(policy.namespace);
      if (others === undefined) this.#byNamespace.set(policy.namespace, [policy]);
      else others.push(policy);
    }
    Object.freeze(this);
  }

  of(workload: Workload): AuthorizationSet {
    const known = this.#sets.get(workload);
    if (known !== undefined) return known;
    const named = workload.authorizationPolicies.map((key) => [key, this.#byKey.get(key)] as const);
    const set: AuthorizationSet = Object.freeze({
      policies: [...this.#global, ...(this.#byNamespace.get(workload.namespace) ?? []), ...named.flatMap(([, policy]) => policy ?? [])],
      missing: named.flatMap(([key, policy]) => (policy === undefined ? [key] : [])),
    });
    this.#sets.set(workload, set);
    return set;
  }
}
