// Who breaks under STRICT: each verdict, what it rests on, and what it must not rest on.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EARLIER_RUNS, type LedgerInstance } from '../../src/control/ledger/ledger-instance.ts';
import { type StrictQuestion, strictCheck } from '../../src/control/ledger/strict-check.ts';
import { DAY, entry, HOUR, HTTPBIN, instance, meshWith, mtls, type PodSpec, SLEEP, T0 } from '../support/ledger-records.ts';

const HTTPBIN_1: PodSpec = { name: 'httpbin-1', service: 'httpbin' };
const HTTPBIN_2: PodSpec = { name: 'httpbin-2', service: 'httpbin' };
const RUN_2 = '00000000-0000-4000-8000-000000000002';

function check(of: { pods?: readonly PodSpec[]; instances?: readonly LedgerInstance[] } = {}, question: Partial<StrictQuestion> = {}) {
  const { pods = [HTTPBIN_1], instances = [instance()] } = of;
  return strictCheck({ ...meshWith(pods), instances, now: T0 }, { namespace: 'bar', minObservedMs: HOUR, ...question });
}

const limitsOf = (answer: ReturnType<typeof check>) => answer.limits.map(({ kind, pod, limiting }) => [kind, pod, limiting]);

describe('the verdict', () => {
  test('is safe where everybody came by mTLS, was refused, failed, or called out', () => {
    const entries = [
      mtls({ open: 1 }),
      entry({ outcome: 'refused', code: 'PLAINTEXT_UNDER_STRICT' }),
      entry({ outcome: 'failed', code: 'HANDSHAKE_FAILED', transport: 'unknown' }),
      entry({ outcome: 'failed', code: 'DIAL_FAILED', transport: 'unknown' }),
      mtls({ outcome: 'failed', code: 'DIAL_FAILED' }),
      entry({ direction: 'outbound' }),
    ];
    const answer = check({ instances: [instance({ entries })] });
    assert.deepEqual([answer.verdict, answer.offenders, answer.limits], ['safe', [], []]);
  });

  for (const transport of ['plaintext', 'passthrough-tls']) {
    test(`is that ${transport} would break`, () => {
      const answer = check({ instances: [instance({ entries: [mtls(), entry({ transport, connections: 3, open: 1, tripwire: true })] })] });
      assert.equal(answer.verdict, 'would break');
      assert.deepEqual(answer.offenders, [
        {
          client: 'foo/sleep',
          clientId: SLEEP,
          servers: ['bar/httpbin-1'],
          port: 8080,
          transport,
          connections: 3,
          open: 1,
          firstSeen: T0,
          lastSeen: T0,
          tripwire: true,
        },
      ]);
    });
  }

  for (const code of ['DIAL_FAILED', 'DIAL_TIMEOUT']) {
    test(`is that plaintext would break which was let in, though its application was not there: ${code}`, () => {
      const entries = [entry({ outcome: 'failed', code, connections: 2 })];
      const answer = check({ instances: [instance({ entries })] });
      assert.deepEqual([answer.verdict, answer.offenders[0]?.connections], ['would break', 2]);
    });
  }

  test('names a client that is not registered by its address', () => {
    const entries = [entry({ peerWorkload: '', peerRegisteredId: '' })];
    const [offender] = check({ instances: [instance({ entries })] }).offenders;
    assert.deepEqual([offender?.client, offender?.clientId], ['10.0.0.1', '']);
  });

  test('puts together what one client did at several pods', () => {
    const instances = [
      instance({ entries: [entry({ firstSeen: T0 - 5 })] }),
      instance({ pod: 'bar/httpbin-2', entries: [entry({ connections: 2, open: 1 }), entry({ port: 80 })] }),
    ];
    const { offenders } = check({ pods: [HTTPBIN_1, HTTPBIN_2], instances });
    assert.deepEqual(
      offenders.map(({ servers, port, connections, open, firstSeen }) => [servers, port, connections, open, firstSeen]),
      [
        [['bar/httpbin-1', 'bar/httpbin-2'], 8080, 3, 1, T0 - 5],
        [['bar/httpbin-2'], 80, 1, 0, T0],
      ],
    );
  });

  test('counts who was seen since, or has a connection open', () => {
    const old = instance({ entries: [entry({ firstSeen: T0 - DAY, lastSeen: T0 - DAY })] });
    assert.equal(check({ instances: [old] }).verdict, 'would break');
    assert.equal(check({ instances: [old] }, { sinceMs: HOUR }).verdict, 'safe');
    const still = instance({ entries: old.entries.map((of) => ({ ...of, open: 1 })) });
    assert.equal(check({ instances: [still] }, { sinceMs: HOUR }).verdict, 'would break');
  });

  test('does not leave out who was seen by a clock that is wrong: nobody was seen before we had heard of the run', () => {
    const entries = [entry({ firstSeen: T0 - 9 * DAY, lastSeen: T0 - 9 * DAY })];
    const heard = (observedSince: number) => [instance({ observedSince, entries })];
    assert.equal(check({ instances: heard(T0 - HOUR) }, { sinceMs: HOUR }).verdict, 'would break');
    assert.equal(check({ instances: heard(T0 - HOUR - 1) }, { sinceMs: HOUR }).verdict, 'safe');
  });

  test('leaves out ports that a switch of their own keeps, and names them', () => {
    const instances = [instance({ entries: [entry({ connections: 4 })] })];
    const kept = check({ pods: [{ ...HTTPBIN_1, ports: { 8080: 'PERMISSIVE' } }], instances });
    assert.equal(kept.verdict, 'safe');
    assert.deepEqual(kept.exempt, [
      { port: 8080, mode: 'PERMISSIVE', source: 'the test port 8080', pods: ['bar/httpbin-1'], connections: 4 },
    ]);
    const another = check({ pods: [{ ...HTTPBIN_1, ports: { 80: 'DISABLE' } }], instances });
    assert.deepEqual([another.verdict, another.exempt.length], ['would break', 1]);
  });

  test('is not moved by who came before a port was STRICT', () => {
    const instances = [instance({ entries: [entry()] })];
    assert.equal(check({ pods: [{ ...HTTPBIN_1, mode: 'STRICT' }], instances }).verdict, 'safe');
    assert.equal(check({ pods: [{ ...HTTPBIN_1, ports: { 8080: 'STRICT' } }], instances }).verdict, 'safe');
    assert.equal(check({ pods: [HTTPBIN_1], instances }).verdict, 'would break');
  });

  test('counts who called a pod that is gone, of the workload that took its place', () => {
    const gone = instance({ pod: 'bar/httpbin-0', instance: RUN_2, live: false, entries: [entry()] });
    const answer = check({ instances: [instance(), gone] });
    assert.deepEqual([answer.verdict, answer.offenders[0]?.servers], ['would break', ['bar/httpbin-0 (gone)']]);
    const stranger = { ...gone, reporter: 'spiffe://cluster.local/ns/bar/sa/other' };
    assert.equal(check({ instances: [instance(), stranger] }).verdict, 'safe');
    assert.equal(check({ instances: [instance(), { ...gone, wasBelieved: false }] }).verdict, 'safe');
    const strict = [{ ...HTTPBIN_1, mode: 'STRICT' as const }];
    assert.equal(check({ pods: strict, instances: [instance(), gone] }).verdict, 'safe');
  });
});

