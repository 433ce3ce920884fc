// Port 15020 behind real iptables: kubelet's plaintext reaches it under STRICT, and its probes the application, by both families.

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Mesh, type MeshPod } from '../support/local-mesh.ts';
import { requireNamespaces } from '../support/namespaces.ts';

const skip = requireNamespaces();

const strict = {
  apiVersion: 'security.istio.io/v1',
  kind: 'PeerAuthentication',
  metadata: { name: 'default', namespace: 'istio-system' },
  spec: { mtls: { mode: 'STRICT' } },
};

const probers = JSON.stringify({
  '/app-health/httpbin/livez': { httpGet: { path: '/get', port: 8000 }, timeoutSeconds: 5 },
  '/app-health/httpbin/readyz': { tcpSocket: { port: 8000 }, timeoutSeconds: 5 },
  '/app-health/httpbin/startupz': { httpGet: { path: '/get', port: 8001 }, timeoutSeconds: 5 },
});

describe('a status port behind real iptables', { skip }, () => {
  let dir: string;
  let mesh: Mesh;
  let kubelet: MeshPod;
  const pods = new Map<'v4' | 'v6', { pod: MeshPod; sidecar: ChildProcess; at: string }>();

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'handfast-test-'));
    chmodSync(dir, 0o755);
    mesh = await Mesh.create(dir, { rotateEvery: '1m', label: 'status' });
    kubelet = await mesh.addPod({ name: 'kubelet', namespace: 'node', meshed: false });
    const four = await mesh.addPod({ name: 'httpbin', namespace: 'four', meshed: true });
    const six = await mesh.addPod({ name: 'httpbin', namespace: 'six', meshed: true });
    await mesh.configureRegistry();
    await mesh.configure('policy.yaml', [strict]);
    await mesh.startControlPlane();
    for (const [family, pod, ip, at] of [
      ['v4', four, four.pod.ipv4, four.pod.ipv4],
      ['v6', six, six.pod.ipv6, `[${six.pod.ipv6}]`],
    ] as const) {
      const sidecar = await mesh.startSidecar(pod, ['--app-probers', probers, '--pod-ip', ip]);
      pods.set(family, { pod, sidecar, at });
      await mesh.startApplication(pod, 'httpbin.ts', ['8000']);
      await mesh.awaitReady(pod);
    }
  });

  after(async () => {
    await mesh?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  const of = (family: 'v4' | 'v6') => {
    const found = pods.get(family);
    if (found === undefined) throw new Error(`no pod for ${family}`);
    return found;
  };

  for (const family of ['v4', 'v6'] as const) {
    it(`${family}: probes-reach-the-application-that-plaintext-does-not`, async () => {
      const { at } = of(family);
      assert.equal(await mesh.get(kubelet, `http://${at}:8000/get`), 0);
      assert.equal(await mesh.get(kubelet, `http://${at}:15020/app-health/httpbin/livez`), 200);
      assert.equal(await mesh.get(kubelet, `http://${at}:15020/app-health/httpbin/readyz`), 200);
      assert.equal(await mesh.get(kubelet, `http://${at}:15020/app-health/httpbin/startupz`), 500);
    });

    it(`${family}: a-probe-is-no-connection-of-the-mesh`, async () => {
      const { pod } = of(family);
      const records = await mesh.records(`${pod.name}.${pod.namespace}`);
      const inbound = records.filter(({ msg, direction }) => msg === 'connection' && direction === 'inbound');
      assert.ok(inbound.every(({ code }) => code === 'PLAINTEXT_UNDER_STRICT'));
      assert.ok(!records.some(({ msg, direction }) => msg === 'connection' && direction === 'outbound'));
    });

    it(`${family}: metrics-for-everybody-and-quitquitquit-for-the-pod-alone`, async () => {
      const { at, pod, sidecar } = of(family);
      assert.equal(await mesh.get(kubelet, `http://${at}:15020/metrics`), 200);
      const quit = (from: MeshPod, url: string) => mesh.get(from, url, '-X', 'POST');
      assert.equal(await quit(kubelet, `http://${at}:15020/quitquitquit`), 403);
      assert.equal(await mesh.get(pod, 'http://127.0.0.1:15020/healthz/ready'), 200);
      const ended = once(sidecar, 'exit');
      assert.equal(await quit(pod, family === 'v4' ? 'http://127.0.0.1:15020/quitquitquit' : 'http://[::1]:15020/quitquitquit'), 200);
      assert.deepEqual(await ended, [0, null]);
    });
  }
});
