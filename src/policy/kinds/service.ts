// The part of a Kubernetes Service that a registry needs: its addresses, its ports, and which pods stand behind it.

import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { type ClientTlsSettings, clientTls } from '../model.ts';
import { labels, objectMeta, port } from './object-meta.ts';
import { namedPort, type Pod, readIp } from './pod.ts';

/** Further SPIFFE IDs that the service's servers may prove, comma-separated. */
export const SUBJECT_ALT_NAMES_ANNOTATION = 'handfast.io/subject-alt-names';

/** How clients speak to it that have no DestinationRule for it; AUTO is auto-mTLS, whatever the root namespace says. */
export const CLIENT_TLS_ANNOTATION = 'handfast.io/client-tls';
const clientTlsAnnotations = ['DISABLE', 'ISTIO_MUTUAL', 'AUTO'] as const;

/** `None` and the empty string mean that the service has no address of its own. */
const clusterIp = z.string().transform((text, context) => (text === 'None' || text === '' ? text : readIp(text, context)));

export const serviceSchema = z.strictObject({
  apiVersion: z.enum(['v1']),
  kind: z.literal('Service'),
  metadata: objectMeta.superRefine(({ annotations }, context) => {
    for (const id of subjectAltNamesOf(annotations)) {
      try {
        parseSpiffeId(id);
      } catch (error) {
        context.addIssue({ code: 'custom', path: ['annotations', SUBJECT_ALT_NAMES_ANNOTATION], message: messageOf(error) });
      }
    }
    const clientTls = annotations[CLIENT_TLS_ANNOTATION];
    if (clientTls !== undefined && !clientTlsAnnotations.some((mode) => mode === clientTls)) {
      const message = `${JSON.stringify(clientTls)} is not accepted; accepted: ${clientTlsAnnotations.join(', ')}`;
      context.addIssue({ code: 'custom', path: ['annotations', CLIENT_TLS_ANNOTATION], message });
    }
  }),
  spec: z.strictObject({
    type: z.enum(['ClusterIP', 'NodePort', 'LoadBalancer']).default('ClusterIP'),
    clusterIP: clusterIp.optional(),
    clusterIPs: z.array(clusterIp).default([]),
    ipFamilies: z.array(z.enum(['IPv4', 'IPv6'])).optional(),
    ipFamilyPolicy: z.string().optional(),
    selector: labels.optional(),
    ports: z
      .array(
        z.strictObject({
          name: z.string().optional(),
          port,
          targetPort: z.union([port, z.string().min(1)]).optional(),
          protocol: z.enum(['TCP', 'UDP', 'SCTP']).default('TCP'),
          appProtocol: z.string().optional(),
          nodePort: port.optional(),
        }),
      )
      .default([])
      .superRefine((ports, context) => {
        ports.forEach((port, index) => {
          const first = ports.findIndex((other) => other.port === port.port && other.protocol === port.protocol);
          if (first !== index)
            context.addIssue({
              code: 'custom',
              path: [index, 'port'],
              message: `port ${port.port} stands there already as ports.${first}`,
            });
        });
      }),
  }),
  status: z.unknown().optional(),
});

export type ServiceObject = z.infer<typeof serviceSchema>;

/** The extra SPIFFE IDs that a service's annotations name. */
export function subjectAltNamesOf(annotations: Readonly<Record<string, string>>): string[] {
  return (annotations[SUBJECT_ALT_NAMES_ANNOTATION] ?? '')
    .split(',')
    .map((id) => id.trim())
    .filter((id) => id !== '');
}

/** What the annotation says of the client's side; undefined where it is absent. */
export function annotatedClientTls({ metadata }: ServiceObject): ClientTlsSettings | undefined {
  const mode = clientTlsAnnotations.find((name) => name === metadata.annotations[CLIENT_TLS_ANNOTATION]);
  if (mode === undefined) return undefined;
  if (mode === 'AUTO') return { tls: undefined, ports: new Map() };
  const tls = clientTls(mode, `Service ${metadata.namespace}/${metadata.name} (${CLIENT_TLS_ANNOTATION})`);
  return { tls, ports: new Map() };
}

/** All of a service's own addresses; none when it is headless. */
export function serviceAddresses({ spec }: ServiceObject): string[] {
  const own = [spec.clusterIP ?? '', ...spec.clusterIPs].filter((address) => address !== 'None' && address !== '');
  return [...new Set(own)];
}

export function tcpPorts(service: ServiceObject): ServiceObject['spec']['ports'] {
  return service.spec.ports.filter((port) => port.protocol === 'TCP');
}

/** A named target port means the pod's own port of that name; a pod without it is no endpoint for that port. */
export function targetPortOf({ port, targetPort }: ServiceObject['spec']['ports'][number], pod: Pod): number | undefined {
  return typeof targetPort === 'string' ? namedPort(pod, targetPort) : (targetPort ?? port);
}

export function hostnameOf({ metadata }: ServiceObject): string {
  return `${metadata.name}.${metadata.namespace}.svc.cluster.local`;
}
