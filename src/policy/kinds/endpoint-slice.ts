// discovery.k8s.io EndpointSlice: who stands behind a Service that does not choose its pods by labels.

import { z } from 'zod';
import { labels, objectMeta, port } from './object-meta.ts';
import { readIp } from './pod.ts';

/** On a slice: whose endpoints these are. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';

/** The API server's own limits. */
const MAX_ENDPOINTS = 1_000;
const MAX_PORTS = 20_000;
/** The caller's own, nobody's, and the node's link, where clouds keep credentials. */
const NOBODYS = /^(127\.|169\.254\.|0\.0\.0\.0$|::1?$|fe[89ab][0-9a-f]:)/;

const address = z.string().transform((text, context) => {
  const found = readIp(text, context);
  if (NOBODYS.test(found)) context.addIssue({ code: 'custom', message: `${found} is no address of a server` });
  return found;
});

/** Null is not said, as the API server writes it. */
const said = z.boolean().nullish();

export const endpointSliceSchema = z.strictObject({
  apiVersion: z.literal('discovery.k8s.io/v1'),
  kind: z.literal('EndpointSlice'),
  metadata: objectMeta.extend({ labels: labels.default({}) }),
  addressType: z.enum(['IPv4', 'IPv6'], 'accepted: IPv4, IPv6; names are not looked up here'),
  endpoints: z
    .array(
      z.strictObject({
        // They are one endpoint under several addresses, and the first is what everybody uses.
        addresses: z.array(address).min(1).max(100),
        conditions: z.strictObject({ ready: said, serving: said, terminating: said }).nullish(),
        hostname: z.string().nullish(),
        nodeName: z.string().nullish(),
        zone: z.string().nullish(),
        hints: z.unknown().optional(),
        targetRef: z.unknown().optional(),
        deprecatedTopology: z.unknown().optional(),
      }),
    )
    .max(MAX_ENDPOINTS)
    .nullish(),
  ports: z
    .array(
      z.strictObject({
        name: z.string().nullish(),
        // Absent: all ports, which says nothing of where a port of the service leads.
        port: port.nullish(),
        protocol: z.enum(['TCP', 'UDP', 'SCTP']).nullish(),
        appProtocol: z.string().nullish(),
      }),
    )
    .max(MAX_PORTS)
    .nullish(),
});

/** `ready`: to be called. `draining`: ending, and serves until then; called where nobody is ready. */
export interface SliceEndpoint {
  readonly address: string;
  readonly state: 'ready' | 'draining' | 'away';
}

export interface EndpointSlice {
  readonly namespace: string;
  readonly name: string;
  /** Undefined for a slice that is no Service's. */
  readonly service: string | undefined;
  readonly endpoints: readonly SliceEndpoint[];
  /** TCP ports by their names in the Service; the name of an only port may be empty. */
  readonly ports: ReadonlyMap<string, number>;
  /** Made of pods on their nodes' network, for a Service that selects no others. */
  readonly ofHosts: boolean;
}

type Conditions = { readonly [K in 'ready' | 'serving' | 'terminating']?: boolean | null | undefined };

export function endpointSliceOf({ metadata, endpoints, ports }: z.output<typeof endpointSliceSchema>): EndpointSlice {
  return Object.freeze({
    namespace: metadata.namespace,
    name: metadata.name,
    service: metadata.labels[SERVICE_NAME_LABEL],
    endpoints: (endpoints ?? []).flatMap(({ addresses: [address], conditions }) =>
      address === undefined ? [] : [{ address, state: stateOf(conditions ?? {}) }],
    ),
    ports: new Map(
      (ports ?? []).flatMap(({ name, port, protocol }) => (port == null || (protocol ?? 'TCP') !== 'TCP' ? [] : [[name ?? '', port]])),
    ),
    ofHosts: false,
  });
}

/** What is not said is so: ready, and serving if it is ready. */
function stateOf({ ready, serving, terminating }: Conditions): SliceEndpoint['state'] {
  if (ready ?? true) return 'ready';
  return terminating === true && serving === true ? 'draining' : 'away';
}
