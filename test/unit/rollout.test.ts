// A rollout as a state machine: who is chosen, when it goes on, when it waits, and when it takes everything back.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { advance, type RolloutState, type RolloutWorld, type Sample } from '../../src/control/rollout/rollout.ts';
import type { RolloutPlan } from '../../src/policy/policy-object.ts';

const plan: RolloutPlan = {
  steps: [{ pods: 1 }, { percent: 25 }, { percent: 100 }],
  intervalSeconds: 30,
  paused: false,
  failureBudget: { maxFailureRatio: 0.1, windowSeconds: 10, minConnections: 5 },
};
const pods = (count: number) => Array.from({ length: count }, (_, index) => `foo/pod-${index}`);

/** A world with counters that a test turns. */
class Rig {
  plan = plan;
  revision = 'r1';
  eligible: readonly string[] = pods(10);
  now = 1_000_000;
  state: RolloutState | undefined;
  samples: Sample[] = [];
  inForce = true;
  reportsWithinMs = 0;
  readonly counters = new Map<string, { connections: number; failures: number }>();

  /** As if each pod that it has come to had seen these. */
  seen(connections: number, failures: number): void {
    for (const pod of this.state?.pods ?? []) {
      const before = this.counters.get(pod) ?? { connections: 0, failures: 0 };
      this.counters.set(pod, { connections: before.connections + connections, failures: before.failures + failures });
    }
  }

  totals = (of: readonly string[]) =>
    of.reduce(
      (sum, pod) => {
        const { connections, failures } = this.counters.get(pod) ?? { connections: 0, failures: 0 };
        return { connections: sum.connections + connections, failures: sum.failures + failures };
      },
      { connections: 0, failures: 0 },
    );

  after(seconds: number): RolloutState {
    this.now += seconds * 1_000;
    const { plan: by, revision, eligible, totals, samples, reportsWithinMs, now } = this;
    const world: RolloutWorld = {
      plan: by,
      document: `{${revision}}`,
      revision,
      eligible,
      totals,
      samples,
      inForce: () => this.inForce,
      reportsWithinMs,
      now,
    };
    this.state = advance(this.state, 'foo/canary', world);
    return this.state;
  }
}

describe('steps', () => {
  test('one pod, a quarter, everybody; each holds the ones before it', () => {
    const rig = new Rig();
    const one = rig.after(0);
    assert.deepEqual([one.step, one.pods.length, one.phase], [0, 1, 'progressing']);
    rig.seen(5, 0);
    const quarter = rig.after(30);
    assert.deepEqual([quarter.step, quarter.pods.length], [1, 3]);
    assert.ok(one.pods.every((pod) => quarter.pods.includes(pod)));
    rig.seen(5, 0);
    const all = rig.after(30);
    assert.deepEqual([all.step, all.pods.length, all.phase], [2, 10, 'progressing']);
    rig.seen(5, 0);
    assert.equal(rig.after(30).phase, 'complete');
    rig.eligible = pods(12);
    assert.equal(rig.after(1).pods.length, 12, 'who comes later is in it');
  });

  test('the same pods every time, others for another rollout', () => {
    const first = (key: string) =>
      advance(undefined, key, {
        plan,
        revision: 'r',
        document: '{}',
        eligible: pods(50),
        totals: () => ({ connections: 0, failures: 0 }),
        samples: [],
        inForce: () => true,
        reportsWithinMs: 0,
        now: 0,
      }).pods;
    assert.deepEqual(first('a/b'), first('a/b'));
    assert.notDeepEqual(first('a/b'), first('a/c'));
  });

  test('not before its interval is over, and nothing changes meanwhile', () => {
    const rig = new Rig();
    const one = rig.after(0);
    rig.seen(5, 0);
    assert.equal(rig.after(29), one);
    assert.equal(rig.after(1).step, 1);
  });

  test('nor before what happened in it can have been reported', () => {
    const rig = new Rig();
    rig.reportsWithinMs = 4_000;
    rig.after(0);
    rig.seen(5, 0);
    assert.equal(rig.after(33).step, 0);
    rig.seen(5, 5);
    assert.deepEqual([rig.after(1).phase, rig.state?.step], ['rolled back', 0], 'by what came in the last second');
  });

  test('a step that nobody has used waits', () => {
    const rig = new Rig();
    rig.after(0);
    rig.seen(4, 0);
    const waiting = rig.after(100);
    assert.deepEqual([waiting.step, waiting.reason], [0, 'waiting for connections: 4 of 5 seen in this step']);
    assert.equal(rig.after(1), waiting);
    rig.seen(1, 0);
    assert.equal(rig.after(1).step, 1);
  });

  test('a step is observed from when it is in force, and its failures count before that too', () => {
    const rig = new Rig();
    rig.inForce = false;
    rig.after(0);
    rig.seen(5, 0);
    assert.equal(rig.after(100).step, 0);
    rig.inForce = true;
    assert.equal(rig.after(29).step, 0);
    assert.equal(rig.after(1).step, 1);
    rig.inForce = false;
    rig.seen(5, 5);
    assert.equal(rig.after(1).phase, 'rolled back');
  });

  test('without a budget time alone decides', () => {
    const rig = new Rig();
    rig.plan = { ...plan, failureBudget: undefined };
    rig.after(0);
    rig.seen(100, 100);
    assert.equal(rig.after(30).step, 1);
  });

  test('a pause holds it where it is, and the budget holds in it', () => {
    const rig = new Rig();
    rig.after(0);
    rig.seen(5, 0);
    rig.plan = { ...plan, paused: true };
    assert.equal(rig.after(100).step, 0);
    rig.plan = plan;
    assert.equal(rig.after(0).step, 1);
    rig.plan = { ...plan, paused: true };
    rig.seen(5, 5);
    assert.equal(rig.after(1).phase, 'rolled back');
  });

  test('at least one pod, and nobody where there is nobody', () => {
    const rig = new Rig();
    rig.plan = { ...plan, steps: [{ percent: 1 }, { percent: 100 }] };
    assert.equal(rig.after(0).pods.length, 1);
    const empty = new Rig();
    empty.eligible = [];
    assert.deepEqual(empty.after(0).pods, []);
    empty.eligible = pods(3);
    assert.equal(empty.after(1).pods.length, 1);
  });
});

