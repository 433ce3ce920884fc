// Certificates replaced every second, under load, against the same sidecars whose certificates stay.

import { createSites, type Deployment, deploy, inspect } from './deployment.ts';
import { httpLoad } from './load.ts';
import type { Findings } from './outsider.ts';
import { type Contestant, firstLine, runRounds } from './rounds.ts';
import { type Contender, UNROTATED } from './scenario.ts';
import { complete, contestant, type ScenarioResult, type Stage, stepsEach } from './stage.ts';
import { Testbed } from './testbed.ts';

const SCENARIO = 'rotation';
/** New connections are what a new certificate is for; most requests are on old ones. */
const NEW_CONNECTION_EVERY = 20;

export async function runRotation(stage: Stage): Promise<ScenarioResult[]> {
  await using testbed = await Testbed.create();
  const load = httpLoad(testbed, { connections: 64, close: { every: NEW_CONNECTION_EVERY } });
  const kinds = [
    { contender: 'handfast', name: 'rotating', rotateEvery: '1s' },
    { contender: UNROTATED, name: 'steady' },
  ] as const;
  const contestants: Contestant[] = [];
  const failed = new Map<Contender, string>();
  for (const { contender, ...mesh } of kinds) {
    try {
      for (const site of await createSites(testbed, { ...stage, ...mesh, contenders: [contender], group: 'X25519' })) {
        const deployment = await deploy(testbed, site, { pair: true });
        const look = contender === UNROTATED ? () => inspect(testbed, site) : rotating(testbed, deployment);
        contestants.push(contestant(deployment, { inspect: look, measure: (seconds) => load(deployment, seconds) }));
      }
    } catch (error) {
      failed.set(contender, firstLine(error instanceof Error ? error.message : String(error)));
      stage.progress.done(stepsEach(stage, SCENARIO));
    }
  }
  return [complete(stage, SCENARIO, await runRounds(contestants, { ...stage, scenario: SCENARIO }), failed)];
}

/** Certificates that are said to be replaced each second must be others each time. */
function rotating(testbed: Testbed, { site }: Deployment): () => Promise<Findings> {
  let last: string | undefined;
  return async () => {
    const findings = await inspect(testbed, site);
    if (last === findings.serial) return { ...findings, fault: 'its certificate is the one of the round before' };
    last = findings.serial;
    return findings;
  };
}
