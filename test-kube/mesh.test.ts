// The whole of it on a real API server: pods injected by the real webhook call, run as a kubelet would, and certificates for tokens that the real TokenReview has proven.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { askOperator } from '../src/wire/operator-client.ts';
import { ForeignStream } from '../test/support/handed-on-stream.ts';
import { ask, until } from './support/asking.ts';
import { KubeMesh } from './support/kube-mesh.ts';
import type { PlayedPod } from './support/played-kubelet.ts';

const HTTPBIN = JSON.stringify([process.execPath, fileURLToPath(new URL('../demo/httpbin.ts', import.meta.url)), '8000']);
const pod = (name: string, namespace: string, command = '["sleep", "3600"]', more = '') => `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: ${name}, namespace: ${namespace}}}
---
{apiVersion: v1, kind: Service, metadata: {name: ${name}, namespace: ${namespace}}, spec: {selector: {app: ${name}}, ports: [{name: http, port: 8000}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${name}}}
spec:
  serviceAccountName: ${name}
  containers: [{name: ${name}, image: "app:1", command: ${command}, ports: [{containerPort: 8000}]${more}}]
`;
const readiness = ', readinessProbe: {httpGet: {path: /get, port: 8000}}';

let mesh: KubeMesh;
let sleep: PlayedPod;
let httpbin: PlayedPod;
let legacy: PlayedPod;
let address: string;

async function play(manifest: string, name: string, namespace: string): Promise<PlayedPod> {
  await mesh.cluster.apply(manifest);
  return mesh.kubelet.run(namespace, name);
}

before(async () => {
  mesh = await KubeMesh.start();
  httpbin = await play(pod('httpbin', 'bar', HTTPBIN, readiness), 'httpbin', 'bar');
  sleep = await play(pod('sleep', 'foo'), 'sleep', 'foo');
  legacy = await play(pod('legacy', 'legacy'), 'legacy', 'legacy');
  address = (await mesh.cluster.kubectl(['get', 'service', 'httpbin', '-n', 'bar', '-o', 'jsonpath={.spec.clusterIP}'])).stdout;
});

