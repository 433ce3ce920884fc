// `npm run bench -- churn`: a pair of sidecars under connections that come and go, with certificates replaced all the time, for as long as it takes to see whether memory grows.

import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { requireNamespaces } from '../test/support/namespaces.ts';
import { Build } from './build.ts';
import { Refused } from './compare-flags.ts';
import { cpuUs, rssMb } from './cpu.ts';
import { createSites, deploy } from './deployment.ts';
import type { ChurnOptions, ChurnResult } from './load-churn.ts';
import { describeMachine, handfastVersion } from './machine.ts';
import { round1, sum } from './statistics.ts';
import { script, Testbed } from './testbed.ts';

const HELP = `usage: npm run bench -- churn [--minutes 60] [--per-second 150] [--json FILE]

Connections through a pair of sidecars, that many a second, and a tenth of that as mutual handshakes from outside the mesh; certificates are replaced
every 10 s. A line a minute. Exits with 1 when anything failed, or memory in the last quarter is above that of the second by more than 5 MB.
`;

const ROTATE_EVERY = '10s';
const SLICE_SECONDS = 60;
const GRACE_MS = 30_000;
const MOST_GROWTH_MB = 5;

interface Minute {
  readonly minute: number;
  readonly connections: number;
  readonly handshakes: number;
  readonly failures: number;
  /** Of each: the dialing one first. */
  readonly rssMb: readonly number[];
  readonly cpuSeconds: number;
}

export async function benchChurn(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: 'string', default: '60' },
      'per-second': { type: 'string', default: '150' },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const [minutes, perSecond] = [Number(values.minutes), Number(values['per-second'])];
  if (!Number.isInteger(minutes) || minutes < 4 || minutes > 1_440) throw new Refused('--minutes: a whole number from 4 to 1440');
  if (!Number.isInteger(perSecond) || perSecond < 10 || perSecond > 1_000)
    throw new Refused('--per-second: a whole number from 10 to 1000');
  const reason = requireNamespaces();
  if (reason !== false) throw new Refused(`the bench cannot run here: ${reason}`);

  using build = new Build();
  await using testbed = await Testbed.create();
  const of = {
    build,
    contenders: ['handfast'],
    peers: [],
    version: handfastVersion(),
    group: 'X25519',
    rotateEvery: ROTATE_EVERY,
  } as const;
  const [site] = await createSites(testbed, { ...of, name: 'churn' });
  if (site === undefined) throw new Error('there is no site');
  const { pids } = await deploy(testbed, site, { pair: true });
  const churn = async (pod: typeof site.client, options: Omit<ChurnOptions, 'seconds' | 'group'>) => {
    const command = script('load-churn.ts', { ...options, seconds: SLICE_SECONDS, group: site.group });
    return JSON.parse(await testbed.run(pod, command, SLICE_SECONDS * 1000 + GRACE_MS)) as ChurnResult;
  };

  const all: Minute[] = [];
  for (let minute = 1; minute <= minutes; minute++) {
    const before = cpuUs(pids);
    const [tunnelled, direct] = await Promise.all([
      churn(site.client, { ...site.target, perSecond }),
      churn(site.outsider, { ...site.guarded, credentials: site.credentials, perSecond: Math.ceil(perSecond / 10) }),
    ]);
    const entry: Minute = {
      minute,
      connections: tunnelled.done,
      handshakes: direct.done,
      failures: tunnelled.failures + direct.failures,
      rssMb: pids.map((pid) => Math.round(rssMb([pid]) * 10) / 10),
      cpuSeconds: (cpuUs(pids) - before) / 1e6,
    };
    all.push(entry);
    const failure = tunnelled.failure ?? direct.failure;
    const failed = entry.failures === 0 ? '' : `, ${entry.failures} FAILURES (${failure})`;
    const { connections, handshakes } = entry;
    process.stdout.write(`${minute} min: ${connections} connections, ${handshakes} handshakes, ${entry.rssMb.join(' + ')} MB${failed}\n`);
  }
  const quarter = (number: number) => all.slice(Math.floor((minutes * (number - 1)) / 4), Math.floor((minutes * number) / 4));
  const mean = (of: readonly Minute[]) => pids.map((_, index) => sum(of.map(({ rssMb }) => rssMb[index] ?? 0)) / of.length);
  const [second, last] = [mean(quarter(2)), mean(quarter(4))];
  const grownMb = last.map((mb, index) => round1(mb - (second[index] ?? 0)) ?? 0);
  const failures = sum(all.map((entry) => entry.failures));
  const total = { connections: sum(all.map((entry) => entry.connections)), handshakes: sum(all.map((entry) => entry.handshakes)) };
  process.stdout.write(`${JSON.stringify({ minutes, ...total, failures, grownMb })}\n`);
  if (values.json !== undefined)
    await writeFile(
      values.json,
      `${JSON.stringify({ machine: describeMachine(), ...total, failures, grownMb, minutes: all }, undefined, 2)}\n`,
    );
  if (failures > 0 || grownMb.some((mb) => mb > MOST_GROWTH_MB)) process.exitCode = 1;
}
