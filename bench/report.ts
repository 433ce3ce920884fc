// From rounds to what is kept: medians, minima, and the raw rounds beside them, as JSON.

import type { Machine } from './machine.ts';
import type { Performance, Round } from './rounds.ts';
import type { Contender, ScenarioName } from './scenario.ts';
import type { ScenarioResult } from './stage.ts';
import { median, round1, sum } from './statistics.ts';

/** Medians over the counted rounds, the least CPU of any, failures of all. All null, with a `reason`, for what a contender cannot do. */
export interface Result {
  readonly peer: Contender;
  readonly version: string;
  readonly rate: number | null;
  readonly cpuUs: number | null;
  readonly cpuMinUs: number | null;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  /** Of all proxies together, and of each: the dialing one first. */
  readonly rssMb: number | null;
  readonly rssEachMb: readonly number[] | null;
  readonly failures: number | null;
  readonly rounds: number;
  readonly stealPercent: number | null;
  readonly busyPercent: number | null;
  readonly connections?: number;
  readonly rssBeforeMb?: readonly number[];
  readonly kbPerConnection?: readonly number[];
  readonly tlsConnections?: number;
  readonly handshake?: string;
  readonly reason?: string;
  readonly raw: readonly Round[];
}

export interface Scenario {
  readonly name: ScenarioName;
  readonly results: readonly Result[];
}

export interface Report {
  readonly machine: Machine;
  readonly settings: { readonly seconds: number; readonly rounds: number; readonly maxStealPercent: number; readonly startedAt: string };
  readonly scenarios: readonly Scenario[];
}

export function summarise({ peer, version, rounds: raw, handshake, reason }: Performance): Result {
  const rounds = raw.filter(({ counted }) => counted);
  const of = (value: (round: Round) => number | null) => round1(median(rounds.map(value).filter((found) => found !== null)));
  const each = (value: (round: Round) => readonly number[] | undefined) => {
    const lists = rounds.map(value).filter((list) => list !== undefined);
    return (lists[0] ?? []).map((_, index) => round1(median(lists.map((list) => list[index] ?? 0))) ?? 0);
  };
  const last = rounds.at(-1);
  return {
    peer,
    version,
    rate: of(({ rate }) => rate),
    cpuUs: of(({ cpuUs }) => cpuUs),
    cpuMinUs: rounds.length === 0 ? null : round1(Math.min(...rounds.map(({ cpuUs }) => cpuUs))),
    p50Us: of(({ p50Us }) => p50Us),
    p99Us: of(({ p99Us }) => p99Us),
    rssMb: of(({ rssMb }) => rssMb),
    rssEachMb: rounds.length === 0 ? null : each(({ rssEachMb }) => rssEachMb),
    failures: rounds.length === 0 ? null : sum(rounds.map(({ failures }) => failures)),
    rounds: rounds.length,
    stealPercent: of(({ stealPercent }) => stealPercent),
    busyPercent: of(({ busyPercent }) => busyPercent),
    ...(last?.connections === undefined ? {} : { connections: last.connections }),
    ...(last?.rssBeforeMb === undefined ? {} : { rssBeforeMb: each(({ rssBeforeMb }) => rssBeforeMb) }),
    ...(last?.kbPerConnection === undefined ? {} : { kbPerConnection: each(({ kbPerConnection }) => kbPerConnection) }),
    ...(last?.tlsConnections === undefined ? {} : { tlsConnections: last.tlsConnections }),
    ...(handshake === '' ? {} : { handshake }),
    ...(reason === undefined ? {} : { reason }),
    raw: raw.map(rounded),
  };
}

export function scenarioOf({ name, performances }: ScenarioResult): Scenario {
  return { name, results: performances.map(summarise) };
}

/** A tenth is more than any of them is good for. */
function rounded(round: Round): Round {
  const entries = Object.entries(round).map(([key, value]) => {
    if (typeof value === 'number') return [key, round1(value)];
    return [key, Array.isArray(value) ? value.map((item) => (typeof item === 'number' ? round1(item) : item)) : value];
  });
  return Object.fromEntries(entries) as Round;
}
