// The mesh's ledger: whose word counts, how long and how much is kept, and what a restart of control leaves of it.

import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileState } from '../../src/control/kept-state.ts';
import { EARLIER_RUNS } from '../../src/control/ledger/ledger-instance.ts';
import { LedgerStore } from '../../src/control/ledger/ledger-store.ts';
import { MeshLedger, type MeshLedgerOptions } from '../../src/control/ledger/mesh-ledger.ts';
import { strictCheck } from '../../src/control/ledger/strict-check.ts';
import { KeptText } from '../../src/kube/kept-text.ts';
import { DAY, entry, HOUR, HTTPBIN, meshWith, mtls, report, SLEEP, T0 } from '../support/ledger-records.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { FakeKubeApi } from './injector/fake-kube-api.ts';

const POD = 'bar/httpbin-1';
const RUN = (index: number) => `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`;
const refused = (change: Parameters<typeof entry>[0] = {}) => entry({ outcome: 'refused', code: 'PLAINTEXT_UNDER_STRICT', ...change });

function open(options: Partial<MeshLedgerOptions> = {}) {
  const clock = { now: T0 };
  const registered = new Map([[POD, HTTPBIN]]);
  const ledger = new MeshLedger({ now: () => clock.now, registeredId: (pod) => registered.get(pod), ...options });
  const stream = {};
  const say = (change: Parameters<typeof report>[0] = {}, by: object = stream) =>
    ledger.take(by, { node: 'local', report: report(change) });
  return { ledger, clock, registered, stream, say };
}

/** Whether the workload of POD may become STRICT, by what is in the ledger. */
function verdict(ledger: MeshLedger, now: number, sinceMs?: number) {
  const mesh = meshWith([{ name: 'httpbin-1', service: 'httpbin' }]);
  return strictCheck({ ...mesh, instances: ledger.instances, now }, { namespace: 'bar', minObservedMs: HOUR, sinceMs }).verdict;
}

describe('runs', () => {
  test('of one pod are kept apart, with what each has said last', () => {
    const { ledger, say } = open();
    say({ entries: [entry(), mtls()] });
    say({ instance: RUN(2), entries: [entry({ connections: 4 })] });
    say({ entries: [entry({ connections: 2 })] });
    assert.deepEqual(
      ledger.instances.map(({ instance, entries }) => [instance, entries.map(({ connections }) => connections)]),
      [
        [RUN(2), [4]],
        [RUN(1), [2, 1]],
      ],
    );
  });

  test('are believed of whoever is registered for the pod; another is kept apart, and overwrites nothing', () => {
    const { ledger, say } = open();
    say({ entries: [entry()] });
    say({ reporter: SLEEP, entries: [entry({ connections: 9 })] });
    say({ pod: 'bar/unknown' });
    assert.deepEqual(
      ledger.instances.map((run) => [run.pod, run.reporter, ledger.isBelieved(run), run.entries[0]?.connections]),
      [
        [POD, HTTPBIN, true, 1],
        [POD, SLEEP, false, 9],
        ['bar/unknown', HTTPBIN, undefined, undefined],
      ],
    );
  });

  test('are live until their sidecar or its agent is gone; then nothing is open, and it was seen until then', () => {
    const { ledger, clock, stream, say } = open();
    const another = {};
    say({ entries: [entry({ open: 1 })] });
    say({ instance: RUN(2), entries: [entry({ open: 1 })] }, another);
    say({ instance: RUN(3), entries: [entry({ open: 1 })] });
    clock.now += HOUR;
    say({ instance: RUN(3), ended: true });
    ledger.end(another);
    const states = () => ledger.instances.map(({ instance, live, entries }) => [instance, live, entries[0]?.open, entries[0]?.lastSeen]);
    assert.deepEqual(states(), [
      [RUN(1), true, 1, T0],
      [RUN(2), false, 0, T0 + HOUR],
      [RUN(3), false, 0, T0 + HOUR],
    ]);
    ledger.end(stream);
    assert.equal(ledger.instances.filter(({ live }) => live).length, 0);
  });

  test('that an agent speaks of again are live again, and only what it says is open is', () => {
    const { ledger, say } = open();
    say({ entries: [entry({ open: 1 }), mtls({ open: 2 })] });
    say({ entries: [mtls({ open: 2 })] }, {});
    assert.deepEqual(
      ledger.instances.map(({ live, entries }) => [live, entries.map(({ open: now }) => now)]),
      [[true, [0, 2]]],
    );
  });
});