describe('whoever took the place of a gone pod', () => {
  const gone = instance({ pod: 'bar/httpbin-0', instance: RUN_2, live: false, entries: [entry()] });
  const both = [instance(), instance({ pod: 'bar/httpbin-2' })];

  test('is each of its workload: one that STRICT would change is enough, wherever it stands', () => {
    const strict: PodSpec = { ...HTTPBIN_1, mode: 'STRICT' };
    for (const pods of [
      [strict, HTTPBIN_2],
      [HTTPBIN_2, strict],
    ])
      assert.equal(check({ pods, instances: [...both, gone] }).verdict, 'would break');
    const all: readonly PodSpec[] = [strict, { ...HTTPBIN_2, mode: 'STRICT' }];
    assert.equal(check({ pods: all, instances: [...both, gone] }).verdict, 'safe');
  });

  test('is looked at by port: one whose port is STRICT already does not hide another', () => {
    const pods: readonly PodSpec[] = [{ ...HTTPBIN_1, ports: { 8080: 'STRICT' } }, HTTPBIN_2];
    assert.equal(check({ pods, instances: [...both, gone] }).verdict, 'would break');
  });

  test('may have its name and another service account', () => {
    const pods: readonly PodSpec[] = [{ ...HTTPBIN_1, serviceAccount: 'web' }];
    const now = instance({ reporter: 'spiffe://cluster.local/ns/bar/sa/web' });
    const before = instance({ instance: RUN_2, live: false });
    const seen = { ...before, entries: [entry()] };
    for (const workload of [undefined, 'pod/httpbin-1']) {
      const answer = check({ pods, instances: [now, seen] }, { workload });
      assert.deepEqual([answer.verdict, answer.offenders[0]?.servers], ['would break', ['bar/httpbin-1 (gone)']]);
      assert.deepEqual(limitsOf(check({ pods, instances: [now, { ...before, dropped: 1 }] }, { workload })), [
        ['dropped', 'bar/httpbin-1 (gone)', true],
      ]);
    }
    assert.equal(check({ pods, instances: [now, before] }).verdict, 'safe');
    assert.equal(check({ pods, instances: [now, { ...seen, wasBelieved: false }] }).verdict, 'safe');
    assert.match(
      check({ pods, instances: [now, { ...before, live: true }] }).limits[0]?.text ?? '',
      /counts as that of a pod that is gone/,
    );
  });
});

