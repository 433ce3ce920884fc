// Handfast as the bench runs it: `up` for certificates and policy, STRICT for the whole mesh, and compiled sidecars behind real iptables.

import { readFileSync } from 'node:fs';
import { access, chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../test/support/namespaces.ts';
import { BACKEND_PORT } from './backend.ts';
import type { Build } from './build.ts';
import type { Group } from './client-tls.ts';
import { checkout, type Running, type Testbed, until } from './testbed.ts';

const PROXY_UID = 1337;
const NAMESPACE = 'bench';
/** Of every service: what a captured client dials. */
const SERVICE_PORT = 80;

/** The peers' OpenSSL 3.0 has no ML-KEM, so our sidecars are held to X25519 among themselves too. In production they offer X25519MLKEM768 first. */
const ONLY_X25519 = 'data:text/javascript,import tls from "node:tls"; tls.DEFAULT_ECDH_CURVE = "X25519";';

export interface Mesh {
  /** Where the CA keeps its keys: the peers' certificates come from the same one. */
  readonly caDir: string;
  /** The address of the service in front of a pod. */
  service(pod: Pod): { host: string; port: number };
  /** Captures a pod's traffic. Once for each pod. */
  capture(pod: Pod): Promise<void>;
  startSidecar(pod: Pod, as: { group: Group; workers: number }): Promise<Running>;
}

export interface MeshOptions {
  readonly name: string;
  readonly build: Build;
  /** `tunnel`: takes HBONE from other sidecars. `http`: the sidecar reads requests. */
  readonly pods: readonly { readonly pod: Pod; readonly tunnel: boolean; readonly http: boolean }[];
  /** Replaces certificates this often; left alone, they stay for the run. */
  readonly rotateEvery?: string;
}

/** Every pod is meshed, and each stands behind a service of its own. */
export async function startMesh(testbed: Testbed, { name, build: { main }, pods, rotateEvery }: MeshOptions): Promise<Mesh> {
  const root = join(testbed.directory, name);
  const [configDir, caDir, runDir] = [join(root, 'config'), join(root, 'ca'), join(root, 'run')];
  await mkdir(configDir, { recursive: true });
  await writeFile(join(configDir, 'mesh.yaml'), meshYaml(pods));
  const control = await testbed.addPod(`${name}-control`);
  const rotation = rotateEvery === undefined ? [] : ['--rotate-every', rotateEvery];
  const up = testbed.start(
    control,
    [process.execPath, main, 'up', '--config', configDir, '--state', caDir, '--run-dir', runDir, ...rotation, '--log-level', 'warn'],
    { name: `${name}-up`, on: 'load' },
  );
  const socket = join(runDir, 'agent.sock');
  await until(() => access(socket), { timeoutMs: 20_000, running: [up] });
  const tokenFileOf = (pod: Pod) => join(root, `${pod.name}.token`);

  return {
    caDir,
    service: (pod) => ({ host: clusterIp(pods.findIndex((entry) => entry.pod === pod)), port: SERVICE_PORT }),
    async capture(pod) {
      const create = ['token', 'create', '--namespace', NAMESPACE, '--service-account', pod.name, '--state', caDir];
      await writeFile(tokenFileOf(pod), await testbed.run(control, [process.execPath, main, ...create], 20_000), { mode: 0o600 });
      await chown(tokenFileOf(pod), PROXY_UID, PROXY_UID);
      await pod.exec(['sh', join(checkout, 'iptables/handfast-iptables.sh'), 'apply']);
    },
    async startSidecar(pod, { group, workers }) {
      const place = ['--agent', `unix:${socket}`, '--token-file', tokenFileOf(pod), '--pod-name', pod.name, '--pod-namespace', NAMESPACE];
      const held = group === 'X25519' ? ['--import', ONLY_X25519] : [];
      const more = workers === 1 ? [] : ['--workers', String(workers)];
      return testbed.start(pod, [process.execPath, ...imageFlags(), ...held, main, 'proxy', ...place, ...more, '--log-level', 'warn'], {
        name: `${pod.name}-sidecar`,
        on: workers === 1 ? 'proxy' : 'all',
        uid: PROXY_UID,
      });
    },
  };
}

/** Node's flags as the image has them: what is measured is what is run. */
function imageFlags(): string[] {
  const [, entrypoint = '[]'] = /^ENTRYPOINT (\[.*\])$/m.exec(readFileSync(join(checkout, 'Dockerfile'), 'utf8')) ?? [];
  return (JSON.parse(entrypoint) as string[]).filter((word) => word.startsWith('--'));
}

function clusterIp(index: number): string {
  return `10.96.0.${index + 10}`;
}

function meshYaml(pods: MeshOptions['pods']): string {
  const objects: object[] = [
    {
      apiVersion: 'security.istio.io/v1',
      kind: 'PeerAuthentication',
      metadata: { name: 'default', namespace: 'istio-system' },
      spec: { mtls: { mode: 'STRICT' } },
    },
    ...pods.flatMap(({ pod: { name, ipv4 }, tunnel, http }, index) => [
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name, namespace: NAMESPACE },
        spec: {
          clusterIP: clusterIp(index),
          selector: { app: name },
          ports: [{ port: SERVICE_PORT, targetPort: BACKEND_PORT, appProtocol: http ? 'http' : 'tcp' }],
        },
      },
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: {
          name,
          namespace: NAMESPACE,
          labels: {
            app: name,
            'security.istio.io/tlsMode': 'istio',
            ...(tunnel ? { 'networking.istio.io/tunnel': 'http' } : {}),
          },
        },
        spec: { serviceAccountName: name },
        status: { podIP: ipv4 },
      },
    ]),
  ];
  return `${objects.map((object) => JSON.stringify(object)).join('\n---\n')}\n`;
}