describe('what is kept', () => {
  test('of a run that is gone lasts a week from when it was seen; of one that lives, on', () => {
    const { ledger, clock, say } = open();
    say({ entries: [entry()] });
    say({ instance: RUN(2), entries: [entry()] });
    clock.now = T0 + DAY;
    say({ entries: [mtls({ lastSeen: T0 + DAY })], ended: true });
    clock.now = T0 + 7 * DAY;
    const kept = () => ledger.instances.map(({ instance, entries }) => [instance, entries.length]);
    assert.deepEqual(kept(), [
      [RUN(2), 1],
      [RUN(1), 2],
    ]);
    clock.now += 1;
    assert.deepEqual(kept(), [
      [RUN(2), 1],
      [RUN(1), 1],
    ]);
    clock.now = T0 + 8 * DAY + 1;
    assert.deepEqual(kept(), [[RUN(2), 1]]);
  });

  test('is bounded: refusals go first, then mTLS; who finds no room is counted where he was seen', () => {
    const { ledger, say } = open({ bounds: { entries: 3 } });
    say({ entries: [refused(), mtls(), entry()] });
    const kinds = () => ledger.instances.flatMap(({ entries }) => entries.map(({ transport, outcome }) => `${transport} ${outcome}`));
    say({ entries: [entry({ port: 1 })] });
    assert.deepEqual(kinds(), ['mtls allowed', 'plaintext allowed', 'plaintext allowed']);
    say({ entries: [entry({ port: 2 })] });
    assert.deepEqual(kinds(), ['plaintext allowed', 'plaintext allowed', 'plaintext allowed']);
    say({ instance: RUN(2), entries: [entry({ port: 3 }), refused({ port: 4 })] });
    assert.deepEqual(
      ledger.instances.map(({ dropped, forgotten }) => [dropped, forgotten]),
      [
        [0, 2],
        [1, 1],
      ],
    );
  });

  test('of a stranger makes room for everybody else', () => {
    const { ledger, say } = open({ bounds: { entries: 2 } });
    say({ reporter: SLEEP, entries: [entry(), entry({ port: 1 })] });
    say({ entries: [refused(), entry()] });
    assert.deepEqual(
      ledger.instances.map(({ reporter, entries }) => [reporter, entries.length]),
      [
        [SLEEP, 0],
        [HTTPBIN, 2],
      ],
    );
  });

  test('is not crowded out by runs that come and go', () => {
    const { ledger, say } = open({ bounds: { runsOfPod: 3, runs: 5 } });
    say({ entries: [entry()] });
    for (let run = 2; run < 50; run++) say({ instance: RUN(run), ended: true });
    say({ reporter: SLEEP, instance: RUN(99), ended: true });
    assert.deepEqual(
      ledger.instances.map(({ instance }) => instance),
      [RUN(1), RUN(47), RUN(48), RUN(49), RUN(99)],
    );
    say({ pod: 'bar/new' });
    assert.deepEqual(
      ledger.instances.map(({ instance, pod }) => (pod === POD ? instance : pod)),
      [RUN(1), RUN(47), RUN(48), RUN(49), 'bar/new'],
    );
  });
});