describe('a pod that has ended but is an object still', () => {
  const seen = instance({ pod: 'bar/httpbin-2', instance: RUN_2, live: false, entries: [entry()] });
  const answer = (ended: boolean) => {
    const { mesh, pods } = meshWith([HTTPBIN_1, HTTPBIN_2]);
    const there = pods.filter(({ name }) => !ended || name !== 'httpbin-2');
    return strictCheck({ mesh, pods: there, instances: [instance(), seen], now: T0 }, { namespace: 'bar', minObservedMs: HOUR });
  };

  test('hides nobody whom it has seen: it is gone', () => {
    const { verdict, pods, offenders } = answer(true);
    assert.deepEqual([verdict, pods, offenders[0]?.servers], ['would break', ['bar/httpbin-1'], ['bar/httpbin-2 (gone)']]);
  });

  test('is told from one that is there', () => {
    assert.deepEqual(answer(false).offenders[0]?.servers, ['bar/httpbin-2']);
  });
});

describe('what limits it', () => {
  test('a pod without a sidecar that reports', () => {
    const answer = check({ pods: [HTTPBIN_1, HTTPBIN_2] });
    assert.equal(answer.verdict, 'not enough observed');
    assert.deepEqual(limitsOf(answer), [
      ['not reporting', 'bar/httpbin-2', true],
      ['observed too short', 'bar/httpbin-2', true],
    ]);
    assert.deepEqual(limitsOf(check({ instances: [instance({ live: false })] })), [['not reporting', 'bar/httpbin-1', true]]);
  });

  test('a pod that was observed for too short a time; all its runs count', () => {
    const young = instance({ observedSince: T0 - HOUR + 1 });
    assert.deepEqual(limitsOf(check({ instances: [young] })), [['observed too short', 'bar/httpbin-1', true]]);
    assert.equal(check({ instances: [young] }, { minObservedMs: HOUR - 1 }).verdict, 'safe');
    const earlier = instance({ instance: RUN_2, live: false, observedSince: T0 - 2 * DAY, heard: T0 - DAY });
    assert.equal(check({ instances: [young, earlier] }).verdict, 'safe');
  });

  test('a ledger that had no room for everybody; one that has only forgotten others is whole', () => {
    assert.deepEqual(limitsOf(check({ instances: [instance({ dropped: 1 })] })), [['dropped', 'bar/httpbin-1', true]]);
    assert.equal(check({ instances: [instance({ forgotten: 1_000 })] }).verdict, 'safe');
  });

  test('a ledger of a pod that is gone, too, as long as it was heard since', () => {
    const gone = instance({ pod: 'bar/httpbin-0', instance: RUN_2, live: false, dropped: 1, heard: T0 - DAY });
    assert.deepEqual(limitsOf(check({ instances: [instance(), gone] })), [['dropped', 'bar/httpbin-0 (gone)', true]]);
    assert.equal(check({ instances: [instance(), gone] }, { sinceMs: HOUR }).verdict, 'safe');
    assert.equal(check({ instances: [instance(), { ...gone, dropped: 0 }] }).verdict, 'safe');
  });

  test('what is left of runs that are not kept any more was not observed for any time', () => {
    const left = instance({ instance: EARLIER_RUNS, live: false });
    const young = instance({ observedSince: T0 - 1 });
    assert.deepEqual(limitsOf(check({ instances: [left, young] })), [['observed too short', 'bar/httpbin-1', true]]);
    assert.equal(check({ instances: [left, instance()] }).verdict, 'safe');
    assert.equal(check({ instances: [{ ...left, entries: [entry()] }, instance()] }).verdict, 'would break');
  });

  test('a stranger who reports in its name: its word is worth nothing, either way', () => {
    const stranger = instance({ reporter: SLEEP, instance: RUN_2, wasBelieved: false, entries: [entry()] });
    const answer = check({ instances: [instance(), stranger] });
    assert.deepEqual([answer.verdict, answer.offenders], ['not enough observed', []]);
    assert.deepEqual(limitsOf(answer), [['unbelieved', 'bar/httpbin-1', true]]);
    assert.ok(answer.limits[0]?.text.includes(SLEEP) && answer.limits[0].text.includes(HTTPBIN));
    assert.equal(check({ instances: [instance(), { ...stranger, live: false }] }).verdict, 'safe');
    assert.equal(check({ instances: [stranger] }).verdict, 'not enough observed');
  });

  test('a pod without a sidecar is named, and cannot break; nothing but such pods is no verdict', () => {
    const plain: PodSpec = { name: 'plain', meshed: false };
    const beside = check({ pods: [HTTPBIN_1, plain] });
    assert.deepEqual([beside.verdict, limitsOf(beside)], ['safe', [['unmeshed', 'bar/plain', false]]]);
    assert.equal(check({ pods: [plain] }).verdict, 'not enough observed');
  });

  test('an offender outranks all of it', () => {
    const answer = check({ pods: [HTTPBIN_1, HTTPBIN_2], instances: [instance({ entries: [entry()] })] });
    assert.deepEqual([answer.verdict, answer.limits.length], ['would break', 2]);
  });
});

