// The chart's own commands, run with the rights and tokens of the chart's own accounts: what it starts in a cluster starts here, and may do what it must.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { freePort } from '../test/support/free-port.ts';
import { handfast, Role } from '../test/support/handfast.ts';
import { at, find, type Json, SYSTEM } from './support/chart.ts';
import { InstalledChart, until } from './support/installed-chart.ts';
import { HOST, type KubeCluster } from './support/kube-cluster.ts';

let chart: InstalledChart;
let cluster: KubeCluster;
let objects: readonly Json[];
let addresses: Readonly<Record<'ca' | 'control', string>>;
const roles: Role[] = [];

before(async () => {
  chart = await InstalledChart.start();
  cluster = chart.cluster;
  objects = chart.objects;
  addresses = { ca: `${HOST}:${await freePort()}`, control: `${HOST}:${await freePort()}` };
  await cluster.apply('{apiVersion: v1, kind: Node, metadata: {name: node-1}}');
});

after(async () => {
  for (const role of roles.reverse()) await role.stop();
  await chart?.[Symbol.asyncDispose]();
});

const read = async (object: string, path: string) =>
  (await cluster.kubectl(['get', object, '-n', SYSTEM, '-o', `jsonpath=${path}`])).stdout;

const file = async (name: string, text: string) => {
  const path = join(cluster.dir, name);
  await writeFile(path, text, { mode: 0o600 });
  return path;
};

const token = async (account: string, ...of: readonly string[]) =>
  (await cluster.kubectl(['create', 'token', account, '-n', SYSTEM, ...of])).stdout;

/** How the role reaches the API server in a pod, and here. */
async function kube(account: string): Promise<string[]> {
  return [
    `--kube-server=${cluster.server}`,
    `--kube-ca=${cluster.caFile}`,
    `--kube-token=${await file(`${account}-token`, await token(account))}`,
  ];
}

/** What a node or control proves itself with: a token of a pod that runs on a node. */
async function joining(account: string): Promise<Record<string, string>> {
  await cluster.apply(
    `{apiVersion: v1, kind: Pod, metadata: {name: ${account}-here, namespace: ${SYSTEM}}, spec: {serviceAccountName: ${account}, nodeName: node-1, containers: [{name: a, image: "a:1"}]}}`,
  );
  const bound = ['--audience=handfast-node', '--bound-object-kind=Pod', `--bound-object-name=${account}-here`];
  return {
    '--join-token-file': await file(`${account}-join`, await token(account, ...bound)),
    '--trust-bundle': await file('root.pem', await read('configmap/handfast-ca-root', '{.data.root\\.pem}')),
    '--ca': addresses.ca,
    '--state': join(cluster.dir, account),
  };
}

/** The container's own arguments, with what is another here in its place. */
async function start(of: { kind: string; name: string; said: string; here: Readonly<Record<string, string>>; more: readonly string[] }) {
  const container = at(find(objects, of.kind, of.name), 'spec', 'template', 'spec', 'containers', 0);
  const args = at(container, 'args');
  assert.ok(Array.isArray(args));
  const given = args.map(String);
  const here = { ...of.here, '--log-level': 'info' };
  const kept = given.filter((arg) => !Object.keys(here).includes(arg.split('=')[0] ?? ''));
  const role = new Role(...kept, ...Object.entries(here).map(([flag, value]) => `${flag}=${value}`), ...of.more);
  roles.push(role);
  await role.said(of.said);
  return { role, given, container };
}

const sockets = (role: string) => ({
  '--socket': join(cluster.dir, `${role}.sock`),
  '--operator-socket': join(cluster.dir, `${role}-operator.sock`),
});

async function probe(container: unknown, { from, to }: { from: string; to: string }): Promise<boolean> {
  const command = at(container, 'readinessProbe', 'exec', 'command');
  assert.ok(Array.isArray(command) && command[0] === 'node');
  const args = command.slice(1).map((word) => String(word).replace(from, to));
  return promisify(execFile)(process.execPath, args).then(
    () => true,
    () => false,
  );
}

test('the CA proves tokens and publishes its roots, and both of them while they are exchanged', async () => {
  await until('the chart', async () => (await read('configmap/handfast-ca-root', '{.metadata.name}')) !== '');
  assert.equal(await read('configmap/handfast-ca-root', '{.data}'), '');
  const access = await kube('handfast-ca');
  const here = {
    ...sockets('ca'),
    '--state': join(cluster.dir, 'ca'),
    '--listen': addresses.ca,
    '--token-review': cluster.server,
    '--token-review-ca': cluster.caFile,
    '--token-review-token': join(cluster.dir, 'handfast-ca-token'),
  };
  const probed = { from: '/run/handfast', to: cluster.dir };
  const chart = at(find(objects, 'StatefulSet', 'handfast-ca'), 'spec', 'template', 'spec', 'containers', 0);
  assert.equal(await probe(chart, probed), false, 'not ready before it runs');
  const { container } = await start({ kind: 'StatefulSet', name: 'handfast-ca', said: 'trust bundle published', here, more: access });
  await until('the CA to be ready', () => probe(container, probed));
  const roots = async () => (await read('configmap/handfast-ca-root', '{.data.root\\.pem}')).match(/BEGIN CERTIFICATE/g)?.length;
  assert.equal(await roots(), 1);
  const { code, stderr } = await handfast('root', 'prepare', `--run-dir=${cluster.dir}`);
  assert.equal(code, 0, stderr);
  await until('both roots', async () => (await roots()) === 2);
});

test("control follows the API server, and the node's agent joins, by the tokens that their pods are given", async () => {
  const control = await start({
    kind: 'StatefulSet',
    name: 'handfast-control',
    said: 'control listening',
    here: { ...sockets('control'), ...(await joining('handfast-control')), '--listen': addresses.control },
    more: await kube('handfast-control'),
  });
  await until('it to lead', async () => (await read('lease/handfast-control', '{.spec.holderIdentity}')) !== '');
  assert.ok(control.given.includes(`--ca=handfast-ca.${SYSTEM}.svc:15012`));
  const agent = await start({
    kind: 'DaemonSet',
    name: 'handfast-agent',
    said: 'agent listening',
    here: {
      ...sockets('agent'),
      ...(await joining('handfast-agent')),
      '--workload-socket': join(cluster.dir, 'workload.sock'),
      '--control': addresses.control,
    },
    more: [],
  });
  const replicas = [0, 1].map((index) => `handfast-control-${index}.handfast-control.${SYSTEM}.svc:15010`);
  assert.ok(agent.given.includes(`--control=${replicas.join(',')}`));
  for (const [{ container }, from] of [
    [control, '/run/handfast'],
    [agent, '/run/handfast-operator'],
  ] as const)
    await until('it to be ready', () => probe(container, { from, to: cluster.dir }));
});

test('the injector fills its Secret and the bundle of every webhook', async () => {
  const config = String(at(find(objects, 'ConfigMap', 'handfast-injector'), 'data', 'config.yaml'));
  const port = await freePort();
  await start({
    kind: 'Deployment',
    name: 'handfast-injector',
    said: 'injector listening',
    here: { '--config': await file('injector.yaml', config), '--port': String(port) },
    more: await kube('handfast-injector'),
  });
  const bundles = async () =>
    (await read('mutatingwebhookconfiguration/handfast-injector', '{.webhooks[*].clientConfig.caBundle}')).split(' ').filter(Boolean);
  await until('the bundles', async () => (await bundles()).length === 3);
  assert.equal(new Set(await bundles()).size, 1);
  assert.notEqual(await read('secret/handfast-injector-tls', '{.data.tls\\.key}'), '');
});
