// Handfast as the bench runs it: `up` for certificates and policy, STRICT for the whole mesh, and compiled sidecars behind real iptables.

import { access, chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../test/support/namespaces.ts';
import { BACKEND_PORT } from './backend.ts';
import { checkout, type Running, type Testbed, until } from './testbed.ts';

const PROXY_UID = 1337;
const NAMESPACE = 'bench';

/** The service in front of the meshed server: what a captured client dials. */
export const SERVICE = { host: '10.96.0.10', port: 80 } as const;

/**
 * The peers' OpenSSL 3.0 has no ML-KEM, so our sidecars are held to X25519 among themselves too. In production they
 * offer X25519MLKEM768 first.
 */
const ONLY_X25519 = 'data:text/javascript,import tls from "node:tls"; tls.DEFAULT_ECDH_CURVE = "X25519";';

export interface Mesh {
  /** Where the CA keeps its keys: the peers' certificates come from the same one. */
  readonly caDir: string;
  /** Captures a pod's traffic and starts its sidecar. */
  startSidecar(pod: Pod): Promise<Running>;
}

/** Every pod is meshed; the one called `server` stands behind SERVICE. */
export async function startMesh(testbed: Testbed, pods: readonly Pod[]): Promise<Mesh> {
  const main = testbed.compile();
  const [configDir, caDir, runDir] = [join(testbed.directory, 'config'), join(testbed.directory, 'ca'), join(testbed.directory, 'run')];
  await mkdir(configDir);
  await writeFile(join(configDir, 'mesh.yaml'), meshYaml(pods));
  const control = await testbed.addPod('control');
  const up = testbed.start(
    control,
    [process.execPath, main, 'up', '--config', configDir, '--state', caDir, '--run-dir', runDir, '--log-level', 'warn'],
    { name: 'up', on: 'load' },
  );
  const socket = join(runDir, 'agent.sock');
  await until(() => access(socket), { timeoutMs: 20_000, running: [up] });

  return {
    caDir,
    async startSidecar(pod) {
      const tokenFile = join(testbed.directory, `${pod.name}.token`);
      const create = ['token', 'create', '--namespace', NAMESPACE, '--service-account', pod.name, '--state', caDir];
      await writeFile(tokenFile, await testbed.run(control, [process.execPath, main, ...create], 20_000), { mode: 0o600 });
      await chown(tokenFile, PROXY_UID, PROXY_UID);
      await pod.exec(['sh', join(checkout, 'iptables/handfast-iptables.sh'), 'apply']);
      const settings = ['--agent', `unix:${socket}`, '--token-file', tokenFile, '--pod-name', pod.name, '--pod-namespace', NAMESPACE];
      return testbed.start(pod, [process.execPath, '--import', ONLY_X25519, main, 'proxy', ...settings, '--log-level', 'warn'], {
        name: `${pod.name}-sidecar`,
        on: 'proxy',
        uid: PROXY_UID,
      });
    },
  };
}

function meshYaml(pods: readonly Pod[]): string {
  return `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: istio-system }
spec: { mtls: { mode: STRICT } }
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: ${NAMESPACE} }
spec:
  clusterIP: ${SERVICE.host}
  selector: { app: server }
  ports: [{ port: ${SERVICE.port}, targetPort: ${BACKEND_PORT} }]
${pods
  .map(
    ({ name, ipv4 }) => `---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${NAMESPACE}, labels: { app: ${name}, security.istio.io/tlsMode: istio } }
spec: { serviceAccountName: ${name} }
status: { podIP: ${ipv4} }
`,
  )
  .join('')}`;
}
