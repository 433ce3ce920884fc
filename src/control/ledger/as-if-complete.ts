// A proposed rollout cannot be asked whom it will come to first: it is judged as it will be in the end.

import type { PolicyMeta } from '../../policy/policy-object.ts';
import type { ScopeConfig, WrappedPolicy } from '../../policy/scope-config.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';

/** The same objects, their ScopeConfigs without a rollout; `completed`: those that had one (`namespace/name`). */
export function asIfComplete(objects: MeshObjects): { objects: MeshObjects; completed: readonly string[] } {
  return {
    objects: { ...objects, scopeConfigs: objects.scopeConfigs.map(withoutRollout) },
    completed: objects.scopeConfigs.filter(({ scope }) => scope.rollout !== undefined).map(({ scope }) => scope.key),
  };
}

function withoutRollout(of: ScopeConfig): ScopeConfig {
  return { ...of, scope: { ...of.scope, rollout: undefined }, wrapped: wrappedWithout(of.wrapped) };
}

/** The policy carries the scope, too. */
function wrappedWithout({ kind, policy }: WrappedPolicy): WrappedPolicy {
  switch (kind) {
    case 'PeerAuthentication':
      return { kind, policy: policyWithout(policy) };
    case 'AuthorizationPolicy':
      return { kind, policy: policyWithout(policy) };
    case 'DestinationRule':
      return { kind, policy: policyWithout(policy) };
    default:
      return kind satisfies never;
  }
}

function policyWithout<P extends PolicyMeta>(policy: P): P {
  const { scopeConfig } = policy;
  return scopeConfig === undefined ? policy : { ...policy, scopeConfig: { ...scopeConfig, rollout: undefined } };
}