after(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

test('the webhook has put a sidecar into the pods of labelled namespaces, and into no other', () => {
  const names = ({ object }: PlayedPod) => (object.spec.initContainers ?? []).map(({ name }) => name);
  assert.deepEqual(names(httpbin), ['handfast-init', 'handfast-proxy']);
  assert.deepEqual(names(sleep), ['handfast-init', 'handfast-proxy']);
  assert.deepEqual(names(legacy), []);
  assert.equal(httpbin.object.metadata.labels?.['security.istio.io/tlsMode'], 'istio');
});

test('two injected pods speak mTLS through their service, with identities that the API server has proven', async () => {
  await until('the service', async () => (await ask(sleep, address)) === 200);
  let served: Readonly<Record<string, unknown>> | undefined;
  await until('its record', async () => {
    served = (await httpbin.records('handfast-proxy')).find(({ direction, transport }) => direction === 'inbound' && transport === 'mtls');
    return served !== undefined;
  });
  assert.match(JSON.stringify(served), /spiffe:\/\/cluster\.local\/ns\/foo\/sa\/sleep/);
});

test('a call to the API server’s own service goes to the API server, which is no pod of the mesh', async () => {
  const { stdout: api } = await mesh.cluster.kubectl(['get', 'service', 'kubernetes', '-o', 'jsonpath={.spec.clusterIP}']);
  await sleep.netns.attempt(['curl', '-sk', '-m', '5', `https://${api}/version`], { uid: 1000, gid: 1000 });
  let upstream: unknown;
  // The pods' network here ends at the bridge, so it is refused where the API server would be.
  await until('its record', async () => {
    const records = await sleep.records('handfast-proxy');
    upstream = records.find(({ originalDestination }) => originalDestination === `${api}:443`)?.upstream;
    return upstream !== undefined;
  });
  assert.deepEqual(upstream, { address: new URL(mesh.cluster.server).host, service: 'default/kubernetes.default.svc.cluster.local' });
});

test('a rewritten probe reaches the application past mTLS; so does plaintext, while it is permitted', async () => {
  const probe = `http://${httpbin.netns.ipv4}:15020/app-health/httpbin/readyz`;
  const { stdout } = await legacy.netns.attempt(['curl', '-s', '-m', '5', '-o', '/dev/null', '-w', '%{http_code}', probe]);
  assert.equal(stdout, '200');
  assert.equal(await ask(legacy, httpbin.netns.ipv4), 200);
});

test('STRICT, applied with kubectl, refuses plaintext and not the mesh; deleted, it takes that back', async (t) => {
  await mesh.cluster.apply(
    '{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: bar}, spec: {mtls: {mode: STRICT}}}',
  );
  t.diagnostic(`STRICT bites ${await until('STRICT', async () => (await ask(legacy, httpbin.netns.ipv4)) === 0)} ms after kubectl`);
  assert.equal(await ask(sleep, address), 200);
  const probe = `http://${httpbin.netns.ipv4}:15020/app-health/httpbin/readyz`;
  assert.equal((await legacy.netns.attempt(['curl', '-s', '-m', '5', '-o', '/dev/null', '-w', '%{http_code}', probe])).stdout, '200');
  await mesh.cluster.kubectl(['delete', 'peerauthentication', 'default', '-n', 'bar']);
  t.diagnostic(`and lets go ${await until('its end', async () => (await ask(legacy, httpbin.netns.ipv4)) === 200)} ms after its deletion`);
});

test('a pod’s token is taken from a process of that pod, and not from another pod’s process, which the agent names in its log', async (t) => {
  const { cgroup } = mesh;
  if (typeof cgroup === 'string') return t.skip(cgroup);
  const token = await mesh.kubelet.token(sleep.object, { audience: 'handfast-ca' });
  const bringing = (from: PlayedPod) =>
    new ForeignStream(`${mesh.runDir}/agent.sock`, { token, wrap: cgroup.wrap(from.object.metadata.uid, 'thief') });
  await using honest = bringing(sleep);
  await until('a key for its own pod', async () => honest.keys > 0);
  await using thief = bringing(httpbin);
  const refused = await mesh.roles.agent?.said('a process presented the token of a pod that it is not in');
  assert.deepEqual(
    [refused?.pod, refused?.tokenPod, refused?.spiffeId],
    [httpbin.object.metadata.uid, sleep.object.metadata.uid, 'spiffe://cluster.local/ns/foo/sa/sleep'],
  );
  assert.equal(thief.keys, 0);
});

test('a ScopeConfig closes one pod, and its twin stays open; deletion takes it back', async () => {
  const twin = await play(
    pod('httpbin', 'bar', HTTPBIN).replaceAll('name: httpbin, namespace: bar, labels', 'name: twin, namespace: bar, labels'),
    'twin',
    'bar',
  );
  await until('the twin', async () => (await ask(legacy, twin.netns.ipv4)) === 200);
  await mesh.cluster.apply(`
apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: one-pod, namespace: bar}
spec:
  selector: {matchExpressions: [{key: handfast.io/pod-name, operator: In, values: [twin]}]}
  object:
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: strict}
    spec: {mtls: {mode: STRICT}}
`);
  await until('the twin to be closed', async () => (await ask(legacy, twin.netns.ipv4)) === 0);
  assert.equal(await ask(legacy, httpbin.netns.ipv4), 200);
  await mesh.cluster.kubectl(['delete', 'scopeconfig', 'one-pod', '-n', 'bar']);
  await until('the twin to be open again', async () => (await ask(legacy, twin.netns.ipv4)) === 200);
});

test('API server and control away: the data path does not notice, and what was said meanwhile holds afterwards', async () => {
  await mesh.cluster.stopApiServer();
  assert.equal(await ask(sleep, address), 200);
  await mesh.roles.control?.stop();
  assert.equal(await ask(sleep, address), 200);
  await mesh.cluster.startApiServer();
  await mesh.cluster.apply(
    '{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: bar}, spec: {mtls: {mode: STRICT}}}',
  );
  await mesh.startControl();
  await until('STRICT', async () => (await ask(legacy, httpbin.netns.ipv4)) === 0);
  assert.equal(await ask(sleep, address), 200);
});

test('an API server that hangs: the data path does not notice, control leads no more, and afterwards everything is as it was', async () => {
  await mesh.cluster.kubectl(['delete', 'peerauthentication', 'default', '-n', 'bar']);
  await until('plaintext', async () => (await ask(legacy, httpbin.netns.ipv4)) === 200);
  const leads = async () => Object(await askOperator(mesh.operatorSocket('control'), { method: 'GET', path: '/replica' })).leads;
  await until('control to lead', leads);
  mesh.cluster.stallApiServer();
  try {
    await until('nobody to lead', async () => !(await leads()));
    assert.equal(await ask(sleep, address), 200);
    assert.equal(await ask(legacy, httpbin.netns.ipv4), 200);
  } finally {
    mesh.cluster.resumeApiServer();
  }
  await until('control to lead again', leads);
  await mesh.cluster.apply(
    '{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: bar}, spec: {mtls: {mode: STRICT}}}',
  );
  await until('STRICT', async () => (await ask(legacy, httpbin.netns.ipv4)) === 0);
  assert.equal(await ask(sleep, address), 200);
});

test('while the injector is away, pods of labelled namespaces are refused, not let in without a sidecar; others are', async () => {
  await mesh.roles.injector?.stop();
  const create = (namespace: string) =>
    mesh.cluster.kubectl(['create', '-f', '-'], {
      input: `{apiVersion: v1, kind: Pod, metadata: {name: late, namespace: ${namespace}}, spec: {containers: [{name: a, image: "a:1"}]}}`,
    });
  const refused = await create('foo');
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /failed calling webhook "injector\.handfast\.io"/);
  assert.equal((await create('legacy')).code, 0);
});
