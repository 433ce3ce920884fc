// `npm run bench -- kube`: thousands of pods in a real API server: what control needs to follow them, how long a change takes to a proxy, and what a sidecar keeps of them.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createLocalToken, DEFAULT_AUDIENCE, openLocalTokenKey } from '../src/ca/local-token.ts';
import { runDeltaAdsClient } from '../src/discovery/delta-ads-client.ts';
import { Interests } from '../src/discovery/interests.ts';
import { MeshSource } from '../src/discovery/mesh-source.ts';
import { sidecarSubscriptions } from '../src/discovery/sidecar-subscriptions.ts';
import type { KubeApi } from '../src/kube/api.ts';
import type { MeshSnapshot } from '../src/policy/mesh-snapshot.ts';
import { podUid } from '../src/policy/model.ts';
import { Snapshot } from '../src/snapshot.ts';
import { unixTarget } from '../src/wire/grpc-target.ts';
import { Role } from '../test/support/handfast.ts';
import { KubeCluster } from '../test-kube/support/kube-cluster.ts';
import { rssMb } from './cpu.ts';
import { describeMachine } from './machine.ts';

const HELP = `usage: sh test-kube/run.sh -- npm run bench -- kube [--pods 5000] [--services 1000] [--json FILE]

Pods and services in a real API server (etcd and kube-apiserver, see test-kube/install.sh): control's memory and its time to the first snapshot, the time from a policy that is
written to a proxy that has it, and the memory of agent and sidecar, beside those with ten pods: the sidecar's should be the same.
`;

const FEW = 10;
const PODS_PER_NAMESPACE = 100;
const AT_ONCE = 16;
const CHANGES = 20;
const DEADLINE_MS = 300_000;
const CRDS = new URL('../deploy/crds/', import.meta.url);

interface Size {
  readonly pods: number;
  readonly services: number;
}

interface Measured extends Size {
  /** From the start of the process to its socket. */
  readonly controlStartMs: number;
  readonly controlMb: number;
  readonly agentMb: number;
  readonly sidecarMb: number;
  /** From the API server's answer to a written policy until a proxy's snapshot has it: median of so many. */
  readonly updateMs: number;
}

