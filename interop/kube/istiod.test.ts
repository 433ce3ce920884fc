// Real istiod in control's and the CA's place, on a real API server: our agent follows it as ztunnel would, sidecars have its certificates, and what is written in Istio's kinds holds.
// `make interop-istio` builds it (Go modules).

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../test/support/free-port.ts';
import { handfast, Role } from '../../test/support/handfast.ts';
import { PodNetwork } from '../../test/support/namespaces.ts';
import { ask, until } from '../../test-kube/support/asking.ts';
import { HOST, KubeCluster } from '../../test-kube/support/kube-cluster.ts';
import { PlayedKubelet, type PlayedPod } from '../../test-kube/support/played-kubelet.ts';

const ISTIOD = fileURLToPath(new URL('../../.interop/go/pilot-discovery', import.meta.url));
const SERVER_NAME = 'istiod.istio-system.svc';
const CRDS = ['peerauthentications', 'authorizationpolicies', 'destinationrules', 'serviceentries'];
const HTTPBIN = JSON.stringify([process.execPath, fileURLToPath(new URL('../../demo/httpbin.ts', import.meta.url)), '8000']);
const pod = (name: string, namespace: string, command = '["sleep", "3600"]') => `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: ${name}, namespace: ${namespace}}}
---
{apiVersion: v1, kind: Service, metadata: {name: ${name}, namespace: ${namespace}}, spec: {selector: {app: ${name}}, ports: [{name: http, port: 8000}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${name}}},
 spec: {serviceAccountName: ${name}, containers: [{name: app, image: "app:1", command: ${command}, ports: [{containerPort: 8000}]}]}}
`;

let cluster: KubeCluster;
let network: PodNetwork;
let kubelet: PlayedKubelet;
let istiod: ChildProcess | undefined;
let agent: Role | undefined;
let httpbin: PlayedPod;
let sleep: PlayedPod;
let legacy: PlayedPod;
let address: string;