describe('evidence', () => {
  test('is not lost with runs that crash, of a pod or of all; a run without any leaves nothing behind', () => {
    for (const bounds of [{ runsOfPod: 20 }, { runs: 5 }]) {
      const { ledger, clock, say } = open({ bounds });
      say({ instance: RUN(50) });
      say({ entries: [entry({ connections: 7 })], ended: true });
      say({ instance: RUN(2), entries: [entry({ connections: 2, port: 1 }), entry()], ended: true });
      clock.now += 2 * HOUR;
      for (let run = 100; run < 130; run++) say({ instance: RUN(run), ended: true });
      say({ instance: RUN(50) });
      const left = ledger.instances.filter(({ instance }) => instance === EARLIER_RUNS);
      assert.deepEqual(
        left.map(({ pod, entries }) => [pod, entries.map(({ port, connections }) => [port, connections])]),
        [
          [
            POD,
            [
              [8080, 8],
              [1, 2],
            ],
          ],
        ],
      );
      assert.equal(verdict(ledger, clock.now), 'would break');
    }
    const { ledger, clock, say } = open();
    say({ instance: RUN(50) });
    clock.now += 2 * HOUR;
    for (let run = 100; run < 130; run++) say({ instance: RUN(run), entries: [mtls()], ended: true });
    assert.equal(ledger.instances.filter(({ instance }) => instance === EARLIER_RUNS).length, 0);
    assert.equal(verdict(ledger, clock.now), 'safe');
  });

  test('is TLS that was passed through, too; and is believed when its run is not kept only if that was', () => {
    for (const wasBelieved of [true, false]) {
      const { ledger, clock, registered, say } = open({ bounds: { runsOfPod: 1 } });
      if (!wasBelieved) registered.delete(POD);
      say({ entries: [entry({ transport: 'passthrough-tls' })], ended: true });
      say({ instance: RUN(2), ended: true });
      say({ instance: RUN(3), ended: true });
      registered.set(POD, HTTPBIN);
      const left = ledger.instances.find(({ instance }) => instance === EARLIER_RUNS);
      assert.deepEqual(
        [left?.pod, left?.wasBelieved, left?.entries.map(({ transport }) => transport)],
        [POD, wasBelieved, ['passthrough-tls']],
      );
      const mesh = meshWith([{ name: 'httpbin-2' }]);
      const answer = strictCheck({ ...mesh, instances: ledger.instances, now: clock.now }, { namespace: 'bar', minObservedMs: HOUR });
      assert.equal(answer.verdict, wasBelieved ? 'would break' : 'not enough observed');
    }
  });

  test('of a pod that has another service account now stays its own when its run is not kept', () => {
    const { ledger, registered, say } = open({ bounds: { runs: 2 } });
    say({ entries: [entry()], ended: true });
    registered.set(POD, 'spiffe://cluster.local/ns/bar/sa/web');
    for (let run = 2; run < 5; run++) say({ reporter: 'spiffe://cluster.local/ns/bar/sa/web', instance: RUN(run), ended: true });
    const left = ledger.instances.find(({ instance }) => instance === EARLIER_RUNS);
    assert.deepEqual([left?.pod, left?.reporter, left?.wasBelieved, left?.entries.length], [POD, HTTPBIN, true, 1]);
  });

  test('that found no room is not taken back by a sidecar that says less', () => {
    const { ledger, say } = open();
    say({ dropped: 5, forgotten: 7 });
    say({ dropped: 3, forgotten: 2 });
    assert.deepEqual(
      ledger.instances.map(({ dropped, forgotten }) => [dropped, forgotten]),
      [[5, 7]],
    );
  });

  test('that found no room anywhere is missing from what is left of a run, too', () => {
    const { ledger, clock, say } = open();
    say({ instance: RUN(50) });
    say({ dropped: 3, ended: true });
    clock.now += 2 * HOUR;
    for (let run = 100; run < 130; run++) say({ instance: RUN(run), ended: true });
    assert.equal(verdict(ledger, clock.now), 'not enough observed');
  });

  test('of a pod that is gone is one with that of all gone pods of its workload when its run is not kept, and counts', () => {
    const { ledger, clock, registered, say } = open({ bounds: { runs: 3 } });
    for (const pod of ['bar/old-1', 'bar/old-2']) {
      registered.set(pod, HTTPBIN);
      say({ pod, entries: [entry()], ended: true });
      registered.delete(pod);
    }
    say({ instance: RUN(50) });
    clock.now += 2 * HOUR;
    for (let run = 100; run < 105; run++) say({ instance: RUN(run), ended: true });
    const left = ledger.instances.filter(({ instance }) => instance === EARLIER_RUNS);
    assert.deepEqual(
      left.map(({ pod, entries }) => [pod, entries[0]?.connections]),
      [['bar/(earlier pods)', 2]],
    );
    assert.equal(verdict(ledger, clock.now), 'would break');
  });

  test('is not pushed out by runs or entries of pods that nobody has registered', () => {
    const evil = 'spiffe://cluster.local/ns/evil/sa/evil';
    const { ledger, clock, registered, say } = open({ bounds: { runs: 6, suspectRuns: 4, entries: 3 } });
    registered.set('bar/httpbin-0', HTTPBIN);
    say({ pod: 'bar/httpbin-0', entries: [entry(), refused()], ended: true });
    registered.delete('bar/httpbin-0');
    say({});
    clock.now += 2 * HOUR;
    for (let run = 0; run < 20; run++) {
      say({ pod: `evil/x-${run}`, reporter: evil, instance: RUN(run), entries: [entry(), mtls()], ended: true }, {});
    }
    const [gone] = ledger.instances;
    assert.deepEqual([gone?.pod, gone?.wasBelieved, gone?.entries.length], ['bar/httpbin-0', true, 2]);
    assert.equal(ledger.instances.filter(({ reporter }) => reporter === evil).length, 4);
    assert.equal(verdict(ledger, clock.now), 'would break');
  });

  test('counts of a pod that was registered while it was heard, and of no other', () => {
    const { ledger, registered, say } = open();
    const states = () => ledger.instances.map(({ pod, wasBelieved }) => [pod, wasBelieved]);
    for (const pod of ['bar/late', 'bar/never', 'bar/too-late']) say({ pod, entries: [entry()] });
    say({ pod: 'bar/too-late', ended: true });
    registered.set('bar/late', HTTPBIN).set('bar/too-late', HTTPBIN).set('bar/never', SLEEP);
    assert.deepEqual(states(), [
      ['bar/late', true],
      ['bar/never', false],
      ['bar/too-late', false],
    ]);
    registered.clear();
    assert.deepEqual(
      states().map(([, wasBelieved]) => wasBelieved),
      [true, false, false],
    );
  });
});

