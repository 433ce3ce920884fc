// What rollouts' pods had counted at which time: the beginning of a failure budget's window is among it.

import type { Totals } from '../ledger/ledger-totals.ts';
import type { RolloutState, Sample } from './rollout.ts';

/** A window of a week has this many samples at most. */
const MAX_SAMPLES = 600;

export class RolloutSamples {
  readonly #series = new Map<string, { readonly pods: readonly string[]; readonly samples: Sample[] }>();

  /** The samples of a rollout's pods, with one of now; a new step or new pods begin new ones. */
  take({ key, pods }: RolloutState, of: { totals: (pods: readonly string[]) => Totals; windowMs: number; now: number }): readonly Sample[] {
    if (of.windowMs === 0) return [];
    const known = this.#series.get(key);
    const series = known?.pods === pods ? known : { pods, samples: [] };
    this.#series.set(key, series);
    const last = series.samples.at(-1);
    // A clock that was set back begins again.
    if (last !== undefined && last.at > of.now) series.samples.length = 0;
    if (last === undefined || last.at > of.now || of.now - last.at >= of.windowMs / MAX_SAMPLES)
      series.samples.push({ at: of.now, ...of.totals(pods) });
    // One that is older than the window is where it begins.
    const begin = series.samples.findLastIndex((sample) => sample.at <= of.now - of.windowMs);
    if (begin > 0) series.samples.splice(0, begin);
    return series.samples;
  }

  /** Forgets the others. */
  keep(rollouts: ReadonlyMap<string, unknown>): void {
    for (const key of this.#series.keys()) if (!rollouts.has(key)) this.#series.delete(key);
  }
}
