// The bench's arithmetic: medians, what a scenario's rounds come to, and who may have a part in which.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { summarise } from '../../bench/report.ts';
import { firstLine, type Round } from '../../bench/rounds.ts';
import { absence, oursNames, peerNames, scenarioNames } from '../../bench/scenario.ts';
import { median, percentile, round1 } from '../../bench/statistics.ts';

function round(change: Partial<Round>): Round {
  const memory = { rssMb: 30, rssEachMb: [10, 20] };
  return { rate: 100, cpuUs: 10, p50Us: 1, p99Us: 2, failures: 0, stealPercent: 0, busyPercent: 50, counted: true, ...memory, ...change };
}

describe('bench statistics', () => {
  it('median-of-odd-even-and-none', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 3, 2]), 2.5);
    assert.equal(median([]), null);
  });

  it('percentile-of-many-and-none', () => {
    const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
    assert.equal(percentile(hundred, 0.5), 51);
    assert.equal(percentile(hundred, 0.99), 100);
    assert.equal(percentile([7], 0.99), 7);
    assert.equal(percentile([], 0.5), null);
  });

  it('rounding-keeps-null', () => {
    assert.equal(round1(1.26), 1.3);
    assert.equal(round1(null), null);
  });
});

describe('bench summary', () => {
  it('takes-medians-of-counted-rounds-and-keeps-the-others-raw', () => {
    const rounds = [
      round({ cpuUs: 10 }),
      round({ cpuUs: 1, counted: false, stealPercent: 60 }),
      round({ cpuUs: 30 }),
      round({ cpuUs: 20 }),
    ];
    const result = summarise({ peer: 'handfast', version: '1', rounds, handshake: 'TLSv1.3' });
    assert.equal(result.cpuUs, 20);
    assert.equal(result.cpuMinUs, 10);
    assert.equal(result.rounds, 3);
    assert.equal(result.raw.length, 4);
    assert.deepEqual(result.rssEachMb, [10, 20]);
    assert.equal(result.reason, undefined);
  });

  it('adds-failures-up', () => {
    const rounds = [round({ failures: 1, failure: 'first' }), round({ failures: 2 })];
    assert.equal(summarise({ peer: 'nginx', version: '1', rounds, handshake: '' }).failures, 3);
  });

  it('is-null-with-a-reason-for-what-a-peer-cannot-do', () => {
    const result = summarise({ peer: 'hitch', version: '1', rounds: [], handshake: '', reason: 'only serves' });
    const { rate, cpuUs, cpuMinUs, p50Us, p99Us, rssMb, failures, rounds, reason } = result;
    assert.deepEqual([rate, cpuUs, cpuMinUs, p50Us, p99Us, rssMb, failures], [null, null, null, null, null, null, null]);
    assert.equal(rounds, 0);
    assert.equal(reason, 'only serves');
  });

  it('keeps-null-where-a-round-has-no-rate-or-latency', () => {
    const result = summarise({ peer: 'nginx', version: '1', rounds: [round({ rate: null, p99Us: null })], handshake: '' });
    assert.equal(result.rate, null);
    assert.equal(result.p99Us, null);
    assert.equal(result.p50Us, 1);
  });
});

describe('bench contenders', () => {
  it('handfast-has-a-part-in-everything', () => {
    for (const scenario of scenarioNames) assert.equal(absence('handfast', scenario), undefined);
  });

  it('everybody-is-measured-somewhere-and-absent-with-a-reason-elsewhere', () => {
    for (const contender of [...oursNames, ...peerNames]) {
      const reasons = scenarioNames.map((scenario) => absence(contender, scenario));
      assert.ok(reasons.includes(undefined), contender);
      for (const reason of reasons) assert.notEqual(reason, '');
    }
  });

  it('a-peer-that-only-serves-is-measured-only-serving', () => {
    assert.equal(absence('hitch', 'handshake'), undefined);
    assert.match(absence('hitch', 'keepalive-64') ?? '', /only serves/);
  });
});

describe('bench reasons', () => {
  it('name-no-path-of-this-machine', () => {
    assert.equal(firstLine('pod: ENOENT /home/me/checkout/bench/x.ts\n  at somewhere'), 'pod: ENOENT x.ts');
  });
});
