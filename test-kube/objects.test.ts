// Registry and policy out of a real API server: what kubectl applies is what control resolves from, through restarts, compaction and uninstalled kinds.

import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { KubeSource } from '../src/control/objects/kube-source.ts';
import type { MeshObjects } from '../src/control/objects/mesh-objects.ts';
import { resolveMesh } from '../src/control/resolve/resolve.ts';
import { openLog } from '../src/observe/log.ts';
import { Registry } from '../src/policy/registry.ts';
import { HOST, KubeCluster } from './support/kube-cluster.ts';

const CRDS = new URL('../deploy/crds/', import.meta.url);
const { log, close } = openLog({ role: 'test', level: 'silent' });
const ending = new AbortController();
let cluster: KubeCluster;
let source: KubeSource;

before(async () => {
  cluster = await KubeCluster.start();
  await cluster.apply('{apiVersion: v1, kind: Namespace, metadata: {name: foo}}');
  source = new KubeSource({ api: cluster.api(), log, now: Date.now });
  await source.start(ending.signal);
});

after(async () => {
  ending.abort();
  await source?.ended();
  await cluster?.[Symbol.asyncDispose]();
  close();
});

async function until(what: string, holds: (objects: MeshObjects) => boolean, of: KubeSource = source): Promise<MeshObjects> {
  const deadline = AbortSignal.timeout(60_000);
  for (;;) {
    const { current } = of.objects;
    if (current !== undefined && holds(current)) return current;
    await new Promise<void>((resolve, reject) => {
      const stop = of.objects.subscribe(() => done(resolve));
      const late = () => done(() => reject(new Error(`${what}: not within 60 s`)));
      const done = (how: () => void) => {
        stop();
        deadline.removeEventListener('abort', late);
        how();
      };
      deadline.addEventListener('abort', late, { once: true });
    });
  }
}

async function refused(manifest: string): Promise<string> {
  const { code, stderr } = await cluster.kubectl(['apply', '-f', '-'], { input: manifest });
  assert.notEqual(code, 0, 'it was accepted');
  return stderr;
}

const policy = (kind: string, name: string, spec: string, group = 'security.istio.io/v1') =>
  `{apiVersion: ${group}, kind: ${kind}, metadata: {name: ${name}, namespace: foo}, spec: ${spec}}\n`;

test('our definitions are accepted, and established, by a real API server; kinds that were missing are then followed', async (t) => {
  assert.deepEqual(source.objects.current?.peerAuthentications, []);
  for (const file of await readdir(CRDS)) await cluster.apply(await readFile(new URL(file, CRDS), 'utf8'));
  const { code, stderr } = await cluster.kubectl(['wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all']);
  assert.equal(code, 0, stderr);
  await cluster.apply(policy('PeerAuthentication', 'default', '{mtls: {mode: STRICT}}'));
  const started = performance.now();
  const objects = await until('the PeerAuthentication', ({ peerAuthentications }) => peerAuthentications.length === 1);
  t.diagnostic(`a kind installed later: its first object in force after ${Math.round(performance.now() - started)} ms`);
  assert.equal(objects.peerAuthentications[0]?.mode, 'STRICT');
});

for (const [what, manifest, words] of [
  ['a mode that is none', policy('PeerAuthentication', 'bad', '{mtls: {mode: STRICKT}}'), /spec\.mtls\.mode: Unsupported value: "STRICKT"/],
  [
    'ports without a selector',
    policy('PeerAuthentication', 'bad', '{portLevelMtls: {"80": {mode: DISABLE}}}'),
    /portLevelMtls needs a selector/,
  ],
  [
    'a field that comes from a header',
    policy('AuthorizationPolicy', 'bad', '{rules: [{from: [{source: {remoteIpBlocks: ["10.0.0.1"]}}]}]}'),
    /remoteIpBlocks/,
  ],
  ['an action that is not supported', policy('AuthorizationPolicy', 'bad', '{action: CUSTOM}'), /Unsupported value: "CUSTOM"/],
  ['a wrapped object of an unknown kind', policy('ScopeConfig', 'bad', '{object: 7}', 'handfast.io/v1alpha1'), /spec\.object/],
  ['a rule without a host', policy('DestinationRule', 'bad', '{trafficPolicy: {}}', 'networking.istio.io/v1'), /spec\.host: Required/],
] as const)
  test(`the API server refuses ${what}, and says where`, async () => assert.match(await refused(manifest), words));

