// Shows the authors of policies in the API server how many sidecars have them; whoever leads writes it.

import type { Snapshot } from '../snapshot.ts';
import type { RunningController } from './controller.ts';
import type { Leadership } from './leadership.ts';
import type { NodeReports } from './node-reports.ts';
import type { KubeSource } from './objects/kube-source.ts';
import type { EffectiveObjects } from './objects/mesh-objects.ts';
import { reachOf } from './policy-reach.ts';

/** A rollout of a Deployment changes the counts of many policies all the time. */
const EVERY_MS = 2_000;

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
  const isUpToDate = (pod: string) => {
    const [digest, reporter] = [of.expectedDigest(pod), of.registeredId(pod)];
    return digest !== undefined && reporter !== undefined && of.reports.holds(pod, { reporter, digest });
  };
  const timer = setInterval(() => {
    if (of.leadership.leads() && of.effective.current !== undefined) source.showReach(reachOf(of.effective.current, isUpToDate));
  }, EVERY_MS);
  timer.unref();
  of.signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}
