// Short rounds, peer after peer and again: what disturbs the machine disturbs everybody. A round counts only for a peer that keeps strangers out.

import { hostTime, rssMb, stealPercent } from './cpu.ts';
import type { Deployment } from './deployment.ts';
import type { Load } from './load.ts';
import type { Findings } from './outsider.ts';
import { until } from './testbed.ts';

export interface Round {
  readonly rate: number;
  readonly cpuUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly rssMb: number;
  readonly failures: number;
  readonly failure?: string;
  /** Per cent of the host's time that the hypervisor took away during the round. */
  readonly stealPercent: number;
  /** Per cent of the round that the proxies used their core: well below 100, the rate is not the proxies' limit. */
  readonly busyPercent: number;
}

/** What a peer did in one scenario. `disqualified` says why its rounds do not count. */
export interface Performance {
  readonly peer: string;
  readonly version: string;
  readonly rounds: readonly Round[];
  readonly handshake: string;
  readonly disqualified?: string;
}

export interface RoundsOptions {
  readonly scenario: string;
  readonly deployments: readonly Deployment[];
  readonly load: Load;
  /** Whether the serving proxy keeps strangers out, asked before every round. */
  readonly inspect: (deployment: Deployment) => Promise<Findings>;
  readonly rounds: number;
  readonly seconds: number;
  readonly maxStealPercent: number;
  readonly progress: (line: string) => void;
}

/** A busy host is given this many chances a round; the one with the least steal counts. */
const MAX_ATTEMPTS = 3;
const WARM_UP_SECONDS = 1;
const START_UP_MS = 20_000;

/** Never rejects because of a peer: one that fails is disqualified. */
export async function runRounds(options: RoundsOptions): Promise<Performance[]> {
  const { deployments, scenario, progress } = options;
  const standings = deployments.map((deployment) => ({ deployment, rounds: [] as Round[], handshake: '', disqualified: '' }));
  // Round 0 is for warming up: JavaScript is compiled, pages are faulted in, neighbours are resolved.
  for (let number = 0; number <= options.rounds; number++) {
    for (const standing of standings.filter(({ disqualified }) => disqualified === '')) {
      const name = `${scenario}, ${number === 0 ? 'warm-up' : `round ${number} of ${options.rounds}`}, ${standing.deployment.peer}`;
      try {
        const inspect = () => options.inspect(standing.deployment);
        const { handshake, fault } =
          number === 0 ? await until(inspect, { timeoutMs: START_UP_MS, running: standing.deployment.proxies }) : await inspect();
        if (fault !== undefined) throw new Error(fault);
        standing.handshake = handshake;
        if (number === 0) {
          progress(name);
          await options.load(standing.deployment, WARM_UP_SECONDS);
        } else standing.rounds.push(await quietRound(standing.deployment, { ...options, name }));
      } catch (error) {
        const died = standing.deployment.proxies.map((proxy) => proxy.died()).find((reason) => reason !== undefined);
        standing.disqualified = died ?? (error instanceof Error ? error.message : String(error));
        progress(`${name}: disqualified: ${standing.disqualified}`);
      }
    }
  }
  return standings.map(({ deployment: { peer, version }, rounds, handshake, disqualified }) =>
    disqualified === '' ? { peer, version, rounds, handshake } : { peer, version, rounds: [], handshake, disqualified },
  );
}

async function quietRound(deployment: Deployment, options: RoundsOptions & { name: string }): Promise<Round> {
  let best: Round | undefined;
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const round = await measure(deployment, options);
    options.progress(`${options.name}: ${describe(round)}`);
    if (best === undefined || round.stealPercent < best.stealPercent) best = round;
    if (best.stealPercent <= options.maxStealPercent) return best;
  }
  if (best === undefined) throw new Error('no round was made');
  return best;
}

async function measure(deployment: Deployment, options: RoundsOptions): Promise<Round> {
  const before = hostTime();
  const { operations, failures, failure, seconds, p50Us, p99Us, proxyCpuUs } = await options.load(deployment, options.seconds);
  const steal = stealPercent(before, hostTime());
  if (operations === 0) throw new Error(`not one operation succeeded: ${failure ?? 'no reason known'}`);
  return {
    rate: operations / seconds,
    cpuUs: proxyCpuUs / operations,
    p50Us,
    p99Us,
    rssMb: rssMb(deployment.proxies.map(({ pid }) => pid)),
    failures,
    ...(failure === undefined ? {} : { failure }),
    stealPercent: steal,
    busyPercent: (100 * proxyCpuUs) / (seconds * 1_000_000),
  };
}

function describe(round: Round): string {
  const failures = round.failures === 0 ? '' : `, ${round.failures} FAILURES (${round.failure})`;
  return `${Math.round(round.rate)}/s, ${Math.round(round.cpuUs)} us CPU each, core ${Math.round(round.busyPercent)} % busy, steal ${round.stealPercent.toFixed(1)} %${failures}`;
}
