// One AdmissionReview (admission.k8s.io/v1): the question of the API server, and our answer with the patch of the pod or the reason against it.

import { z } from 'zod';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import type { CaptureArguments } from './capture.ts';
import type { InjectorConfig } from './config.ts';
import { skippedAnyway } from './decision.ts';
import { type Injection, injectPod } from './inject-pod.ts';
import { jsonPatch } from './json-patch.ts';
import type { NamespaceLabels } from './namespace-labels.ts';
import { readPod } from './pod.ts';

const API_VERSION = 'admission.k8s.io/v1';

const schema = z.object({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('AdmissionReview'),
  request: z.object({
    uid: z.string().min(1).max(253),
    kind: z.object({ group: z.string().default(''), version: z.string(), kind: z.string() }),
    subResource: z.string().nullish(),
    operation: z.string(),
    namespace: z.string().nullish(),
    object: z.unknown(),
  }),
});
type AdmissionRequest = z.infer<typeof schema>['request'];

export interface Reviewing {
  readonly config: InjectorConfig;
  /** The mesh's roots as they are now. */
  readonly roots?: () => string | undefined;
  readonly captureArguments: CaptureArguments;
  readonly namespaces: NamespaceLabels;
}

/** What is answered, and what to log of it. */
export interface Reviewed {
  readonly answer: object;
  readonly outcome: 'injected' | 'skipped' | 'refused' | 'not-ours';
  readonly namespace: string;
  readonly pod: string;
  readonly reason?: string;
}

/** Throws OBJECT_INVALID for what is no review, or one of another version. */
export async function answerReview(body: string, reviewing: Reviewing): Promise<Reviewed> {
  const request = parseReview(body);
  const namespace = request.namespace ?? '';
  const said = { namespace, pod: nameOf(request.object) };
  const isPod = request.kind.group === '' && request.kind.kind === 'Pod' && (request.subResource ?? '') === '';
  if (!isPod || request.operation !== 'CREATE') return { ...said, outcome: 'not-ours', answer: answerTo(request, { allowed: true }) };
  if (namespace === '') throw new HandfastError('OBJECT_INVALID', 'AdmissionReview: request.namespace is missing, and a pod has one');
  const result = await inject(request, { ...reviewing, namespace });
  if (result.kind === 'injected') {
    const before = isJsonObject(request.object) ? request.object : {};
    const patch = Buffer.from(JSON.stringify(jsonPatch({ before, after: result.pod }))).toString('base64');
    return { ...said, outcome: 'injected', answer: answerTo(request, { allowed: true, patchType: 'JSONPatch', patch }) };
  }
  if (result.kind === 'skipped')
    return { ...said, outcome: 'skipped', reason: result.reason, answer: answerTo(request, { allowed: true }) };
  const status = { code: 403, reason: 'Forbidden', message: `handfast: ${result.reason}` };
  return { ...said, outcome: 'refused', reason: result.reason, answer: answerTo(request, { allowed: false, status }) };
}

async function inject(request: AdmissionRequest, of: Reviewing & { namespace: string }): Promise<Injection> {
  try {
    const pod = readPod(request.object);
    const reason = skippedAnyway({ ...of, pod });
    if (reason !== undefined) return { kind: 'skipped', reason };
    const namespaceLabels = await of.namespaces.labelsOf(of.namespace);
    return injectPod({ ...of, roots: of.roots?.(), pod, namespaceLabels });
  } catch (error) {
    // Nobody knows whether it should be in the mesh: better no pod than one without protection.
    if (error instanceof HandfastError && (error.code === 'UNAVAILABLE' || error.code === 'OBJECT_INVALID'))
      return { kind: 'refused', reason: error.message };
    throw error;
  }
}

function parseReview(body: string): AdmissionRequest {
  try {
    const { data, error } = schema.safeParse(JSON.parse(body));
    if (data !== undefined) return data.request;
    const [issue] = error?.issues ?? [];
    throw new Error(`${issue?.path.join('.') || 'the object'}: ${issue?.message}`);
  } catch (cause) {
    throw new HandfastError('OBJECT_INVALID', `this is no AdmissionReview of ${API_VERSION}: ${messageOf(cause)}`, { cause });
  }
}

function answerTo({ uid }: AdmissionRequest, response: object): object {
  return { apiVersion: API_VERSION, kind: 'AdmissionReview', response: { uid, ...response } };
}

/** A pod of a template has no name yet. */
function nameOf(object: unknown): string {
  const metadata = isJsonObject(object) && isJsonObject(object.metadata) ? object.metadata : {};
  return String(metadata.name ?? metadata.generateName ?? '');
}
