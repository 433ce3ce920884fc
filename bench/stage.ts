// What the stages share: each lays out a testbed of its own, runs some of the scenarios there, and takes it down again.

import type { Build } from './build.ts';
import type { Deployment } from './deployment.ts';
import type { Peer } from './peers/peer.ts';
import type { Progress } from './progress.ts';
import type { Contestant, Performance, RoundsOptions } from './rounds.ts';
import { absence, type Contender, isOurs, type ScenarioName, UNROTATED } from './scenario.ts';
import type { Running } from './testbed.ts';

export interface Stage extends Pick<RoundsOptions, 'rounds' | 'seconds' | 'warmUp' | 'maxStealPercent' | 'repeats'> {
  readonly build: Build;
  /** Our own. */
  readonly version: string;
  readonly peers: readonly Peer[];
  readonly contenders: readonly Contender[];
  /** Why one of them cannot be had here at all. */
  readonly missing: ReadonlyMap<Contender, string>;
  readonly idleConnections: number;
  readonly progress: Progress;
}

export interface ScenarioResult {
  readonly name: ScenarioName;
  readonly performances: readonly Performance[];
}

/** Why a contender has no part in a scenario on this machine. */
export function reasonAgainst(stage: Stage, contender: Contender, scenario: ScenarioName): string | undefined {
  const missing = stage.missing.get(contender);
  if (missing !== undefined) return missing;
  const peer = stage.peers.find(({ name }) => name === contender);
  return absence(contender, scenario) ?? (scenario === 'handshake-pq' ? peer?.withoutPq : undefined);
}

/** Everybody's performance, in the order of the contenders: of those that ran, and of those that could not with the reason. */
export function complete(
  stage: Stage,
  scenario: ScenarioName,
  ran: readonly Performance[],
  failed: ReadonlyMap<Contender, string>,
): ScenarioResult {
  const listed = stage.contenders.filter((contender) => contender !== UNROTATED || scenario === 'rotation');
  const performances = listed.map((contender) => {
    const performance = ran.find(({ peer }) => peer === contender);
    if (performance !== undefined) return performance;
    const reason = reasonAgainst(stage, contender, scenario) ?? failed.get(contender) ?? 'not started';
    return { peer: contender, version: versionOf(stage, contender), rounds: [], handshake: '', reason };
  });
  return { name: scenario, performances };
}

function versionOf(stage: Stage, contender: Contender): string {
  return stage.peers.find(({ name }) => name === contender)?.version ?? (isOurs(contender) ? stage.version : '');
}

export function contestant(
  of: Deployment,
  rest: Pick<Contestant, 'inspect' | 'measure'> & { proxies?: () => readonly Running[] },
): Contestant {
  return { peer: of.site.contender, version: of.site.version, proxies: () => of.proxies, ...rest };
}

/** How many steps the progress of a scenario has. */
export function stepsOf(stage: Stage, scenario: ScenarioName): number {
  const takingPart = stage.contenders.filter((contender) => reasonAgainst(stage, contender, scenario) === undefined).length;
  return takingPart * stepsEach(stage, scenario);
}

export function stepsEach(stage: Stage, scenario: ScenarioName): number {
  if (scenario === 'idle-10000') return 1;
  return stage.rounds + (stage.warmUp ? 1 : 0);
}
