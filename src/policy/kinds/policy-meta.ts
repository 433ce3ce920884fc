// What policies have in common in their YAML: selectors by labels, the shadow, and the metadata of one that stands in a ScopeConfig.

import { z } from 'zod';
import type { PolicyMeta } from '../policy-object.ts';
import { labels, objectMeta } from './object-meta.ts';

const SHADOW_ANNOTATION = 'handfast.io/shadow';
/** Istio's, which knows it for AuthorizationPolicies alone and enforces everything else. */
const DRY_RUN_ANNOTATION = 'istio.io/dry-run';
export const shadowAnnotations = [SHADOW_ANNOTATION, DRY_RUN_ANNOTATION] as const;

/** Istio's WorkloadSelector: labels, compared as they stand. */
export const matchLabelsSelector = z.strictObject({
  matchLabels: labels.default({}).superRefine((all, context) => {
    for (const [key, value] of Object.entries(all)) {
      if (key.includes('*') || value.includes('*'))
        context.addIssue({ code: 'custom', path: [key], message: 'a selector has no wildcards: labels are compared as they stand' });
    }
  }),
});

/** Undefined: everybody. */
export function selectorOf(selector: z.output<typeof matchLabelsSelector> | undefined): ReadonlyMap<string, string> | undefined {
  const entries = Object.entries(selector?.matchLabels ?? {});
  return entries.length === 0 ? undefined : new Map(entries);
}

const wrapped = z.strictObject({
  name: objectMeta.shape.name,
  /** The ScopeConfig's, where it stands at all. */
  namespace: z.string().optional(),
  labels: labels.default({}),
  annotations: labels.default({}),
});

/** Of what may be in the shadow. */
export const shadowableMeta = objectMeta.superRefine(checkShadow);
export const wrappedShadowableMeta = wrapped.superRefine(checkShadow);

/** Of an AuthorizationPolicy, for which Istio has an annotation, too. */
export const dryRunnableMeta = objectMeta.superRefine(checkDryRun);
export const wrappedDryRunnableMeta = wrapped.superRefine(checkDryRun);

/** Of a kind that has no shadow. */
export const enforcedMeta = objectMeta.superRefine(refuseShadow);
export const wrappedEnforcedMeta = wrapped.superRefine(refuseShadow);

/** Judged and reported, not enforced. */
export function isShadow(annotations: Readonly<Record<string, string>>): boolean {
  return shadowAnnotations.some((name) => annotations[name] === 'true');
}

/** Unix milliseconds. Without a creation time an object counts as the newest; names settle ties. */
export function createdAt({ creationTimestamp }: { creationTimestamp?: string | null | undefined }): number {
  return creationTimestamp == null ? Number.MAX_SAFE_INTEGER : Date.parse(creationTimestamp);
}

export function policyMetaOf(metadata: z.output<typeof objectMeta>): PolicyMeta {
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    createdAt: createdAt(metadata),
    dryRun: isShadow(metadata.annotations),
    scopeConfig: undefined,
  };
}

type Annotated = { annotations: Record<string, string> };
type Context = z.core.$RefinementCtx<Annotated>;

/** Istio enforces such an object: read as a dry-run it would be out of force here. */
function checkShadow({ annotations }: Annotated, context: Context): void {
  checkSwitch(SHADOW_ANNOTATION, annotations, context);
  if (annotations[DRY_RUN_ANNOTATION] !== undefined)
    refuse(DRY_RUN_ANNOTATION, `is for an AuthorizationPolicy alone, as in Istio; use ${SHADOW_ANNOTATION}`, context);
}

function checkDryRun({ annotations }: Annotated, context: Context): void {
  for (const name of shadowAnnotations) checkSwitch(name, annotations, context);
  const [ours, istios] = [annotations[SHADOW_ANNOTATION], annotations[DRY_RUN_ANNOTATION]];
  if (ours !== undefined && istios !== undefined && ours !== istios)
    refuse(
      SHADOW_ANNOTATION,
      `is ${JSON.stringify(ours)} and ${DRY_RUN_ANNOTATION} is ${JSON.stringify(istios)}: remove one of them`,
      context,
    );
}

function refuseShadow({ annotations }: Annotated, context: Context): void {
  for (const name of shadowAnnotations)
    if (annotations[name] !== undefined) refuse(name, 'is not supported here: this kind has no shadow; remove it', context);
}

function checkSwitch(name: string, annotations: Readonly<Record<string, string>>, context: Context): void {
  const value = annotations[name];
  if (value === undefined || value === 'true' || value === 'false') return;
  refuse(name, `${JSON.stringify(value)} is not accepted; accepted: "true", "false"`, context);
}

function refuse(annotation: string, message: string, context: Context): void {
  context.addIssue({ code: 'custom', path: ['annotations', annotation], message });
}