describe('a clock that is wrong', () => {
  test('has not observed for longer than we have heard of the run', () => {
    const { ledger, clock, say } = open();
    say({ observedSince: T0 - 2_000 * DAY });
    clock.now += 1_000;
    assert.equal(verdict(ledger, clock.now), 'not enough observed');
    clock.now += HOUR;
    say({ observedSince: T0 - 2_000 * DAY });
    assert.equal(verdict(ledger, clock.now), 'safe');
  });

  test('dates nobody into the future, and nobody who has just come into the past', () => {
    const { ledger, clock, say } = open();
    const seen = () => ledger.instances.flatMap(({ entries }) => entries.map(({ lastSeen }) => lastSeen));
    say({ entries: [entry({ lastSeen: T0 + HOUR })] });
    assert.deepEqual(seen(), [T0]);
    clock.now += 2 * DAY;
    say({});
    clock.now += 1_000;
    say({ entries: [entry({ connections: 2, firstSeen: T0 - DAY, lastSeen: T0 - DAY + 5 })] });
    assert.deepEqual(seen(), [T0 + 2 * DAY - 60_000]);
    assert.equal(verdict(ledger, clock.now, HOUR), 'would break');
    clock.now += 2 * HOUR;
    say({ entries: [entry({ connections: 2, firstSeen: T0 - DAY, lastSeen: T0 - DAY + 5 })] }, {});
    assert.equal(verdict(ledger, clock.now, HOUR), 'safe');
  });

  test('loses no evidence by being years behind', () => {
    const { ledger, clock, say } = open();
    say({ entries: [entry({ firstSeen: T0 - 900 * DAY, lastSeen: T0 - 900 * DAY })], ended: true });
    clock.now += 6 * DAY;
    assert.equal(ledger.instances[0]?.entries.length, 1);
    clock.now += 2 * DAY;
    assert.deepEqual(ledger.instances, []);
  });
});

