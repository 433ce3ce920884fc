// Which authorizations hold for a workload: by their scope, and by the names that it is bound to.

export interface Scoped {
  readonly namespace: string;
  /** Of a workload: the keys of the authorizations bound to it by name. */
  readonly authorizationPolicies: readonly string[];
}

interface Scope {
  /** GLOBAL, NAMESPACE or WORKLOAD_SELECTOR. */
  readonly scope: string;
  readonly namespace: string;
}

export class AuthorizationScopes {
  readonly #all = new Map<string, Scope>();
  readonly #global = new Set<string>();
  readonly #byNamespace = new Map<string, Set<string>>();

  /** Undefined: it is gone. */
  set(name: string, scope: Scope | undefined): void {
    const old = this.#all.get(name);
    this.#global.delete(name);
    if (old !== undefined) this.#byNamespace.get(old.namespace)?.delete(name);
    if (scope === undefined) {
      this.#all.delete(name);
      return;
    }
    this.#all.set(name, scope);
    if (scope.scope === 'GLOBAL') this.#global.add(name);
    if (scope.scope !== 'NAMESPACE') return;
    const others = this.#byNamespace.get(scope.namespace) ?? new Set();
    this.#byNamespace.set(scope.namespace, others.add(name));
  }

  holdsFor(name: string, { namespace, authorizationPolicies }: Scoped): boolean {
    const known = this.#all.get(name);
    if (known === undefined) return false;
    return (
      known.scope === 'GLOBAL' || (known.scope === 'NAMESPACE' && known.namespace === namespace) || authorizationPolicies.includes(name)
    );
  }

  *holdingFor({ namespace, authorizationPolicies }: Scoped): Iterable<string> {
    yield* this.#global;
    yield* this.#byNamespace.get(namespace) ?? [];
    for (const name of authorizationPolicies) if (this.#all.has(name)) yield name;
  }
}