before(async () => {
  cluster = await KubeCluster.start();
  network = await PodNetwork.create('istiod');
  const runDir = join(cluster.dir, 'run');
  await mkdir(runDir);
  kubelet = new PlayedKubelet({ cluster, network, node: 'node-1', hostPaths: { '/run/handfast': runDir } });
  for (const name of ['istio-system', 'foo', 'bar', 'legacy'])
    await cluster.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ${name}}}`);
  for (const plural of CRDS) await cluster.apply(await readFile(new URL(`../../deploy/crds/${plural}.yaml`, import.meta.url), 'utf8'));
  await cluster.apply('{apiVersion: v1, kind: Node, metadata: {name: node-1}}');
  await cluster.apply('{apiVersion: v1, kind: ServiceAccount, metadata: {name: handfast-agent, namespace: istio-system}}');
  const port = await freePort();
  await startIstiod(port);
  const root = join(cluster.dir, 'root.pem');
  await until('the roots', async () => {
    const { stdout } = await cluster.kubectl([
      'get',
      'configmap',
      'istio-ca-root-cert',
      '-n',
      'foo',
      '-o',
      'jsonpath={.data.root-cert\\.pem}',
    ]);
    await writeFile(root, stdout);
    return stdout !== '';
  });
  const token = join(cluster.dir, 'agent-token');
  await writeFile(
    token,
    (await cluster.kubectl(['create', 'token', 'handfast-agent', '-n', 'istio-system', '--audience=istio-ca'])).stdout,
  );
  agent = new Role(
    'agent',
    `--socket=${join(runDir, 'agent.sock')}`,
    `--workload-socket=${join(runDir, 'workload.sock')}`,
    `--operator-socket=${join(cluster.dir, 'agent-operator.sock')}`,
    `--ca=${HOST}:${port}`,
    '--ca-kind=istio',
    `--ca-server-name=${SERVER_NAME}`,
    `--trust-bundle=${root}`,
    `--control=${HOST}:${port}`,
    '--control-kind=istio',
    `--control-server-name=${SERVER_NAME}`,
    `--control-token-file=${token}`,
  );
  await agent.said('agent listening');
  httpbin = await play(pod('httpbin', 'bar', HTTPBIN), 'httpbin', 'bar');
  sleep = await play(pod('sleep', 'foo'), 'sleep', 'foo');
  await cluster.apply(pod('legacy', 'legacy'));
  legacy = await kubelet.run('legacy', 'legacy');
  address = (await cluster.kubectl(['get', 'service', 'httpbin', '-n', 'bar', '-o', 'jsonpath={.spec.clusterIP}'])).stdout;
});

after(async () => {
  await network?.dispose();
  await agent?.stop();
  istiod?.kill('SIGKILL');
  await cluster?.[Symbol.asyncDispose]();
});

async function startIstiod(port: number): Promise<void> {
  const mesh = join(cluster.dir, 'mesh.yaml');
  await writeFile(mesh, 'trustDomain: cluster.local\n');
  const local = async () => `127.0.0.1:${await freePort()}`;
  istiod = spawn(
    ISTIOD,
    [
      'discovery',
      `--kubeconfig=${join(cluster.dir, 'kubeconfig')}`,
      '--namespace=istio-system',
      `--meshConfig=${mesh}`,
      `--httpAddr=${await local()}`,
      `--httpsAddr=${await local()}`,
      `--monitoringAddr=${await local()}`,
      '--grpcAddr=',
      `--secureGRPCAddr=${HOST}:${port}`,
      '--ctrlz_port=0',
      '--log_output_level=default:warn',
    ],
    {
      cwd: cluster.dir,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env.PATH,
        HOME: cluster.dir,
        POD_NAME: 'istiod-1',
        POD_NAMESPACE: 'istio-system',
        CLUSTER_ID: 'Kubernetes',
        PILOT_ENABLE_AMBIENT: 'true',
        PILOT_CERT_PROVIDER: 'istiod',
        JWT_POLICY: 'third-party-jwt',
        REVISION: 'default',
      },
    },
  );
  const log = createWriteStream(join(cluster.dir, 'istiod.log'));
  istiod.stdout?.pipe(log);
  istiod.stderr?.pipe(log);
}

/** With the sidecar, whose token is for istiod. */
async function play(manifest: string, name: string, namespace: string): Promise<PlayedPod> {
  const config = join(cluster.dir, 'injector.yaml');
  await writeFile(config, 'image: handfast:test\ntokenAudience: istio-ca\n');
  const file = join(cluster.dir, 'pod.yaml');
  await writeFile(file, manifest);
  const { code, stdout, stderr } = await handfast('inject', '-f', file, `--config=${config}`);
  assert.equal(code, 0, stderr);
  await cluster.apply(stdout);
  return kubelet.run(namespace, name);
}

const inbound = async (of: (record: Readonly<Record<string, unknown>>) => boolean) =>
  (await httpbin.records('handfast-proxy')).findLast((record) => record.direction === 'inbound' && of(record));

test('two sidecars speak mTLS through a tunnel, by what istiod registers and with certificates of its CA', async () => {
  await until('the service', async () => (await ask(sleep, address)) === 200);
  await until('its record', async () => (await inbound(({ transport }) => transport === 'mtls')) !== undefined);
  const record = await inbound(({ transport }) => transport === 'mtls');
  assert.match(JSON.stringify(record), /spiffe:\/\/cluster\.local\/ns\/foo\/sa\/sleep/);
  assert.equal(record?.tunnel, 'HBONE');
  assert.equal(await ask(legacy, httpbin.netns.ipv4), 200);
});

test('STRICT, which istiod converts, refuses plaintext and not the mesh; deleted, it takes that back', async (t) => {
  await cluster.apply(
    '{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: bar}, spec: {mtls: {mode: STRICT}}}',
  );
  t.diagnostic(`STRICT bites ${await until('STRICT', async () => (await ask(legacy, httpbin.netns.ipv4)) === 0)} ms after kubectl`);
  assert.equal(await ask(sleep, address), 200);
  await until('its record', async () => (await inbound(({ decision }) => decision === 'refused')) !== undefined);
  assert.match(
    JSON.stringify(await inbound(({ decision }) => decision === 'refused')),
    /AUTHORIZATION_DENIED.*istio_converted_static_strict/,
  );
  await cluster.kubectl(['delete', 'peerauthentication', 'default', '-n', 'bar']);
  await until('its end', async () => (await ask(legacy, httpbin.netns.ipv4)) === 200);
});

test('a DENY by principal refuses whom it names, and nobody else', async () => {
  await cluster.apply(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-sleep, namespace: bar}
spec: {selector: {matchLabels: {app: httpbin}}, action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/foo/sa/sleep]}}]}]}
`);
  await until('DENY', async () => (await ask(sleep, address)) === 0);
  assert.equal(await ask(legacy, httpbin.netns.ipv4), 200);
  await cluster.kubectl(['delete', 'authorizationpolicy', 'no-sleep', '-n', 'bar']);
  await until('its end', async () => (await ask(sleep, address)) === 200);
});

test('while istiod is away, connections go on', async () => {
  istiod?.kill('SIGKILL');
  assert.equal(await ask(sleep, address), 200);
});
