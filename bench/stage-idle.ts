// Thousands of idle connections, one contender at a time: fresh proxies, their memory before and after.

import { setTimeout as sleep } from 'node:timers/promises';
import { cpuUs, rssMb } from './cpu.ts';
import { awaitWorking, createSites, type Deployment, inspect, type Site, startProxies } from './deployment.ts';
import type { LoadResult } from './load.ts';
import type { IdleLoad } from './load-idle.ts';
import { type Contestant, runRounds } from './rounds.ts';
import { complete, reasonAgainst, type ScenarioResult, type Stage } from './stage.ts';
import { script, Testbed } from './testbed.ts';

const SCENARIO = 'idle-10000';
const ALL_OPEN_MS = 240_000;
/** Longer than anybody needs to start. */
const START_MS = 2_500;
/** For what was needed to set connections up to be given back. */
const SETTLE_MS = 1_000;

export async function runIdle(stage: Stage): Promise<ScenarioResult[]> {
  await using testbed = await Testbed.create();
  const contenders = stage.contenders.filter((contender) => reasonAgainst(stage, contender, SCENARIO) === undefined);
  const sites = await createSites(testbed, { ...stage, name: 'mesh', contenders, group: 'X25519' });
  const contestants = sites.map((site) => fresh(testbed, site, stage.idleConnections));
  // Neither warmed up nor repeated: what is asked is memory, which steal does not change.
  const ran = await runRounds(contestants, { ...stage, scenario: SCENARIO, rounds: 1, repeats: 0, warmUp: false });
  return [complete(stage, SCENARIO, ran, new Map())];
}

function fresh(testbed: Testbed, site: Site, connections: number): Contestant {
  let deployment: Deployment | undefined;
  let rssBeforeMb: number[] = [];
  return {
    peer: site.contender,
    version: site.version,
    proxies: () => deployment?.proxies ?? [],
    async inspect() {
      deployment = await startProxies(site, { pair: true });
      // Memory before anybody has come: so nobody is asked whether it is ready.
      await sleep(START_MS);
      rssBeforeMb = rssOf(deployment);
      await awaitWorking(testbed, deployment);
      return inspect(testbed, site);
    },
    async measure() {
      if (deployment === undefined) throw new Error('not started');
      const { proxies } = deployment;
      try {
        return await hold(testbed, { deployment, connections, rssBeforeMb });
      } finally {
        await Promise.all(proxies.map((proxy) => proxy.stop()));
      }
    },
  };
}

function rssOf({ pids }: Deployment): number[] {
  return pids.map((pid) => rssMb([pid]));
}

async function hold(
  testbed: Testbed,
  of: { deployment: Deployment; connections: number; rssBeforeMb: readonly number[] },
): Promise<LoadResult> {
  const { deployment, connections, rssBeforeMb } = of;
  const { site, pids } = deployment;
  const cpu = cpuUs(pids);
  const stopLate = new AbortController();
  const late = sleep(ALL_OPEN_MS, undefined, { signal: stopLate.signal }).then(() => {
    throw new Error(`not all connections were open within ${ALL_OPEN_MS / 1000} s`);
  });
  late.catch(() => undefined);
  const load = await testbed.converse(site.client, script('load-idle.ts', { ...site.target, connections }), late);
  stopLate.abort();
  try {
    const proxyCpuUs = cpuUs(pids) - cpu;
    const counted = JSON.parse(load.first) as IdleLoad;
    await sleep(SETTLE_MS);
    const rssEachMb = rssOf(deployment);
    const kbPerConnection = rssEachMb.map((mb, index) => ((mb - (rssBeforeMb[index] ?? 0)) * 1024) / counted.operations);
    return { ...counted, proxyCpuUs, connections: counted.operations, rssBeforeMb, rssEachMb, kbPerConnection };
  } finally {
    await load.stop();
  }
}
