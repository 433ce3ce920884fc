// One rollout as a state machine: pure, so that what is promoted, held or rolled back can be read and tested without waiting.

import { createHash } from 'node:crypto';
import type { RolloutPlan } from '../../policy/policy-object.ts';
import type { Totals } from '../ledger/ledger-totals.ts';

export const rolloutPhases = ['progressing', 'complete', 'rolled back'] as const;

/** What is kept of a rollout, also over a restart. Times are Unix milliseconds. */
export interface RolloutState {
  /** `namespace/name` of the ScopeConfig. */
  readonly key: string;
  /** Of what is rolled out, and to whom: another one begins anew. How it is rolled out may be changed on the way. */
  readonly revision: string;
  readonly phase: (typeof rolloutPhases)[number];
  /** From 0. */
  readonly step: number;
  /** When the step began to hold. */
  readonly stepSince: number;
  /** Pods (`namespace/name`) it has come to. */
  readonly pods: readonly string[];
  /** The pods' totals when the step began: what came before does not count. */
  readonly baseline: Totals;
  readonly reason: string;
  /** The ScopeConfig as JSON. */
  readonly document: string;
  /** The one that was everywhere before, as JSON: it holds for whom this one has not come to. */
  readonly before: string | undefined;
}

/** The pods' totals at a time. */
export interface Sample extends Totals {
  readonly at: number;
}

export interface RolloutWorld {
  readonly plan: RolloutPlan;
  readonly revision: string;
  readonly document: string;
  /** Every pod that the ScopeConfig selects. */
  readonly eligible: readonly string[];
  readonly totals: (pods: readonly string[]) => Totals;
  /** Of the pods it has come to, oldest first, since the step began or its pods changed. */
  readonly samples: readonly Sample[];
  /** Whether what the step changes is in force for all of its pods: switches may be turned in stages. */
  readonly inForce: (pods: readonly string[]) => boolean;
  /** How long what a sidecar sees may be on its way here, in milliseconds: a step's time is over when its evidence is here. */
  readonly reportsWithinMs: number;
  readonly now: number;
}

/** The state from now on; the same object where nothing changes. Undefined before: it begins with its first step. */
export function advance(known: RolloutState | undefined, key: string, world: RolloutWorld): RolloutState {
  if (known === undefined || known.revision !== world.revision) return begin(known, key, world);
  if (known.phase === 'rolled back') return known;
  const verdict = known.phase === 'progressing' ? overBudget(known, world) : undefined;
  if (verdict !== undefined) return { ...known, phase: 'rolled back', pods: [], stepSince: world.now, baseline: NOTHING, reason: verdict };
  return proceed(withPods(known, world), world);
}

const NOTHING: Totals = Object.freeze({ connections: 0, failures: 0 });

/** Only one that was everywhere can be what the next one replaces step by step. */
function begin(known: RolloutState | undefined, key: string, world: RolloutWorld): RolloutState {
  const before = known?.phase === 'complete' ? known.document : known?.before;
  const { revision, document } = world;
  const nobody = { key, revision, document, before, phase: 'progressing', pods: [], baseline: NOTHING } as const;
  if (world.plan.paused) return { ...nobody, step: 0, stepSince: world.now, reason: 'paused before its first step' };
  return enter(0, { ...nobody, step: 0, stepSince: world.now, reason: '' }, world);
}

function proceed(state: RolloutState, world: RolloutWorld): RolloutState {
  const { plan, now } = world;
  if (state.phase === 'complete') return state;
  // A clock that was set back must not hold it for as long.
  if (state.stepSince > now) return { ...state, stepSince: now };
  // A step is observed from when it holds.
  if (!world.inForce(state.pods)) return { ...state, stepSince: now };
  if (plan.paused || now - state.stepSince < plan.intervalSeconds * 1000 + world.reportsWithinMs) return state;
  const waitsFor = missingTraffic(state, world);
  if (waitsFor !== undefined) return state.reason === waitsFor ? state : { ...state, reason: waitsFor };
  const next = state.step + 1;
  if (next < plan.steps.length) return enter(next, state, world);
  const reason = plan.failureBudget === undefined ? 'by time alone: it has no failure budget' : 'every step kept its budget';
  return { ...state, phase: 'complete', stepSince: now, before: undefined, reason };
}

