// The injector before a real API server: what it makes is accepted there, what it refuses is refused there, by the real webhook call.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseAllDocuments } from 'yaml';
import { handfast } from '../test/support/handfast.ts';
import { IMAGE, KubeMesh } from './support/kube-mesh.ts';
import type { PodObject } from './support/played-kubelet.ts';

const GOLDENS = new URL('../test/unit/injector/goldens/', import.meta.url);
const goldens = (end: string) => readdirSync(GOLDENS).filter((file) => file.endsWith(end));
const textOf = (file: string) => readFileSync(new URL(file, GOLDENS), 'utf8');
const LEVEL = 'pod-security.kubernetes.io/enforce';

let mesh: KubeMesh;
before(async () => {
  mesh = await KubeMesh.start({ injectorAlone: true });
  for (const [name, labels] of [
    // Where what was injected offline is applied.
    ['shop', '{}'],
    ['restricted', `{${LEVEL}: restricted}`],
    ['restricted-mesh', `{${LEVEL}: restricted, istio-injection: enabled}`],
    ['privileged-mesh', `{${LEVEL}: privileged, istio-injection: enabled}`],
  ])
    await mesh.cluster.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ${name}, labels: ${labels}}}`);
  await mesh.cluster.apply('{apiVersion: v1, kind: ServiceAccount, metadata: {name: cart, namespace: shop}}');
});
after(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

/** What the API server would make of it, the webhook included. */
async function dryRun(manifest: string, namespace: string): Promise<{ code: number | null; stderr: string; objects: PodObject[] }> {
  const { code, stdout, stderr } = await mesh.cluster.kubectl(
    ['create', '--dry-run=server', '--output=json', '--validate=warn', `--namespace=${namespace}`, '-f', '-'],
    {
      input: manifest,
    },
  );
  // kubectl prints object after object.
  const objects = code === 0 ? (JSON.parse(`[${stdout.trim().replace(/\}\n\{/g, '},{')}]`) as (PodObject & { items?: PodObject[] })[]) : [];
  return { code, stderr, objects: objects.flatMap((object) => object.items ?? [object]) };
}

/** A manifest that has a namespace of its own would be created there. */
const here = (text: string, namespace: string) =>
  text
    .replace(/^( *)namespace: .*$/gm, `$1namespace: ${namespace}`)
    .replace(/\{(name: [^,}]+), namespace: [^,}]+/g, `{$1, namespace: ${namespace}`);
/** Kinds that this API server does not have. */
const FOREIGN = ['documents-of-other-kinds.out.yaml'];

describe('what is injected offline is accepted by the API server', () => {
  for (const file of goldens('.out.yaml').filter((name) => !FOREIGN.includes(name)))
    test(file, async () => {
      const { code, stderr } = await dryRun(here(textOf(file), 'shop'), 'shop');
      assert.equal(code, 0, stderr);
    });
});

describe('what the injector refuses is refused through the webhook, with its reason', () => {
  for (const file of [
    'refused-ids',
    'refused-ports',
    'refused-reserved-names',
    'refused-annotation-values',
    'refused-labels',
    'refused-probes',
  ])
    test(file, async () => {
      for (const document of parseAllDocuments(textOf(`${file}.in.yaml`))) {
        const pod = document.toJS() as { kind: string; metadata: { name: string; namespace?: string } } | null;
        if (pod?.kind !== 'Pod') continue;
        const { code, stderr } = await dryRun(JSON.stringify({ ...pod, metadata: { ...pod.metadata, namespace: 'foo' } }), 'foo');
        assert.notEqual(code, 0, `${pod.metadata.name} was let in`);
        // The API server refuses some of them itself, before anybody is asked.
        if (!/admission webhook/.test(stderr)) continue;
        assert.match(stderr, /admission webhook "injector\.handfast\.io" denied the request/);
      }
    });
});

const POD = `
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: app:1
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      readinessProbe: {httpGet: {path: /ready, port: 8080}}
`;

test('a namespace that enforces restricted: the pod alone is let in, the mesh refuses it and names the level; privileged takes both', async () => {
  assert.equal((await dryRun(POD, 'restricted')).code, 0);
  const { code, stderr } = await dryRun(POD, 'restricted-mesh');
  assert.notEqual(code, 0);
  assert.match(stderr, /Pod Security level restricted.*NET_ADMIN/);
  const { objects } = await dryRun(POD, 'privileged-mesh');
  assert.deepEqual(
    objects[0]?.spec.initContainers?.map(({ name }) => name),
    ['handfast-init', 'handfast-proxy'],
  );
});

test('the sidecar alone meets the level restricted, as a real API server judges it; with one right more it does not', async () => {
  const { objects } = await dryRun(POD, 'privileged-mesh');
  const [pod] = objects;
  assert.ok(pod !== undefined);
  const sidecar = pod.spec.initContainers?.find(({ name }) => name === 'handfast-proxy');
  assert.ok(sidecar !== undefined);
  const alone = (change: object) =>
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'sidecar-alone' },
      spec: {
        ...pod.spec,
        initContainers: [{ ...sidecar, ...change }],
        // The host's path is what the namespace's level has to allow besides.
        volumes: pod.spec.volumes?.map((volume) => (volume.hostPath === undefined ? volume : { name: volume.name, emptyDir: {} })),
      },
    });
  const accepted = await dryRun(alone({}), 'restricted');
  assert.equal(accepted.code, 0, accepted.stderr);
  const { stderr } = await dryRun(alone({ securityContext: { ...sidecar.securityContext, allowPrivilegeEscalation: true } }), 'restricted');
  assert.match(stderr, /violates PodSecurity "restricted/);
});

test('injected once: what comes back to the webhook with a sidecar stays as it is, and a pod that only claims one is refused', async () => {
  const { objects } = await dryRun(POD, 'foo');
  const [pod] = objects;
  assert.ok(pod !== undefined);
  const { metadata, spec } = pod;
  const { name, labels } = metadata;
  const annotations = (metadata as { annotations?: object }).annotations;
  const again = await dryRun(JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name, labels, annotations }, spec }), 'foo');
  assert.equal(again.code, 0, again.stderr);
  assert.deepEqual(again.objects[0]?.spec.initContainers, spec.initContainers);
  const claims = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels, annotations },
    spec: { containers: [{ name: 'app', image: 'app:1' }] },
  });
  assert.match((await dryRun(claims, 'foo')).stderr, /denied the request/);
});

test("the containers that are put in carry no token for the API server, and the pod's own does", async () => {
  for (const sidecar of ['true', 'false']) {
    const { objects, stderr } = await dryRun(
      POD.replace('{name: app}', `{name: app, annotations: {sidecar.istio.io/nativeSidecar: "${sidecar}"}}`),
      'foo',
    );
    assert.ok(objects[0] !== undefined, stderr);
    const { initContainers = [], containers, volumes = [] } = objects[0].spec;
    const token = volumes.find(({ name }) => name.startsWith('kube-api-access-'))?.name;
    assert.ok(token !== undefined, 'this API server gives no tokens, so that nothing is shown');
    const holders = [...initContainers, ...containers].filter(({ volumeMounts = [] }) => volumeMounts.some(({ name }) => name === token));
    assert.deepEqual(
      holders.map(({ name }) => name),
      ['app'],
    );
    assert.equal(initContainers.length + containers.length, 3);
  }
});

test('what was injected offline is believed at the webhook, and is not where one argument was added', async () => {
  await mesh.cluster.apply('{apiVersion: v1, kind: ServiceAccount, metadata: {name: cart, namespace: foo}}');
  for (const file of ['pod-native', 'probes-http', 'lifecycle-hooks']) {
    const [document] = parseAllDocuments(textOf(`${file}.out.yaml`).replaceAll('registry.example/handfast:1.2.3', IMAGE));
    const pod = document?.toJS() as PodObject;
    const manifest = (spec: PodObject['spec']) => JSON.stringify({ ...pod, metadata: { ...pod.metadata, namespace: 'foo' }, spec });
    const { code, stderr, objects } = await dryRun(manifest(pod.spec), 'foo');
    assert.equal(code, 0, `${file}: ${stderr}`);
    const proxies = objects[0]?.spec.initContainers?.filter(({ name }) => name === 'handfast-proxy');
    assert.equal(proxies?.length, 1);
    const more = pod.spec.initContainers?.map((container) =>
      container.name === 'handfast-proxy' ? { ...container, args: [...(container.args ?? []), '--help'] } : container,
    );
    assert.match((await dryRun(manifest({ ...pod.spec, initContainers: more ?? [] }), 'foo')).stderr, /handfast-proxy: args/, file);
  }
});

test('pods that controllers make are injected as any other: of a Deployment, and of a Job', async () => {
  await mesh.cluster.apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: foo}
spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: foo}
spec: {template: {metadata: {labels: {app: once}}, spec: {restartPolicy: Never, containers: [{name: once, image: "once:1"}]}}}
`);
  const deadline = performance.now() + 60_000;
  for (;;) {
    const { stdout } = await mesh.cluster.kubectl(['get', 'pods', '-n', 'foo', '-o', 'json']);
    const { items } = JSON.parse(stdout) as { items: PodObject[] };
    if (items.length >= 3) {
      for (const { spec } of items)
        assert.ok(spec.initContainers?.some(({ name, restartPolicy }) => name === 'handfast-proxy' && restartPolicy === 'Always'));
      return;
    }
    assert.ok(performance.now() < deadline, `${items.length} pods after 60 s`);
    await delay(200);
  }
});

