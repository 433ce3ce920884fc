// What a verdict about STRICT cannot know, each with the pod it is about: an absence of offenders means nothing where nobody has looked.

import type { Workload } from '../../policy/model.ts';
import { EARLIER_RUNS, type LedgerInstance } from './ledger-instance.ts';

/** `limiting`: while it stands nothing is called safe. */
export interface StrictLimit {
  readonly kind: 'not reporting' | 'observed too short' | 'dropped' | 'unbelieved' | 'unmeshed' | 'nothing to check';
  readonly pod: string;
  readonly text: string;
  readonly limiting: boolean;
}

/** `gone`: runs of pods that are gone, and that those in scope have taken the place of. */
export function limitsOf(
  of: { instances: readonly LedgerInstance[]; gone: readonly LedgerInstance[]; now: number },
  scope: { pods: readonly Workload[]; minObservedMs: number },
): StrictLimit[] {
  const lost = of.gone.filter(({ dropped }) => dropped > 0);
  const limits = [
    ...scope.pods.flatMap((pod) => limitsOfPod(pod, { ...of, minObservedMs: scope.minObservedMs })),
    ...lost.map(({ pod, dropped }): StrictLimit => ({ kind: 'dropped', pod: `${pod} (gone)`, text: droppedText(dropped), limiting: true })),
  ];
  if (scope.pods.some(({ meshed }) => meshed)) return limits;
  return [...limits, { kind: 'nothing to check', pod: '', text: 'no pod here has a sidecar: none of them can be STRICT', limiting: true }];
}

function limitsOfPod(
  pod: Workload,
  { instances, now, minObservedMs }: { instances: readonly LedgerInstance[]; now: number; minObservedMs: number },
): StrictLimit[] {
  const name = `${pod.namespace}/${pod.name}`;
  const limit = (kind: StrictLimit['kind'], text: string, limiting = true): StrictLimit => ({ kind, pod: name, text, limiting });
  // Nothing breaks there: nobody in front of it would refuse anybody.
  if (!pod.meshed) return [limit('unmeshed', 'it has no sidecar and cannot be STRICT: whatever reaches it stays unprotected', false)];
  const told = instances.filter((instance) => instance.pod === name);
  const own = told.filter(({ reporter }) => reporter === pod.identity?.uri);
  // One that is gone says nothing any more, and what it has said is not used.
  const strangers = new Map(
    told.filter((instance) => instance.live && !own.includes(instance)).map(({ reporter, wasBelieved }) => [reporter, wasBelieved]),
  );
  const observed = own.filter(({ instance }) => instance !== EARLIER_RUNS);
  const observedMs = observed.reduce((sum, { live, heard, observedSince }) => sum + Math.max(0, (live ? now : heard) - observedSince), 0);
  const dropped = own.reduce((sum, instance) => sum + instance.dropped, 0);
  return [
    ...[...strangers].map(([reporter, wasBelieved]) => {
      const use = wasBelieved ? 'its word counts as that of a pod that is gone' : 'its word is not used';
      return limit('unbelieved', `${reporter} reports in its name, but ${pod.identity?.uri ?? 'nobody'} is registered: ${use}`);
    }),
    ...(own.some(({ live }) => live) ? [] : [limit('not reporting', 'no sidecar of it reports now: nobody sees who calls it')]),
    ...(observedMs < minObservedMs
      ? [limit('observed too short', `observed for ${seconds(observedMs)} s, and ${seconds(minObservedMs)} s are asked for`)]
      : []),
    ...(dropped > 0 ? [limit('dropped', droppedText(dropped))] : []),
  ];
}

function droppedText(dropped: number): string {
  return `${dropped} connections or entries found no room in its ledger or were not believed`;
}

function seconds(ms: number): number {
  return Math.floor(ms / 1_000);
}
