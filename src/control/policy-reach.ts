// How many of the sidecars that a policy selects have it: by the digests that they have confirmed, against those that they should hold.

import { TLS_MODE_LABEL } from '../policy/kinds/pod.ts';
import { type PolicyObject, type Selections, whyNot } from '../policy/policy-object.ts';
import type { PolicySubject } from '../policy/policy-subject.ts';
import type { EffectiveObjects, MeshObjects } from './objects/mesh-objects.ts';
import { podSubject } from './resolve/resolve-workloads.ts';

/** Sidecars of the pods that a policy selects, and those of them that have confirmed all that holds for them now. */
export interface Reach {
  readonly selected: number;
  readonly upToDate: number;
}

interface Selecting {
  /** As statuses name it: `PeerAuthentication foo/strict`, `ScopeConfig foo/canary`. */
  readonly name: string;
  readonly namespace: string;
  readonly policy: PolicyObject;
}

/** By policy. Pods without a sidecar obey nobody, and are not counted. */
export function reachOf({ objects, selections }: EffectiveObjects, isUpToDate: (pod: string) => boolean): Map<string, Reach> {
  const { rootNamespace } = objects.config;
  const subjects = subjectsByNamespace(objects);
  const everywhere = [...subjects.values()].flat();
  const upToDate = new Set(everywhere.flatMap(({ pod }) => (pod !== undefined && isUpToDate(pod) ? [pod] : [])));
  return new Map(
    selectingPolicies(objects).map(({ name, namespace, policy }) => {
      const within = namespace === rootNamespace ? everywhere : (subjects.get(namespace) ?? []);
      return [name, countOf(policy, { within, selections, upToDate })];
    }),
  );
}

function countOf(
  policy: PolicyObject,
  { within, selections, upToDate }: { within: readonly PolicySubject[]; selections: Selections; upToDate: ReadonlySet<string> },
): Reach {
  let selected = 0;
  let there = 0;
  for (const subject of within) {
    if (subject.pod === undefined || whyNot(policy, subject, selections) !== undefined) continue;
    selected++;
    if (upToDate.has(subject.pod)) there++;
  }
  return { selected, upToDate: there };
}

function subjectsByNamespace({ pods }: MeshObjects): Map<string, PolicySubject[]> {
  const meshed = pods.filter(({ metadata }) => metadata.labels[TLS_MODE_LABEL] === 'istio').map(podSubject);
  return Map.groupBy(meshed, ({ namespace }) => namespace);
}

function selectingPolicies(objects: MeshObjects): Selecting[] {
  const plain = (kind: string, policies: readonly PolicyObject[]) =>
    policies.map((policy): Selecting => ({ name: `${kind} ${policy.namespace}/${policy.name}`, namespace: policy.namespace, policy }));
  return [
    ...plain('PeerAuthentication', objects.peerAuthentications),
    ...plain('AuthorizationPolicy', objects.authorizationPolicies),
    ...plain('DestinationRule', objects.destinationRules),
    ...objects.scopeConfigs.map(({ scope, namespace, wrapped }) => ({
      name: `ScopeConfig ${scope.key}`,
      namespace,
      policy: wrapped.policy,
    })),
  ];
}
