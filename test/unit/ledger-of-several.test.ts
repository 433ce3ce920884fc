// The saved ledger of several controls: whoever leads saves it, and nothing that one alone has heard is lost with a change of who leads, nor by a moment in which the API server is away.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { LedgerStore } from '../../src/control/ledger/ledger-store.ts';
import { MeshLedger } from '../../src/control/ledger/mesh-ledger.ts';
import { strictCheck } from '../../src/control/ledger/strict-check.ts';
import { KeptText } from '../../src/kube/kept-text.ts';
import { entry, HOUR, HTTPBIN, meshWith, report, T0 } from '../support/ledger-records.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';
import { FakeKubeApi } from './injector/fake-kube-api.ts';

const POD = 'bar/httpbin-1';
const RUN = (index: number) => `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
const offended = report({ pod: POD, instance: RUN(1), ended: true, observedSince: T0, entries: [entry()] });
const live = report({ pod: POD, instance: RUN(2), observedSince: T0, entries: [] });

let api: FakeKubeApi;
let now: number;

beforeEach(() => {
  api = new FakeKubeApi();
  now = T0;
});

async function control({ leads = false }: { leads?: boolean } = {}) {
  const state = { leads };
  const log = new RecordingLog();
  const ledger = new MeshLedger({ now: () => now, registeredId: () => HTTPBIN });
  const kept = new KeptText({ api, namespace: 'handfast-system', name: 'mesh-ledger' });
  const store = new LedgerStore({ kept, everyMs: 5, isOurs: () => state.leads, ledger, log: log.log, now: () => now });
  const stream = {};
  const stop = new AbortController();
  const started = store.start(stop.signal);
  return {
    state,
    log,
    ledger,
    store,
    started,
    stop,
    say: (of: typeof live) => ledger.take(stream, { node: 'local', report: of }),
    verdict: () =>
      strictCheck(
        { ...meshWith([{ name: 'httpbin-1', service: 'httpbin' }]), instances: ledger.instances, now },
        { namespace: 'bar', minObservedMs: HOUR },
      ).verdict,
  };
}

/** One that read what is kept, and nothing else. */
async function reader() {
  const it = await control();
  await it.started;
  return it;
}

test('what only the leader before has heard is known to the next one, and saved again', async () => {
  const [first, second] = [await control({ leads: true }), await control()];
  await Promise.all([first.started, second.started]);
  first.say(live);
  second.say(live);
  first.say(offended);
  now += 2 * HOUR;
  first.say(live);
  second.say(live);
  assert.deepEqual([first.verdict(), second.verdict()], ['would break', 'safe']);
  await first.store.stop();
  first.state.leads = false;
  second.state.leads = true;
  await eventually(() => second.verdict() === 'would break');
  await second.store.stop();
  assert.equal((await reader()).verdict(), 'would break');
  assert.deepEqual(
    second.log.records.filter(({ level }) => Number(level) >= 50),
    [],
    'a change of who leads is no error',
  );
});

test('what only a follower has heard is saved once it leads', async () => {
  const [first, second] = [await control({ leads: true }), await control()];
  await Promise.all([first.started, second.started]);
  first.say(live);
  second.say(offended);
  await first.store.stop();
  first.state.leads = false;
  second.state.leads = true;
  await second.store.stop();
  const { ledger } = await reader();
  assert.deepEqual(ledger.instances.map(({ instance }) => instance).sort(), [RUN(1), RUN(2)]);
});

test('a follower that is told of a newer one knows it, and what it has heard itself stays', async () => {
  const [first, second] = [await control({ leads: true }), await control()];
  await Promise.all([first.started, second.started]);
  first.say(offended);
  second.say(live);
  await first.store.stop();
  await second.store.readAgain();
  assert.deepEqual(second.ledger.instances.map(({ instance, live: now }) => [instance, now]).sort(), [
    [RUN(1), false],
    [RUN(2), true],
  ]);
});

test('an API server that is away at the start is waited for, and nothing is saved over what is there', async () => {
  const before = await control({ leads: true });
  await before.started;
  before.say(offended);
  await before.store.stop();
  api.away = true;
  const after = await control({ leads: true });
  after.say(live);
  await eventually(() => after.log.records.some(({ msg }) => msg === 'the saved ledger cannot be read yet'));
  api.away = false;
  await after.started;
  await after.store.stop();
  assert.equal((await reader()).ledger.instances.length, 2);
});

test('one that is told to stop while it waits writes nothing', async () => {
  const before = await control({ leads: true });
  await before.started;
  before.say(offended);
  await before.store.stop();
  api.away = true;
  const after = await control({ leads: true });
  after.say(live);
  after.stop.abort();
  await after.started;
  api.away = false;
  await after.store.stop();
  assert.deepEqual(
    (await reader()).ledger.instances.map(({ instance }) => instance),
    [RUN(1)],
  );
});

test('one that cannot be read is set aside by name, and a new one begins', async () => {
  const collection = '/apis/handfast.io/v1alpha1/namespaces/handfast-system/controlstates';
  await new KeptText({ api, namespace: 'handfast-system', name: 'mesh-ledger' }).write('{"version":1}');
  const kept = api.objects.get(`${collection}/mesh-ledger`);
  const it = await control({ leads: true });
  await it.started;
  assert.deepEqual(api.objects.get(`${collection}/mesh-ledger-broken-${T0}`)?.spec, kept?.spec);
  assert.ok(it.log.records.some(({ setAside }) => setAside === `ControlState handfast-system/mesh-ledger-broken-${T0}`));
  it.say(offended);
  await it.store.stop();
  assert.equal((await reader()).ledger.instances.length, 1);
});
