// Objects resolved into what proxies need: workloads, services, and each workload's switches. Pure; done once per change.

import { type Pod, TLS_MODE_LABEL } from '../policy/kinds/pod.ts';
import { type ServiceObject, subjectAltNamesOf } from '../policy/kinds/service.ts';
import { type Service, type ServicePort, serviceKey, type TrafficPolicy, type Workload } from '../policy/model.ts';
import { resolvePeerAuthentication } from '../policy/peer-authentication.ts';
import { workloadSpiffeId } from '../spiffe/spiffe-id.ts';
import type { MeshObjects } from './mesh-objects.ts';
import { podAddresses, serviceAddresses } from './parse-objects.ts';

export interface ResolvedMesh {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly TrafficPolicy[];
}

export function resolveMesh(objects: MeshObjects, trustDomain: string): ResolvedMesh {
  const workloads = objects.pods.map((pod) => workloadOf(pod, { services: objects.services, trustDomain }));
  const policies = objects.pods.map((pod): TrafficPolicy => {
    const { inbound, inboundPorts } = resolvePeerAuthentication(objects.peerAuthentications, {
      rootNamespace: objects.config.rootNamespace,
      namespace: pod.metadata.namespace,
      labels: new Map(Object.entries(pod.metadata.labels)),
    });
    return { workload: uidOf(pod), inbound, inboundPorts, outbound: objects.config.outboundTrafficPolicy.mode };
  });
  return { workloads, services: objects.services.map(serviceOf), policies };
}

function uidOf({ metadata }: Pod): string {
  // cluster//Pod/namespace/name: the form of Istio's workload uids.
  return `local//Pod/${metadata.namespace}/${metadata.name}`;
}

function workloadOf(pod: Pod, context: { services: readonly ServiceObject[]; trustDomain: string }): Workload {
  const { namespace, name, labels } = pod.metadata;
  const selecting = context.services.filter(
    (service) => service.metadata.namespace === namespace && selects(service.spec.selector, labels),
  );
  return {
    uid: uidOf(pod),
    name,
    namespace,
    identity: workloadSpiffeId({ trustDomain: context.trustDomain, namespace, serviceAccount: pod.spec.serviceAccountName }),
    addresses: podAddresses(pod),
    meshed: labels[TLS_MODE_LABEL] === 'istio',
    healthy: isHealthy(pod),
    services: new Map(selecting.map((service) => [keyOf(service), portsFor(service, pod)])),
  };
}

/** Not ending, not ended, and not said to be unready. */
function isHealthy({ metadata, status }: Pod): boolean {
  if (metadata.deletionTimestamp != null || status.phase === 'Failed' || status.phase === 'Succeeded') return false;
  return !status.conditions.some((condition) => condition.type === 'Ready' && condition.status !== 'True');
}

function serviceOf(service: ServiceObject): Service {
  const { name, namespace, annotations } = service.metadata;
  return {
    key: keyOf(service),
    name,
    namespace,
    hostname: hostnameOf(service),
    addresses: serviceAddresses(service),
    ports: tcpPorts(service).map(({ port, targetPort }) => ({
      servicePort: port,
      targetPort: typeof targetPort === 'number' ? targetPort : port,
    })),
    subjectAltNames: subjectAltNamesOf(annotations),
  };
}

function keyOf(service: ServiceObject): string {
  return serviceKey({ namespace: service.metadata.namespace, hostname: hostnameOf(service) });
}

function hostnameOf({ metadata }: ServiceObject): string {
  return `${metadata.name}.${metadata.namespace}.svc.cluster.local`;
}

function tcpPorts(service: ServiceObject): ServiceObject['spec']['ports'] {
  return service.spec.ports.filter((port) => port.protocol === 'TCP');
}

/** A named target port means the pod's own port of that name; a pod without it is no endpoint for that port. */
function portsFor(service: ServiceObject, pod: Pod): ServicePort[] {
  const named = new Map(
    pod.spec.containers.flatMap((container) => container.ports.map((port) => [port.name, port.containerPort] as const)),
  );
  return tcpPorts(service).flatMap(({ port, targetPort }) => {
    const target = typeof targetPort === 'string' ? named.get(targetPort) : (targetPort ?? port);
    return target === undefined ? [] : [{ servicePort: port, targetPort: target }];
  });
}

function selects(selector: Readonly<Record<string, string>> | undefined, labels: Readonly<Record<string, string>>): boolean {
  const wanted = Object.entries(selector ?? {});
  return wanted.length > 0 && wanted.every(([key, value]) => labels[key] === value);
}
