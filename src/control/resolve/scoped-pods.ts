// Whom a ScopeConfig is for when it has come to everybody: what a rollout's pods and percentages are counted of.

import { TLS_MODE_LABEL } from '../../policy/kinds/pod.ts';
import { whyNot } from '../../policy/policy-object.ts';
import type { ScopeConfig } from '../../policy/scope-config.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';
import { podSubject } from './resolve-workloads.ts';

/** Pods (`namespace/name`) that both the ScopeConfig and the policy in it select, in the order of the objects. One without a sidecar obeys nobody: as a canary it could not die. */
export function scopedPods(objects: MeshObjects, { namespace, wrapped }: ScopeConfig): string[] {
  const { scopeConfig } = wrapped.policy;
  const everybody = { ...wrapped.policy, scopeConfig: scopeConfig === undefined ? undefined : { ...scopeConfig, rollout: undefined } };
  return objects.pods.flatMap((pod) => {
    if (namespace !== objects.config.rootNamespace && pod.metadata.namespace !== namespace) return [];
    if (pod.metadata.labels[TLS_MODE_LABEL] !== 'istio') return [];
    const subject = podSubject(pod);
    return subject.pod !== undefined && whyNot(everybody, subject, new Map()) === undefined ? [subject.pod] : [];
  });
}
