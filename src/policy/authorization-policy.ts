// An AuthorizationPolicy in its place: whom it is for, what of it travels, and which workloads must name it.

import { type Authorization, type AuthorizationMatch, type AuthorizationRule, authorizationKey, SCOPED_NAME } from './authorization.ts';
import type { PolicyIndex } from './policy-index.ts';
import { type NotHeld, type PolicyObject, type Selections, whyNot } from './policy-object.ts';
import type { PolicySubject } from './policy-subject.ts';
import type { StringMatch } from './string-match.ts';

/** Parsed. Principals stand as they were written: `expandPrincipals` adds the mesh's other trust domains. */
export interface AuthorizationPolicy extends PolicyObject {
  readonly action: Authorization['action'];
  readonly rules: readonly AuthorizationRule[];
}

/** The policies of one namespace, and which of them are versions of one object: a wrapped one replaces a plain one of its name for those it holds for. */
export interface AuthorizationIndex {
  readonly policies: PolicyIndex<AuthorizationPolicy>;
  /** By name, the wrapped ones that are enforced, in order of precedence. */
  readonly replacing: ReadonlyMap<string, readonly AuthorizationPolicy[]>;
}

export function authorizationIndex(policies: PolicyIndex<AuthorizationPolicy>): AuthorizationIndex {
  const replacing = new Map<string, AuthorizationPolicy[]>();
  for (const policy of policies.all) {
    // What is only tried out replaces nothing.
    if (policy.scopeConfig === undefined || policy.dryRun) continue;
    replacing.set(policy.name, [...(replacing.get(policy.name) ?? []), policy]);
  }
  return { policies, replacing };
}

/** GLOBAL and NAMESPACE hold for everybody there; a workload names what is WORKLOAD_SELECTOR. */
export function authorizationScopeOf(
  policy: AuthorizationPolicy,
  { rootNamespace, index }: { rootNamespace: string; index: AuthorizationIndex },
): Authorization['scope'] {
  if (policy.selector !== undefined || policy.scopeConfig !== undefined || index.replacing.has(policy.name)) return 'WORKLOAD_SELECTOR';
  return policy.namespace === rootNamespace ? 'GLOBAL' : 'NAMESPACE';
}

/** Why a policy does not hold for somebody in its place; undefined where it does. */
export function whyNotAuthorization(
  policy: AuthorizationPolicy,
  index: AuthorizationIndex,
  { subject, selections }: { subject: PolicySubject; selections: Selections },
): NotHeld | { readonly replacedBy: AuthorizationPolicy } | undefined {
  const refused = whyNot(policy, subject, selections);
  if (refused !== undefined) return refused;
  const replacedBy = replacementOf(policy, index, { subject, selections });
  return replacedBy === undefined ? undefined : { replacedBy };
}

/** The keys that a workload must name. */
export function boundAuthorizations(
  index: AuthorizationIndex,
  rootNamespace: string,
  of: { subject: PolicySubject; selections: Selections },
): string[] {
  return index.policies
    .holding(of.subject, of.selections)
    .filter((policy) => authorizationScopeOf(policy, { rootNamespace, index }) === 'WORKLOAD_SELECTOR')
    .filter((policy) => replacementOf(policy, index, of) === undefined)
    .map((policy) => authorizationKey({ namespace: policy.namespace, name: wireName(policy) }));
}

/** A wrapped version replaces the others where it holds itself, by its ScopeConfig, rollout and own selector: a DENY must not go where nothing comes in its place. */
function replacementOf(
  policy: AuthorizationPolicy,
  { replacing }: AuthorizationIndex,
  { subject, selections }: { subject: PolicySubject; selections: Selections },
): AuthorizationPolicy | undefined {
  if (policy.scopeConfig !== undefined && policy.dryRun) return undefined;
  for (const version of replacing.get(policy.name) ?? []) {
    if (version === policy) return undefined;
    if (whyNot(version, subject, selections) === undefined) return version;
  }
  return undefined;
}

/** Of a wrapped one it says in which ScopeConfig; the sign between them is in no object's name. */
export function wireName({ name, scopeConfig }: AuthorizationPolicy): string {
  return scopeConfig === undefined ? name : `${scopeConfig.name}${SCOPED_NAME}${name}`;
}

/** As it travels. `trustDomains`: the mesh's own first, then its aliases. */
export function authorizationOf(
  policy: AuthorizationPolicy,
  of: { scope: Authorization['scope']; trustDomains: readonly string[] },
): Authorization {
  const expand = (match: AuthorizationMatch): AuthorizationMatch =>
    match.principals.length === 0 && match.notPrincipals.length === 0
      ? match
      : {
          ...match,
          principals: expandPrincipals(match.principals, of.trustDomains),
          notPrincipals: expandPrincipals(match.notPrincipals, of.trustDomains),
        };
  return {
    name: wireName(policy),
    namespace: policy.namespace,
    scope: of.scope,
    action: policy.action,
    rules: policy.rules.map((rule) => rule.map((clause) => clause.map(expand))),
    dryRun: policy.dryRun,
  };
}

/** A principal that begins with a trust domain of the mesh, or `cluster.local`, and `/` stands for all of the mesh's, with `*` at its end too: Istio's trust domain aliases. */
export function expandPrincipals(principals: readonly StringMatch[], trustDomains: readonly string[]): StringMatch[] {
  const expanded = new Map<string, StringMatch>();
  for (const principal of principals) {
    for (const match of expandPrincipal(principal, trustDomains)) expanded.set(`${match.kind} ${match.value}`, match);
  }
  return [...expanded.values()];
}

const CLUSTER_LOCAL = 'cluster.local';

function expandPrincipal(principal: StringMatch, trustDomains: readonly string[]): StringMatch[] {
  const { kind, value } = principal;
  const end = value.indexOf('/');
  // What begins with `*` is of any trust domain, and `cluster.local*` is not yet one.
  if (kind === 'presence' || kind === 'suffix' || end < 0) return [principal];
  const written = value.slice(0, end);
  if (written !== CLUSTER_LOCAL && !trustDomains.includes(written)) return [principal];
  return trustDomains.map((trustDomain) => ({ kind, value: `${trustDomain}${value.slice(end)}` }));
}
