// Whether a pod is to have the sidecar at all: Istio's rules, in which an opt-out anywhere wins.

import { HandfastError } from '../errors.ts';
import type { InjectorConfig } from './config.ts';
import { INJECT, MESH_LABELS, STATUS } from './own-parts.ts';
import { annotationsOf, labelsOf, type Pod } from './pod.ts';

const SYSTEM_NAMESPACES = ['kube-system', 'kube-public', 'kube-node-lease'];
const NAMESPACE_LABELS = ['istio-injection', 'handfast.io/injection'];

interface Asked {
  readonly pod: Pod;
  readonly namespace: string;
  readonly config: InjectorConfig;
}

/** `because`: who asks for the sidecar, or why the pod stays as it is. */
export interface Decision {
  readonly injects: boolean;
  readonly because: string;
}

/** Throws OBJECT_INVALID for a label or annotation that says neither yes nor no. */
export function decide({ namespaceLabels, ...of }: Asked & { namespaceLabels: Readonly<Record<string, string>> }): Decision {
  const early = skippedAnyway(of);
  if (early !== undefined) return { injects: false, because: early };
  const namespaceSays = saidByNamespace(namespaceLabels);
  const said = namespaceSays === undefined ? '' : `namespace ${of.namespace} is labelled ${namespaceSays.label}=${namespaceSays.value}`;
  if (namespaceSays?.value === 'disabled') return { injects: false, because: said };
  if (namespaceSays?.value === 'enabled') return { injects: true, because: said };
  const podSays = saidByPod(of.pod);
  if (podSays?.value === 'true') return { injects: true, because: `the pod's ${podSays.by} ${INJECT} is "true"` };
  if (of.config.injectByDefault) return { injects: true, because: 'the injector is set to injectByDefault' };
  return { injects: false, because: `neither the pod nor namespace ${of.namespace} asks for a sidecar` };
}

/** The same where the namespace's labels make no difference: such a pod must start even when nobody can be asked for them. Throws OBJECT_INVALID as above, and for one that claims a sidecar all the same. */
export function skippedAnyway({ pod, namespace, config }: Asked): string | undefined {
  if (SYSTEM_NAMESPACES.includes(namespace) || namespace === config.systemNamespace) return `namespace ${namespace} is the system's own`;
  const says = saidByPod(pod);
  if (says?.value !== 'false') return undefined;
  refuseClaims(pod, says.by);
  return `the pod's ${says.by} ${INJECT} is "false"`;
}

/** Peers believe the labels: they would speak to a sidecar that is not there, or to whatever stands in its place. */
function refuseClaims(pod: Pod, by: string): void {
  const claims = [
    ...Object.entries(MESH_LABELS).flatMap(([label, value]) => (labelsOf(pod)[label] === value ? [`label ${label}: ${value}`] : [])),
    ...(annotationsOf(pod)[STATUS] === undefined ? [] : [`annotation ${STATUS}`]),
  ];
  if (claims.length === 0) return;
  throw new HandfastError(
    'OBJECT_INVALID',
    `${claims.join(', ')} ${claims.length === 1 ? 'claims' : 'claim'} a sidecar, and the pod's ${by} ${INJECT}: "false" keeps it out: remove one or the other`,
  );
}

function saidByPod(pod: Pod): { value: 'true' | 'false'; by: 'label' | 'annotation' } | undefined {
  const [label, annotation] = [labelsOf(pod)[INJECT], annotationsOf(pod)[INJECT]];
  const value = label ?? annotation;
  const by = label === undefined ? 'annotation' : 'label';
  if (value === undefined) return undefined;
  if (value === 'true' || value === 'false') return { value, by };
  throw new HandfastError('OBJECT_INVALID', `${by} ${INJECT}: ${JSON.stringify(value)} is not accepted: "true" or "false"`);
}

function saidByNamespace(labels: Readonly<Record<string, string>>): { label: string; value: 'enabled' | 'disabled' } | undefined {
  const said = NAMESPACE_LABELS.flatMap((label) => {
    const value = labels[label];
    if (value === undefined) return [];
    if (value === 'enabled' || value === 'disabled') return [{ label, value } as const];
    throw new HandfastError(
      'OBJECT_INVALID',
      `the namespace's label ${label}: ${JSON.stringify(value)} is not accepted: "enabled" or "disabled"`,
    );
  });
  return said.find(({ value }) => value === 'disabled') ?? said[0];
}
