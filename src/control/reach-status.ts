// Shows the authors of policies in the API server how many sidecars have them; whoever leads writes it.

import type { Snapshot } from '../snapshot.ts';
import type { HeldPolicies } from '../wire/gen/handfast/report/v1/report.ts';
import type { RunningController } from './controller.ts';
import type { Leadership } from './leadership.ts';
import type { NodeReports } from './node-reports.ts';
import type { KubeSource } from './objects/kube-source.ts';
import type { EffectiveObjects } from './objects/mesh-objects.ts';
import { reachOf } from './policy-reach.ts';

/** A rollout of a Deployment changes the counts of many policies all the time. */
const EVERY_MS = 2_000;
/** Without news it is looked at this often: a switch that is turned in stages is news to nobody here. */
const QUIET_TICKS = 5;

export interface ReachStatusOptions {
  readonly leadership: Leadership;
  readonly effective: Snapshot<EffectiveObjects>;
  readonly reports: NodeReports;
  readonly expectedDigest: RunningController['expectedDigest'];
  /** The SPIFFE ID registered for a pod: nobody else's word counts for it. */
  readonly registeredId: (pod: string) => string | undefined;
  readonly signal: AbortSignal;
}

/** Until the signal aborts. */
export function showReach(source: Pick<KubeSource, 'showReach'>, of: ReachStatusOptions): void {
  let seen: { readonly current: EffectiveObjects; readonly revision: number } | undefined;
  let quiet = 0;
  const timer = setInterval(() => {
    const { current } = of.effective;
    if (!of.leadership.leads() || current === undefined) return;
    const { revision } = of.reports;
    if (seen?.current === current && seen.revision === revision && ++quiet < QUIET_TICKS) return;
    seen = { current, revision };
    quiet = 0;
    const held = of.reports.heldByPod;
    source.showReach(
      reachOf(current, (pod) => isUpToDate(held.get(pod) ?? [], { digest: of.expectedDigest(pod), reporter: of.registeredId(pod) })),
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
