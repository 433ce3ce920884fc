// A pod as JSON, as far as the injector reads it. Whatever it does not read is carried along as it was.

import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { assertBounded } from './bounds.ts';

const texts = z.record(z.string(), z.string()).nullish();
const port = z.union([z.int(), z.string()]);
const securityContext = z.looseObject({ runAsUser: z.int().nullish(), runAsGroup: z.int().nullish() }).nullish();

const handler = z.looseObject({
  httpGet: z
    .looseObject({
      path: z.string().nullish(),
      port,
      host: z.string().nullish(),
      scheme: z.enum(['HTTP', 'HTTPS', '']).nullish(),
      httpHeaders: z.array(z.looseObject({ name: z.string(), value: z.string() })).nullish(),
    })
    .nullish(),
  tcpSocket: z.looseObject({ port, host: z.string().nullish() }).nullish(),
  grpc: z.looseObject({ port: z.int(), service: z.string().nullish() }).nullish(),
});
const probe = handler.extend({ timeoutSeconds: z.int().nullish() });

const mounts = z.array(z.looseObject({ name: z.string() })).nullish();

const container = z.looseObject({
  // It becomes part of a path that probes are asked at.
  name: z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'not a container name'),
  image: z.string().nullish(),
  command: z.array(z.string()).nullish(),
  args: z.array(z.string()).nullish(),
  restartPolicy: z.string().nullish(),
  volumeMounts: mounts,
  volumeDevices: mounts,
  env: z.array(z.looseObject({ name: z.string(), value: z.string().nullish() })).nullish(),
  ports: z.array(z.looseObject({ name: z.string().nullish(), containerPort: z.int(), protocol: z.string().nullish() })).nullish(),
  securityContext,
  livenessProbe: probe.nullish(),
  readinessProbe: probe.nullish(),
  startupProbe: probe.nullish(),
  lifecycle: z.looseObject({ postStart: handler.nullish(), preStop: handler.nullish() }).nullish(),
});

const schema = z.looseObject({
  metadata: z.looseObject({ labels: texts, annotations: texts }).nullish(),
  spec: z.looseObject({
    containers: z.array(container).min(1),
    initContainers: z.array(container).nullish(),
    ephemeralContainers: z.array(z.looseObject({ name: z.string(), volumeMounts: mounts, volumeDevices: mounts })).nullish(),
    volumes: z.array(z.looseObject({ name: z.string() })).nullish(),
    securityContext,
    hostNetwork: z.boolean().nullish(),
    nodeSelector: texts,
    os: z.looseObject({ name: z.string().nullish() }).nullish(),
    terminationGracePeriodSeconds: z.int().nullish(),
  }),
});

export type Pod = Readonly<z.infer<typeof schema>>;
export type Container = Readonly<z.infer<typeof container>>;
/** What a probe or a lifecycle hook does. */
export type Handler = Readonly<z.infer<typeof handler>>;
export type Probe = Readonly<z.infer<typeof probe>>;

/** The very object, not a copy: a copy could lose what it does not know. Throws OBJECT_INVALID that names the field. */
export function readPod(value: unknown): Pod {
  assertBounded(value);
  assertPod(value);
  return value;
}

export function labelsOf(pod: Pod): Readonly<Record<string, string>> {
  return pod.metadata?.labels ?? {};
}

export function annotationsOf(pod: Pod): Readonly<Record<string, string>> {
  return pod.metadata?.annotations ?? {};
}

/** Init containers and the others, each with where it stands. */
export function allContainers({ spec }: Pod): { readonly container: Container; readonly field: string }[] {
  const placed = (list: 'initContainers' | 'containers') =>
    (spec[list] ?? []).map((container, index) => ({ container, field: `spec.${list}[${index}]` }));
  return [...placed('initContainers'), ...placed('containers')];
}

function assertPod(value: unknown): asserts value is Pod {
  const { error } = schema.safeParse(value);
  const [issue] = error?.issues ?? [];
  if (issue === undefined) return;
  const path = issue.path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  throw new HandfastError('OBJECT_INVALID', `this is no pod: ${path.replace(/^\./, '') || 'the object'}: ${issue.message}`);
}
