// The part of a Kubernetes Pod that a registry needs: who runs there, under which labels, at which addresses.

import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import { annotatedHttpPorts, HTTP_PORTS_ANNOTATION } from '../http-ports.ts';
import { canonicalIp } from '../ip.ts';
import { labels, objectMeta, port, serviceAccountName } from './object-meta.ts';

/** On a pod this label says that a sidecar in it speaks mTLS; the injector sets it. */
export const TLS_MODE_LABEL = 'security.istio.io/tlsMode';

/** On a pod this label says that its sidecar takes HBONE tunnels on port 15008, if its value is `http`. */
export const TUNNEL_LABEL = 'networking.istio.io/tunnel';

const ipAddress = z.string().transform(readIp);

/** Canonical text, or an issue that says what is wrong: for a schema's transform. */
export function readIp(text: string, context: z.core.$RefinementCtx<string>): string {
  try {
    return canonicalIp(text);
  } catch {
    context.addIssue({ code: 'custom', message: `${JSON.stringify(text)} is not an IP address` });
    return z.NEVER;
  }
}

/** Refuses a mode that means nothing here: read as "not in the mesh", it would be dialled in plaintext. */
export function tlsModeLabels(all: Record<string, string>, context: z.core.$RefinementCtx<Record<string, string>>): void {
  const mode = all[TLS_MODE_LABEL];
  if (mode === undefined || mode === 'istio' || mode === 'disabled') return;
  context.addIssue({
    code: 'custom',
    path: [TLS_MODE_LABEL],
    message: `${JSON.stringify(mode)}: accepted are "istio" (a sidecar speaks mTLS here) and "disabled"`,
  });
}

/** Refuses what would be read as no port at all. */
function readableHttpPorts(all: Record<string, string>, context: z.core.$RefinementCtx<Record<string, string>>): void {
  try {
    annotatedHttpPorts(all[HTTP_PORTS_ANNOTATION] ?? '');
  } catch (error) {
    context.addIssue({ code: 'custom', path: [HTTP_PORTS_ANNOTATION], message: messageOf(error) });
  }
}

export const podSchema = z.strictObject({
  apiVersion: z.enum(['v1']),
  kind: z.literal('Pod'),
  metadata: objectMeta.extend({
    labels: labels.default({}).superRefine(tlsModeLabels),
    annotations: labels.default({}).superRefine(readableHttpPorts),
  }),
  spec: z
    .strictObject({
      serviceAccountName: serviceAccountName.default('default'),
      nodeName: z.string().optional(),
      containers: z
        .array(
          z.strictObject({
            name: z.string(),
            image: z.string().optional(),
            ports: z
              .array(
                z.strictObject({
                  name: z.string().optional(),
                  containerPort: port,
                  protocol: z.enum(['TCP', 'UDP', 'SCTP']).default('TCP'),
                }),
              )
              .default([]),
          }),
        )
        .default([]),
    })
    .default({ serviceAccountName: 'default', containers: [] }),
  status: z
    .strictObject({
      podIP: ipAddress.optional(),
      podIPs: z.array(z.strictObject({ ip: ipAddress })).default([]),
      phase: z.string().optional(),
      conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]),
    })
    .default({ podIPs: [], conditions: [] }),
});

export type Pod = z.infer<typeof podSchema>;

/** Not ending, not ended, and not said to be unready. */
export function isHealthy({ metadata, status }: Pod): boolean {
  if (metadata.deletionTimestamp != null || status.phase === 'Failed' || status.phase === 'Succeeded') return false;
  return !status.conditions.some((condition) => condition.type === 'Ready' && condition.status !== 'True');
}

/** Of several ports with the name, the last. */
export function namedPort(pod: Pod, name: string): number | undefined {
  return pod.spec.containers.flatMap(({ ports }) => ports).findLast((port) => port.name === name)?.containerPort;
}

/** All of a pod's addresses, each once. */
export function podAddresses({ status }: Pod): string[] {
  if (status.podIPs.length === 0) return status.podIP === undefined ? [] : [status.podIP];
  return [...new Set([...(status.podIP === undefined ? [] : [status.podIP]), ...status.podIPs.map(({ ip }) => ip)])];
}