test('what the API server cannot judge, control refuses by name, and the last good version stays', async () => {
  await cluster.apply(
    policy(
      'AuthorizationPolicy',
      'web',
      '{selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {ports: ["80"]}}]}]}',
    ),
  );
  await until('the policy', ({ authorizationPolicies }) => authorizationPolicies.length === 1);
  await cluster.apply(
    policy(
      'AuthorizationPolicy',
      'web',
      '{selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{operation: {ports: ["eighty"]}}]}]}',
    ),
  );
  await cluster.apply(policy('AuthorizationPolicy', 'marker', '{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}'));
  const { authorizationPolicies } = await until('the marker', (objects) => objects.authorizationPolicies.length === 2);
  assert.equal(authorizationPolicies.find(({ name }) => name === 'web')?.action, 'DENY');
  assert.match(source.refusals.get('AuthorizationPolicy foo/web') ?? '', /spec\.rules\.0\.to\.0\.operation\.ports/);
  for (const [name, status] of [
    ['web', 'False'],
    ['marker', 'True'],
  ]) {
    const accepted = await cluster.kubectl([
      'wait',
      'authorizationpolicy',
      `${name}`,
      '-n',
      'foo',
      `--for=condition=Accepted=${status}`,
      '--timeout=30s',
    ]);
    assert.equal(accepted.code, 0, accepted.stderr);
  }
  await cluster.kubectl(['delete', 'authorizationpolicy', '--namespace=foo', '--all']);
  await until('the end of both', (objects) => objects.authorizationPolicies.length === 0);
});