describe('a workload', () => {
  const pods: readonly PodSpec[] = [
    HTTPBIN_1,
    HTTPBIN_2,
    { name: 'other', serviceAccount: 'web', service: 'web' },
    { name: 'web', serviceAccount: 'httpbin' },
    { name: 'elsewhere', namespace: 'foo', service: 'httpbin' },
  ];
  const meant = (workload?: string) => {
    const { takenAs, pods: names } = check({ pods }, workload === undefined ? {} : { workload });
    return [takenAs, ...names.map((name) => name.replace('bar/', ''))];
  };

  test('is a pod, a service or a service account of the namespace, and it is said which', () => {
    assert.deepEqual(meant(), ['namespace', 'httpbin-1', 'httpbin-2', 'other', 'web']);
    assert.deepEqual(meant('httpbin-1'), ['pod', 'httpbin-1']);
    assert.deepEqual(meant('service/httpbin'), ['service', 'httpbin-1', 'httpbin-2']);
    assert.deepEqual(meant('serviceaccount/httpbin'), ['service account', 'httpbin-1', 'httpbin-2', 'web']);
    assert.deepEqual(meant('pod/web'), ['pod', 'web']);
  });

  test('is asked for again where it may mean different pods, or nothing', () => {
    const refused: Readonly<Record<string, RegExp>> = {
      httpbin: /service\/httpbin \(2 pods\) or serviceaccount\/httpbin \(3 pods\)/,
      web: /service\/web .* or serviceaccount\/web .* or pod\/web|service\/web .* or .*pod\/web/,
      nobody: /no pod, service with pods, or service account of namespace bar/,
      elsewhere: /no pod/,
      'node/x': /accepted are NAME, pod\/NAME/,
    };
    for (const [workload, message] of Object.entries(refused)) {
      assert.throws(() => meant(workload), { code: 'CONFIG_INVALID', message });
    }
    assert.throws(() => check({}, { namespace: 'empty' }), { code: 'CONFIG_INVALID' });
  });

  test('that means the same pods either way is no question', () => {
    assert.equal(check({ pods: [HTTPBIN_1, HTTPBIN_2] }, { workload: 'httpbin' }).takenAs, 'service');
  });
});
