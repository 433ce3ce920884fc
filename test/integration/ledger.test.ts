// From a connection to the verdict about STRICT: real sidecars, a real agent and control, each of which is started again in between.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { ControlPlane } from '../support/control-plane.ts';
import { type MeshedPair, startMeshedPair } from '../support/meshed-pair.ts';
import { collect, meshOf, RecordingLog } from '../support/sidecar-harness.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';

const pod = (name: string, serviceAccount = name) => `
---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: foo, labels: {app: ${name}, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: ${serviceAccount}}
`;

const strictSchema = z.object({
  verdict: z.string(),
  offenders: z.array(
    z.object({ client: z.string(), clientId: z.string(), open: z.number(), connections: z.number(), tripwire: z.boolean() }),
  ),
  limits: z.array(z.object({ kind: z.string(), pod: z.string() })),
});
const ledgerSchema = z.object({
  instances: z.array(
    z.object({
      pod: z.string(),
      live: z.boolean(),
      believed: z.boolean().nullable(),
      entries: z.array(
        z.object({ direction: z.string(), transport: z.string(), outcome: z.string(), peerId: z.string(), open: z.number() }),
      ),
    }),
  ),
});

const ofAgent = z.object({ ledgers: z.array(z.object({ entries: z.array(z.unknown()) })) });

async function strictCheck(plane: ControlPlane, question: object = {}) {
  return strictSchema.parse(
    await plane.ask('control', 'POST', '/strict-check', { namespace: 'foo', workload: 'httpbin', minObservedMs: 0, ...question }),
  );
}

async function ledger(plane: ControlPlane) {
  return ledgerSchema.parse(await plane.ask('control', 'GET', '/ledger')).instances;
}

/** Reports go up once a second. Rejects after 15 s with what was seen last. */
async function eventually<T>(see: () => Promise<T>, holds: (seen: T) => boolean): Promise<T> {
  const until = performance.now() + 15_000;
  for (;;) {
    const seen = await see();
    if (holds(seen)) return seen;
    if (performance.now() > until) throw new Error(`it did not come to that: ${JSON.stringify(seen, null, 1)}`);
    await delay(50);
  }
}

/** The server's registry has sleep at the address that everybody here comes from. */
function knowClients({ server }: MeshedPair): void {
  server.mesh.replace(
    meshOf({
      workloads: [
        { namespace: 'foo', name: 'sleep', addresses: ['127.0.0.1'] },
        { namespace: 'foo', name: 'httpbin', mode: 'PERMISSIVE' },
      ],
    }),
  );
}

