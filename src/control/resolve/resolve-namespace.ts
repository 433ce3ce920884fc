// One namespace's objects, and the root namespace's policies, resolved into what proxies need. Pure.

import { type Authorization, authorizationKey } from '../../policy/authorization.ts';
import { authorizationOf, authorizationScopeOf, boundAuthorizations } from '../../policy/authorization-policy.ts';
import { clientRulesFor } from '../../policy/destination-rule.ts';
import { type FetchedKeys, jwtRulesOf } from '../../policy/jwt-rules.ts';
import type { MeshConfig } from '../../policy/kinds/mesh-config.ts';
import type { Service, TrafficPolicy, Workload } from '../../policy/model.ts';
import {
  authorizationPlaces,
  type PoliciesInReach,
  peerAuthenticationTiers,
  requestAuthenticationsFor,
} from '../../policy/namespace-policies.ts';
import { resolvePeerAuthentication, resolveShadow } from '../../policy/peer-authentication.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { NamespaceObjects } from './namespace-objects.ts';
import { resolveServices } from './resolve-services.ts';
import { resolveWorkloads, type WorkloadSubject } from './resolve-workloads.ts';

/** By their keys: a workload's uid, a service's and an authorization's key, a policy's workload. */
export interface ResolvedNamespace {
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly services: ReadonlyMap<string, Service>;
  readonly policies: ReadonlyMap<string, TrafficPolicy>;
  readonly authorizations: ReadonlyMap<string, Authorization>;
}

export interface ResolveContext {
  readonly config: MeshConfig;
  readonly trustDomain: string;
  readonly within: PoliciesInReach;
  readonly selections: Selections;
  /** Of the issuers of RequestAuthentications. */
  readonly keys: FetchedKeys;
}

export function resolveNamespace(objects: NamespaceObjects, context: ResolveContext): ResolvedNamespace {
  const workloads = new Map<string, Workload>();
  const policies = new Map<string, TrafficPolicy>();
  for (const each of resolveWorkloads(objects, context)) {
    workloads.set(each.workload.uid, { ...each.workload, authorizationPolicies: authorizationsFor(each, context) });
    policies.set(each.workload.uid, trafficPolicyFor(each, context));
  }
  return {
    workloads,
    services: new Map(resolveServices(objects, context.within).map((service) => [service.key, service])),
    policies,
    authorizations: new Map(authorizationsOf(context).map((authorization) => [authorizationKey(authorization), authorization])),
  };
}

function authorizationsFor({ subject }: WorkloadSubject, { within, config, selections }: ResolveContext): readonly string[] {
  const keys = authorizationPlaces(within).flatMap((index) => boundAuthorizations(index, config.rootNamespace, { subject, selections }));
  return keys.length === 0 ? NONE : keys;
}

const NONE: readonly string[] = Object.freeze([]);

function trafficPolicyFor(
  { workload, subject, httpPorts }: WorkloadSubject,
  { within, config, selections, keys }: ResolveContext,
): TrafficPolicy {
  const tiers = peerAuthenticationTiers(within, subject, selections);
  const live = resolvePeerAuthentication(tiers);
  return {
    workload: workload.uid,
    ...live,
    outbound: config.outboundTrafficPolicy.mode,
    trustDomainAliases: config.trustDomainAliases,
    announced: undefined,
    shadow: resolveShadow(tiers, live),
    ...(httpPorts.length === 0
      ? {}
      : { http: { ports: httpPorts, jwtRules: jwtRulesOf(requestAuthenticationsFor(within, { subject, selections }), keys) } }),
    ...clientRulesFor({ own: within.own.destinationRules, root: within.root.destinationRules }, { subject, selections }),
  };
}

/** The namespace's own; those of the root namespace travel as the root namespace's. */
function authorizationsOf({ within, config, trustDomain }: ResolveContext): Authorization[] {
  const index = within.own.authorizations;
  const trustDomains = [...new Set([trustDomain, ...config.trustDomainAliases])];
  return index.policies.all.map((policy) =>
    authorizationOf(policy, { scope: authorizationScopeOf(policy, { rootNamespace: config.rootNamespace, index }), trustDomains }),
  );
}
