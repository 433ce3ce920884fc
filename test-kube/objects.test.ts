// Registry and policy out of a real API server: what kubectl applies is what control resolves from, through restarts, compaction and uninstalled kinds.

import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { KubeSource } from '../src/control/objects/kube-source.ts';
import type { MeshObjects } from '../src/control/objects/mesh-objects.ts';
import { openLog } from '../src/observe/log.ts';
import { KubeCluster } from './support/kube-cluster.ts';

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
    'a field of HTTP',
    policy('AuthorizationPolicy', 'bad', '{rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]}'),
    /requestPrincipals/,
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
    objects.services.map(({ metadata }) => metadata.name),
    ['web'],
    'not `kubernetes`, which selects nobody, nor another name for something outside',
  );
  assert.deepEqual([...source.refusals], []);
});

test('an API server that restarts, with its history gone: nothing is forgotten meanwhile, and what happened is known afterwards', async (t) => {
  const known = source.objects.current;
  await cluster.stopApiServer();
  assert.equal(source.objects.current, known);
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