describe('pods that run unmeshed', () => {
  const pod = (name: string, namespace: string, more = '') =>
    `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${namespace}${more}}, spec: {containers: [{name: a, image: "a:1"}]}}\n---\n`;
  const ask = async (...more: readonly string[]) =>
    handfast(
      'unmeshed',
      `--config=${mesh.injectorConfig}`,
      `--kube-server=${mesh.cluster.server}`,
      `--kube-ca=${mesh.cluster.caFile}`,
      `--kube-token=${mesh.cluster.tokenFile}`,
      '--namespace=late',
      ...more,
    );

  test('who was made before the namespace was labelled is listed, neither who has a sidecar nor who opted out; made anew, it is listed no more', async () => {
    await mesh.cluster.apply('{apiVersion: v1, kind: Namespace, metadata: {name: late}}');
    await mesh.cluster.apply(pod('early', 'late') + pod('out', 'late', ', labels: {sidecar.istio.io/inject: "false"}'));
    assert.equal((await ask()).code, 0);
    await mesh.cluster.apply('{apiVersion: v1, kind: Namespace, metadata: {name: late, labels: {istio-injection: enabled}}}');
    await mesh.cluster.apply(pod('meshed', 'late'));
    const listed = await ask('--output=json');
    assert.equal(listed.code, 1, listed.stderr);
    const { unmeshed } = JSON.parse(listed.stdout) as { unmeshed: { name: string; why: string }[] };
    assert.deepEqual(
      unmeshed.map(({ name }) => name),
      ['early'],
    );
    assert.match(
      (await ask()).stdout,
      /^1 pod runs unmeshed\n.*\nlate +early +- +namespace late is labelled istio-injection=enabled; it has not come past/,
    );
    // The injector has seen it by itself.
    const injector = mesh.roles.injector;
    assert.ok(injector !== undefined);
    const said = await injector.said('a pod runs unmeshed');
    assert.match(JSON.stringify(said), /"pod":"early"/);
    const { code, stderr } = await mesh.cluster.kubectl(['delete', 'pod', 'early', '-n', 'late', '--grace-period=0', '--force']);
    assert.equal(code, 0, stderr);
    await mesh.cluster.apply(pod('early', 'late'));
    const after = await ask();
    assert.equal(after.code, 0, after.stdout);
    assert.equal(after.stdout, 'every pod that should have a sidecar has one\n');
  });

  test('an account that may not see pods is told so at once', async () => {
    await mesh.cluster.apply('{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: late}}');
    const { stdout } = await mesh.cluster.kubectl(['create', 'token', 'nobody', '-n', 'late']);
    const token = `${mesh.cluster.dir}/nobody`;
    await writeFile(token, stdout, { mode: 0o600 });
    const { code, stderr } = await ask(`--kube-token=${token}`);
    assert.equal(code, 1);
    assert.match(stderr, /pods is forbidden.*system:serviceaccount:late:nobody/);
  });
});