describe('totals', () => {
  const pods = new Set([POD]);
  const said = (connections: number, failures = 0) => ({ observedSince: T0, inboundTotals: { connections, failures } });

  test('are the last word of each run, gone ones too, by their own sidecars alone, for each direction', () => {
    const { ledger, say } = open();
    say(said(5, 1));
    say({ ...said(7, 2), outboundTotals: { connections: 100, failures: 3 }, ended: true });
    say({ instance: RUN(2), ...said(4, 4) });
    say({ reporter: SLEEP, ...said(1_000) });
    assert.deepEqual(ledger.totals(pods, 'inbound'), { connections: 11, failures: 6 });
    assert.deepEqual(ledger.totals(pods, 'outbound'), { connections: 100, failures: 3 });
    assert.deepEqual(ledger.totals(pods), { connections: 111, failures: 9 });
    assert.deepEqual(ledger.totals(new Set(['bar/nobody'])), { connections: 0, failures: 0 });
  });

  test('of a pod that is registered no more are those of who was believed', () => {
    const { ledger, registered, say } = open();
    say(said(5));
    say({ reporter: SLEEP, ...said(1_000) });
    say({ pod: 'bar/unknown', ...said(1_000) });
    registered.clear();
    assert.equal(ledger.totals(new Set([POD, 'bar/unknown'])).connections, 5);
  });

  test('do not depend on which entries or runs are kept', () => {
    const { ledger, clock, say } = open({ bounds: { entries: 1, runsOfPod: 1, runs: 2 } });
    for (let run = 1; run <= 400; run++) say({ instance: RUN(run), ...said(10, 1), entries: [mtls(), refused()], ended: true });
    assert.deepEqual(ledger.totals(pods), { connections: 4_000, failures: 400 });
    clock.now += 8 * DAY;
    assert.deepEqual(ledger.instances, []);
    say({ instance: RUN(400), ...said(11, 1) });
    assert.deepEqual(ledger.totals(pods), { connections: 4_001, failures: 400 });
  });

  test('never shrink, and count no word twice', () => {
    const { ledger, say } = open();
    for (const stream of [{}, {}]) say(said(5, 1), stream);
    say(said(3));
    say({});
    assert.deepEqual(ledger.totals(pods), { connections: 5, failures: 1 });
  });

  test('of a run that began clearly before it was heard of begin where it is heard of, and count nothing of before', () => {
    for (const [ageMs, connections, failures] of [
      [5_000, 1_002, 501],
      [5_001, 2, 1],
    ] as const) {
      const { ledger, say } = open();
      say({ observedSince: T0 - ageMs });
      say({ ...said(1_000, 500), observedSince: T0 - ageMs });
      say({ ...said(1_002, 501), observedSince: T0 - ageMs });
      assert.deepEqual(ledger.totals(pods), { connections, failures });
      const again = open();
      again.ledger.merge(ledger.saved);
      again.clock.now += HOUR;
      again.say({ ...said(1_003, 501), observedSince: T0 - ageMs });
      assert.deepEqual(again.ledger.totals(pods), { connections: connections + 1, failures });
      for (let run = 2; run < 300; run++) again.say({ instance: RUN(run), ...said(1), observedSince: T0 + HOUR, ended: true });
      assert.deepEqual(again.ledger.totals(pods), { connections: connections + 299, failures });
    }
  });

  test('of pods that are long gone, and of strangers, are not kept for ever', () => {
    const { ledger, clock, registered, say } = open({ bounds: { suspectRuns: 0 } });
    say({ ...said(5), ended: true });
    registered.delete(POD);
    say({ pod: 'bar/made-up', ...said(5), ended: true });
    say({ pod: 'bar/another' });
    assert.deepEqual(
      ledger.saved.totals.map(({ pod }) => pod),
      [POD, 'bar/another'],
    );
    clock.now += 8 * DAY;
    say({ pod: 'bar/another' });
    assert.deepEqual(
      ledger.saved.totals.map(({ pod }) => pod),
      ['bar/another'],
    );
  });
});

