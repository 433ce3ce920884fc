// Workloads of one namespace: pods, and the endpoints of ServiceEntries and EndpointSlices.

import { annotatedHttpPorts, declaredProtocol, HTTP_PORTS_ANNOTATION, httpPortsOf } from '../../policy/http-ports.ts';
import { isHealthy, type Pod, podAddresses, TLS_MODE_LABEL, TUNNEL_LABEL } from '../../policy/kinds/pod.ts';
import { hostnameOf, type ServiceObject, targetPortOf, tcpPorts } from '../../policy/kinds/service.ts';
import type { ServiceEntry } from '../../policy/kinds/service-entry.ts';
import { LabelIndex } from '../../policy/label-index.ts';
import { podUid, type ServicePort, serviceKey, type Workload } from '../../policy/model.ts';
import { labelPair, PolicySubject } from '../../policy/policy-subject.ts';
import { type SpiffeId, workloadSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { NamespaceObjects } from './namespace-objects.ts';
import { type Member, type Memberships, memberships } from './slice-memberships.ts';

/** A workload but for its policies, and what these select it by. */
export interface WorkloadSubject {
  readonly workload: Omit<Workload, 'authorizationPolicies'>;
  readonly subject: PolicySubject;
  /** Ports of its own that are declared HTTP. */
  readonly httpPorts: readonly number[];
}

export function resolveWorkloads(objects: NamespaceObjects, { trustDomain }: { trustDomain: string }): WorkloadSubject[] {
  const services = new LabelIndex(
    // Without a selector a service has its endpoints from elsewhere.
    objects.services.filter(({ spec }) => Object.keys(spec.selector ?? {}).length > 0),
    ({ spec }) => Object.entries(spec.selector ?? {}).map(([key, value]) => labelPair(key, value)),
  );
  const identityOf = identities(trustDomain);
  const sliced = memberships(objects);
  return [
    ...objects.pods.map((pod) => podWorkload(pod, { services, identityOf, sliced })),
    ...[...sliced.outside].flatMap(([address, of]) => of.map((member) => outsideWorkload(address, member))),
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

function podWorkload(
  pod: Pod,
  context: { services: LabelIndex<ServiceObject>; identityOf: IdentityOf; sliced: Memberships },
): WorkloadSubject {
  const { namespace, name, labels } = pod.metadata;
  const subject = podSubject(pod);
  const selecting = context.services.candidates(subject.pairs).filter(({ spec }) => selects(spec.selector ?? {}, subject));
  const sliced = context.sliced.ofPod(pod);
  const workload = {
    uid: podUid(`${namespace}/${name}`),
    name,
    namespace,
    identity: context.identityOf({ namespace, serviceAccount: pod.spec.serviceAccountName }),
    addresses: subject.addresses,
    ...meshSideOf(labels),
    healthy: isHealthy(pod),
    services: new Map([
      ...selecting.map((service) => [keyOf(service), portsFor(service, pod)] as const),
      ...sliced.map(({ service, ports }) => [keyOf(service), ports] as const),
    ]),
  };
  const behind = [...selecting.map((service) => ({ service, ports: portsFor(service, pod) })), ...sliced];
  return { workload, subject, httpPorts: declaredHttpPorts(pod, behind) };
}

/** By the pod's own word, and otherwise by those of the services that it stands behind. */
function declaredHttpPorts({ metadata }: Pod, behind: readonly Member[]): readonly number[] {
  const annotated = metadata.annotations[HTTP_PORTS_ANNOTATION];
  if (annotated !== undefined) return annotatedHttpPorts(annotated);
  return httpPortsOf(
    behind.flatMap(({ service, ports }) =>
      ports.map(({ servicePort, targetPort }) => {
        const declared = service.spec.ports.find(({ port, protocol }) => port === servicePort && protocol === 'TCP');
        return { port: targetPort, protocol: declared === undefined ? undefined : declaredProtocol(declared) };
      }),
    ),
  );
}

function keyOf(service: ServiceObject): string {
  return serviceKey({ namespace: service.metadata.namespace, hostname: hostnameOf(service) });
}

/** What an EndpointSlice says stands behind a service, and is no pod of the mesh. */
function outsideWorkload(address: string, { service, ports }: Member): WorkloadSubject {
  const { name, namespace } = service.metadata;
  const workload = {
    uid: `local//EndpointSlice/${namespace}/${name}/${address}`,
    // No pod has a name with a slash, and no ServiceEntry one with capitals.
    name: `EndpointSlice/${name}/${address}`,
    namespace,
    identity: undefined,
    addresses: [address],
    meshed: false,
    hbone: false,
    healthy: true,
    // Of a node, or of what other services have too: a slice takes an address from nobody who dials it directly.
    sharesAddress: true as const,
    services: new Map([[keyOf(service), ports]]),
  };
  return { workload, subject: new PolicySubject({ namespace, podName: undefined, labels: {}, addresses: [address] }), httpPorts: [] };
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
  return { workload, subject: new PolicySubject({ namespace, podName: undefined, labels, addresses: [address] }), httpPorts: [] };
}

/** What stands before the workload: a sidecar, and one that takes tunnels. */
function meshSideOf(labels: Readonly<Record<string, string>>): { meshed: boolean; hbone: boolean } {
  const meshed = labels[TLS_MODE_LABEL] === 'istio';
  return { meshed, hbone: meshed && labels[TUNNEL_LABEL] === 'http' };
}

function portsFor(service: ServiceObject, pod: Pod): ServicePort[] {
  return tcpPorts(service).flatMap((port) => {
    const targetPort = targetPortOf(port, pod);
    return targetPort === undefined ? [] : [{ servicePort: port.port, targetPort }];
  });
}

function selects(selector: Readonly<Record<string, string>>, subject: PolicySubject): boolean {
  for (const key of Object.keys(selector)) if (subject.label(key) !== selector[key]) return false;
  return true;
}
