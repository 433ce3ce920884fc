// What all policies have in common: whom they select, whether they are enforced, and which of two comes first.

import { type LabelSelector, matchesLabels, selects } from './label-selector.ts';
import type { PolicySubject } from './policy-subject.ts';

/** How a rollout proceeds; the last step is always everybody. */
export interface RolloutPlan {
  readonly steps: readonly ({ readonly pods: number } | { readonly percent: number })[];
  /** Each step is observed for so long before the next one. */
  readonly intervalSeconds: number;
  readonly paused: boolean;
  readonly failureBudget: { readonly maxFailureRatio: number; readonly windowSeconds: number; readonly minConnections: number } | undefined;
}

/** The part of a ScopeConfig that restricts whom its object holds for. `key`: `namespace/name`. */
export interface PolicyScope {
  readonly key: string;
  readonly name: string;
  readonly priority: number;
  readonly selector: LabelSelector;
  /** With one, it holds for nobody but those who were selected so far. */
  readonly rollout: RolloutPlan | undefined;
}

export interface PolicyMeta {
  readonly name: string;
  readonly namespace: string;
  /** Unix milliseconds; the ScopeConfig's for a wrapped one. */
  readonly createdAt: number;
  /** Judged and reported, not enforced. */
  readonly dryRun: boolean;
  /** Of the ScopeConfig that wraps it; undefined for a plain object. */
  readonly scopeConfig: PolicyScope | undefined;
}

export interface PolicyObject extends PolicyMeta {
  /** Undefined: everybody in its place (the namespace; the mesh for the root namespace). */
  readonly selector: ReadonlyMap<string, string> | undefined;
}

/** By ScopeConfig (`namespace/name`), the pods (`namespace/name`) that its rollout has come to. An absent one has come to nobody. */
export type Selections = ReadonlyMap<string, ReadonlySet<string>>;

export type NotHeld = 'SELECTOR' | 'NOT_A_POD' | 'SCOPE_CONFIG' | 'ROLLOUT';

/** Why the policy does not hold for somebody in its place; undefined where it does. */
export function whyNot(policy: PolicyObject, subject: PolicySubject, selections: Selections): NotHeld | undefined {
  if (policy.selector !== undefined && !matchesLabels(policy.selector, subject)) return 'SELECTOR';
  return policy.scopeConfig === undefined ? undefined : whyOutOfScope(policy.scopeConfig, subject, selections);
}

/** Why a ScopeConfig does not select somebody in its place; undefined where it does. */
function whyOutOfScope(scope: PolicyScope, subject: PolicySubject, selections: Selections): NotHeld | undefined {
  if (subject.pod === undefined) return 'NOT_A_POD';
  if (!selects(scope.selector, subject)) return 'SCOPE_CONFIG';
  if (scope.rollout !== undefined && selections.get(scope.key)?.has(subject.pod) !== true) return 'ROLLOUT';
  return undefined;
}

/** Wrapped before plain; among wrapped ones the higher priority; then the oldest, then by name. */
export function byPrecedence(a: PolicyObject, b: PolicyObject): number {
  return byScope(a, b) || byAge(a, b);
}

export function byScope(a: PolicyObject, b: PolicyObject): number {
  if (a.scopeConfig === undefined || b.scopeConfig === undefined)
    return Number(a.scopeConfig === undefined) - Number(b.scopeConfig === undefined);
  return b.scopeConfig.priority - a.scopeConfig.priority;
}

export function byAge(a: PolicyObject, b: PolicyObject): number {
  return a.createdAt - b.createdAt || compareText(a.scopeConfig?.name ?? a.name, b.scopeConfig?.name ?? b.name);
}

/** As it stands in records and messages: `PeerAuthentication foo/strict`, `ScopeConfig foo/x (PeerAuthentication foo/strict)`. */
export function sourceOf(kind: string, { namespace, name, scopeConfig }: PolicyMeta): string {
  const own = `${kind} ${namespace}/${name}`;
  return scopeConfig === undefined ? own : `ScopeConfig ${scopeConfig.key} (${own})`;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