describe('on disk', () => {
  async function withStore(
    act: (dir: string, begin: () => Promise<{ ledger: MeshLedger; store: LedgerStore; log: RecordingLog }>) => Promise<void>,
  ) {
    const dir = await mkdtemp(join(tmpdir(), 'hf-ledger-'));
    const begin = async () => {
      const { ledger } = open();
      const log = new RecordingLog();
      const store = new LedgerStore({
        kept: fileState(join(dir, 'control/mesh-ledger.json')),
        everyMs: 10_000,
        isOurs: () => true,
        ledger,
        log: log.log,
        now: () => T0,
      });
      await store.start(new AbortController().signal);
      return { ledger, store, log };
    };
    await act(dir, begin).finally(() => rm(dir, { recursive: true }));
  }

  test('it outlives control, with its totals; nothing is live or open until an agent says so', () =>
    withStore(async (_, begin) => {
      const first = await begin();
      first.ledger.take({}, { node: 'n1', report: report({ dropped: 2, entries: [entry({ open: 1, connections: 3 }), refused()] }) });
      const totals = { observedSince: T0, inboundTotals: { connections: 9, failures: 2 } };
      first.ledger.take({}, { node: 'n1', report: report({ ...totals, entries: [entry({ connections: 1 })] }) });
      first.ledger.take({}, { node: 'n1', report: report({ pod: 'bar/made-up' }) });
      await first.store.stop();
      const second = await begin();
      const [was, madeUp] = first.ledger.instances;
      assert.deepEqual([was?.wasBelieved, was?.observedSince, madeUp?.wasBelieved], [true, T0, false]);
      assert.deepEqual(second.ledger.instances, [
        { ...was, live: false },
        { ...madeUp, live: false },
      ]);
      second.ledger.take({}, { node: 'n1', report: report({ ...totals, observedSince: T0 - DAY }) });
      assert.deepEqual(second.ledger.totals(new Set([POD])), { connections: 9, failures: 2 });
      assert.equal(second.ledger.instances.find(({ pod }) => pod === POD)?.observedSince, T0);
      await second.store.stop();
      assert.deepEqual(second.log.records, []);
    }));

  test('a file that is broken, or readable by others, is set aside and said; control begins anew', () =>
    withStore(async (dir, begin) => {
      const first = await begin();
      first.ledger.take({}, { node: 'n1', report: report({ entries: [entry()] }) });
      await first.store.stop();
      const file = join(dir, 'control/mesh-ledger.json');
      const good = await readFile(file, 'utf8');
      await writeFile(file, good.slice(0, -10));
      const second = await begin();
      assert.deepEqual(second.ledger.instances, []);
      assert.match(JSON.stringify(second.log.records), /the saved ledger cannot be used/);
      await second.store.stop();
      assert.deepEqual(await readdir(join(dir, 'control')), [`mesh-ledger.json.broken-${T0}`]);
      await writeFile(file, good);
      await chmod(file, 0o644);
      assert.deepEqual((await begin()).ledger.instances, []);
      await writeFile(file, good);
      await chmod(file, 0o600);
      assert.equal((await begin()).ledger.instances.length, 1);
    }));
});

describe('in the API server', () => {
  test('one of several controls saves it, and the next one what it has heard itself, over what was there', async () => {
    const api = new FakeKubeApi();
    const begin = async () => {
      const state = { leads: false };
      const { ledger } = open();
      const log = new RecordingLog();
      const kept = new KeptText({ api, namespace: 'handfast-system', name: 'mesh-ledger' });
      const store = new LedgerStore({ kept, everyMs: 60_000, isOurs: () => state.leads, ledger, log: log.log, now: () => T0 });
      await store.start(new AbortController().signal);
      return { state, ledger, store, log };
    };
    const [first, second] = [await begin(), await begin()];
    // Agents tell both.
    for (const { ledger } of [first, second]) ledger.take({}, { node: 'n1', report: report({ entries: [entry()] }) });
    await second.store.stop();
    assert.equal(api.objects.size, 0, 'who does not lead saves nothing');
    first.state.leads = true;
    await first.store.stop();
    second.ledger.take({}, { node: 'n1', report: report({ instance: RUN(2), entries: [refused()] }) });
    second.state.leads = true;
    await second.store.stop();
    assert.deepEqual(second.log.records, []);
    const third = await begin();
    assert.equal(third.ledger.instances.length, 2);
    await third.store.stop();
  });
});
