// What Handfast is held to: floors and goals against the best of the others in the same run. Pure.

import type { Result, Scenario } from './report.ts';
import type { Contender, ScenarioName } from './scenario.ts';

export type Verdict = 'goal reached' | 'floor reached' | 'MISSED' | 'not measured';

export interface Judgement {
  readonly what: string;
  /** Who was the best of those compared with; empty where we are held to a number. */
  readonly against: string;
  readonly floor: string;
  readonly goal: string;
  readonly measured: number | null;
  readonly verdict: Verdict;
}

interface Bound {
  readonly sense: 'at least' | 'at most';
  readonly floor: number;
  readonly goal: number;
  readonly unit: string;
}

type Metric = 'rate' | 'cpuUs' | 'p50Us' | 'p99Us';

const forEachConnection: readonly Contender[] = ['haproxy', 'nginx', 'envoy', 'ghostunnel'];
const products: readonly Contender[] = ['haproxy', 'nginx', 'envoy'];

export function judge(scenarios: readonly Scenario[]): Judgement[] {
  const find = (scenario: ScenarioName, peer: Contender): Result | undefined =>
    scenarios.find(({ name }) => name === scenario)?.results.find((result) => result.peer === peer);

  /** Ours over the best of theirs. */
  const ratio = (
    what: string,
    of: { scenario: ScenarioName; metric: Metric; theirs: readonly Contender[]; ours?: Contender },
    bound: Bound,
  ) => {
    const ours = find(of.scenario, of.ours ?? 'handfast')?.[of.metric] ?? null;
    const theirs = of.theirs
      .map((peer) => ({ peer, value: find(of.scenario, peer)?.[of.metric] ?? null }))
      .filter((entry): entry is { peer: Contender; value: number } => entry.value !== null && entry.value > 0)
      .sort((a, b) => (of.metric === 'rate' ? b.value - a.value : a.value - b.value));
    const best = theirs[0];
    return verdict(what, best?.peer ?? of.theirs.join(', '), ours === null || best === undefined ? null : ours / best.value, bound);
  };
  const most = (floor: number, goal: number, unit = 'x'): Bound => ({ sense: 'at most', floor, goal, unit });
  const least = (floor: number, goal: number, unit = 'x'): Bound => ({ sense: 'at least', floor, goal, unit });

  const loaded = (['new-connections', 'keepalive-64', 'keepalive-512'] as const).flatMap((name) => find(name, 'handfast')?.rssEachMb ?? []);
  const idle = find('idle-10000', 'handfast');
  const workers = find('keepalive-64', 'handfast-workers2');
  const largest = (values: readonly number[] | undefined) => (values === undefined || values.length === 0 ? null : Math.max(...values));

  return [
    ratio('new connections, rate', { scenario: 'new-connections', metric: 'rate', theirs: forEachConnection }, least(3, 5)),
    ratio('new connections, CPU each', { scenario: 'new-connections', metric: 'cpuUs', theirs: forEachConnection }, most(1 / 3, 1 / 5)),
    ratio('new connections, CPU each', { scenario: 'new-connections', metric: 'cpuUs', theirs: ['envoy-hbone'] }, most(2, 1)),
    ratio('64 kept alive, CPU per request', { scenario: 'keepalive-64', metric: 'cpuUs', theirs: products }, most(0.9, 0.66)),
    ratio('512 kept alive, CPU per request', { scenario: 'keepalive-512', metric: 'cpuUs', theirs: products }, most(0.9, 0.66)),
    ratio('64 kept alive, p99', { scenario: 'keepalive-64', metric: 'p99Us', theirs: products }, most(0.8, 0.5)),
    ratio('1 kept alive, p50', { scenario: 'keepalive-1', metric: 'p50Us', theirs: products }, most(1.8, 1.2)),
    ratio('bulk, 1 stream, CPU per MB', { scenario: 'bulk-1', metric: 'cpuUs', theirs: ['haproxy'] }, most(1.3, 1)),
    ratio('bulk, 8 streams, CPU per MB', { scenario: 'bulk-8', metric: 'cpuUs', theirs: ['haproxy'] }, most(1.3, 1)),
    ratio('full handshakes, CPU each', { scenario: 'handshake', metric: 'cpuUs', theirs: ['haproxy', 'nginx'] }, most(0.85, 0.65)),
    verdict('memory of a sidecar, no connection', '', largest(idle?.rssBeforeMb), most(80, 60, ' MB')),
    verdict('memory of a sidecar, under load', '', largest(loaded), most(120, 100, ' MB')),
    verdict('memory of a sidecar for an idle connection', '', largest(idle?.kbPerConnection), most(20, 12, ' KB')),
    verdict('rotation every second, failures', '', find('rotation', 'handfast')?.failures ?? null, most(0, 0, '')),
    ratio('rotation every second, p99', { scenario: 'rotation', metric: 'p99Us', theirs: ['handfast-unrotated'] }, most(1.3, 1.1)),
    ratio(
      'two workers, CPU per request, 64 kept alive',
      { scenario: 'keepalive-64', metric: 'cpuUs', theirs: ['handfast'], ours: 'handfast-workers2' },
      most(1.1, 1.1),
    ),
    verdict('two workers, cores used by the pair', '', workers?.busyPercent ?? null, least(100, 100, ' %')),
  ];
}

function verdict(what: string, against: string, measured: number | null, { sense, floor, goal, unit }: Bound): Judgement {
  const reaches = (bound: number) => measured !== null && (sense === 'at least' ? measured >= bound : measured <= bound);
  const text = (bound: number) => `${sense} ${Number(bound.toFixed(2))}${unit}`;
  const reached = reaches(goal) ? 'goal reached' : reaches(floor) ? 'floor reached' : 'MISSED';
  return { what, against, floor: text(floor), goal: text(goal), measured, verdict: measured === null ? 'not measured' : reached };
}
