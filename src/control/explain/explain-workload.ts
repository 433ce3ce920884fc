// Why a pod is under the policies that it is under: the same look-ups that resolve it, asked for their reasons. Pure; the answer is plain JSON.

import { HandfastError } from '../../errors.ts';
import { indexPolicies, type PoliciesInReach } from '../../policy/namespace-policies.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';
import { byNamespace, emptyNamespace } from '../resolve/namespace-objects.ts';
import { resolveServices } from '../resolve/resolve-services.ts';
import { podSubject, resolveWorkloads } from '../resolve/resolve-workloads.ts';
import { explainInbound, type InboundExplanation } from './explain-inbound.ts';
import {
  type AuthorizationExplanation,
  type ClientRuleExplanation,
  explainAuthorizations,
  explainClientRules,
  explainServices,
  type ServiceTlsExplanation,
} from './explain-policies.ts';
import { explainTokens, type TokenExplanation } from './explain-tokens.ts';

export interface Explanation {
  /** `namespace/name`. */
  readonly pod: string;
  readonly identity: string;
  readonly meshed: boolean;
  readonly inbound: readonly InboundExplanation[];
  /** Ports whose requests are read. */
  readonly httpPorts: readonly number[];
  readonly tokens: readonly TokenExplanation[];
  readonly authorizations: readonly AuthorizationExplanation[];
  readonly clientTls: { readonly rules: readonly ClientRuleExplanation[]; readonly services: readonly ServiceTlsExplanation[] };
}

/** Throws CONFIG_INVALID when there is no such pod. */
export function explainWorkload(
  objects: MeshObjects,
  selections: Selections,
  { trustDomain, pod: name }: { trustDomain: string; pod: string },
): Explanation {
  const pod = objects.pods.find(({ metadata }) => `${metadata.namespace}/${metadata.name}` === name);
  if (pod === undefined) throw new HandfastError('CONFIG_INVALID', `there is no pod ${name}; give namespace/name`);
  const namespaces = byNamespace(objects);
  const { rootNamespace } = objects.config;
  const root = indexPolicies(namespaces.get(rootNamespace) ?? emptyNamespace());
  const reach = (namespace: string): PoliciesInReach => ({
    root,
    own: namespace === rootNamespace ? root : indexPolicies(namespaces.get(namespace) ?? emptyNamespace()),
  });
  const subject = podSubject(pod);
  const within = reach(pod.metadata.namespace);
  const services = [...namespaces].flatMap(([namespace, own]) => resolveServices(own, reach(namespace)));
  const ofNamespace = namespaces.get(pod.metadata.namespace) ?? emptyNamespace();
  const [own] = resolveWorkloads({ ...ofNamespace, pods: [pod], serviceEntries: [] }, { trustDomain });
  return {
    pod: name,
    identity: own?.workload.identity?.uri ?? '',
    meshed: own?.workload.meshed ?? false,
    inbound: explainInbound(within, { subject, selections }),
    httpPorts: own?.httpPorts ?? [],
    tokens: explainTokens(within, { subject, selections }),
    authorizations: explainAuthorizations(within, rootNamespace, { subject, selections }),
    clientTls: { rules: explainClientRules(within, { subject, selections }), services: explainServices(services) },
  };
}
