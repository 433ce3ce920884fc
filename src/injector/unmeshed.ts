// Whether a pod that is there should have been given the sidecar and has none: by the injector's own rules, and with the way out.

import { HandfastError } from '../errors.ts';
import type { KubeObject } from '../kube/api.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { isAllowedImage } from './allowed-image.ts';
import type { CaptureArguments } from './capture.ts';
import type { InjectorConfig } from './config.ts';
import { decide } from './decision.ts';
import { injectPod } from './inject-pod.ts';
import { INIT_CONTAINER, MESH_LABELS, SIDECAR_CONTAINER, STATUS } from './own-parts.ts';

/** `owner` as `Deployment web`, empty for a pod of its own. `why`: who asks for a sidecar, and what is known of why there is none. */
export interface UnmeshedPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly owner: string;
  readonly why: string;
  readonly wayOut: string;
}

/** A pod without a whole sidecar, with what the injector would read of it. */
export interface Candidate extends Pick<UnmeshedPod, 'namespace' | 'name' | 'uid' | 'owner'> {
  readonly pod: KubeObject;
  /** What is not there. */
  readonly lacks: string;
}

export interface Judging {
  readonly config: InjectorConfig;
  readonly captureArguments: CaptureArguments;
}

/** Of one pod: whoever may make pods must not fill the injector's memory. */
const MAX_TEXT = 32 * 1024;

const listOf = (value: unknown): readonly KubeObject[] => (Array.isArray(value) ? value.filter(isJsonObject) : []);
const objectOf = (value: unknown): KubeObject => (isJsonObject(value) ? value : {});

/** Undefined for a pod that has its sidecar, that is over, or that is going. */
export function candidateOf(object: KubeObject, config: InjectorConfig): Candidate | undefined {
  const [metadata, spec, status] = [objectOf(object.metadata), objectOf(object.spec), objectOf(object.status)];
  if (metadata.deletionTimestamp != null || status.phase === 'Succeeded' || status.phase === 'Failed') return undefined;
  const lacks = lackOf({ metadata, spec, config });
  if (lacks === undefined) return undefined;
  const { namespace, name, uid } = metadata;
  return { namespace: String(namespace), name: String(name), uid: String(uid), owner: ownerOf(metadata), pod: slim(metadata, spec), lacks };
}

/** What stands in the way of calling it meshed; undefined if nothing does. */
function lackOf({ metadata, spec, config }: { metadata: KubeObject; spec: KubeObject; config: InjectorConfig }): string | undefined {
  const [labels, annotations] = [objectOf(metadata.labels), objectOf(metadata.annotations)];
  const containers = [...listOf(spec.initContainers), ...listOf(spec.containers)];
  const sidecar = containers.find(({ name }) => name === SIDECAR_CONTAINER);
  const missing = [
    ...[INIT_CONTAINER, SIDECAR_CONTAINER].flatMap((own) => (containers.some(({ name }) => name === own) ? [] : [`container ${own}`])),
    ...Object.entries(MESH_LABELS).flatMap(([label, value]) => (labels[label] === value ? [] : [`label ${label}: ${value}`])),
    ...(annotations[STATUS] === undefined ? [`annotation ${STATUS}`] : []),
  ];
  if (missing.length === 0)
    return isAllowedImage(String(sidecar?.image), config)
      ? undefined
      : `its container ${SIDECAR_CONTAINER} is of an image that is not the injector's: it was put in by somebody else, or before the image moved (allowedProxyImages)`;
  if (annotations[STATUS] === undefined && sidecar === undefined)
    return 'it has not come past the injector: it was made before it was asked for, or while there was no webhook';
  return `it lacks ${missing.join(', ')}: something took that out after the injector, or puts in a sidecar of its own`;
}

/** Undefined for a pod that is not to be in the mesh. Its refusal, if it were made now, is part of what is to be done. */
export function unmeshedOf(
  candidate: Candidate,
  of: Judging & { namespaceLabels: Readonly<Record<string, string>> },
): UnmeshedPod | undefined {
  const { pod, lacks, ...named } = candidate;
  const asked = { ...of, pod, namespace: candidate.namespace };
  const outcome = injectPod(asked);
  if (outcome.kind === 'skipped') return undefined;
  const refusal = outcome.kind === 'refused' ? outcome.reason : undefined;
  return {
    ...named,
    why: `${becauseOf(asked)}; ${lacks}`,
    wayOut: `${refusal === undefined ? '' : `it would be refused now (${refusal}); then `}${renewal(candidate)}`,
  };
}