export async function benchKube(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      pods: { type: 'string', default: '5000' },
      services: { type: 'string', default: '1000' },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const size = { pods: Number(values.pods), services: Number(values.services) };
  if (values.help || !Object.values(size).every((count) => Number.isInteger(count) && count >= FEW && count <= 60_000)) {
    process.stdout.write(HELP);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const { cpu, cores, node } = describeMachine();
  process.stdout.write(`${cpu}, ${cores} cores; Node.js ${node}\n`);
  await using cluster = await KubeCluster.start();
  for (const plural of [
    'peerauthentications',
    'authorizationpolicies',
    'destinationrules',
    'serviceentries',
    'scopeconfigs',
    'meshconfigs',
  ])
    await cluster.apply(await readFile(new URL(`${plural}.yaml`, CRDS), 'utf8'));
  await cluster.kubectl(['wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all']);
  const results: Measured[] = [];
  let there: Size = { pods: 0, services: 0 };
  for (const wanted of [{ pods: FEW, services: FEW }, size]) {
    await populate(cluster.api(), there, wanted);
    there = wanted;
    const measured = await measure(cluster, wanted);
    results.push(measured);
    process.stdout.write(`${JSON.stringify(measured)}\n`);
  }
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ machine: describeMachine(), results }, null, 2)}\n`);
}

async function measure(cluster: KubeCluster, size: Size): Promise<Measured> {
  const dir = join(cluster.dir, `mesh-${size.pods}`);
  await mkdir(dir, { recursive: true });
  const socket = (name: string) => join(dir, `${name}.sock`);
  await using ca = new Role('ca', `--state=${dir}/ca`, `--socket=${socket('ca')}`, `--operator-socket=${socket('ca-operator')}`);
  await ca.said('CA listening');
  const started = performance.now();
  await using control = new Role(
    'control',
    '--kubernetes',
    `--kube-server=${cluster.server}`,
    `--kube-ca=${cluster.caFile}`,
    `--kube-token=${cluster.tokenFile}`,
    `--state=${dir}/control`,
    `--socket=${socket('control')}`,
    `--operator-socket=${socket('control-operator')}`,
    '--log-level=info',
  );
  await control.said('control listening');
  const controlStartMs = Math.round(performance.now() - started);
  await using agent = new Role(
    'agent',
    `--socket=${socket('agent')}`,
    `--workload-socket=${socket('workload')}`,
    `--operator-socket=${socket('agent-operator')}`,
    `--control=unix:${socket('control')}`,
    `--ca=unix:${socket('ca')}`,
    `--state=${dir}/agent`,
  );
  await agent.said('agent listening');
  const tokenFile = join(dir, 'token');
  const key = await openLocalTokenKey(join(dir, 'ca'));
  const token = createLocalToken({
    namespace: 'scale-0',
    serviceAccount: 'default',
    audience: DEFAULT_AUDIENCE,
    ttlS: 3600,
    now: Date.now(),
    key,
  });
  await writeFile(tokenFile, token);
  await using sidecar = new Role(
    'proxy',
    `--agent=unix:${socket('agent')}`,
    `--token-file=${tokenFile}`,
    '--pod-name=pod-0',
    '--pod-namespace=scale-0',
    ...['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((name) => `--${name}-port=0`),
  );
  await sidecar.said('sidecar listening');
  const watching = new AbortController();
  const mesh = new Snapshot<MeshSnapshot>();
  const source = new MeshSource(mesh, () => true);
  const log = { info: () => undefined, warn: () => undefined };
  const self = podUid('scale-0/pod-0');
  const following = runDeltaAdsClient({
    ...sidecarSubscriptions(self, new Interests({ self, log, signal: watching.signal })),
    target: unixTarget(`unix:${socket('agent')}`),
    nodeId: 'sidecar~scale-0~bench',
    token: new Snapshot(token),
    apply: (typeUrl, change) => source.apply(typeUrl, change),
    log,
    signal: watching.signal,
  });
  try {
    await mesh.first(AbortSignal.timeout(DEADLINE_MS));
    const updates: number[] = [];
    for (let change = 0; change < CHANGES; change++) updates.push(await update(cluster.api(), { mesh, change, size }));
    // What came in meanwhile is given back to the system by then.
    await delay(5_000);
    const memory = (role: Role) => Math.round(rssMb([role.child.pid ?? 0]));
    return {
      ...size,
      controlStartMs,
      controlMb: memory(control),
      agentMb: memory(agent),
      sidecarMb: memory(sidecar),
      updateMs: Math.round(updates.sort((a, b) => a - b)[CHANGES / 2] ?? 0),
    };
  } finally {
    watching.abort();
    await following;
  }
}

/** Writes a policy, and waits until the next snapshot that a proxy would have. */
async function update(api: KubeApi, { mesh, change, size }: { mesh: Snapshot<MeshSnapshot>; change: number; size: Size }): Promise<number> {
  const name = `change-${size.pods}-${change}`;
  const arrived = new Promise<number>((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('a change did not arrive')), DEADLINE_MS);
    const stop = mesh.subscribe(() => {
      clearTimeout(late);
      stop();
      resolve(performance.now());
    });
  });
  await api.request({
    method: 'POST',
    path: '/apis/security.istio.io/v1/namespaces/scale-0/peerauthentications',
    body: {
      apiVersion: 'security.istio.io/v1',
      kind: 'PeerAuthentication',
      metadata: { name, namespace: 'scale-0' },
      // Each changes what holds: the port's mode of the pods it selects.
      spec: { selector: { matchLabels: { app: 'svc-0' } }, portLevelMtls: { [String(9000 + change)]: { mode: 'STRICT' } } },
    },
  });
  const written = performance.now();
  const took = (await arrived) - written;
  await api.request({ method: 'DELETE', path: `/apis/security.istio.io/v1/namespaces/scale-0/peerauthentications/${name}` });
  // Its end is a change of its own.
  await new Promise<void>((resolve) => {
    const stop = mesh.subscribe(() => {
      stop();
      resolve();
    });
  });
  return Math.max(0, took);
}

async function populate(api: KubeApi, there: Size, wanted: Size): Promise<void> {
  const namespaceOf = (index: number) => `scale-${Math.floor(index / PODS_PER_NAMESPACE)}`;
  const namespaces = (size: Size) => Math.ceil(Math.max(size.pods, 1) / PODS_PER_NAMESPACE);
  for (let index = there.pods === 0 ? 0 : namespaces(there); index < namespaces(wanted); index++) {
    await api.request({
      method: 'POST',
      path: '/api/v1/namespaces',
      body: { apiVersion: 'v1', kind: 'Namespace', metadata: { name: `scale-${index}` } },
    });
    await untilThere(api, `/api/v1/namespaces/scale-${index}/serviceaccounts/default`);
  }
  const perNamespace = Math.ceil(wanted.services / namespaces(wanted));
  const services = Array.from({ length: wanted.services - there.services }, (_, index) => index + there.services);
  await inParallel(services, async (index) => {
    const namespace = `scale-${index < FEW ? 0 : index % namespaces(wanted)}`;
    const name = `svc-${index}`;
    await api.request({
      method: 'POST',
      path: `/api/v1/namespaces/${namespace}/services`,
      body: {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name },
        spec: { selector: { app: `svc-${index % perNamespace}` }, ports: [{ port: 80, targetPort: 8080 }] },
      },
    });
  });
  const pods = Array.from({ length: wanted.pods - there.pods }, (_, index) => index + there.pods);
  await inParallel(pods, async (index) => {
    const namespace = namespaceOf(index);
    const name = `pod-${index}`;
    const labels = { app: `svc-${index % perNamespace}`, 'security.istio.io/tlsMode': 'istio', 'networking.istio.io/tunnel': 'http' };
    const spec = { containers: [{ name: 'app', image: 'app:1', ports: [{ containerPort: 8080 }] }] };
    await api.request({
      method: 'POST',
      path: `/api/v1/namespaces/${namespace}/pods`,
      body: { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels }, spec },
    });
    const ip = `10.${100 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
    const status = { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] };
    await api.request({ method: 'PATCH', path: `/api/v1/namespaces/${namespace}/pods/${name}/status`, body: { status } });
  });
}

async function untilThere(api: KubeApi, path: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await api.request({ method: 'GET', path });
      return;
    } catch (error) {
      if (tries > 300) throw error;
      await delay(100);
    }
  }
}

async function inParallel(all: readonly number[], run: (index: number) => Promise<void>): Promise<void> {
  const left = all[Symbol.iterator]();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const index of left) await run(index);
    }),
  );
}
