// Rollouts of several controls: one takes them forward and writes them down, the others publish what is written and nothing else, and the next one goes on where it was.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { RolloutStore } from '../../src/control/rollout/rollout-store.ts';
import { Rollouts } from '../../src/control/rollout/rollouts.ts';
import { KeptText } from '../../src/kube/kept-text.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { FakeKubeApi } from './injector/fake-kube-api.ts';

const pod = (name: string) =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: foo, labels: {security.istio.io/tlsMode: istio}}\n`;
const canary = (mode: string) => `apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: canary, namespace: foo}
spec:
  object:
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: strict}
    spec: {mtls: {mode: ${mode}}}
  rollout:
    steps: [{pods: 1}, {percent: 100}]
    intervalSeconds: 10
    failureBudget: {maxFailureRatio: 0, windowSeconds: 10}
`;
const objects = (mode = 'STRICT'): MeshObjects =>
  parseObjects([{ name: 'x.yaml', text: [pod('a'), pod('b'), pod('c'), canary(mode)].join('---\n') }]);

let api: FakeKubeApi;
let now: number;
let source: Snapshot<MeshObjects>;

beforeEach(() => {
  api = new FakeKubeApi();
  now = 1_000_000;
  source = new Snapshot(objects());
});

/** One control; `totals` is what its own ledger has heard. */
async function control({ leads = false }: { leads?: boolean } = {}) {
  const state = { leads, totals: { connections: 0, failures: 0 } };
  const log = new RecordingLog();
  const stop = new AbortController();
  const rollouts = new Rollouts({
    source: { objects: source },
    store: new RolloutStore(new KeptText({ api, namespace: 'handfast-system', name: 'rollouts' })),
    isOurs: () => state.leads,
    totals: (pods) => (pods.size === 0 ? { connections: 0, failures: 0 } : state.totals),
    inForce: () => true,
    reportsWithinMs: 0,
    log: log.log,
    now: () => now,
  });
  await rollouts.start(stop.signal);
  stop.abort();
  return {
    state,
    log,
    rollouts,
    pods: () => [...(rollouts.effective.current?.selections.get('foo/canary') ?? [])],
    phase: () => rollouts.states[0]?.phase,
    later: async (seconds: number) => {
      now += seconds * 1_000;
      await rollouts.step();
    },
  };
}

test('whoever does not lead lets nobody in by itself, and publishes what the leader has written', async () => {
  const follower = await control();
  assert.deepEqual(follower.pods(), []);
  await follower.later(60);
  assert.deepEqual(follower.pods(), [], 'however long it waits');
  const leader = await control({ leads: true });
  assert.equal(leader.pods().length, 1);
  await follower.rollouts.readAgain();
  assert.deepEqual(follower.pods(), leader.pods());
  leader.state.totals = { connections: 5, failures: 0 };
  await leader.later(10);
  await follower.later(0);
  assert.deepEqual([leader.pods().length, follower.pods().length], [3, 1]);
  await follower.rollouts.readAgain();
  assert.equal(follower.pods().length, 3);
});

test('the next leader goes on where the one before was, and what was rolled back stays so', async () => {
  const first = await control({ leads: true });
  const second = await control();
  const [chosen] = first.pods();
  first.state.leads = false;
  second.state.leads = true;
  await second.later(0);
  assert.deepEqual(second.pods(), [chosen], 'the same pod');
  second.state.totals = { connections: 5, failures: 5 };
  await second.later(10);
  assert.deepEqual([second.phase(), second.pods()], ['rolled back', []]);
  await first.rollouts.readAgain();
  assert.deepEqual([first.phase(), first.pods()], ['rolled back', []]);
  const third = await control({ leads: true });
  await third.later(60);
  assert.deepEqual([third.phase(), third.pods()], ['rolled back', []]);
});

test('failures that a follower sees do not take anything back by its word alone', async () => {
  const leader = await control({ leads: true });
  const follower = await control();
  assert.equal(follower.pods().length, 1);
  follower.state.totals = { connections: 5, failures: 5 };
  await follower.later(10);
  assert.deepEqual([follower.phase(), follower.pods()], ['progressing', leader.pods()]);
  leader.state.totals = follower.state.totals;
  await leader.later(0);
  await follower.rollouts.readAgain();
  assert.deepEqual([follower.phase(), follower.pods()], ['rolled back', []]);
});

test('one that believes it leads still cannot go on over what another has written', async () => {
  const old = await control({ leads: true });
  const next = await control();
  next.state.leads = true;
  next.state.totals = { connections: 5, failures: 5 };
  await next.later(10);
  assert.equal(next.phase(), 'rolled back');
  old.state.totals = { connections: 5, failures: 0 };
  await old.later(0);
  assert.equal(old.pods().length, 1, 'not the next step: it could not be written down');
  await old.later(0);
  assert.deepEqual([old.phase(), old.pods()], ['rolled back', []], 'it has read what is written');
});

test('an edit comes to nobody at a follower before the leader has begun it', async () => {
  const leader = await control({ leads: true });
  leader.state.totals = { connections: 5, failures: 0 };
  await leader.later(10);
  leader.state.totals = { connections: 10, failures: 0 };
  await leader.later(10);
  assert.equal(leader.phase(), 'complete');
  const follower = await control();
  source.replace(objects('DISABLE'));
  await follower.later(0);
  const { selections } = follower.rollouts.effective.current ?? {};
  assert.deepEqual([follower.pods(), selections?.get('foo/canary@before')?.size], [[], 3]);
  await leader.later(0);
  await follower.rollouts.readAgain();
  assert.deepEqual(follower.pods(), leader.pods());
  assert.equal(follower.pods().length, 1);
});

test('while the state cannot be read nothing goes on, and that is said; afterwards it does', async () => {
  const first = await control({ leads: true });
  const second = await control();
  first.state.leads = false;
  second.state.leads = true;
  second.state.totals = { connections: 5, failures: 0 };
  api.away = true;
  await second.later(10);
  assert.equal(second.pods().length, 1);
  assert.ok(second.log.records.some(({ msg }) => msg === 'rollouts stand still: their state cannot be read'));
  api.away = false;
  await second.later(0);
  assert.equal(second.pods().length, 3);
});

test('a state that somebody has deleted is written down again by who leads', async () => {
  const leader = await control({ leads: true });
  api.objects.clear();
  leader.state.totals = { connections: 5, failures: 5 };
  await leader.later(10);
  await leader.later(0);
  assert.deepEqual([leader.phase(), leader.pods()], ['rolled back', []]);
  const other = await control();
  assert.deepEqual([other.phase(), other.pods()], ['rolled back', []]);
});