it('from-a-connection-to-the-verdict-through-restarts-of-agent-and-control', async () => {
  const records = new RecordingLog();
  await using plane = await ControlPlane.create(records.log);
  await writeFile(join(plane.configDir, 'pods.yaml'), `${pod('sleep')}${pod('httpbin')}`);
  await plane.start();
  const pair = await startMeshedPair(plane);
  let stopped = false;
  try {
    knowClients(pair);
    assert.equal((await pair.ask()).text, 'hello');
    const served = (run: Awaited<ReturnType<typeof ledger>>[number]) => run.pod === 'foo/httpbin' && run.entries.length > 0;
    const [run] = (
      await eventually(
        () => ledger(plane),
        (runs) => runs.some(served),
      )
    ).filter(served);
    assert.deepEqual([run?.live, run?.believed], [true, true]);
    assert.deepEqual(
      run?.entries.map(({ direction, transport, outcome, peerId }) => [direction, transport, outcome, peerId]),
      [['inbound', 'mtls', 'allowed', SLEEP]],
    );

    const ofNode = z
      .object({ ledgers: z.array(z.object({ pod: z.string(), reporter: z.string() })) })
      .parse(await plane.ask('agent', 'GET', '/ledger'));
    assert.deepEqual(ofNode.ledgers.map(({ pod: of, reporter }) => `${of} by ${reporter}`).sort(), [
      'foo/httpbin by spiffe://cluster.local/ns/foo/sa/httpbin',
      `foo/sleep by ${SLEEP}`,
    ]);

    assert.equal((await strictCheck(plane)).verdict, 'safe');
    const early = await strictCheck(plane, { minObservedMs: 3_600_000 });
    assert.deepEqual([early.verdict, early.limits.map(({ kind }) => kind)], ['not enough observed', ['observed too short']]);

    const plaintext = connect(pair.server.sidecar.ports.inbound, '127.0.0.1');
    plaintext.write('hello');
    await once(plaintext, 'data');
    const isOpen = ({ offenders }: Awaited<ReturnType<typeof strictCheck>>) => offenders[0]?.open === 1;
    const broken = await eventually(() => strictCheck(plane), isOpen);
    assert.equal(broken.verdict, 'would break');
    assert.deepEqual(broken.offenders, [{ client: 'foo/sleep', clientId: SLEEP, open: 1, connections: 1, tripwire: true }]);
    await pair.server.records.find(({ msg }) => msg?.startsWith('tripwire: ') === true);

    await plane.stopAgent();
    await eventually(
      () => ledger(plane),
      (runs) => runs.every(({ live }) => !live),
    );
    const blind = await strictCheck(plane);
    assert.deepEqual([blind.verdict, blind.offenders[0]?.open, blind.limits[0]?.kind], ['would break', 0, 'not reporting']);
    await plane.startAgent();
    await eventually(() => strictCheck(plane), isOpen);

    await plane.control?.stop();
    await plane.startControl();
    assert.equal((await strictCheck(plane)).verdict, 'would break');
    const again = await eventually(
      () => strictCheck(plane),
      (check) => isOpen(check) && check.limits.length === 0,
    );
    assert.equal(again.offenders[0]?.connections, 1);

    const ended = collect(plaintext);
    stopped = true;
    await pair[Symbol.asyncDispose]();
    await ended;
    const left = await eventually(
      () => ledger(plane),
      (runs) => runs.length === 2 && runs.every(({ live }) => !live),
    );
    assert.ok(left.every(({ entries }) => entries.length > 0 && entries.every(({ open }) => open === 0)));
    assert.equal((await strictCheck(plane)).verdict, 'would break');
  } finally {
    if (!stopped) await pair[Symbol.asyncDispose]();
  }
});

it('what-a-sidecar-has-seen-while-control-was-away-is-not-lost-when-it-ends-before-control-is-back', async () => {
  const records = new RecordingLog();
  await using plane = await ControlPlane.create(records.log);
  await writeFile(join(plane.configDir, 'pods.yaml'), `${pod('sleep')}${pod('httpbin')}`);
  await plane.start();
  const pair = await startMeshedPair(plane);
  try {
    knowClients(pair);
    await eventually(
      () => ledger(plane),
      (runs) => runs.length === 2,
    );
    await plane.control?.stop();
    assert.equal((await pair.ask()).text, 'hello');
    await eventually(
      async () => ofAgent.parse(await plane.ask('agent', 'GET', '/ledger')).ledgers,
      (ledgers) => ledgers.every(({ entries }) => entries.length > 0),
    );
  } finally {
    await pair[Symbol.asyncDispose]();
  }
  // An agent waits 5 s for a sidecar to come again, and then says once a second that it has ended: to nobody, for now.
  await delay(8_000);
  await plane.startControl();
  const left = await eventually(
    () => ledger(plane),
    (runs) => runs.length === 2 && runs.every(({ entries }) => entries.length > 0),
  );
  assert.ok(left.every(({ live, believed }) => !live && believed === true));
});

it('a-sidecar-that-is-not-the-pods-own-proves-nothing', async () => {
  const records = new RecordingLog();
  await using plane = await ControlPlane.create(records.log);
  // The sidecar that speaks for foo/httpbin has proven to be httpbin; the registry expects another.
  const pods = join(plane.configDir, 'pods.yaml');
  await writeFile(pods, `${pod('sleep')}${pod('httpbin', 'another')}`);
  await plane.start();
  const pair = await startMeshedPair(plane);
  try {
    knowClients(pair);
    assert.equal((await pair.ask()).text, 'hello');
    const refused = await eventually(
      () => strictCheck(plane, { workload: 'pod/httpbin' }),
      ({ limits }) => limits.some(({ kind }) => kind === 'unbelieved'),
    );
    assert.equal(refused.verdict, 'not enough observed');
    await rm(pods);
    await writeFile(join(plane.configDir, 'right.yaml'), `${pod('sleep')}${pod('httpbin')}`);
    const believed = await eventually(
      () => strictCheck(plane, { workload: 'pod/httpbin' }),
      ({ limits }) => limits.length === 0,
    );
    assert.equal(believed.verdict, 'safe');
  } finally {
    await pair[Symbol.asyncDispose]();
  }
});
