// Shows the authors of policies in the API server how many sidecars have them; whoever leads writes it.

import type { Snapshot } from '../snapshot.ts';
import type { HeldPolicies } from '../wire/gen/handfast/report/v1/report.ts';
import type { RunningController } from './controller.ts';
import type { Leadership } from './leadership.ts';
import type { NodeReports } from './node-reports.ts';
import type { KubeSource } from './objects/kube-source.ts';
import type { EffectiveObjects, MeshObjects } from './objects/mesh-objects.ts';
import { reachOf, type Selected, selectedBy } from './policy-reach.ts';

const EVERY_MS = 2_000;
/** Without news it is looked at this often: a switch that is turned in stages is news to nobody here. */
const QUIET_TICKS = 5;

export interface ReachStatusOptions {
  readonly leadership: Leadership;
  readonly effective: Snapshot<EffectiveObjects>;
  /** What was read, of which the effective ones were made. */
  readonly madeOf: () => MeshObjects | undefined;
  readonly reports: NodeReports;
  readonly expectedDigest: RunningController['expectedDigest'];
  /** The SPIFFE ID registered for a pod: nobody else's word counts for it. */
  readonly registeredId: (pod: string) => string | undefined;
  readonly signal: AbortSignal;
}

/** Until the signal aborts. */
export function showReach(source: Pick<KubeSource, 'showReach'>, of: ReachStatusOptions): void {
  let seen: { readonly current: EffectiveObjects; readonly selected: Selected; readonly revision: number } | undefined;
  let quiet = 0;
  const timer = setInterval(() => {
    const { current } = of.effective;
    const objects = of.madeOf();
    if (!of.leadership.leads() || current === undefined || objects === undefined) return;
    const { revision } = of.reports;
    if (seen?.current === current && seen.revision === revision && ++quiet < QUIET_TICKS) return;
    seen = { current, selected: seen?.current === current ? seen.selected : selectedBy(current), revision };
    quiet = 0;
    const held = of.reports.heldByPod;
    source.showReach(
      reachOf(seen.selected, (pod) => isUpToDate(held.get(pod) ?? [], { digest: of.expectedDigest(pod), reporter: of.registeredId(pod) })),
      objects,
    );
  }, EVERY_MS);
  timer.unref();
  of.signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

/** By the word of the pod's own sidecar alone. */
export function isUpToDate(
  held: readonly HeldPolicies[],
  wanted: { readonly digest: string | undefined; readonly reporter: string | undefined },
): boolean {
  const { digest, reporter } = wanted;
  return digest !== undefined && reporter !== undefined && held.some((one) => one.reporter === reporter && one.digest === digest);
}
