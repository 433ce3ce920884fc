// Rollouts over objects and ledger: what is published, what outlives a restart, and that nothing takes effect that could not be written down.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fileState } from '../../src/control/kept-state.ts';
import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { snapshotOf } from '../../src/control/resolve/snapshot-of.ts';
import { RolloutStore } from '../../src/control/rollout/rollout-store.ts';
import { Rollouts } from '../../src/control/rollout/rollouts.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const pod = (name: string, labels = 'security.istio.io/tlsMode: istio', namespace = 'foo') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: ${namespace}, labels: {${labels}}}\n`;
const canary = (spec: string) => `apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: canary, namespace: foo}
spec:
  object:
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: strict}
    spec: {mtls: {mode: STRICT}}
${spec}
`;
const ROLLOUT = `  rollout:
    steps: [{pods: 1}, {percent: 100}]
    intervalSeconds: 10
    failureBudget: {maxFailureRatio: 0, windowSeconds: 10}
`;
const objects = (...documents: string[]): MeshObjects => parseObjects([{ name: 'x.yaml', text: documents.join('---\n') }]);
const everybody = [pod('a'), pod('b'), pod('c'), pod('unmeshed', 'app: x'), pod('elsewhere', 'security.istio.io/tlsMode: istio', 'bar')];

let dir: string;
let now: number;
let records: RecordingLog;
let totals: { connections: number; failures: number };

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-rollouts-'));
});
after(() => rm(dir, { recursive: true }));
beforeEach(async () => {
  await rm(join(dir, 'state'), { recursive: true, force: true });
  now = 1_000_000;
  records = new RecordingLog();
  totals = { connections: 0, failures: 0 };
});

/** A control that runs until it is stopped. */
async function running(source: Snapshot<MeshObjects>) {
  const stop = new AbortController();
  const rollouts = new Rollouts({
    source: { objects: source },
    totals: (pods) => (pods.size === 0 ? { connections: 0, failures: 0 } : totals),
    inForce: () => true,
    reportsWithinMs: 0,
    store: new RolloutStore(fileState(join(dir, 'state', 'rollouts.json'))),
    isOurs: () => true,
    log: records.log,
    now: () => now,
  });
  await rollouts.start(stop.signal);
  return {
    stop: () => stop.abort(),
    pods: () => [...(rollouts.effective.current?.selections.get('foo/canary') ?? [])],
    later: async (seconds: number) => {
      now += seconds * 1_000;
      await rollouts.step();
      return rollouts.states[0];
    },
    rollouts,
  };
}

test('one pod of those in the mesh and the namespace, then all of them', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  assert.equal(control.pods().length, 1);
  totals = { connections: 5, failures: 0 };
  assert.equal((await control.later(10))?.step, 1);
  assert.deepEqual(control.pods().sort(), ['foo/a', 'foo/b', 'foo/c']);
  control.stop();
});

test('a restart goes on where it was, and what was rolled back stays so until the object is another', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const first = await running(source);
  const [chosen] = first.pods();
  first.stop();
  now += 5_000;
  const second = await running(source);
  assert.deepEqual(second.pods(), [chosen]);
  totals = { connections: 5, failures: 1 };
  assert.equal((await second.later(1))?.phase, 'rolled back');
  assert.deepEqual(second.pods(), []);
  second.stop();
  const third = await running(source);
  totals = { connections: 500, failures: 1 };
  assert.equal((await third.later(100))?.phase, 'rolled back');
  assert.deepEqual(third.pods(), []);
  source.replace(objects(...everybody, canary(`  priority: 1\n${ROLLOUT}`)));
  assert.equal((await third.later(0))?.phase, 'progressing');
  assert.equal(third.pods().length, 1);
  third.stop();
  assert.ok(records.records.some(({ msg, reason }) => msg === 'rollout rolled back' && /1 of 5 connections/.test(String(reason))));
});

/** The mode of each pod, as sidecars would be told. */
function modes(control: { rollouts: Rollouts }): string {
  const { current } = control.rollouts.effective;
  assert.ok(current);
  const mesh = snapshotOf(current.objects, { trustDomain: 'cluster.local', selections: current.selections });
  return ['a', 'b', 'c'].map((name) => mesh.policies.get(`local//Pod/foo/${name}`)?.inbound.mode).join(' ');
}
const count = (text: string, mode: string) => text.split(' ').filter((one) => one === mode).length;

