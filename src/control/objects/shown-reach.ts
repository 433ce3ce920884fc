// How many sidecars have each policy, as its author is shown it: of the version that was counted alone, and not with every pod that comes and goes.

import type { Reach } from '../policy-reach.ts';

/** A rollout of a Deployment changes the counts of many policies all the time. */
const HELD_MS = 10_000;

interface Shown {
  readonly generation: number | undefined;
  readonly reach: Reach;
  /** By performance.now(). */
  readonly at: number;
}

export class ShownReach {
  #shown: ReadonlyMap<string, Shown> | undefined;

  /** By the names of policies: what was counted, and of which versions. What has come everywhere is shown at once, any other change some seconds after the one before. */
  count(reach: ReadonlyMap<string, Reach>, generations: ReadonlyMap<string, number>, now = performance.now()): void {
    const before = this.#shown;
    this.#shown = new Map(
      [...reach].map(([name, next]): [string, Shown] => {
        const generation = generations.get(name);
        const known = before?.get(name);
        const isHeld = (shown: Shown) => isSame(shown.reach, next) || (!isComplete(next) && now - shown.at < HELD_MS);
        return [
          name,
          known?.generation === generation && known !== undefined && isHeld(known) ? known : { generation, reach: next, at: now },
        ];
      }),
    );
  }

  /** Undefined for a policy that nobody counts; `unknown` where it has not been counted yet in this version: what is said of it stays until then. */
  of(name: string, generation: number): Reach | 'unknown' | undefined {
    if (this.#shown === undefined) return 'unknown';
    const shown = this.#shown.get(name);
    return shown === undefined || shown.generation === generation ? shown?.reach : 'unknown';
  }
}

function isSame(a: Reach, b: Reach): boolean {
  return a.selected === b.selected && a.upToDate === b.upToDate;
}

function isComplete({ selected, upToDate }: Reach): boolean {
  return selected === upToDate;
}
