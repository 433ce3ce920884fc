// Who leads: one of several, by a Lease; nobody before it is over, nobody who cannot renew it, and the next one at once where it was let go.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { LeaderLease } from '../../src/kube/leader-lease.ts';
import { isJsonObject } from '../../src/spiffe/strict-json.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { FakeKubeApi } from './injector/fake-kube-api.ts';

const PATH = '/apis/coordination.k8s.io/v1/namespaces/handfast-system/leases/handfast-control';
const times = { durationMs: 10_000, deadlineMs: 6_000, retryMs: 2_000 };

let now: number;
/** Who waits, and until when. */
let waiting: { at: number; wake: () => void }[];
let api: FakeKubeApi;
let running: { stop: () => void; ended: Promise<void> }[];

beforeEach(() => {
  now = 1_000;
  waiting = [];
  api = new FakeKubeApi();
  running = [];
});

afterEach(async () => {
  for (const { stop } of running) stop();
  await Promise.all(running.map(({ ended }) => ended));
});

/** What was asked of the API server is answered. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 500) {
    now += 500;
    for (const { at, wake } of waiting) if (at <= now) wake();
    waiting = waiting.filter(({ at }) => at > now);
    await settled();
  }
}

async function candidate(identity: string, of: FakeKubeApi = api) {
  const log = new RecordingLog();
  const lease = new LeaderLease({
    api: of,
    namespace: 'handfast-system',
    name: 'handfast-control',
    identity,
    log: log.log,
    now: () => Date.UTC(2030, 0, 1) + now - 1_000,
    times,
    clock: {
      now: () => now,
      wait: (ms, signal) =>
        new Promise((wake) => {
          if (signal.aborted) wake();
          signal.addEventListener('abort', () => wake(), { once: true });
          waiting.push({ at: now + ms, wake });
        }),
    },
  });
  const stopping = new AbortController();
  const heard: boolean[] = [];
  lease.leading.subscribe((leads) => heard.push(leads));
  const ended = lease.run(stopping.signal);
  running.push({ stop: () => stopping.abort(), ended });
  await settled();
  const stop = async () => {
    stopping.abort();
    await ended;
  };
  return { lease, heard, log, stop };
}

const spec = () => {
  const held = api.objects.get(PATH)?.spec;
  return isJsonObject(held) ? held : {};
};

test('the first one leads at once, and goes on as long as it can renew', async () => {
  const { lease, heard } = await candidate('a');
  assert.equal(lease.leads, true);
  assert.deepEqual(
    [spec().holderIdentity, spec().leaseDurationSeconds, spec().leaseTransitions, spec().renewTime],
    ['a', 10, 1, '2030-01-01T00:00:00.000000Z'],
  );
  await pass(60_000);
  assert.equal(lease.leads, true);
  assert.deepEqual(heard, [true]);
});

test('a second one waits while the first renews, and leads as soon as the first has let go', async () => {
  const a = await candidate('a');
  const b = await candidate('b');
  await pass(30_000);
  assert.deepEqual([a.lease.leads, b.lease.leads], [true, false]);
  await a.stop();
  assert.deepEqual([a.lease.leads, spec().holderIdentity], [false, '']);
  await pass(times.retryMs);
  assert.deepEqual([a.lease.leads, b.lease.leads, spec().leaseTransitions], [false, true, 2]);
  assert.deepEqual(a.heard, [true, false]);
});

test('of one that cannot reach the API server nobody leads for a while, and never two at once', async () => {
  const cut = new FakeKubeApi();
  Object.assign(cut, { objects: api.objects });
  const a = await candidate('a', cut);
  const b = await candidate('b');
  await pass(4_000);
  cut.away = true;
  let nobody = 0;
  for (let passed = 0; passed < 20_000; passed += 500) {
    await pass(500);
    assert.ok(!(a.lease.leads && b.lease.leads), 'two lead');
    if (!a.lease.leads && !b.lease.leads) nobody += 500;
  }
  assert.deepEqual([a.lease.leads, b.lease.leads], [false, true]);
  assert.ok(nobody >= times.durationMs - times.deadlineMs - times.retryMs, `nobody led for ${nobody} ms`);
  cut.away = false;
  await pass(10_000);
  assert.deepEqual([a.lease.leads, b.lease.leads], [false, true]);
});

test('a holder that was killed is followed when what it said is over, by our clock alone', async () => {
  api.put(PATH, {
    metadata: { name: 'handfast-control' },
    // A clock that is years ahead, and one that is years behind, make no difference.
    spec: { holderIdentity: 'dead', leaseDurationSeconds: 4, renewTime: '2099-01-01T00:00:00.000000Z', leaseTransitions: 7 },
  });
  const { lease } = await candidate('b');
  assert.equal(lease.leads, false);
  await pass(2_000);
  assert.equal(lease.leads, false);
  await pass(4_000);
  assert.deepEqual([lease.leads, spec().leaseTransitions], [true, 8]);
});

test('a process that slept past its deadline does not take itself for the leader when it wakes, before any timer has run', async () => {
  const { lease, heard } = await candidate('a');
  now += times.deadlineMs;
  assert.equal(lease.leads, false);
  assert.deepEqual(heard, [true]);
});

test('of two that take it at the same moment one leads', async () => {
  api.beforeWrite = () => {
    api.put(PATH, {
      metadata: { name: 'handfast-control' },
      spec: { holderIdentity: 'b', leaseDurationSeconds: 10, renewTime: 'now', leaseTransitions: 1 },
    });
  };
  const a = await candidate('a');
  assert.equal(a.lease.leads, false);
  const b = await candidate('b');
  assert.deepEqual([a.lease.leads, b.lease.leads], [false, true]);
  assert.deepEqual(a.log.records, [], 'another that was first is no failure');
});

test('one whose Lease somebody else has taken leads no more from its next look', async () => {
  const { lease, heard } = await candidate('a');
  const held = api.objects.get(PATH) ?? {};
  api.put(PATH, { ...held, spec: { ...spec(), holderIdentity: 'thief', renewTime: 'x' } });
  await pass(times.retryMs);
  assert.equal(lease.leads, false);
  assert.deepEqual(heard, [true, false]);
});

test('why it cannot be held is said once', async () => {
  api.away = true;
  const { log, lease } = await candidate('a');
  await pass(20_000);
  assert.equal(lease.leads, false);
  assert.equal(log.records.filter(({ msg }) => msg === 'the lease cannot be held').length, 1);
});