/** Why the failures in the window are too many; undefined while they are not. */
function overBudget(state: RolloutState, { plan, samples, totals, now }: RolloutWorld): string | undefined {
  const budget = plan.failureBudget;
  if (budget === undefined || state.pods.length === 0) return undefined;
  const from = samples.findLast(({ at }) => at <= now - budget.windowSeconds * 1000) ?? state.baseline;
  const seen = difference(totals(state.pods), from);
  if (seen.connections < budget.minConnections) return undefined;
  const ratio = seen.failures / seen.connections;
  if (ratio <= budget.maxFailureRatio) return undefined;
  const percent = (of: number) => `${(of * 100).toFixed(1)} %`;
  return `${seen.failures} of ${seen.connections} connections failed by policy within ${budget.windowSeconds} s (${percent(ratio)}, the budget is ${percent(budget.maxFailureRatio)}) at step ${state.step + 1} of ${plan.steps.length}`;
}

/** A step that nobody has used proves nothing. */
function missingTraffic(state: RolloutState, { plan, totals }: RolloutWorld): string | undefined {
  const needed = plan.failureBudget?.minConnections ?? 0;
  const seen = difference(totals(state.pods), state.baseline).connections;
  return seen >= needed ? undefined : `waiting for connections: ${seen} of ${needed} seen in this step`;
}

function enter(step: number, state: RolloutState, world: RolloutWorld): RolloutState {
  const pods = chosen(state, { ...world, step });
  const reason = `step ${step + 1} of ${world.plan.steps.length}`;
  return { ...state, step, stepSince: world.now, pods, baseline: world.totals(pods), reason };
}

/** Pods come and go: those that are gone make room for others. A pause lets nobody in. */
function withPods(state: RolloutState, world: RolloutWorld): RolloutState {
  if (world.plan.paused && state.phase === 'progressing' && state.pods.length === 0) return state;
  const pods = chosen(state, { ...world, step: state.phase === 'complete' ? world.plan.steps.length - 1 : state.step });
  if (pods.length === state.pods.length && pods.every((pod, index) => pod === state.pods[index])) return state;
  if (state.pods.length === 0 && state.phase === 'progressing') return enter(state.step, state, world);
  // What the step has seen so far goes on to count: a pod that the change has killed must not take its failures with it.
  const seen = difference(world.totals(state.pods), state.baseline);
  const { connections, failures } = world.totals(pods);
  return { ...state, pods, baseline: { connections: connections - seen.connections, failures: failures - seen.failures } };
}

/** Who is in a step: those that were already, then others in an order that is anybody's guess but always the same. */
function chosen({ key, pods: before }: RolloutState, { plan, eligible, step }: RolloutWorld & { step: number }): readonly string[] {
  const size = plan.steps[step];
  const count = size === undefined ? eligible.length : 'pods' in size ? size.pods : Math.ceil((eligible.length * size.percent) / 100);
  const there = new Set(eligible);
  const kept = before.filter((pod) => there.has(pod));
  if (kept.length >= Math.min(count, eligible.length)) return kept.length === before.length ? before : kept;
  const already = new Set(kept);
  const others = eligible
    .filter((pod) => !already.has(pod))
    .map((pod) => ({ pod, order: createHash('sha256').update(`${key}\n${pod}`).digest('hex') }))
    .sort((a, b) => (a.order < b.order ? -1 : 1));
  return [...kept, ...others.slice(0, count - kept.length).map(({ pod }) => pod)].sort();
}

/** Counts never shrink but where records were forgotten. What was cut was a connection once, though perhaps not in this time. */
function difference(now: Totals, then: Totals): Totals {
  const failures = Math.max(0, now.failures - then.failures);
  return { connections: Math.max(failures, now.connections - then.connections), failures };
}
