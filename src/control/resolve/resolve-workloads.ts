// Workloads of one namespace: pods, and the endpoints of ServiceEntries.

import { type Pod, podAddresses, TLS_MODE_LABEL, TUNNEL_LABEL } from '../../policy/kinds/pod.ts';
import { hostnameOf, type ServiceObject } from '../../policy/kinds/service.ts';
import type { ServiceEntry } from '../../policy/kinds/service-entry.ts';
import { LabelIndex } from '../../policy/label-index.ts';
import { podUid, type ServicePort, serviceKey, type Workload } from '../../policy/model.ts';
import { labelPair, PolicySubject } from '../../policy/policy-subject.ts';
import { type SpiffeId, workloadSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { NamespaceObjects } from './namespace-objects.ts';
import { tcpPorts } from './resolve-services.ts';

/** A workload but for its policies, and what these select it by. */
export interface WorkloadSubject {
  readonly workload: Omit<Workload, 'authorizationPolicies'>;
  readonly subject: PolicySubject;
}

export function resolveWorkloads(objects: NamespaceObjects, { trustDomain }: { trustDomain: string }): WorkloadSubject[] {
  const services = new LabelIndex(
    // Without a selector a service has its endpoints from elsewhere.
    objects.services.filter(({ spec }) => Object.keys(spec.selector ?? {}).length > 0),
    ({ spec }) => Object.entries(spec.selector ?? {}).map(([key, value]) => labelPair(key, value)),
  );
  const identityOf = identities(trustDomain);
  return [
    ...objects.pods.map((pod) => podWorkload(pod, { services, identityOf })),
    ...objects.serviceEntries.flatMap((entry) => entry.spec.endpoints.map((endpoint) => endpointWorkload(entry, endpoint, identityOf))),
  ];
}

type IdentityOf = (of: { namespace: string; serviceAccount: string }) => SpiffeId;

/** Many pods have one identity: it is made once. */
function identities(trustDomain: string): IdentityOf {
  const known = new Map<string, SpiffeId>();
  return ({ namespace, serviceAccount }) => {
    const key = `${namespace}/${serviceAccount}`;
    const id = known.get(key) ?? workloadSpiffeId({ trustDomain, namespace, serviceAccount });
    known.set(key, id);
    return id;
  };
}

export function podSubject(pod: Pod): PolicySubject {
  const { namespace, name, labels } = pod.metadata;
  return new PolicySubject({ namespace, podName: name, labels, addresses: podAddresses(pod) });
}

function podWorkload(pod: Pod, context: { services: LabelIndex<ServiceObject>; identityOf: IdentityOf }): WorkloadSubject {
  const { namespace, name, labels } = pod.metadata;
  const subject = podSubject(pod);
  const selecting = context.services.candidates(subject.pairs).filter(({ spec }) => selects(spec.selector ?? {}, subject));
  const workload = {
    uid: podUid(`${namespace}/${name}`),
    name,
    namespace,
    identity: context.identityOf({ namespace, serviceAccount: pod.spec.serviceAccountName }),
    addresses: subject.addresses,
    ...meshSideOf(labels),
    healthy: isHealthy(pod),
    services: new Map(selecting.map((service) => [serviceKey({ namespace, hostname: hostnameOf(service) }), portsFor(service, pod)])),
  };
  return { workload, subject };
}

function endpointWorkload(
  { metadata, spec }: ServiceEntry,
  endpoint: ServiceEntry['spec']['endpoints'][number],
  identityOf: IdentityOf,
): WorkloadSubject {
  const { namespace } = metadata;
  const { address, labels, serviceAccount } = endpoint;
  const ports = spec.ports.map(({ number, name, targetPort }) => ({
    servicePort: number,
    targetPort: endpoint.ports[name] ?? targetPort ?? number,
  }));
  const workload = {
    uid: `local//ServiceEntry/${namespace}/${metadata.name}/${address}`,
    // No pod has a name with a slash.
    name: `${metadata.name}/${address}`,
    namespace,
    identity: serviceAccount === undefined ? undefined : identityOf({ namespace, serviceAccount }),
    addresses: [address],
    ...meshSideOf(spec.location === 'MESH_INTERNAL' ? labels : {}),
    healthy: true,
    services: new Map(spec.hosts.map((hostname) => [serviceKey({ namespace, hostname }), ports])),
  };
  return { workload, subject: new PolicySubject({ namespace, podName: undefined, labels, addresses: [address] }) };
}

/** What stands before the workload: a sidecar, and one that takes tunnels. */
function meshSideOf(labels: Readonly<Record<string, string>>): { meshed: boolean; hbone: boolean } {
  const meshed = labels[TLS_MODE_LABEL] === 'istio';
  return { meshed, hbone: meshed && labels[TUNNEL_LABEL] === 'http' };
}

/** Not ending, not ended, and not said to be unready. */
function isHealthy({ metadata, status }: Pod): boolean {
  if (metadata.deletionTimestamp != null || status.phase === 'Failed' || status.phase === 'Succeeded') return false;
  return !status.conditions.some((condition) => condition.type === 'Ready' && condition.status !== 'True');
}

/** A named target port means the pod's own port of that name; a pod without it is no endpoint for that port. */
function portsFor(service: ServiceObject, pod: Pod): ServicePort[] {
  const ports: ServicePort[] = [];
  for (const { port, targetPort } of tcpPorts(service)) {
    const target = typeof targetPort === 'string' ? namedPort(pod, targetPort) : (targetPort ?? port);
    if (target !== undefined) ports.push({ servicePort: port, targetPort: target });
  }
  return ports;
}

/** Of several with the name, the last. */
function namedPort(pod: Pod, name: string): number | undefined {
  return pod.spec.containers.flatMap(({ ports }) => ports).findLast((port) => port.name === name)?.containerPort;
}

function selects(selector: Readonly<Record<string, string>>, subject: PolicySubject): boolean {
  for (const key of Object.keys(selector)) if (subject.label(key) !== selector[key]) return false;
  return true;
}
