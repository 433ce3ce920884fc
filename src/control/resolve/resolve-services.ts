// Services of one namespace, from Kubernetes Services and ServiceEntries, with what every client is told of their TLS.

import { ruleFor } from '../../policy/client-tls.ts';
import {
  annotatedClientTls,
  hostnameOf,
  type ServiceObject,
  serviceAddresses,
  subjectAltNamesOf,
  tcpPorts,
} from '../../policy/kinds/service.ts';
import type { ServiceEntry } from '../../policy/kinds/service-entry.ts';
import { type ClientTlsSettings, type Service, type ServiceClientTls, serviceKey } from '../../policy/model.ts';
import type { PoliciesInReach } from '../../policy/namespace-policies.ts';
import type { NamespaceObjects } from './namespace-objects.ts';

export function resolveServices(objects: NamespaceObjects, within: PoliciesInReach): Service[] {
  return [
    ...objects.services.map((service) => serviceOf(service, within)),
    ...objects.serviceEntries.flatMap((entry) => entry.spec.hosts.map((hostname) => entryServiceOf(entry, hostname, within))),
  ];
}

function serviceOf(service: ServiceObject, within: PoliciesInReach): Service {
  const { name, namespace, annotations } = service.metadata;
  const hostname = hostnameOf(service);
  return {
    key: serviceKey({ namespace, hostname }),
    name,
    namespace,
    hostname,
    addresses: serviceAddresses(service),
    ports: tcpPorts(service).map(({ port, targetPort }) => ({
      servicePort: port,
      targetPort: typeof targetPort === 'number' ? targetPort : port,
    })),
    subjectAltNames: subjectAltNamesOf(annotations),
    clientTls: clientTlsOf({ hostname, annotated: annotatedClientTls(service) }, within),
  };
}

/** Several hosts are names of one thing. */
function entryServiceOf({ metadata, spec }: ServiceEntry, hostname: string, within: PoliciesInReach): Service {
  const { name, namespace } = metadata;
  return {
    key: serviceKey({ namespace, hostname }),
    name,
    namespace,
    hostname,
    addresses: [...new Set(spec.addresses)],
    ports: spec.ports.map(({ number, targetPort }) => ({ servicePort: number, targetPort: targetPort ?? number })),
    subjectAltNames: spec.subjectAltNames,
    clientTls: clientTlsOf({ hostname, annotated: undefined }, within),
  };
}

/** Istio's order, service's namespace before root namespace; the annotation is the owner's word, so it stands between. */
function clientTlsOf(
  { hostname, annotated }: { hostname: string; annotated: ClientTlsSettings | undefined },
  { own, root }: PoliciesInReach,
): ServiceClientTls | undefined {
  const told = ruleFor(own.exported, hostname) ?? annotated;
  // For services of the root namespace both are one.
  const settings = told ?? ruleFor(root.exported, hostname);
  return settings === undefined ? undefined : { tls: settings.tls, ports: settings.ports, fromRoot: told === undefined };
}