describe('the budget', () => {
  test('too many failures take everything back, for good, and say how many', () => {
    const rig = new Rig();
    rig.after(0);
    rig.seen(9, 1);
    rig.seen(1, 1);
    const back = rig.after(1);
    assert.deepEqual([back.phase, back.pods], ['rolled back', []]);
    assert.equal(back.reason, '2 of 10 connections failed by policy within 10 s (20.0 %, the budget is 10.0 %) at step 1 of 3');
    assert.equal(rig.after(1_000), back);
    rig.revision = 'r2';
    assert.deepEqual([rig.after(1).phase, rig.state?.step], ['progressing', 0]);
  });

  test('as many as it allows do not', () => {
    const rig = new Rig();
    rig.after(0);
    rig.seen(10, 1);
    assert.equal(rig.after(1).phase, 'progressing');
  });

  test('what came before the step does not count', () => {
    const rig = new Rig();
    for (const pod of rig.eligible) rig.counters.set(pod, { connections: 100, failures: 100 });
    rig.after(0);
    rig.seen(5, 0);
    assert.equal(rig.after(30).step, 1);
  });

  test('what is older than the window does not count', () => {
    const rig = new Rig();
    const { pods: chosen } = rig.after(0);
    rig.seen(100, 9);
    rig.samples = [{ at: rig.now, ...rig.totals(chosen) }];
    rig.seen(5, 0);
    assert.equal(rig.after(11).phase, 'progressing');
    rig.seen(5, 2);
    assert.equal(rig.after(0).phase, 'rolled back', '2 of 10 in the window, though 11 of 110 in the step');
  });

  test('fewer connections than it needs prove nothing', () => {
    const rig = new Rig();
    rig.after(0);
    rig.seen(4, 4);
    assert.equal(rig.after(1).phase, 'progressing');
    rig.seen(1, 1);
    assert.equal(rig.after(1).phase, 'rolled back');
  });

  test('a pod that the change kills does not take its failures with it', () => {
    const rig = new Rig();
    const [first] = rig.after(0).pods;
    rig.seen(3, 3);
    rig.eligible = rig.eligible.filter((pod) => pod !== first);
    const other = rig.after(1);
    assert.notDeepEqual(other.pods, [first]);
    rig.seen(2, 0);
    assert.equal(rig.after(1).phase, 'rolled back');
  });
});
