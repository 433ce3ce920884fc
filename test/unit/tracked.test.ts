// One open connection and what judges it: drained, drained no longer, cut; and what came while it was still on its way. The clock is the test's.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, mock, test } from 'node:test';
import type { Judgement } from '../../src/policy/verdict.ts';
import { judgeFromNowOn, type PipelineContext } from '../../src/proxy/context.ts';
import { type Ending, Tracked } from '../../src/proxy/tracked.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { verifyPeer } from '../../src/spiffe/verify-peer.ts';
import { TestCa } from '../support/pki.ts';
import { meshOf } from '../support/sidecar-harness.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const LOOK_MS = 50;
/** Longer than a drain may take. */
const LONG_MS = 12_000;
const DRAIN: Judgement = { allowed: 'drain', code: 'TRANSPORT_CHANGED', reason: 'it is called otherwise now' };
let clock: number;

beforeEach(() => {
  clock = 0;
  mock.timers.enable({ apis: ['setInterval', 'setTimeout'] });
  mock.method(performance, 'now', () => clock);
});
afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A connection whose sides say what the test pushes, and swallow what they hear. */
function rig() {
  const side = () => new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  const [downstream, upstream] = [side() as Socket, side()];
  const endings: Ending[] = [];
  const tracked = new Tracked(
    { id: 1, direction: 'outbound', downstream: { address: '10.0.0.1', port: 5000 }, openedAt: 0 },
    { onJoined: () => undefined, onEnd: (_tracked, ending) => endings.push(ending), onForgotten: () => undefined },
  );
  tracked.own(downstream);
  tracked.own(upstream);
  const join = () => void tracked.splice({ downstream, upstream, application: downstream, halfCloseTimeoutMs: 60_000 });
  /** Time goes by, with what either says at every look. */
  const pass = async (ms: number, says?: 'client' | 'server') => {
    for (let passed = 0; passed < ms; passed += LOOK_MS) {
      if (says !== undefined && endings.length === 0) (says === 'client' ? downstream : upstream).push('x');
      await turn();
      clock += LOOK_MS;
      mock.timers.tick(LOOK_MS);
    }
    await turn();
  };
  return { tracked, downstream, upstream, endings, join, pass };
}

const mesh = () => meshOf({ workloads: [] });

describe('a drain', () => {
  test('is taken back by a later judgement that allows', async () => {
    const { tracked, endings, join, pass } = rig();
    join();
    let judgement: Judgement = DRAIN;
    tracked.rejudge = () => judgement;
    tracked.judgeAgain(mesh());
    await pass(500, 'server');
    judgement = { allowed: true };
    tracked.judgeAgain(mesh());
    await pass(LONG_MS, 'server');
    await pass(LONG_MS);
    assert.deepEqual(endings, []);
    // And begun anew by one that does not.
    judgement = DRAIN;
    tracked.judgeAgain(mesh());
    await pass(LONG_MS, 'client');
    assert.equal(endings.length, 1);
  });

  test('of a connection that is never quiet ends in a cut', async () => {
    const { tracked, downstream, upstream, endings, join, pass } = rig();
    join();
    tracked.rejudge = () => DRAIN;
    tracked.judgeAgain(mesh());
    await pass(9_000, 'client');
    assert.deepEqual(endings, []);
    await pass(2_000, 'client');
    assert.deepEqual(
      endings.map(({ decision, code, reason }) => ({ decision, code, reason })),
      [{ decision: 'cut', code: 'TRANSPORT_CHANGED', reason: 'it is called otherwise now; it was never quiet' }],
    );
    assert.deepEqual([downstream.destroyed, upstream.destroyed], [true, true]);
  });
});

describe('what came while the connection was still on its way', () => {
  /** A peer that was verified, and what it was verified by. */
  async function proven() {
    const ca = await TestCa.create();
    const identity = await ca.identity(SLEEP);
    const [leaf, ...others] = identity.svid.certificates;
    const peer = verifyPeer(
      { leaf, intermediates: () => others },
      { bundles: identity.bundles, revocations: noRevocations, now: Date.now() },
    );
    return { identity, peer };
  }
  const contextOf = (of: Partial<PipelineContext>) =>
    ({ mesh: new Snapshot(mesh()), identity: new Snapshot(), revocations: new Snapshot(noRevocations), ...of }) as PipelineContext;

  test('bundles without the root that it was verified by: it is refused', async () => {
    const { tracked } = rig();
    const { identity, peer } = await proven();
    tracked.note({ ...tracked.known, peer });
    const { bundles } = await (await TestCa.create()).identity(SLEEP);
    const judge = (current: typeof identity) => {
      const context = contextOf({ identity: new Snapshot(current) });
      const judgedBy = context.mesh.current;
      assert.ok(judgedBy);
      judgeFromNowOn(tracked, { context, judgedBy, verifiedBy: identity.bundles, judge: () => ({ allowed: true }) });
    };
    judge(identity);
    assert.throws(() => judge({ ...identity, bundles }), { code: 'CHAIN_UNTRUSTED' });
  });

  for (const [name, judgement, ends] of [
    ['a policy by which it is to drain: it begins to', DRAIN, 1],
    ['one that allows it: it goes on', { allowed: true }, 0],
  ] as const)
    test(name, async () => {
      const { tracked, endings, join, pass } = rig();
      judgeFromNowOn(tracked, { context: contextOf({}), judgedBy: mesh(), judge: () => judgement });
      join();
      await pass(LONG_MS, 'client');
      assert.equal(endings.length, ends);
    });

  test('a policy that refuses it: it is refused', () => {
    const { tracked } = rig();
    const refusal: Judgement = { allowed: false, code: 'AUTHORIZATION_DENIED', reason: 'no' };
    const of = { context: contextOf({}), judgedBy: mesh(), judge: () => refusal };
    assert.throws(() => judgeFromNowOn(tracked, of), { code: 'AUTHORIZATION_DENIED' });
  });
});
