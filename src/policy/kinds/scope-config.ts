// handfast.io ScopeConfig: one policy, the pods it is for, and how it is rolled out to them.

import { z } from 'zod';
import { canonicalIp } from '../ip.ts';
import { type LabelSelector, labelOperators } from '../label-selector.ts';
import type { PolicyMeta, PolicyScope, RolloutPlan } from '../policy-object.ts';
import { POD_IP_LABEL, pseudoLabels } from '../policy-subject.ts';
import type { ScopeConfig, WrappedPolicy } from '../scope-config.ts';
import { authorizationPolicyWith, wrappedAuthorizationPolicySchema } from './authorization-policy.ts';
import { destinationRuleWith, wrappedDestinationRuleSchema } from './destination-rule.ts';
import { labels } from './object-meta.ts';
import { peerAuthenticationWith, wrappedPeerAuthenticationSchema } from './peer-authentication.ts';
import { createdAt, isShadow, shadowAnnotations, shadowableMeta } from './policy-meta.ts';

const MAX_STEPS = 100;
const MAX_EXPRESSIONS = 100;
const MAX_VALUES = 10_000;
const WEEK_SECONDS = 7 * 24 * 3600;

const expression = z
  .strictObject({
    key: z
      .string()
      .min(1)
      .refine((key) => !isUnknownPseudoLabel(key), { error: ({ input }) => noPseudoLabel(String(input)) }),
    operator: z.enum(labelOperators),
    values: z.array(z.string()).max(MAX_VALUES).default([]),
  })
  .superRefine(({ operator, values }, context) => {
    const needsValues = operator === 'In' || operator === 'NotIn';
    if (needsValues === values.length > 0) return;
    context.addIssue({ code: 'custom', path: ['values'], message: needsValues ? `${operator} needs values` : `${operator} has no values` });
  });

const selector = z.strictObject({
  matchLabels: labels.default({}).superRefine((all, context) => {
    for (const key of Object.keys(all).filter(isUnknownPseudoLabel))
      context.addIssue({ code: 'custom', path: [key], message: noPseudoLabel(key) });
  }),
  matchExpressions: z.array(expression).max(MAX_EXPRESSIONS, `more than ${MAX_EXPRESSIONS} expressions`).default([]),
});

const step = z
  .strictObject({ pods: z.int().min(1).optional(), percent: z.number().gt(0).max(100).optional() })
  .refine(({ pods, percent }) => (pods === undefined) !== (percent === undefined), 'give either pods or percent');

const steps = z
  .array(step)
  .min(1, 'at least one step')
  .max(MAX_STEPS, `more than ${MAX_STEPS} steps`)
  .superRefine((all, context) => {
    const refuse = (index: number, message: string) => context.addIssue({ code: 'custom', path: [index], message });
    if (all.at(-1)?.percent !== 100) refuse(all.length - 1, 'the last step must be everybody: percent: 100');
    for (const unit of ['pods', 'percent'] as const) {
      let before = 0;
      all.forEach((one, index) => {
        const amount = one[unit];
        if (amount !== undefined && amount < before)
          refuse(index, `${unit}: ${amount} is less than ${before} before it: a rollout only grows`);
        before = amount ?? before;
      });
    }
  });

const rollout = z.strictObject({
  steps,
  intervalSeconds: z.int().min(1).max(WEEK_SECONDS),
  paused: z.boolean().default(false),
  failureBudget: z
    .strictObject({
      maxFailureRatio: z.number().min(0).max(1),
      windowSeconds: z.int().min(1).max(WEEK_SECONDS),
      minConnections: z.int().min(1).default(1),
    })
    .optional(),
});

const wrappedKinds = ['PeerAuthentication', 'AuthorizationPolicy', 'DestinationRule'] as const;

const object = z.discriminatedUnion(
  'kind',
  [wrappedPeerAuthenticationSchema, wrappedAuthorizationPolicySchema, wrappedDestinationRuleSchema],
  { error: ({ input }) => notWrappable(input) },
);