describe('a rollout that is edited', () => {
  const spec = (mode: string, rollout = ROLLOUT) => canary(rollout).replace('mode: STRICT', `mode: ${mode}`);

  async function complete(source: Snapshot<MeshObjects>) {
    const control = await running(source);
    for (let step = 0; step < 2; step++) {
      totals = { connections: totals.connections + 5, failures: 0 };
      await control.later(10);
    }
    assert.equal(control.rollouts.states[0]?.phase, 'complete');
    return control;
  }

  test('comes to one pod, and the others keep what was everywhere before; back, it is everywhere again', async () => {
    const source = new Snapshot(objects(...everybody, spec('STRICT')));
    const control = await complete(source);
    assert.equal(modes(control), 'STRICT STRICT STRICT');
    source.replace(objects(...everybody, spec('DISABLE')));
    assert.equal(modes(control), 'STRICT STRICT STRICT', 'not before it is written down');
    await control.later(0);
    assert.deepEqual([count(modes(control), 'DISABLE'), count(modes(control), 'STRICT')], [1, 2]);
    control.stop();
    const restarted = await running(source);
    assert.deepEqual([count(modes(restarted), 'DISABLE'), count(modes(restarted), 'STRICT')], [1, 2], 'also after a restart');
    totals = { connections: totals.connections + 5, failures: 1 };
    await restarted.later(1);
    assert.equal(modes(restarted), 'STRICT STRICT STRICT', 'rolled back to what was before');
    restarted.stop();
  });

  test('in how it is rolled out alone goes on', async () => {
    const source = new Snapshot(objects(...everybody, spec('STRICT')));
    const control = await complete(source);
    source.replace(objects(...everybody, spec('STRICT', ROLLOUT.replace('intervalSeconds: 10', 'intervalSeconds: 99'))));
    assert.equal((await control.later(0))?.phase, 'complete');
    assert.equal(modes(control), 'STRICT STRICT STRICT');
    control.stop();
  });

  test('on its way begins anew, from nobody', async () => {
    const source = new Snapshot(objects(...everybody, spec('STRICT')));
    const control = await running(source);
    assert.equal(count(modes(control), 'STRICT'), 1);
    source.replace(objects(...everybody, spec('DISABLE')));
    await control.later(0);
    assert.deepEqual([count(modes(control), 'DISABLE'), count(modes(control), 'PERMISSIVE')], [1, 2]);
    control.stop();
  });

  test('whose state cannot be saved has come to nobody, and the others keep theirs', async () => {
    const source = new Snapshot(objects(...everybody, spec('STRICT')));
    const control = await complete(source);
    await rm(join(dir, 'state'), { recursive: true });
    await writeFile(join(dir, 'state'), 'a file where the folder should be');
    source.replace(objects(...everybody, spec('DISABLE')));
    await control.later(0);
    assert.equal(modes(control), 'STRICT STRICT STRICT');
    await rm(join(dir, 'state'));
    await control.later(0);
    assert.equal(count(modes(control), 'DISABLE'), 1);
    control.stop();
  });

  test('one that was everywhere without a rollout, and is given one, stays everywhere; given one with another object, it begins from there', async () => {
    const source = new Snapshot(objects(...everybody, spec('STRICT', '')));
    const control = await running(source);
    assert.equal(modes(control), 'STRICT STRICT STRICT');
    assert.equal(control.rollouts.states.length, 0);
    source.replace(objects(...everybody, spec('STRICT')));
    await control.later(0);
    assert.equal(modes(control), 'STRICT STRICT STRICT');
    assert.equal(control.rollouts.states[0]?.phase, 'complete');
    source.replace(objects(...everybody, spec('STRICT', '')));
    await control.later(0);
    source.replace(objects(...everybody, spec('DISABLE')));
    await control.later(0);
    assert.deepEqual([count(modes(control), 'DISABLE'), count(modes(control), 'STRICT')], [1, 2]);
    control.stop();
  });

  test('holds in one version alone for each pod', async () => {
    const allow = (namespace: string) =>
      canary(ROLLOUT)
        .replace('kind: PeerAuthentication', 'kind: AuthorizationPolicy')
        .replace('spec: {mtls: {mode: STRICT}}', `spec: {rules: [{from: [{source: {namespaces: [${namespace}]}}]}]}`);
    const source = new Snapshot(objects(...everybody, allow('one')));
    const control = await complete(source);
    source.replace(objects(...everybody, allow('two')));
    await control.later(0);
    const { current } = control.rollouts.effective;
    assert.ok(current);
    const mesh = snapshotOf(current.objects, { trustDomain: 'cluster.local', selections: current.selections });
    const held = ['a', 'b', 'c'].map((name) => {
      const workload = mesh.registry.workload('foo', name);
      assert.ok(workload);
      return mesh.authorizations.of(workload).policies.map((policy) => JSON.stringify(policy.rules).includes('two'));
    });
    assert.deepEqual(
      held.map((versions) => versions.length),
      [1, 1, 1],
    );
    assert.equal(held.flat().filter((isNew) => isNew).length, 1);
    control.stop();
  });

  test('that is away for a moment goes on where it was; away for long, or another when it comes back, it begins anew', async () => {
    const source = new Snapshot(objects(...everybody, spec('STRICT')));
    const control = await complete(source);
    const away = async (seconds: number, back: string) => {
      source.replace(objects(...everybody));
      await control.later(0);
      assert.equal(modes(control), 'PERMISSIVE PERMISSIVE PERMISSIVE');
      await control.later(seconds);
      source.replace(objects(...everybody, back));
      await control.later(0);
      return modes(control);
    };
    assert.equal(await away(1, spec('STRICT')), 'STRICT STRICT STRICT');
    assert.equal(count(await away(3_600, spec('STRICT')), 'STRICT'), 1);
    const other = await away(1, spec('DISABLE'));
    assert.deepEqual([count(other, 'DISABLE'), count(other, 'PERMISSIVE')], [1, 2]);
    totals = { connections: totals.connections + 5, failures: totals.failures + 1 };
    assert.equal((await control.later(1))?.phase, 'rolled back');
    assert.equal(await away(3_600, spec('DISABLE')), 'PERMISSIVE PERMISSIVE PERMISSIVE', 'what was rolled back is not forgotten');
    control.stop();
  });
});

