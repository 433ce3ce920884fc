// What deploy/ brings, on a real API server: every object accepted, each account with its rights and no others, the agents' sockets out of reach, and nothing left behind.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { CHART, documentsOf, helm, render, SYSTEM, sets } from './support/chart.ts';
import { until } from './support/installed-chart.ts';
import { KubeCluster } from './support/kube-cluster.ts';

const ROOT = new URL('../', import.meta.url);
/** Of another project: enough of them to be accepted. */
const MONITORS = ['PodMonitor', 'ServiceMonitor']
  .map((kind) => ({ kind, singular: kind.toLowerCase() }))
  .map(
    ({ kind, singular }) => `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ${singular}s.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: ${kind}, plural: ${singular}s, singular: ${singular}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`,
  )
  .join('---');

let cluster: KubeCluster;

before(async () => {
  cluster = await KubeCluster.start();
  await cluster.apply(MONITORS);
  for (const name of ['foo', 'bar']) await cluster.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ${name}}}`);
  await cluster.apply(await readFile(new URL('deploy/namespace.yaml', ROOT), 'utf8'));
  await until('the definitions', async () => (await cluster.kubectl(['get', 'podmonitors,servicemonitors', '-A'])).code === 0);
});

after(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const rendered = (...values: readonly string[]) => render(values, { home: cluster.dir });

async function succeeded(args: readonly string[]): Promise<void> {
  const { code, stderr } = await helm(args, { home: cluster.dir });
  assert.equal(code, 0, stderr);
}

/** Every object of every kind that can be listed, as `kind namespace/name`, but for what the cluster writes by itself. */
async function everything(): Promise<string[]> {
  const { stdout: kinds } = await cluster.kubectl(['api-resources', '--verbs=list', '-o', 'name']);
  const listed = kinds
    .trim()
    .split('\n')
    .filter((kind) => !/^(events|leases|componentstatuses|apiservices)(\.|$)/.test(kind));
  const columns = 'custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name';
  const { stdout, stderr, code } = await cluster.kubectl(['get', listed.join(','), '-A', '--no-headers', '-o', columns]);
  assert.equal(code, 0, stderr);
  return stdout
    .trim()
    .split('\n')
    .map((line) => line.trim().replace(/\s+/g, ' '))
    .sort();
}

/** And nothing gone. The controllers that clean up take a moment. */
async function nothingLeftSince(before: readonly string[]): Promise<void> {
  let now: string[] = [];
  await until('the former state', async () => {
    // A kind that is taken away between two questions is asked for in vain.
    now = await everything().catch(() => []);
    return now.join('\n') === before.join('\n');
  }).catch(() => assert.deepEqual(now, before));
}

for (const [what, values] of [
  ['its defaults', []],
  [
    'everything turned the other way',
    [
      'crds.istio=true',
      'monitoring.enabled=true',
      'monitoring.labels.release=prometheus',
      'networkPolicy.enabled=false',
      'socketPolicy.enabled=false',
      'policyRoles.aggregate=false',
      'secrets.enabled=true',
      'sidecar.kind=classic',
      'sidecar.identity=in-pod',
      'sidecar.injectByDefault=true',
      'injector.replicas=1',
      'control.replicas=1',
      'ca.jwtIssuer=https://identity.example',
      'agent.socketDirectory=/var/run/mesh/handfast',
      'ca.storage.className=fast',
      'ca.storage.keep=true',
      'crds.keep=true',
      'image.pullSecrets=["registry"]',
      `image.digest=sha256:${'0'.repeat(64)}`,
      'control.nodeSelector={"disk":"ssd"}',
      'control.tolerations=[{"key":"mesh","operator":"Exists"}]',
    ],
  ],
] as const)
  test(`the API server accepts every object that the chart renders with ${what}`, async () => {
    const before = await everything();
    const manifests = await rendered(...values);
    const applied = await cluster.kubectl(['apply', '--server-side', '-f', '-'], { input: manifests });
    assert.equal(applied.code, 0, applied.stderr);
    assert.equal(applied.stdout.trim().split('\n').length, documentsOf(manifests).length);
    const deleted = await cluster.kubectl(['delete', '--wait=false', '-f', '-'], { input: manifests });
    assert.equal(deleted.code, 0, deleted.stderr);
    await nothingLeftSince(before);
  });

test('the committed manifests are what the chart renders, and kubectl takes them without --server-side too', async () => {
  const committed = await readFile(new URL('deploy/manifests/handfast.yaml', ROOT), 'utf8');
  const namespace = await readFile(new URL('deploy/namespace.yaml', ROOT), 'utf8');
  const lines = committed.split('\n');
  assert.match(lines.shift() ?? '', /^# Made by deploy\/render\.sh/);
  assert.equal(lines.join('\n'), namespace + (await rendered()), 'run sh deploy/render.sh > deploy/manifests/handfast.yaml');
  const { code, stderr } = await cluster.kubectl(['apply', '--dry-run=client', '--validate=strict', '-f', '-'], { input: committed });
  assert.equal(code, 0, stderr);
});

for (const [value, words] of [
  ['ca.replicas=2', /additional properties 'replicas' not allowed|Additional property replicas is not allowed/],
  ['logLevel=loud', /logLevel/],
  ['injector.replicas=0', /replicas/],
  ['control.replicas=0', /replicas/],
  ['ca.jwtIssuer=http://identity.example', /jwtIssuer/],
  ['control.storage.keep=true', /storage/],
  ['sidecar.kind=ambient', /kind/],
  ['sidecar.identity=node', /identity/],
  ['sidecar.tokenExpirationSeconds=60', /tokenExpirationSeconds/],
  ['agent.socketDirectory=/etc', /socketDirectory/],
  ['agent.socketDirectory=/run/../etc', /socketDirectory/],
  ['image.digest=latest', /digest/],
  ['socketpolicy.enabled=false', /socketpolicy/],
] as const)
  test(`the chart refuses ${value}`, async () => {
    const { code, stderr } = await helm(['template', 'handfast', CHART, ...sets([value])], { home: cluster.dir });
    assert.notEqual(code, 0);
    assert.match(stderr, words);
  });

test('installed, upgraded and uninstalled: what runs keeps what it has written, and in the end nothing is left', async () => {
  const base = ['handfast', CHART, `--namespace=${SYSTEM}`];
  const before = await everything();
  await succeeded(['install', ...base]);
  // As CA and injector do.
  await cluster.kubectl(['patch', 'configmap', 'handfast-ca-root', '-n', SYSTEM, '-p', '{"data":{"root.pem":"roots"}}']);
  await cluster.kubectl(['patch', 'secret', 'handfast-injector-tls', '-n', SYSTEM, '-p', '{"stringData":{"tls.crt":"certificate"}}']);
  const webhooks = {
    webhooks: ['istio-namespace', 'namespace', 'pod'].map((name) => ({
      name: `${name}.injector.handfast.io`,
      clientConfig: { caBundle: BUNDLE },
    })),
  };
  const patched = await cluster.kubectl(['patch', 'mutatingwebhookconfiguration', 'handfast-injector', '-p', JSON.stringify(webhooks)]);
  assert.equal(patched.code, 0, patched.stderr);
  await succeeded([
    'upgrade',
    ...base,
    ...sets(['injector.replicas=3', 'socketPolicy.enabled=false', 'monitoring.enabled=true', 'crds.istio=true']),
  ]);
  const field = async (kind: string, path: string) => (await cluster.kubectl(['get', kind, '-n', SYSTEM, '-o', `jsonpath=${path}`])).stdout;
  assert.equal(await field('configmap/handfast-ca-root', '{.data.root\\.pem}'), 'roots');
  assert.equal(await field('secret/handfast-injector-tls', '{.data.tls\\.crt}'), Buffer.from('certificate').toString('base64'));
  assert.equal(
    await field('mutatingwebhookconfiguration/handfast-injector', '{.webhooks[*].clientConfig.caBundle}'),
    [BUNDLE, BUNDLE, BUNDLE].join(' '),
  );
  assert.equal(await field('deployment/handfast-injector', '{.spec.replicas}'), '3');
  assert.equal(
    (await cluster.kubectl(['get', 'validatingadmissionpolicy', 'handfast-agent-socket'])).code,
    1,
    'what is turned off is taken away',
  );
  await cluster.kubectl(['create', '-f', '-'], {
    input: `{apiVersion: handfast.io/v1alpha1, kind: MeshConfig, metadata: {name: mesh}, spec: {}}`,
  });
  await succeeded(['uninstall', 'handfast', `--namespace=${SYSTEM}`]);
  await nothingLeftSince(before);
});

test('with crds.keep and storage.keep the uninstalled chart leaves policies and keys, and nothing else', async () => {
  const before = await everything();
  await succeeded(['install', 'handfast', CHART, `--namespace=${SYSTEM}`, ...sets(['crds.keep=true', 'ca.storage.keep=true'])]);
  await succeeded(['uninstall', 'handfast', `--namespace=${SYSTEM}`]);
  const kept = [
    'CustomResourceDefinition <none> controlstates.handfast.io',
    'CustomResourceDefinition <none> meshconfigs.handfast.io',
    'CustomResourceDefinition <none> scopeconfigs.handfast.io',
    'CustomResourceDefinition <none> secretpolicies.handfast.io',
    'CustomResourceDefinition <none> workloadsecrets.handfast.io',
    `PersistentVolumeClaim ${SYSTEM} handfast-ca`,
  ];
  await until('what is kept', async () => {
    const left = (await everything()).filter((object) => !before.includes(object));
    return left.join('\n') === kept.join('\n');
  });
  // A later installation takes it up again, and away.
  await succeeded(['install', 'handfast', CHART, `--namespace=${SYSTEM}`]);
  await succeeded(['uninstall', 'handfast', `--namespace=${SYSTEM}`]);
  await nothingLeftSince(before);
});

const BUNDLE = Buffer.from('-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n').toString('base64');