export const scopeConfigSchema = z
  .strictObject({
    apiVersion: z.enum(['handfast.io/v1alpha1']),
    kind: z.literal('ScopeConfig'),
    metadata: shadowableMeta,
    spec: z.strictObject({
      selector: selector.optional(),
      priority: z.int().default(0),
      object,
      rollout: rollout.optional(),
    }),
    status: z.unknown().optional(),
  })
  .superRefine(({ metadata, spec }, context) => {
    const refuse = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
    const { namespace } = spec.object.metadata;
    if (namespace !== undefined && namespace !== metadata.namespace)
      refuse(
        ['spec', 'object', 'metadata', 'namespace'],
        `${namespace} is not the ScopeConfig's own, ${metadata.namespace}: put both into one`,
      );
    for (const name of shadowAnnotations)
      if (spec.object.kind === 'DestinationRule' && metadata.annotations[name] !== undefined)
        refuse(['metadata', 'annotations', name], 'is not supported for a DestinationRule, which has no shadow; remove it');
    for (const [key, value] of addressesIn(spec.selector))
      if (readAddress(value) === undefined) refuse(['spec', 'selector'], `${key} ${JSON.stringify(value)} is not an IP address`);
  });

type Parsed = z.output<typeof scopeConfigSchema>;

export function scopeConfigOf({ metadata, spec }: Parsed, document: unknown): ScopeConfig {
  const scope: PolicyScope = {
    key: `${metadata.namespace}/${metadata.name}`,
    name: metadata.name,
    priority: spec.priority,
    selector: selectorOf(spec.selector),
    rollout: spec.rollout === undefined ? undefined : rolloutOf(spec.rollout),
  };
  const meta: PolicyMeta = {
    name: spec.object.metadata.name,
    namespace: metadata.namespace,
    createdAt: createdAt(metadata),
    dryRun: isShadow(metadata.annotations) || isShadow(spec.object.metadata.annotations),
    scopeConfig: scope,
  };
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    scope,
    wrapped: wrappedOf(spec.object, meta),
    document: JSON.stringify(document),
  };
}

function wrappedOf(of: Parsed['spec']['object'], meta: PolicyMeta): WrappedPolicy {
  switch (of.kind) {
    case 'PeerAuthentication':
      return { kind: of.kind, policy: peerAuthenticationWith(meta, of.spec) };
    case 'AuthorizationPolicy':
      return { kind: of.kind, policy: authorizationPolicyWith(meta, of.spec) };
    case 'DestinationRule':
      return { kind: of.kind, policy: destinationRuleWith(meta, of.spec) };
    default:
      return of satisfies never;
  }
}

function selectorOf(of: z.output<typeof selector> | undefined): LabelSelector {
  const canonical = (key: string, value: string) => (key === POD_IP_LABEL ? (readAddress(value) ?? value) : value);
  return {
    matchLabels: new Map(Object.entries(of?.matchLabels ?? {}).map(([key, value]) => [key, canonical(key, value)])),
    matchExpressions: (of?.matchExpressions ?? []).map(({ key, operator, values }) => ({
      key,
      operator,
      values: new Set(values.map((value) => canonical(key, value))),
    })),
  };
}

function rolloutOf({ steps, intervalSeconds, paused, failureBudget }: z.output<typeof rollout>): RolloutPlan {
  return {
    steps: steps.map(({ pods, percent }) => (pods === undefined ? { percent: percent ?? 100 } : { pods })),
    intervalSeconds,
    paused,
    failureBudget,
  };
}

/** One with a slip in it would select nobody, or with NotIn everybody. */
function isUnknownPseudoLabel(key: string): boolean {
  return key.startsWith('handfast.io/') && !pseudoLabels.some((label) => label === key);
}

function noPseudoLabel(key: string): string {
  return `${JSON.stringify(key)} is nothing that a pod has; accepted under handfast.io/: ${pseudoLabels.join(', ')}`;
}

/** Addresses are compared as canonical text, so the selector's must be that, too. */
function addressesIn(of: z.output<typeof selector> | undefined): [key: string, value: string][] {
  const all = [
    ...Object.entries(of?.matchLabels ?? {}),
    ...(of?.matchExpressions ?? []).flatMap(({ key, values }) => values.map((value): [string, string] => [key, value])),
  ];
  return all.filter(([key]) => key === POD_IP_LABEL);
}

function readAddress(text: string): string | undefined {
  try {
    return canonicalIp(text);
  } catch {
    return undefined;
  }
}

function notWrappable(input: unknown): string {
  const kind = typeof input === 'object' && input !== null && 'kind' in input ? input.kind : undefined;
  const found = kind === undefined ? 'kind is missing' : `kind ${JSON.stringify(kind)} cannot stand in a ScopeConfig`;
  return `${found}; accepted: ${wrappedKinds.join(', ')}`;
}
