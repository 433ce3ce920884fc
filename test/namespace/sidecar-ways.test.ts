// The core of what a sidecar does, in the ways that are not the usual one: a TLS session for each connection to a pod without the tunnels' label, and several workers.

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually, type LogRecord, Mesh, type MeshPod } from '../support/local-mesh.ts';
import { requireNamespaces } from '../support/namespaces.ts';

const skip = requireNamespaces();
const CONNECTIONS = 12;

const mode = (name: string) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'PeerAuthentication',
  metadata: { name: 'default', namespace: 'istio-system' },
  spec: { mtls: { mode: name } },
});

const deny = (namespace: string, principal: string) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name: 'not-you', namespace },
  spec: { action: 'DENY', rules: [{ from: [{ source: { principals: [principal] } }] }] },
});

/** Who calls whom, and what the record of the connection says of the way. */
const WAYS = [
  { name: 'direct mTLS', from: 'sleep.foo', to: 'httpbin.direct', tunnel: undefined },
  { name: 'tunnels, two workers on both sides', from: 'sleep.many', to: 'httpbin.many', tunnel: 'HBONE' },
] as const;

describe('a sidecar behind real iptables, other ways', { skip }, () => {
  let dir: string;
  let mesh: Mesh;
  let legacy: MeshPod;
  const sidecars = new Map<string, ChildProcess>();

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'handfast-test-'));
    chmodSync(dir, 0o755);
    mesh = await Mesh.create(dir, { rotateEvery: '1s', label: 'ways' });
    await mesh.addPod({ name: 'sleep', namespace: 'foo', meshed: true });
    await mesh.addPod({ name: 'httpbin', namespace: 'direct', meshed: true, tunnels: false });
    await mesh.addPod({ name: 'sleep', namespace: 'many', meshed: true, workers: 2 });
    await mesh.addPod({ name: 'httpbin', namespace: 'many', meshed: true, workers: 2 });
    legacy = await mesh.addPod({ name: 'sleep', namespace: 'legacy', meshed: false });
    await mesh.configureRegistry();
    await mesh.configure('policy.yaml', [mode('STRICT')]);
    await mesh.startControlPlane();
    const meshed = [...mesh.pods].filter(([, pod]) => pod.meshed);
    await Promise.all(
      meshed.map(async ([key, pod]) => {
        sidecars.set(key, await mesh.startSidecar(pod));
        if (pod.name === 'httpbin') await mesh.startApplication(pod, 'httpbin.ts', ['8000']);
        await mesh.awaitReady(pod);
      }),
    );
  });

  after(async () => {
    await mesh?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  const spiffeId = (record: LogRecord) => (record.downstream as Record<string, unknown> | undefined)?.spiffeId;
  const idOf = ({ namespace, serviceAccount }: MeshPod) => `spiffe://cluster.local/ns/${namespace}/sa/${serviceAccount}`;

  for (const { name, from, to, tunnel } of WAYS)
    describe(name, () => {
      it('service-address', async () => {
        assert.equal(await mesh.request(mesh.pod(from), to), 200);
        const record = await mesh.record(to, (entry) => entry.direction === 'inbound' && spiffeId(entry) === idOf(mesh.pod(from)));
        assert.deepEqual([record.decision, record.transport, record.tunnel], ['allowed', 'mtls', tunnel]);
      });

      it('pod-addresses-of-both-families-many-at-a-time', async () => {
        const { ipv4, ipv6 } = mesh.pod(to).pod;
        const urls = Array.from({ length: CONNECTIONS }, (_, index) => `http://${index % 2 === 0 ? ipv4 : `[${ipv6}]`}:8000/get`);
        const statuses = await Promise.all(urls.map((url) => mesh.get(mesh.pod(from), url)));
        assert.deepEqual(new Set(statuses), new Set([200]));
        const record = await mesh.record(to, (entry) => entry.originalDestination === `[${ipv6}]:8000`);
        assert.deepEqual([record.decision, record.transport, record.tunnel], ['allowed', 'mtls', tunnel]);
      });

      it('plaintext-from-outside-the-mesh-is-refused-and-under-permissive-it-is-not', async () => {
        const { ipv4, ipv6 } = mesh.pod(to).pod;
        assert.equal(await mesh.get(legacy, `http://${ipv4}:8000/get`), 0);
        assert.equal(await mesh.get(legacy, `http://[${ipv6}]:8000/get`), 0);
        assert.ok(await mesh.record(to, (entry) => entry.code === 'PLAINTEXT_UNDER_STRICT'));
        await mesh.configure('policy.yaml', [mode('PERMISSIVE')]);
        // Each of several workers, so more than once.
        const all = async (status: number) =>
          (await Promise.all([1, 2, 3, 4].map(() => mesh.get(legacy, `http://${ipv4}:8000/get`)))).every((seen) => seen === status);
        await eventually('PERMISSIVE to be in force', () => all(200));
        await mesh.configure('policy.yaml', [mode('STRICT')]);
        await eventually('STRICT to be in force', () => all(0));
      });

      it('authorization-by-proven-name', async () => {
        const caller = mesh.pod(from);
        const principal = idOf(caller).slice('spiffe://'.length);
        const { namespace } = mesh.pod(to);
        await mesh.configure('authorization.yaml', [deny(namespace, principal)]);
        await eventually('the name to be refused', async () => (await mesh.request(caller, to)) === 0);
        // The first that failed may have been open already, and cut; with several workers, another one may not have heard of the change.
        await eventually('all to be refused', async () =>
          (await Promise.all([1, 2, 3, 4].map(() => mesh.request(caller, to)))).every((status) => status === 0),
        );
        const record = await mesh.record(to, (entry) => entry.decision === 'refused' && spiffeId(entry) === idOf(caller));
        assert.deepEqual([record.code, record.tunnel], ['AUTHORIZATION_DENIED', tunnel]);
        await mesh.configure('authorization.yaml', [deny(namespace, 'cluster.local/ns/foo/sa/other')]);
        await eventually('another name not to be', async () => (await mesh.request(caller, to)) === 200);
      });
    });

  it('two-workers-call-by-direct-mtls', async () => {
    const client = mesh.pod('sleep.many');
    const statuses = await Promise.all(Array.from({ length: CONNECTIONS }, () => mesh.request(client, 'httpbin.direct')));
    assert.deepEqual(new Set(statuses), new Set([200]));
    const record = await mesh.record('httpbin.direct', (entry) => spiffeId(entry) === idOf(client));
    assert.deepEqual([record.decision, record.transport, record.tunnel], ['allowed', 'mtls', undefined]);
  });

  it('a-worker-group-drains-on-sigterm-and-its-pod-is-cut-off', async () => {
    const [server, client] = [mesh.pod('httpbin.many'), mesh.pod('sleep.many')];
    const sidecar = sidecars.get('httpbin.many');
    sidecar?.kill('SIGTERM');
    const [code] = sidecar === undefined ? [] : await once(sidecar, 'exit');
    assert.equal(code, 0);
    assert.equal(await mesh.get(legacy, `http://${server.pod.ipv4}:8000/get`), 0);
    assert.equal(await mesh.request(client, 'httpbin.many'), 0);
    await mesh.startSidecar(server);
    await mesh.awaitReady(server);
    // Where nobody took tunnels a moment ago it is called by direct mTLS, which is as good.
    assert.equal(await mesh.request(client, 'httpbin.many'), 200);
  });
});
