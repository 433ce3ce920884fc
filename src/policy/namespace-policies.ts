// The policies of one namespace, plain and wrapped ones together, indexed once per change; and what of them holds for somebody.

import { type AuthorizationIndex, type AuthorizationPolicy, authorizationIndex } from './authorization-policy.ts';
import { byRulePrecedence, type DestinationRule, exportedRules } from './destination-rule.ts';
import type { RequestAuthentication } from './jwt-rules.ts';
import type { ClientTlsRule } from './model.ts';
import type { PeerAuthentication, PeerAuthenticationScope, PeerAuthenticationTiers } from './peer-authentication.ts';
import { PolicyIndex } from './policy-index.ts';
import type { Selections } from './policy-object.ts';
import type { PolicySubject } from './policy-subject.ts';
import type { ScopeConfig } from './scope-config.ts';

export interface NamespacePolicies {
  /** Without a selector: for the namespace, or for the mesh. */
  readonly wide: PolicyIndex<PeerAuthentication>;
  readonly selecting: PolicyIndex<PeerAuthentication>;
  readonly authorizations: AuthorizationIndex;
  readonly destinationRules: PolicyIndex<DestinationRule>;
  readonly requestAuthentications: PolicyIndex<RequestAuthentication>;
  /** What its rules say to clients of all namespaces. */
  readonly exported: readonly ClientTlsRule[];
}

/** The policies of somebody's own namespace and of the root namespace; both are one for whoever is in the root namespace. */
export interface PoliciesInReach {
  readonly own: NamespacePolicies;
  readonly root: NamespacePolicies;
}

export function indexPolicies(of: {
  peerAuthentications: readonly PeerAuthentication[];
  authorizationPolicies: readonly AuthorizationPolicy[];
  destinationRules: readonly DestinationRule[];
  requestAuthentications: readonly RequestAuthentication[];
  scopeConfigs: readonly ScopeConfig[];
}): NamespacePolicies {
  const peerAuthentications = [...of.peerAuthentications];
  const authorizationPolicies = [...of.authorizationPolicies];
  const rules = [...of.destinationRules];
  for (const { wrapped } of of.scopeConfigs) {
    if (wrapped.kind === 'PeerAuthentication') peerAuthentications.push(wrapped.policy);
    else if (wrapped.kind === 'AuthorizationPolicy') authorizationPolicies.push(wrapped.policy);
    else rules.push(wrapped.policy);
  }
  const destinationRules = new PolicyIndex(rules, byRulePrecedence);
  return {
    wide: new PolicyIndex(peerAuthentications.filter(({ selector }) => selector === undefined)),
    selecting: new PolicyIndex(peerAuthentications.filter(({ selector }) => selector !== undefined)),
    authorizations: authorizationIndex(new PolicyIndex(authorizationPolicies)),
    destinationRules,
    requestAuthentications: new PolicyIndex(of.requestAuthentications),
    exported: exportedRules(destinationRules),
  };
}

const NOTHING: PolicyIndex<PeerAuthentication> = new PolicyIndex<PeerAuthentication>([]);

/** Where the PeerAuthentications of each scope stand. */
export function peerAuthenticationPlaces({ own, root }: PoliciesInReach): Record<PeerAuthenticationScope, PolicyIndex<PeerAuthentication>> {
  return { mesh: root.wide, namespace: own === root ? NOTHING : own.wide, workload: own.selecting };
}

export function peerAuthenticationTiers(within: PoliciesInReach, subject: PolicySubject, selections: Selections): PeerAuthenticationTiers {
  const places = peerAuthenticationPlaces(within);
  return {
    mesh: places.mesh.holding(subject, selections),
    namespace: places.namespace.holding(subject, selections),
    workload: places.workload.holding(subject, selections),
  };
}

/** The namespaces whose AuthorizationPolicies may hold for somebody. */
export function authorizationPlaces({ own, root }: PoliciesInReach): AuthorizationIndex[] {
  return own === root ? [own.authorizations] : [root.authorizations, own.authorizations];
}

/** Where RequestAuthentications stand. In the root namespace one without a selector is everybody's, and one with a selector selects in all namespaces. */
export function requestAuthenticationPlaces({ own, root }: PoliciesInReach): PolicyIndex<RequestAuthentication>[] {
  return own === root ? [own.requestAuthentications] : [root.requestAuthentications, own.requestAuthentications];
}

/** All of them add up. */
export function requestAuthenticationsFor(
  within: PoliciesInReach,
  { subject, selections }: { subject: PolicySubject; selections: Selections },
): readonly RequestAuthentication[] {
  return requestAuthenticationPlaces(within).flatMap((index) => index.holding(subject, selections));
}