test('a Deployment’s pods, with the addresses that a kubelet reports, and a Service', async () => {
  await cluster.apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: foo}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: "web:1", ports: [{name: http, containerPort: 8080}]}]
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: foo}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: foo}, spec: {type: ExternalName, externalName: example.org}}
`);
  const { pods } = await until('two pods', (objects) => objects.pods.length === 2);
  for (const [index, { metadata }] of pods.entries()) {
    const status = {
      phase: 'Running',
      podIP: `10.1.0.${index + 1}`,
      podIPs: [{ ip: `10.1.0.${index + 1}` }],
      conditions: [{ type: 'Ready', status: 'True' }],
    };
    const { code, stderr } = await cluster.kubectl([
      'patch',
      'pod',
      metadata.name,
      '-n',
      'foo',
      '--subresource=status',
      '-p',
      JSON.stringify({ status }),
    ]);
    assert.equal(code, 0, stderr);
  }
  const objects = await until('two addresses', (seen) => seen.pods.every(({ status }) => status.podIP !== undefined));
  assert.deepEqual(objects.pods.map(({ status }) => status.podIP).sort(), ['10.1.0.1', '10.1.0.2']);
  assert.deepEqual(
    objects.services.map(({ metadata }) => metadata.name).sort(),
    ['kubernetes', 'web'],
    'not another name for something outside',
  );
  assert.deepEqual(
    objects.endpointSlices.map(({ name }) => name),
    ['kubernetes'],
    'not those of `web`, which mirror its pods',
  );
  assert.deepEqual([...source.refusals], []);
});

test('a Service without a selector has what its EndpointSlices say, and a slice that leads to another namespace’s pod has no say', async () => {
  const slice = (name: string, service: string, address: string) => `
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ${name}, namespace: outer, labels: {kubernetes.io/service-name: ${service}}}
addressType: IPv4
endpoints: [{addresses: [${address}], conditions: {ready: true}}]
ports: [{name: db, port: 15432, protocol: TCP}]
`;
  await cluster.apply(`
{apiVersion: v1, kind: Namespace, metadata: {name: outer}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: outer}, spec: {ports: [{name: db, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: thief, namespace: outer}, spec: {ports: [{name: db, port: 5432}]}}
${slice('thief-1', 'thief', '10.1.0.1')}${slice('db-1', 'db', '192.0.2.10')}`);
  const isThere = ({ endpointSlices }: MeshObjects) => endpointSlices.some(({ name }) => name === 'db-1');
  const objects = await until('the slice', (seen) => isThere(seen) && source.refusals.has('EndpointSlice outer/thief-1'));
  assert.match(source.refusals.get('EndpointSlice outer/thief-1') ?? '', /endpoint 10\.1\.0\.1 is Pod foo\/web-/);
  const registry = new Registry(resolveMesh(objects, { trustDomain: 'cluster.local', selections: new Map() }));
  const { stdout: address } = await cluster.kubectl(['get', 'service', 'db', '-n', 'outer', '-o', 'jsonpath={.spec.clusterIP}']);
  const resolution = registry.resolve({ address, port: 5432 });
  assert.ok(resolution.kind === 'service');
  assert.deepEqual(
    resolution.endpoints.map((endpoint) => [endpoint.address, endpoint.port, endpoint.workload.meshed]),
    [['192.0.2.10', 15432, false]],
  );
  // The API server is the endpoint of its own service.
  const api = registry.service('default/kubernetes.default.svc.cluster.local');
  assert.ok(api !== undefined);
  const [{ address: at } = { address: '' }] = registry.endpointsOf(api, { address: api.addresses[0] ?? '', port: 443 });
  assert.equal(at, HOST);
  await cluster.kubectl(['delete', 'namespace', 'outer', '--wait=false']);
  await cluster.kubectl(['delete', 'endpointslice', 'db-1', 'thief-1', '-n', 'outer']);
  await until('its end', (seen) => !isThere(seen));
});

test('an API server that restarts, with its history gone: nothing is forgotten meanwhile, and what happened is known afterwards', async (t) => {
  const known = source.objects.current;
  await cluster.stopApiServer();
  // An API server that ends in peace takes itself out of its own service first; that is all there is to be told.
  assert.deepEqual({ ...source.objects.current, endpointSlices: known?.endpointSlices }, known);
  await cluster.startApiServer();
  await cluster.kubectl(['delete', 'peerauthentication', 'default', '-n', 'foo']);
  await cluster.apply(policy('PeerAuthentication', 'second', '{mtls: {mode: PERMISSIVE}}'));
  await cluster.compact();
  const started = performance.now();
  const { peerAuthentications, pods } = await until('the second', (objects) => objects.peerAuthentications[0]?.name === 'second');
  t.diagnostic(`after the restart: right again ${Math.round(performance.now() - started)} ms after the last change`);
  assert.equal(peerAuthentications.length, 1);
  assert.equal(pods.length, 2);
});

test('an account without the right to see pods is told which right is missing, and nothing is published', async () => {
  await cluster.apply('{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: foo}}');
  const { stdout } = await cluster.kubectl(['create', 'token', 'nobody', '-n', 'foo']);
  const file = `${cluster.dir}/nobody-token`;
  await writeFile(file, stdout, { mode: 0o600 });
  await assert.rejects(cluster.api(file).request({ method: 'GET', path: '/api/v1/pods' }), {
    code: 'KUBE_REFUSED',
    message: /pods is forbidden.*system:serviceaccount:foo:nobody/,
  });
  assert.equal((await cluster.api().request({ method: 'GET', path: '/api/v1/pods?limit=1' })).kind, 'PodList');
});
