// Two controls on a real API server: each serves, each knows the mesh's ledger, one leads; the leader is killed in the middle of a rollout, and nobody notices.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { askOperator } from '../src/wire/operator-client.ts';
import { ask, until } from './support/asking.ts';
import { KubeMesh } from './support/kube-mesh.ts';
import type { PlayedPod } from './support/played-kubelet.ts';

type Which = 'control' | 'secondControl';
const BOTH = ['control', 'secondControl'] as const;
const HTTPBIN = JSON.stringify([process.execPath, fileURLToPath(new URL('../demo/httpbin.ts', import.meta.url)), '8000']);
const pod = (name: string, namespace: string, command: string) => `
{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${namespace}, labels: {app: httpbin}},
 spec: {containers: [{name: app, image: "app:1", command: ${command}, ports: [{containerPort: 8000}]}]}}`;
const LEASE = ['get', 'lease', 'handfast-control', '-n', 'handfast-system', '-o', 'jsonpath={.spec.holderIdentity}'];

let mesh: KubeMesh;
let httpbin: PlayedPod;
let twin: PlayedPod;
let legacy: PlayedPod;

before(async () => {
  mesh = await KubeMesh.start({ controls: 2 });
  httpbin = await mesh.run(pod('httpbin', 'bar', HTTPBIN));
  twin = await mesh.run(pod('twin', 'bar', HTTPBIN));
  legacy = await mesh.run(pod('legacy', 'legacy', '["sleep", "3600"]'));
});

after(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

const call = (to: PlayedPod) => ask(legacy, to.netns.ipv4);

const holder = async () => (await mesh.cluster.kubectl(LEASE)).stdout;

/** Whoever says that it leads, of those that run. */
async function leader(): Promise<Which> {
  const leading: Which[] = [];
  for (const which of BOTH) if (mesh.roles[which] !== undefined && (await leads(which))) leading.push(which);
  const [only, ...others] = leading;
  assert.ok(only !== undefined && others.length === 0, `${leading.length} lead`);
  return only;
}

async function leads(which: Which): Promise<boolean> {
  const { leads: is } = Object(await askOperator(mesh.operatorSocket(which), { method: 'GET', path: '/replica' }));
  return is === true;
}

async function callersThatBreak(which: Which): Promise<string> {
  const body = { namespace: 'bar', minObservedMs: 0 };
  return JSON.stringify(await askOperator(mesh.operatorSocket(which), { method: 'POST', path: '/strict-check', body }));
}

async function rollouts(which: Which): Promise<readonly { phase: string; step: number; pods: readonly string[] }[]> {
  return Object(await askOperator(mesh.operatorSocket(which), { method: 'GET', path: '/rollouts' })).rollouts;
}

async function kill(which: Which): Promise<void> {
  const { child } = mesh.roles[which] ?? {};
  assert.ok(child);
  const closed = once(child, 'close');
  child.kill('SIGKILL');
  await closed;
  delete mesh.roles[which];
}

const strict = (namespace: string) =>
  `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: ${namespace}}, spec: {mtls: {mode: STRICT}}}`;

test('one of them leads, and each can say who would break', async () => {
  await until('a leader', async () => (await holder()) !== '');
  await leader();
  await until('plaintext', async () => (await call(httpbin)) === 200);
  for (const which of BOTH) await until(`the ledger of ${which}`, async () => (await callersThatBreak(which)).includes('legacy/legacy'));
});

test('the leader killed in the middle of a rollout: what is said next bites at once, before another leads; then the rollout goes on where it was', async (t) => {
  await mesh.cluster.apply(`
apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: canary, namespace: bar}
spec:
  object:
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: strict}
    spec: {mtls: {mode: STRICT}}
  rollout: {steps: [{pods: 1}, {percent: 100}], intervalSeconds: 25}
`);
  const closed = async () => [(await call(httpbin)) === 0, (await call(twin)) === 0];
  await until('one pod to be closed', async () => (await closed()).includes(true));
  const first = await closed();
  assert.equal(first.filter(Boolean).length, 1);
  const dead = await leader();
  const survivor = BOTH.find((which) => which !== dead) ?? 'control';
  await until('the survivor to know', async () => (await rollouts(survivor))[0]?.pods.length === 1);
  const was = await holder();

  await kill(dead);
  await mesh.cluster.apply(strict('bar'));
  const bitten = await until('STRICT', async () => (await closed()).every(Boolean));
  assert.equal(await holder(), was, 'nobody else led yet');
  t.diagnostic(`STRICT, said after the leader was killed, bites ${bitten} ms after kubectl`);
  await mesh.cluster.kubectl(['delete', 'peerauthentication', 'default', '-n', 'bar']);
  await until('it to be taken back', async () => (await closed()).filter(Boolean).length === 1);
  assert.deepEqual(await closed(), first, 'the same pod, and no other');

  const taken = await until('another leader', async () => (await holder()) !== was);
  t.diagnostic(`another leads ${taken} ms later`);
  assert.equal(await leads(survivor), true);
  await until('the next step', async () => (await closed()).every(Boolean));
  assert.deepEqual([(await rollouts(survivor))[0]?.step, await closed()], [1, [true, true]]);
  await mesh.startControl(dead);
  assert.deepEqual((await rollouts(dead))[0]?.pods, ['bar/httpbin', 'bar/twin']);
  assert.equal(await leader(), survivor);
});

test('both away and back: rollouts and ledger are what they were, from the API server', async () => {
  for (const which of BOTH) {
    await mesh.roles[which]?.stop();
    delete mesh.roles[which];
  }
  assert.equal(await holder(), '', 'let go');
  await mesh.startControl();
  await until('a leader', () => leads('control'));
  assert.deepEqual(
    (await rollouts('control')).map(({ step, pods }) => [step, pods.length]),
    [[1, 2]],
  );
  const ledger = JSON.stringify(await askOperator(mesh.operatorSocket('control'), { method: 'GET', path: '/ledger' }));
  assert.match(ledger, /"peerWorkload":"legacy\/legacy"[^}]*"transport":"plaintext","outcome":"allowed"/);
  assert.deepEqual([await call(httpbin), await call(twin)], [0, 0]);
});
