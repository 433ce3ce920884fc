// Pods that mount nothing of their node, on a real API server: the sidecar makes its key itself, by the token that TokenRequest issued and TokenReview proves, beside pods with an agent.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ask, until } from './support/asking.ts';
import { KubeMesh } from './support/kube-mesh.ts';
import type { PlayedPod } from './support/played-kubelet.ts';

const HTTPBIN = JSON.stringify([process.execPath, fileURLToPath(new URL('../demo/httpbin.ts', import.meta.url)), '8000']);
const pod = (name: string, namespace: string, annotations: string, command = '["sleep", "3600"]') => `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: ${name}, namespace: ${namespace}}}
---
{apiVersion: v1, kind: Service, metadata: {name: ${name}, namespace: ${namespace}}, spec: {selector: {app: ${name}}, ports: [{name: http, port: 8000}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${name}}, annotations: {${annotations}}},
 spec: {serviceAccountName: ${name}, containers: [{name: app, image: "app:1", command: ${command}, ports: [{containerPort: 8000}]}]}}`;
const IN_POD = 'handfast.io/identity: in-pod';

let mesh: KubeMesh;
let httpbin: PlayedPod;
let sleep: PlayedPod;
let neighbour: PlayedPod;
let legacy: PlayedPod;

async function play(manifest: string, name: string, namespace: string): Promise<PlayedPod> {
  await mesh.cluster.apply(manifest);
  return mesh.kubelet.run(namespace, name);
}

before(async () => {
  mesh = await KubeMesh.start({ allowInPod: true });
  await mesh.cluster.apply('{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}');
  httpbin = await play(pod('httpbin', 'bar', IN_POD, HTTPBIN), 'httpbin', 'bar');
  sleep = await play(pod('sleep', 'foo', IN_POD), 'sleep', 'foo');
  neighbour = await play(pod('neighbour', 'foo', ''), 'neighbour', 'foo');
  legacy = await play(pod('legacy', 'legacy', ''), 'legacy', 'legacy');
});

after(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

test('the injected pod has no path of its node, and the roots in its annotation', () => {
  const { spec, metadata } = httpbin.object;
  assert.ok(!(spec.volumes ?? []).some(({ hostPath }) => hostPath !== undefined));
  assert.match(metadata.annotations?.['handfast.io/roots'] ?? '', /BEGIN CERTIFICATE/);
  assert.ok(
    (neighbour.object.spec.volumes ?? []).some(({ hostPath }) => hostPath !== undefined),
    'beside one that has',
  );
});

test('such pods speak mTLS with one another and with pods that have an agent', async () => {
  const { stdout: address } = await mesh.cluster.kubectl(['get', 'service', 'httpbin', '-n', 'bar', '-o', 'jsonpath={.spec.clusterIP}']);
  for (const [from, id] of [
    [sleep, 'spiffe://cluster.local/ns/foo/sa/sleep'],
    [neighbour, 'spiffe://cluster.local/ns/foo/sa/neighbour'],
  ] as const) {
    await until(`${id} is served`, async () => (await ask(from, address)) === 200);
    await until('its record', async () =>
      (await httpbin.records('handfast-proxy')).some(
        (record) => record.direction === 'inbound' && record.transport === 'mtls' && JSON.stringify(record.downstream).includes(id),
      ),
    );
  }
});

test('STRICT reaches them, and its author sees that all of them have it', async () => {
  assert.equal(await ask(legacy, httpbin.netns.ipv4), 200);
  await mesh.cluster.apply(
    '{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}',
  );
  await until('STRICT', async () => (await ask(legacy, httpbin.netns.ipv4)) === 0);
  const programmed = [
    'get',
    'peerauthentication',
    'default',
    '-n',
    'istio-system',
    '-o',
    'jsonpath={.status.conditions[?(@.type=="Programmed")].message}',
  ];
  await until('the status', async () => (await mesh.cluster.kubectl(programmed)).stdout === '3/3 proxies up to date');
  const { code } = await mesh.cluster.kubectl([
    'wait',
    '--for=condition=Programmed',
    'peerauthentication/default',
    '-n',
    'istio-system',
    '--timeout=5s',
  ]);
  assert.equal(code, 0);
});

test('the same pod, made anew from what was injected, is taken as it is', async () => {
  const { stdout } = await mesh.cluster.kubectl(['get', 'pod', 'sleep', '-n', 'foo', '-o', 'json']);
  const { apiVersion, kind, metadata, spec } = JSON.parse(stdout);
  const { labels, annotations, namespace } = metadata;
  const again = { apiVersion, kind, metadata: { name: 'again', namespace, labels, annotations }, spec: { ...spec, nodeName: undefined } };
  const made = await mesh.cluster.kubectl(['create', '--dry-run=server', '-f', '-'], { input: JSON.stringify(again) });
  assert.equal(made.code, 0, made.stderr);
  const forged = { ...again, metadata: { ...again.metadata, annotations: { ...annotations, 'handfast.io/roots': 'mine' } } };
  const refused = await mesh.cluster.kubectl(['create', '--dry-run=server', '-f', '-'], { input: JSON.stringify(forged) });
  assert.match(refused.stderr, /annotation handfast\.io\/roots/);
});
