// From the start of the serving proxy's process until the first byte has come back through it by mTLS; the control plane of ours runs already.

import { fineCpuUs } from './cpu.ts';
import { createSites, inspect, type Site } from './deployment.ts';
import { type Contestant, runRounds } from './rounds.ts';
import { complete, reasonAgainst, type ScenarioResult, type Stage } from './stage.ts';
import { type Running, script, Testbed, until } from './testbed.ts';

const SCENARIO = 'cold-start';
const START_UP_MS = 20_000;

export async function runCold(stage: Stage): Promise<ScenarioResult[]> {
  await using testbed = await Testbed.create();
  const contenders = stage.contenders.filter((contender) => reasonAgainst(stage, contender, SCENARIO) === undefined);
  const sites = await createSites(testbed, { ...stage, name: 'mesh', contenders, group: 'X25519' });
  const contestants = sites.map((site) => starting(testbed, site));
  return [complete(stage, SCENARIO, await runRounds(contestants, { ...stage, scenario: SCENARIO }), new Map())];
}

function starting(testbed: Testbed, site: Site): Contestant {
  let running: Running | undefined;
  return {
    peer: site.contender,
    version: site.version,
    proxies: () => (running === undefined ? [] : [running]),
    async inspect() {
      running ??= await site.startServing();
      return until(() => inspect(testbed, site), { timeoutMs: START_UP_MS, running: [running] });
    },
    async measure() {
      await running?.stop();
      const options = { ...site.guarded, credentials: site.credentials, timeoutMs: START_UP_MS };
      // It asks already when the proxy starts, so that no other start-up is in the time.
      const asking = await testbed.converse(site.outsider, script('first-byte.ts', options));
      try {
        const startedAt = performance.timeOrigin + performance.now();
        running = await site.startServing();
        const byteAt = Number(await asking.second);
        return {
          operations: 1,
          failures: 0,
          seconds: 0,
          p50Us: Math.round((byteAt - startedAt) * 1000),
          p99Us: null,
          proxyCpuUs: fineCpuUs([running.pid]),
        };
      } finally {
        await asking.stop();
      }
    },
  };
}
