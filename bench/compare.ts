// `npm run bench -- compare`: every scenario for every contender on this machine, then the table, the chart and the JSON.

import { spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { requireNamespaces } from '../test/support/namespaces.ts';
import { Build } from './build.ts';
import { chart } from './chart.ts';
import { COMPARE_HELP, type CompareOptions, Refused, readCompareFlags } from './compare-flags.ts';
import { fileLimit } from './file-limit.ts';
import { describeMachine, handfastVersion } from './machine.ts';
import { findPeers } from './peers/find-peers.ts';
import { startProgress } from './progress.ts';
import { type Report, scenarioOf } from './report.ts';
import { type Contender, oursNames, type ScenarioName, UNROTATED } from './scenario.ts';
import { type ScenarioResult, type Stage, stepsOf } from './stage.ts';
import { runCold } from './stage-cold.ts';
import { runIdle } from './stage-idle.ts';
import { runRotation } from './stage-rotation.ts';
import { runShared } from './stage-shared.ts';
import { renderReport } from './table.ts';
import { checkout } from './testbed.ts';

/** For all else that a proxy or a library of it opens; stunnel keeps some back. */
const OTHER_FILES = 500;

export async function benchCompare(args: readonly string[]): Promise<void> {
  const options = readCompareFlags(args);
  if (options === undefined) {
    process.stdout.write(COMPARE_HELP);
    return;
  }
  requireTools();
  using build = new Build();
  const stage = prepare(options, build);
  const startedAt = new Date();
  const results: ScenarioResult[] = [];
  for (const run of stagesFor(options.scenarios)) results.push(...(await run(stage)));
  stage.progress.end();
  const report: Report = {
    machine: describeMachine(),
    settings: {
      seconds: options.seconds,
      rounds: options.rounds,
      maxStealPercent: options.maxStealPercent,
      startedAt: startedAt.toISOString().slice(0, 16),
    },
    // They ran in another order than they are read in.
    scenarios: options.scenarios.flatMap((name) => results.filter((result) => result.name === name).map(scenarioOf)),
  };
  await publish(report, options);
  // A peer that is out is an observation; if it is us, something is broken.
  const broken = results.some(({ performances }) => performances.some(({ peer, reason }) => peer === 'handfast' && reason !== undefined));
  if (broken) process.exitCode = 1;
}

function prepare(options: CompareOptions, build: Build): Stage {
  const { found, skipped } = findPeers({ wanted: options.peers, nginxModules: options.nginxModules });
  const missing = new Map<Contender, string>(skipped.map(({ peer, reason }) => [peer, reason]));
  if (!build.knows('proxy', 'workers')) missing.set('handfast-workers2', 'this build has no --workers');
  const stage = {
    ...options,
    build,
    version: handfastVersion(),
    peers: found,
    contenders: [...oursNames, UNROTATED, ...options.peers] as Contender[],
    missing,
    // A proxy has two files open for each.
    idleConnections: Math.min(options.idleConnections, Math.floor((fileLimit() - OTHER_FILES) / 2)),
  };
  const counting = { ...stage, progress: startProgress(0) };
  const total = options.scenarios.reduce((steps, scenario) => steps + stepsOf(counting, scenario), 0);
  const progress = startProgress(total);
  for (const [contender, reason] of missing) progress.note(`${contender} is left out: ${reason}`);
  return { ...stage, progress };
}

/** In an order that needs each testbed once. */
function stagesFor(scenarios: readonly ScenarioName[]): ((stage: Stage) => Promise<ScenarioResult[]>)[] {
  const alone: Partial<Record<ScenarioName, (stage: Stage) => Promise<ScenarioResult[]>>> = {
    'handshake-pq': (stage) => runShared(stage, ['handshake-pq']),
    'idle-10000': runIdle,
    rotation: runRotation,
    'cold-start': runCold,
  };
  const together = scenarios.filter((scenario) => alone[scenario] === undefined);
  return [
    ...(together.length === 0 ? [] : [(stage: Stage) => runShared(stage, together)]),
    ...scenarios.flatMap((scenario) => alone[scenario] ?? []),
  ];
}

async function publish(report: Report, { json, results }: CompareOptions): Promise<void> {
  const text = renderReport(report);
  process.stdout.write(text);
  const data = `${JSON.stringify(report, undefined, 2)}\n`;
  if (json !== undefined) await writeFile(json, data);
  if (results === undefined) return;
  const directory = results === true ? join(checkout, 'bench/results') : results;
  await mkdir(directory, { recursive: true });
  for (const [file, content] of [
    ['compare.md', text],
    ['compare.svg', chart(report)],
    ['compare.json', data],
  ] as const)
    await writeFile(join(directory, file), content);
}

/** Says what is missing before anything is started. */
function requireTools(): void {
  if (Number(process.versions.node.split('.')[0]) < 24)
    throw new Refused(`Node.js 24 is needed, this is ${process.version}: use npm run bench`);
  const reason = requireNamespaces();
  if (reason !== false) throw new Refused(`the bench cannot run here: ${reason}`);
  for (const [tool, from] of [
    ['wrk', 'wrk'],
    ['taskset', 'util-linux'],
    ['iptables', 'iptables'],
    ['openssl', 'openssl'],
  ] as const) {
    if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).error !== undefined)
      throw new Refused(`'${tool}' is not installed (Debian: apt install ${from})`);
  }
}