function becauseOf(of: Parameters<typeof injectPod>[0]): string {
  try {
    return decide({ ...of, pod: readable(of.pod) }).because;
  } catch (error) {
    // Nobody knows whether it should be in the mesh.
    if (error instanceof HandfastError && error.code === 'OBJECT_INVALID') return error.message;
    throw error;
  }
}

/** What a decision reads of a pod: labels and annotations. */
function readable(pod: unknown): Parameters<typeof decide>[0]['pod'] {
  const { labels, annotations } = objectOf(objectOf(pod).metadata);
  return { metadata: { labels: texts(labels), annotations: texts(annotations) }, spec: { containers: [] } };
}

function texts(value: unknown): Record<string, string> {
  return Object.fromEntries(Object.entries(objectOf(value)).map(([name, text]) => [name, String(text)]));
}

function renewal({ namespace, name, owner }: Candidate): string {
  const [kind = '', of = ''] = owner.split(' ');
  const restartable = ['Deployment', 'StatefulSet', 'DaemonSet'].includes(kind);
  if (restartable) return `kubectl rollout restart ${kind.toLowerCase()}/${of} -n ${namespace}`;
  if (kind === 'Node') return `a static pod passes no injector: make it a DaemonSet, or label it sidecar.istio.io/inject: "false"`;
  if (kind !== '') return `kubectl delete pod ${name} -n ${namespace} (its ${owner} makes another)`;
  return `kubectl delete pod ${name} -n ${namespace}, and make it anew from its manifest: it has no owner that would`;
}

/** The controller; of a ReplicaSet that a Deployment made, the Deployment. */
function ownerOf(metadata: KubeObject): string {
  const { kind, name } = listOf(metadata.ownerReferences).find(({ controller }) => controller === true) ?? {};
  if (typeof kind !== 'string' || typeof name !== 'string') return '';
  const hash = `-${String(objectOf(metadata.labels)['pod-template-hash'])}`;
  return kind === 'ReplicaSet' && name.endsWith(hash) ? `Deployment ${name.slice(0, -hash.length)}` : `${kind} ${name}`;
}

/** Without what nothing depends on here; the rest is JSON that is read as the injector reads it. */
function slim(metadata: KubeObject, spec: KubeObject): KubeObject {
  const containers = (list: unknown) => listOf(list).map(({ env, envFrom, command, args, resources, ...container }) => container);
  const annotations = Object.fromEntries(
    Object.entries(objectOf(metadata.annotations)).filter(([name]) => name !== 'kubectl.kubernetes.io/last-applied-configuration'),
  );
  const pod = {
    metadata: { labels: objectOf(metadata.labels), annotations },
    spec: {
      ...pick(spec, 'hostNetwork', 'os', 'nodeSelector', 'securityContext', 'terminationGracePeriodSeconds'),
      containers: containers(spec.containers),
      initContainers: containers(spec.initContainers),
      ephemeralContainers: containers(spec.ephemeralContainers),
      volumes: listOf(spec.volumes).map(({ name }) => ({ name })),
    },
  };
  if (JSON.stringify(pod).length <= MAX_TEXT) return pod;
  // What decides remains.
  const first = listOf(spec.containers).slice(0, 1);
  const short = (of: object) =>
    Object.fromEntries(
      Object.entries(of)
        .filter(([name]) => DECIDING.includes(name))
        .map(([name, text]) => [name, String(text).slice(0, 253)]),
    );
  return {
    metadata: { labels: short(pod.metadata.labels), annotations: short(annotations) },
    spec: { containers: first.map(({ name }) => ({ name })) },
  };
}

const DECIDING = ['sidecar.istio.io/inject', ...Object.keys(MESH_LABELS), STATUS];

function pick(from: KubeObject, ...fields: readonly string[]): KubeObject {
  return Object.fromEntries(fields.filter((field) => from[field] !== undefined).map((field) => [field, from[field]]));
}
