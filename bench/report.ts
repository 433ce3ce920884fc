// From rounds to what is read: medians and minima in a table, ratios of ours to each peer's, and the same as JSON.

import type { Machine } from './machine.ts';
import type { Performance, Round } from './rounds.ts';
import type { ScenarioResult } from './scenario.ts';

/** Medians over the rounds, the least CPU of any, failures of all. `disqualified` results have no rounds and no numbers. */
export interface Result {
  readonly peer: string;
  readonly version: string;
  readonly rate: number;
  readonly cpuUs: number;
  readonly cpuMinUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly rssMb: number;
  readonly failures: number;
  readonly rounds: number;
  readonly stealPercent: number;
  readonly busyPercent: number;
  readonly disqualified?: string;
}

export interface Report {
  readonly machine: Machine & { readonly generator: string };
  readonly skipped: readonly { readonly peer: string; readonly reason: string }[];
  readonly scenarios: readonly { readonly name: string; readonly results: readonly Result[] }[];
}

export function summarise({ peer, version, rounds, disqualified }: Performance): Result {
  const median = (of: (round: Round) => number) => {
    const sorted = rounds.map(of).sort((a, b) => a - b);
    const middle = sorted.length / 2;
    return ((sorted[Math.ceil(middle) - 1] ?? 0) + (sorted[Math.floor(middle)] ?? 0)) / 2;
  };
  return {
    peer,
    version,
    rate: round1(median(({ rate }) => rate)),
    cpuUs: round1(median(({ cpuUs }) => cpuUs)),
    cpuMinUs: round1(rounds.length === 0 ? 0 : Math.min(...rounds.map(({ cpuUs }) => cpuUs))),
    p50Us: median(({ p50Us }) => p50Us),
    p99Us: median(({ p99Us }) => p99Us),
    rssMb: round1(median(({ rssMb }) => rssMb)),
    failures: rounds.reduce((sum, { failures }) => sum + failures, 0),
    rounds: rounds.length,
    stealPercent: round1(median(({ stealPercent }) => stealPercent)),
    busyPercent: round1(median(({ busyPercent }) => busyPercent)),
    ...(disqualified === undefined ? {} : { disqualified }),
  };
}

export function renderScenario({ name, performances }: ScenarioResult): string {
  const results = performances.map(summarise);
  const numbers = results
    .filter(({ rounds }) => rounds > 0)
    .map((result) => [
      result.peer,
      result.rate.toFixed(0),
      result.cpuUs.toFixed(0),
      result.cpuMinUs.toFixed(0),
      result.p50Us.toFixed(0),
      result.p99Us.toFixed(0),
      result.rssMb.toFixed(0),
      result.busyPercent.toFixed(0),
      result.stealPercent.toFixed(1),
      String(result.failures),
      String(result.rounds),
    ]);
  const header = ['', 'rate/s', 'CPU us', 'CPU us min', 'p50 us', 'p99 us', 'RSS MB', 'busy %', 'steal %', 'failures', 'rounds'];
  const notes = performances.flatMap(({ peer, version, handshake, disqualified, rounds }) => {
    const failure = rounds.find((round) => round.failure !== undefined)?.failure;
    return [
      `  ${peer} ${version}: ${disqualified === undefined ? handshake : `DISQUALIFIED: ${disqualified}`}`,
      ...(failure === undefined ? [] : [`  ${peer} had failures, so its numbers are of what was left: ${failure}`]),
    ];
  });
  return [`== ${name}`, table([header, ...numbers]), '', ...ratios(results), ...notes, ''].join('\n');
}

/** Ours divided by theirs: below 1 is less CPU than theirs, above 1 is a higher rate. */
function ratios(results: readonly Result[]): string[] {
  const ours = results.find(({ peer, rounds }) => peer === 'handfast' && rounds > 0);
  const theirs = results.filter(({ peer, rounds }) => peer !== 'handfast' && rounds > 0);
  if (ours === undefined || theirs.length === 0) return ['no ratios: there is nobody to compare', ''];
  const rows = theirs.map((peer) => [
    `handfast / ${peer.peer}`,
    (ours.cpuUs / peer.cpuUs).toFixed(2),
    (ours.cpuMinUs / peer.cpuMinUs).toFixed(2),
    (ours.rate / peer.rate).toFixed(2),
    (ours.p50Us / peer.p50Us).toFixed(2),
  ]);
  return [table([['', 'CPU', 'CPU min', 'rate', 'p50'], ...rows]), ''];
}

function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  const pad = (cell: string, column: number) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0));
  return rows.map((row) => row.map(pad).join('  ').trimEnd()).join('\n');
}

function round1(value: number): number {
  return Math.round(value * 10) / 10;
}
