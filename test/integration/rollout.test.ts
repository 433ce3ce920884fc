// STRICT rolled out over ten workloads with real sidecars: one rollout meets a caller that speaks plaintext at its second step and takes itself back; one arrives.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { z } from 'zod';
import { handfast } from '../support/handfast.ts';
import { LoopbackMesh, type LoopbackPod } from '../support/loopback-mesh.ts';

const VIP = { address: '10.96.1.2', port: 80 };
const SERVICE = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: ${VIP.address}, selector: {tier: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
`;
const rollout = (name: string) => `${SERVICE}---
apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: ${name}, namespace: shop}
spec:
  selector: {matchLabels: {tier: web}}
  object:
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: default}
    spec: {mtls: {mode: STRICT}}
  rollout:
    steps: [{pods: 1}, {percent: 50}, {percent: 100}]
    intervalSeconds: 2
    failureBudget: {maxFailureRatio: 0.05, windowSeconds: 60, minConnections: 3}
`;
const states = z.object({
  rollouts: z.array(z.object({ key: z.string(), phase: z.string(), step: z.number(), pods: z.array(z.string()), reason: z.string() })),
});

let mesh: LoopbackMesh;
let web: readonly LoopbackPod[];
let client: LoopbackPod;

before(async () => {
  mesh = await LoopbackMesh.start(
    [
      { namespace: 'shop', name: 'client' },
      ...Array.from({ length: 10 }, (_, index) => ({
        namespace: 'shop',
        name: `web-${index}`,
        serviceAccount: 'web',
        labels: { tier: 'web' },
      })),
    ],
    SERVICE,
  );
  client = mesh.pod('shop/client');
  web = mesh.pods.filter((pod) => pod !== client);
  await Promise.all(mesh.pods.map((pod) => pod.knows({ key: 'shop/web.shop.svc.cluster.local', address: VIP.address })));
});

after(() => mesh[Symbol.asyncDispose]());

beforeEach(async () => {
  await mesh.apply('objects.yaml', SERVICE);
  await Promise.all(web.map((pod) => pod.obeys(({ mode }) => mode === 'PERMISSIVE')));
});

const strict = () => web.filter(({ mode }) => mode === 'STRICT').length;

async function state(key: string) {
  return states.parse(await mesh.plane.ask('control', 'GET', '/rollouts')).rollouts.find((rollout) => rollout.key === key);
}

/** Calls every pod by the service, again and again, until the condition holds; counts the calls of the mesh that failed. */
async function traffic(
  until: () => Promise<boolean> | boolean,
  beside: () => Promise<unknown> = async () => undefined,
): Promise<{ calls: number; failed: string[] }> {
  const deadline = Date.now() + 50_000;
  const failed: string[] = [];
  let calls = 0;
  while (!(await until())) {
    assert.ok(
      Date.now() < deadline,
      `it did not happen within 50 s: ${JSON.stringify(await mesh.plane.ask('control', 'GET', '/rollouts'))}`,
    );
    for (const answer of await Promise.all(Array.from({ length: 5 }, () => client.call(VIP)))) {
      calls++;
      if (!answer.startsWith('shop/web-')) failed.push(answer);
    }
    await beside();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { calls, failed };
}

describe('a rollout', () => {
  it('that-breaks-somebody-at-its-second-step-takes-itself-back-and-stays-so-over-a-restart', async () => {
    await mesh.apply('objects.yaml', rollout('breaks'));
    await traffic(() => strict() === 1);
    const [canary] = web.filter(({ mode }) => mode === 'STRICT');
    const steps: number[] = [];
    // A batch job without a sidecar, which never calls the canary.
    const legacy = async () => {
      steps.push(strict());
      await Promise.all(web.filter((pod) => pod !== canary).map((pod) => pod.calledInPlaintext('127.2.0.9')));
    };
    const { failed } = await traffic(async () => (await state('shop/breaks'))?.phase === 'rolled back', legacy);
    assert.deepEqual(failed, [], 'mesh clients lost requests');
    const rolledBack = await state('shop/breaks');
    assert.equal(rolledBack?.step, 1, 'at the second step');
    assert.match(rolledBack?.reason ?? '', /connections failed by policy within 60 s \(\d+\.\d %, the budget is 5\.0 %\) at step 2 of 3/);
    assert.equal(Math.max(...steps), 5, 'it came to half of them, and no further');
    const printed = await handfast('rollouts', '--run-dir', mesh.plane.dir);
    assert.deepEqual(
      [printed.code, /shop\/breaks +rolled back +2 .* 0 +\d+ of \d+ connections failed by policy/.test(printed.stdout)],
      [0, true],
      printed.stdout,
    );
    await Promise.all(web.map((pod) => pod.obeys(({ mode }) => mode === 'PERMISSIVE')));
    assert.equal(await (web[0] as LoopbackPod).calledInPlaintext('127.2.0.9'), web[0]?.key, 'the batch job works again');
    await mesh.plane.control?.stop();
    await mesh.plane.startControl();
    assert.equal((await state('shop/breaks'))?.phase, 'rolled back');
    await traffic(async () => (await client.call(VIP)).startsWith('shop/web-'));
    assert.equal(strict(), 0);
  });

  it('that-breaks-nobody-arrives-and-mesh-clients-lose-nothing', async () => {
    await mesh.apply('objects.yaml', rollout('arrives'));
    const seen = new Set<number>();
    const { failed, calls } = await traffic(
      async () => (await state('shop/arrives'))?.phase === 'complete',
      async () => seen.add(strict()),
    );
    assert.deepEqual(failed, []);
    assert.ok(calls > 0);
    await Promise.all(web.map((pod) => pod.obeys(({ mode }) => mode === 'STRICT')));
    for (const count of [1, 5, 10]) assert.ok(seen.has(count) || count === 10, `${count} pods at once were never seen, but ${[...seen]}`);
    assert.match(await (web[3] as LoopbackPod).calledInPlaintext('127.2.0.9'), /ECONNRESET|closed/);
  });
});