test('one that is new and paused has come to nobody, until it goes on', async () => {
  const paused = ROLLOUT.replace('intervalSeconds', 'paused: true\n    intervalSeconds');
  const source = new Snapshot(objects(...everybody, canary(paused)));
  const control = await running(source);
  assert.deepEqual([(await control.later(100))?.reason, control.pods()], ['paused before its first step', []]);
  source.replace(objects(...everybody, canary(ROLLOUT)));
  await control.later(0);
  assert.equal(control.pods().length, 1);
  totals = { connections: 5, failures: 0 };
  assert.equal((await control.later(9))?.step, 0, 'its time begins then');
  control.stop();
});

test('a rollback takes effect though it cannot be written down', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  await rm(join(dir, 'state'), { recursive: true });
  await writeFile(join(dir, 'state'), 'a file where the folder should be');
  totals = { connections: 5, failures: 1 };
  assert.deepEqual([(await control.later(1))?.phase, control.pods()], ['rolled back', []]);
  control.stop();
});

test('a rollback that could not be written down is written down later', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  await rm(join(dir, 'state'), { recursive: true });
  await writeFile(join(dir, 'state'), 'a file where the folder should be');
  totals = { connections: 5, failures: 1 };
  assert.equal((await control.later(1))?.phase, 'rolled back');
  await rm(join(dir, 'state'));
  await control.later(1);
  control.stop();
  totals = { connections: 100_000, failures: 1 };
  const restarted = await running(source);
  assert.equal((await restarted.later(100))?.phase, 'rolled back');
  restarted.stop();
});

test('other objects do not wait for a state that is being written down', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  totals = { connections: 5, failures: 0 };
  const writing = control.later(10);
  source.replace(objects(...everybody, pod('new'), canary(ROLLOUT)));
  assert.equal(control.rollouts.effective.current?.objects.pods.length, everybody.length + 1, 'before anything was awaited');
  await writing;
  assert.equal(control.rollouts.states[0]?.step, 1);
  control.stop();
});

test('a clock that is set back holds nothing for as long', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  totals = { connections: 5, failures: 0 };
  assert.equal((await control.later(-3_600))?.step, 0);
  assert.equal((await control.later(10))?.step, 1);
  control.stop();
});

test('a pause is no other rollout', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  totals = { connections: 5, failures: 0 };
  const paused = ROLLOUT.replace('intervalSeconds', 'paused: true\n    intervalSeconds');
  source.replace(objects(...everybody, canary(paused)));
  assert.deepEqual([(await control.later(100))?.step, control.pods().length], [0, 1]);
  source.replace(objects(...everybody, canary(ROLLOUT)));
  assert.equal((await control.later(0))?.step, 1);
  control.stop();
});

test('a ScopeConfig that is gone is forgotten, and one without a rollout is none', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  source.replace(objects(...everybody, canary('')));
  await control.later(0);
  assert.deepEqual([control.rollouts.states, control.rollouts.effective.current?.selections.size], [[], 0]);
  control.stop();
});

test('what cannot be written down does not take effect', async () => {
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  const control = await running(source);
  await rm(join(dir, 'state'), { recursive: true });
  await writeFile(join(dir, 'state'), 'a file where the folder should be');
  totals = { connections: 5, failures: 0 };
  assert.equal((await control.later(10))?.step, 0);
  assert.equal(control.pods().length, 1);
  assert.ok(records.records.some(({ msg }) => msg === 'rollouts stand still: their state cannot be saved'));
  await rm(join(dir, 'state'));
  assert.equal((await control.later(0))?.step, 1);
  control.stop();
});

test('a state that cannot be read ends the start, and names the file', async () => {
  await mkdir(join(dir, 'state'));
  await writeFile(join(dir, 'state', 'rollouts.json'), '{"version":1,"rollouts":[{}]}', { mode: 0o600 });
  const source = new Snapshot(objects(...everybody, canary(ROLLOUT)));
  await assert.rejects(running(source), { code: 'STATE_INVALID', message: /rollouts\.json/ });
  assert.match(await readFile(join(dir, 'state', 'rollouts.json'), 'utf8'), /rollouts/);
});
