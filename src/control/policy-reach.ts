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

/** By policy, the pods that it selects. Those without a sidecar obey nobody, and are not counted. */
export type Selected = ReadonlyMap<string, readonly string[]>;

export function selectedBy({ objects, selections }: EffectiveObjects): Selected {
  const { rootNamespace } = objects.config;
  const subjects = subjectsByNamespace(objects);
  const everywhere = [...subjects.values()].flat();
  return new Map(
    selectingPolicies(objects).map(({ name, namespace, policy }) => {
      const within = namespace === rootNamespace ? everywhere : (subjects.get(namespace) ?? []);
      return [name, podsOf(policy, { within, selections })];
    }),
  );
}

export function reachOf(selected: Selected, isUpToDate: (pod: string) => boolean): Map<string, Reach> {
  const asked = new Map<string, boolean>();
  const isThere = (pod: string) => {
    const known = asked.get(pod) ?? isUpToDate(pod);
    asked.set(pod, known);
    return known;
  };
  return new Map([...selected].map(([name, pods]) => [name, { selected: pods.length, upToDate: pods.filter(isThere).length }]));
}

function podsOf(policy: PolicyObject, { within, selections }: { within: readonly PolicySubject[]; selections: Selections }): string[] {
  return within.flatMap((subject) => (subject.pod === undefined || whyNot(policy, subject, selections) !== undefined ? [] : [subject.pod]));
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
    ...plain('RequestAuthentication', objects.requestAuthentications),
    // What one tells everybody comes with the service, to whoever asks for it: whom it selects says nothing of who has it.
    ...plain(
      'DestinationRule',
      objects.destinationRules.filter(({ exported }) => !exported),
    ),
    ...objects.scopeConfigs.map(({ scope, namespace, wrapped }) => ({
      name: `ScopeConfig ${scope.key}`,
      namespace,
      policy: wrapped.policy,
    })),
  ];
}
