// Handshakes, HTTP and bulk: everybody's proxies run side by side, and rounds of one another follow.

import { setTimeout as sleep } from 'node:timers/promises';
import { established } from './cpu.ts';
import { createSites, type Deployment, deploy, inspect } from './deployment.ts';
import { bulkLoad, handshakeLoad, httpLoad, type Load } from './load.ts';
import { HBONE_PORT } from './peers/peer.ts';
import { firstLine, runRounds } from './rounds.ts';
import type { Contender, ScenarioName } from './scenario.ts';
import { complete, contestant, reasonAgainst, type ScenarioResult, type Stage, stepsEach } from './stage.ts';
import { Testbed } from './testbed.ts';

/** For what the load has left to be closed. */
const SETTLE_MS = 300;

function loadOf(testbed: Testbed, scenario: ScenarioName): Load {
  switch (scenario) {
    case 'new-connections':
      return httpLoad(testbed, { connections: 0, close: 'always' });
    case 'keepalive-1':
      return httpLoad(testbed, { connections: 1, close: 'never' });
    case 'keepalive-64':
      return httpLoad(testbed, { connections: 64, close: 'never' });
    case 'keepalive-512':
      return httpLoad(testbed, { connections: 512, close: 'never' });
    case 'bulk-1':
      return bulkLoad(testbed, 1);
    case 'bulk-8':
      return bulkLoad(testbed, 8);
    default:
      return handshakeLoad(testbed);
  }
}

function isHandshake(scenario: ScenarioName): boolean {
  return scenario.startsWith('handshake');
}

/** Scenarios of one key exchange: all but `handshake-pq`, or that alone. */
export async function runShared(stage: Stage, scenarios: readonly ScenarioName[]): Promise<ScenarioResult[]> {
  await using testbed = await Testbed.create();
  const group = scenarios.includes('handshake-pq') ? 'X25519MLKEM768' : 'X25519';
  const mayRun = (contender: Contender, scenario: ScenarioName) => reasonAgainst(stage, contender, scenario) === undefined;
  const contenders = stage.contenders.filter((contender) => scenarios.some((scenario) => mayRun(contender, scenario)));
  const deployments = new Map<Contender, Deployment>();
  const failed = new Map<Contender, string>();
  for (const site of await createSites(testbed, { ...stage, name: 'mesh', contenders, group })) {
    stage.progress.now(`starting ${site.contender}`);
    const pair = scenarios.some((scenario) => !isHandshake(scenario) && mayRun(site.contender, scenario));
    try {
      deployments.set(site.contender, await deploy(testbed, site, { pair }));
    } catch (error) {
      failed.set(site.contender, firstLine(error instanceof Error ? error.message : String(error)));
      stage.progress.note(`${site.contender}: OUT: ${error instanceof Error ? error.message : error}`);
    }
  }

  const results: ScenarioResult[] = [];
  for (const scenario of scenarios) {
    const load = loadOf(testbed, scenario);
    const expected = contenders.filter((contender) => mayRun(contender, scenario));
    const contestants = expected.flatMap((contender) => {
      const whole = deployments.get(contender);
      if (whole === undefined) return [];
      // A handshake is the serving proxy's alone.
      const proxies = isHandshake(scenario) ? whole.proxies.slice(-1) : whole.proxies;
      const deployment = { ...whole, proxies, pids: proxies.map(({ pid }) => pid) };
      const measure = async (seconds: number) => ({
        ...(await load(deployment, seconds)),
        ...(await tlsConnections(deployment, scenario)),
      });
      return [contestant(deployment, { inspect: () => inspect(testbed, whole.site), measure })];
    });
    stage.progress.done((expected.length - contestants.length) * stepsEach(stage, scenario));
    results.push(complete(stage, scenario, await runRounds(contestants, { ...stage, scenario }), failed));
  }
  return results;
}

/** Shows that tunnels are shared: with HBONE a few connections are left when the load has ended, without it none. */
async function tlsConnections(
  { site: { guarded }, proxies: [dialing] }: Deployment,
  scenario: ScenarioName,
): Promise<{ tlsConnections?: number }> {
  if (isHandshake(scenario) || dialing === undefined) return {};
  await sleep(SETTLE_MS);
  const ports = new Set([guarded.port, HBONE_PORT]);
  let count = 0;
  for (const port of ports) count += established(dialing.pid, { host: guarded.host, port });
  return { tlsConnections: count };
}
