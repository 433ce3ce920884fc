// What is kept of an API server's objects: the fields that the registry and policy are made of. Its objects have many more, which are its own business.

import { HTTP_PORTS_ANNOTATION } from '../../policy/http-ports.ts';
import { canonicalIp } from '../../policy/ip.ts';
import { SERVICE_NAME_LABEL } from '../../policy/kinds/endpoint-slice.ts';
import { isJsonObject } from '../../spiffe/strict-json.ts';

type Json = Readonly<Record<string, unknown>>;

const objectOf = (value: unknown): Json => (isJsonObject(value) ? value : {});
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** Those of the fields that are there: an absent one is not the same as undefined to a schema. */
function pick(from: unknown, ...fields: readonly string[]): Json {
  const object = objectOf(from);
  return Object.fromEntries(fields.filter((field) => object[field] !== undefined).map((field) => [field, object[field]]));
}

function metadataOf(object: Json, ...more: readonly string[]): Json {
  return pick(object.metadata, 'name', 'namespace', 'labels', 'creationTimestamp', 'uid', ...more);
}

/** The pod's own, and sidecars of the native kind, which may serve ports too. */
function containersOf(spec: Json): readonly unknown[] {
  const sidecars = listOf(spec.initContainers).filter((container) => objectOf(container).restartPolicy === 'Always');
  return [...listOf(spec.containers), ...sidecars].map((container) => ({
    ...pick(container, 'name'),
    ports: listOf(objectOf(container).ports).map((port) => pick(port, 'name', 'containerPort', 'protocol')),
  }));
}

/** On the node's network: its address is the node's, and many pods'. No sidecar can be in it. */
export function isOnHostNetwork(pod: Json): boolean {
  return objectOf(pod.spec).hostNetwork === true;
}

/** It is over, and its address may be another pod's by now. */
export function hasEnded(pod: Json): boolean {
  const { phase } = objectOf(pod.status);
  return phase === 'Succeeded' || phase === 'Failed';
}

export function projectPod(pod: Json): Json {
  const spec = objectOf(pod.spec);
  const status = objectOf(pod.status);
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { ...metadataOf(pod, 'deletionTimestamp'), annotations: pick(objectOf(pod.metadata).annotations, HTTP_PORTS_ANNOTATION) },
    spec: { ...pick(spec, 'serviceAccountName', 'nodeName'), containers: containersOf(spec) },
    status: {
      ...pick(status, 'phase', 'podIP'),
      podIPs: listOf(status.podIPs).map((address) => pick(address, 'ip')),
      conditions: listOf(status.conditions)
        .map((condition) => pick(condition, 'type', 'status'))
        .filter(({ type }) => type === 'Ready'),
    },
  };
}

/** Undefined for one that is a name of something else: it follows outboundTrafficPolicy, as anything that is not registered. */
export function projectService(service: Json): Json | undefined {
  const spec = objectOf(service.spec);
  if (spec.type === 'ExternalName') return undefined;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: metadataOf(service, 'annotations'),
    spec: {
      ...pick(spec, 'type', 'clusterIP', 'clusterIPs', 'selector'),
      ports: listOf(spec.ports).map((port) => pick(port, 'name', 'port', 'targetPort', 'protocol', 'appProtocol')),
    },
  };
}

/** Undefined for one that is no Service's. */
export function projectEndpointSlice(slice: Json): Json | undefined {
  const service = objectOf(objectOf(slice.metadata).labels)[SERVICE_NAME_LABEL];
  if (typeof service !== 'string' || service === '') return undefined;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { ...pick(slice.metadata, 'name', 'namespace', 'creationTimestamp'), labels: { [SERVICE_NAME_LABEL]: service } },
    ...pick(slice, 'addressType'),
    endpoints: listOf(slice.endpoints).map((endpoint) => ({
      addresses: listOf(objectOf(endpoint).addresses).slice(0, 1),
      conditions: pick(objectOf(endpoint).conditions, 'ready', 'serving', 'terminating'),
    })),
    ports: listOf(slice.ports).map((port) => pick(port, 'name', 'port', 'protocol')),
  };
}

/** Policies are read whole: a field that is not understood must be refused, not overlooked. */
export function projectPolicy(kind: string): (object: Json) => Json {
  return (object) => ({
    apiVersion: object.apiVersion,
    kind,
    metadata: metadataOf(object, 'annotations'),
    spec: object.spec ?? {},
  });
}

/** Canonical texts of those that can be read. */
function addressesIn(texts: readonly unknown[]): readonly string[] {
  const found = new Set<string>();
  for (const text of texts) {
    try {
      if (typeof text === 'string') found.add(canonicalIp(text));
    } catch {
      // `None`, or nothing at all.
    }
  }
  return [...found];
}

export function serviceAddresses(service: Json): readonly string[] {
  const spec = objectOf(service.spec);
  return addressesIn([spec.clusterIP, ...listOf(spec.clusterIPs)]);
}

export function podAddresses(pod: Json): readonly string[] {
  const status = objectOf(pod.status);
  return addressesIn([status.podIP, ...listOf(status.podIPs).map((address) => objectOf(address).ip)]);
}
