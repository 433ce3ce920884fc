// The bench's verdicts: ratios against the best of the others, floors and goals.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Judgement, judge } from '../../bench/judge.ts';
import type { Result, Scenario } from '../../bench/report.ts';
import type { Contender, ScenarioName } from '../../bench/scenario.ts';
import { renderJudgement, renderScenario, table } from '../../bench/table.ts';

function result(peer: Contender, change: Partial<Result> = {}): Result {
  const memory = { rssMb: 30, rssEachMb: [10, 20] };
  const numbers = { rate: 100, cpuUs: 10, cpuMinUs: 9, p50Us: 100, p99Us: 200, failures: 0, stealPercent: 0, busyPercent: 50 };
  return { peer, version: '1', rounds: 3, raw: [], ...memory, ...numbers, ...change };
}

function scenario(name: ScenarioName, ...results: Result[]): Scenario {
  return { name, results };
}

function find(judgements: readonly Judgement[], what: RegExp, against?: string): Judgement {
  const found = judgements.find((entry) => what.test(entry.what) && (against === undefined || entry.against === against));
  assert.ok(found, `no ${what} beside ${against}`);
  return found;
}

describe('bench verdicts', () => {
  it('new-connections-are-held-against-the-best-of-those-with-tls-for-each', () => {
    const of = scenario(
      'new-connections',
      result('handfast', { rate: 400, cpuUs: 10 }),
      result('haproxy', { rate: 100, cpuUs: 60 }),
      result('envoy', { rate: 80, cpuUs: 40 }),
      result('envoy-hbone', { rate: 999, cpuUs: 8 }),
    );
    const judgements = judge([of]);
    const rate = find(judgements, /connections, rate/);
    assert.deepEqual([rate.against, rate.measured, rate.verdict], ['haproxy', 4, 'floor reached']);
    const cpu = find(judgements, /connections, CPU/, 'envoy');
    assert.deepEqual([cpu.measured, cpu.verdict], [0.25, 'floor reached']);
    const hbone = find(judgements, /connections, CPU/, 'envoy-hbone');
    assert.deepEqual([hbone.measured, hbone.verdict], [1.25, 'floor reached']);
  });

  it('goal-floor-and-missed', () => {
    const verdictAt = (cpuUs: number) =>
      find(judge([scenario('handshake', result('handfast', { cpuUs }), result('nginx', { cpuUs: 100 }))]), /handshakes/).verdict;
    assert.deepEqual(
      [verdictAt(65), verdictAt(66), verdictAt(85), verdictAt(86)],
      ['goal reached', 'floor reached', 'floor reached', 'MISSED'],
    );
  });

  it('what-was-not-measured-is-said-to-be-so', () => {
    for (const { verdict, measured } of judge([])) assert.deepEqual([verdict, measured], ['not measured', null]);
    const alone = judge([scenario('handshake', result('handfast'), result('nginx', { cpuUs: null, rounds: 0, reason: 'not installed' }))]);
    assert.equal(find(alone, /handshakes/).verdict, 'not measured');
  });

  it('memory-is-of-the-larger-sidecar', () => {
    const idle = scenario('idle-10000', result('handfast', { rssBeforeMb: [55, 70], kbPerConnection: [11, 13] }));
    const judgements = judge([idle, scenario('keepalive-512', result('handfast', { rssEachMb: [99, 130] }))]);
    assert.deepEqual(find(judgements, /no connection/).measured, 70);
    assert.deepEqual(find(judgements, /idle connection/).verdict, 'floor reached');
    assert.deepEqual(find(judgements, /under load/).verdict, 'MISSED');
  });

  it('rotation-is-held-against-ourselves-and-a-failure-is-a-miss', () => {
    const of = (failures: number) =>
      judge([scenario('rotation', result('handfast', { failures, p99Us: 240 }), result('handfast-unrotated', { p99Us: 200 }))]);
    assert.equal(find(of(0), /rotation .*failures/).verdict, 'goal reached');
    assert.equal(find(of(1), /rotation .*failures/).verdict, 'MISSED');
    assert.deepEqual([find(of(0), /rotation .*p99/).measured, find(of(0), /rotation .*p99/).verdict], [1.2, 'floor reached']);
  });
});

describe('bench tables', () => {
  it('line-up', () => {
    const lines = table([
      ['', 'one'],
      ['longer', '2'],
    ]).split('\n');
    assert.deepEqual(lines, ['|        | one |', '| ------ | --: |', '| longer |   2 |']);
  });

  it('every-verdict-has-a-row', () => {
    assert.equal(renderJudgement([]).split('\n').length, judge([]).length + 2);
  });

  it('a-scenario-names-who-had-no-part-and-why', () => {
    const absent = result('hitch', { rate: null, cpuUs: null, rounds: 0, reason: 'only serves' });
    const text = renderScenario(scenario('bulk-1', result('handfast', { cpuUs: 20 }), result('haproxy'), absent));
    assert.match(text, /^\| haproxy .* 2\.00 /m);
    assert.match(text, /- hitch: null: only serves/);
    assert.doesNotMatch(text, /^\| hitch/m);
  });
});
