// Short rounds, contender after contender and again: what disturbs the machine disturbs everybody. A round counts only for one that keeps strangers out.

import { hostTime, rssMb, stealPercent } from './cpu.ts';
import type { LoadResult } from './load.ts';
import type { Findings } from './outsider.ts';
import type { Progress } from './progress.ts';
import { type Contender, isOurs, type ScenarioName } from './scenario.ts';
import { sum } from './statistics.ts';
import type { Running } from './testbed.ts';

export interface Round extends Pick<LoadResult, 'connections' | 'rssBeforeMb' | 'kbPerConnection' | 'tlsConnections'> {
  /** Null where nothing is repeated (cold-start). */
  readonly rate: number | null;
  readonly cpuUs: number;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  /** Of all proxies, and of each: the dialing one first. */
  readonly rssMb: number;
  readonly rssEachMb: readonly number[];
  readonly failures: number;
  readonly failure?: string;
  /** Per cent of the host's time that the hypervisor took away during the round. */
  readonly stealPercent: number;
  /** Per cent of the round that the proxies used of one core: well below 100, the rate is not the proxies' limit. */
  readonly busyPercent: number;
  /** False for a round that was disturbed and repeated. */
  readonly counted: boolean;
}

/** What a contender did in one scenario. `reason` says why it did nothing, or why what it did does not count. */
export interface Performance {
  readonly peer: Contender;
  readonly version: string;
  readonly rounds: readonly Round[];
  readonly handshake: string;
  readonly reason?: string;
}

/** One that takes part in a scenario. */
export interface Contestant {
  readonly peer: Contender;
  readonly version: string;
  /** What runs now: some scenarios start proxies anew for each round. */
  proxies(): readonly Running[];
  inspect(): Promise<Findings>;
  measure(seconds: number): Promise<LoadResult>;
}

export interface RoundsOptions {
  readonly scenario: ScenarioName;
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUp: boolean;
  readonly maxStealPercent: number;
  /** A round that was disturbed more than that is repeated this often; the one with the least steal counts. */
  readonly repeats: number;
  readonly progress: Progress;
}

/** Ours are compiled while they run, which takes some ten thousand operations; where a few hundred a second are done, 5 s are not enough. */
const WARM_UP = { seconds: 5, operations: 20_000, times: 4 };
const SAMPLE_MS = 250;

/** Never rejects because of a contender: the performance of one that fails has the reason. */
export async function runRounds(contestants: readonly Contestant[], options: RoundsOptions): Promise<Performance[]> {
  const { scenario, progress } = options;
  const standings = contestants.map((contestant) => ({
    contestant,
    rounds: [] as Round[],
    handshake: '',
    reason: undefined as string | undefined,
  }));
  // Round 0 is for warming up: JavaScript is compiled, pages are faulted in, neighbours are resolved.
  for (let number = options.warmUp ? 0 : 1; number <= options.rounds; number++) {
    for (const standing of standings) {
      const name = `${scenario}, ${number === 0 ? 'warm-up' : `round ${number} of ${options.rounds}`}, ${standing.contestant.peer}`;
      if (standing.reason === undefined) {
        progress.now(name);
        try {
          const { handshake, fault } = await standing.contestant.inspect();
          if (fault !== undefined) throw new Error(fault);
          standing.handshake = handshake;
          if (number === 0) progress.note(`${name}: ${await warmUp(standing.contestant)}`);
          else standing.rounds.push(...(await quietRound(standing.contestant, { ...options, name })));
        } catch (error) {
          const died = standing.contestant.proxies().map((proxy) => proxy.died());
          standing.reason = firstLine(
            died.find((reason) => reason !== undefined) ?? (error instanceof Error ? error.message : String(error)),
          );
          progress.note(`${name}: OUT: ${standing.reason}`);
        }
      }
      progress.done();
    }
  }
  return standings.map(({ contestant: { peer, version }, rounds, handshake, reason }) =>
    reason === undefined ? { peer, version, rounds, handshake } : { peer, version, rounds: [], handshake, reason },
  );
}

/** Says what an operation cost cold, which nobody is judged by. */
async function warmUp({ peer, measure }: Contestant): Promise<string> {
  const first = await measure(WARM_UP.seconds);
  let done = first.operations;
  for (let times = isOurs(peer) ? WARM_UP.times : 1; times > 1 && done < WARM_UP.operations; times--)
    done += (await measure(WARM_UP.seconds)).operations;
  return `${Math.round(first.proxyCpuUs / first.operations)} us CPU each in the first ${WARM_UP.seconds} s`;
}

/** The command line that failed, with its paths, is nobody's business but the terminal's. */
export function firstLine(text: string): string {
  const line = text.split('\n').find((candidate) => candidate.trim() !== '') ?? text;
  return line
    .replace(/'[^']*\/[^']*' (was|exited)/, 'the load $1')
    .replaceAll(/\/(?:[\w.+@-]+\/)+/g, '')
    .trim()
    .slice(0, 300);
}

async function quietRound(contestant: Contestant, options: RoundsOptions & { name: string }): Promise<Round[]> {
  const attempts: Round[] = [];
  for (let attempt = 0; attempt <= options.repeats; attempt++) {
    const round = await measure(contestant, options.seconds);
    options.progress.note(`${options.name}: ${describe(round)}`);
    attempts.push(round);
    if (round.stealPercent <= options.maxStealPercent) break;
  }
  const least = Math.min(...attempts.map(({ stealPercent }) => stealPercent));
  const best = attempts.findIndex((round) => round.stealPercent === least);
  return attempts.map((round, index) => ({ ...round, counted: index === best }));
}

async function measure(contestant: Contestant, seconds: number): Promise<Round> {
  const before = hostTime();
  let peak: number[] = [];
  const sample = () => {
    const now = contestant.proxies().map(({ pid }) => rssOf(pid));
    peak = now.map((mb, index) => Math.max(mb, peak[index] ?? 0));
  };
  const timer = setInterval(sample, SAMPLE_MS);
  let load: LoadResult;
  try {
    load = await contestant.measure(seconds);
  } finally {
    clearInterval(timer);
  }
  sample();
  const steal = stealPercent(before, hostTime());
  if (load.operations === 0) throw new Error(`not one operation succeeded: ${load.failure ?? 'no reason known'}`);
  // Whoever did something used some.
  if (load.proxyCpuUs === 0)
    throw new Error(`the proxies stood still: ${load.operations.toFixed(1)} operations, ${load.failure ?? 'no failure seen'}`);
  const { operations, seconds: took, proxyCpuUs, rssEachMb = peak, ...rest } = load;
  return {
    rate: took === 0 ? null : operations / took,
    cpuUs: proxyCpuUs / operations,
    ...rest,
    rssMb: sum(rssEachMb),
    rssEachMb,
    stealPercent: steal,
    busyPercent: took === 0 ? 0 : (100 * proxyCpuUs) / (took * 1_000_000),
    counted: true,
  };
}

/** Zero for a process that has ended. */
function rssOf(pid: number): number {
  try {
    return rssMb([pid]);
  } catch {
    return 0;
  }
}

function describe(round: Round): string {
  const rate = round.rate === null ? '' : `${Math.round(round.rate)}/s, `;
  const failures = round.failures === 0 ? '' : `, ${round.failures} FAILURES (${round.failure})`;
  const steal = `steal ${round.stealPercent.toFixed(1)} %`;
  return `${rate}${Math.round(round.cpuUs)} us CPU each, core ${Math.round(round.busyPercent)} % busy, ${steal}${failures}`;
}
