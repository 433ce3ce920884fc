// The whole path as it runs: real iptables, real original destinations, processes as uid 1337, IPv4 and IPv6.

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually, Mesh, type MeshPod } from '../support/local-mesh.ts';
import { requireNamespaces } from '../support/namespaces.ts';

const skip = requireNamespaces();
const APPLICATION = { uid: 1000, gid: 1000 };

const mode = (name: string) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'PeerAuthentication',
  metadata: { name: 'default', namespace: 'istio-system' },
  spec: { mtls: { mode: name } },
});

const deny = (source: object) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'AuthorizationPolicy',
  metadata: { name: 'not-you', namespace: 'bar' },
  spec: { action: 'DENY', rules: [{ from: [{ source }], to: [{ operation: { ports: ['8000'] } }] }] },
});

describe('a sidecar behind real iptables', { skip }, () => {
  let dir: string;
  let mesh: Mesh;
  let sleep: MeshPod;
  let httpbin: MeshPod;
  let legacy: MeshPod;
  let httpbinSidecar: ChildProcess;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'handfast-test-'));
    chmodSync(dir, 0o755);
    mesh = await Mesh.create(dir, { rotateEvery: '1s', label: 'side' });
    sleep = await mesh.addPod({ name: 'sleep', namespace: 'foo', meshed: true });
    httpbin = await mesh.addPod({ name: 'httpbin', namespace: 'bar', meshed: true });
    legacy = await mesh.addPod({ name: 'sleep', namespace: 'legacy', meshed: false });
    await mesh.configureRegistry();
    await mesh.configure('policy.yaml', [mode('STRICT')]);
    await mesh.startControlPlane();
    await mesh.startSidecar(sleep);
    httpbinSidecar = await mesh.startSidecar(httpbin);
    await mesh.startApplication(httpbin, 'httpbin.ts', ['8000']);
    await Promise.all([mesh.awaitReady(sleep), mesh.awaitReady(httpbin)]);
  });

  after(async () => {
    await mesh?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  /** HTTP status, 0 when refused. */
  async function get(from: MeshPod, url: string, ...more: string[]): Promise<number> {
    const { stdout } = await from.pod.attempt(
      ['curl', '-g', '-s', '-o', '/dev/null', '-w', '%{http_code}', '-m', '8', ...more, url],
      APPLICATION,
    );
    return Number(stdout);
  }

  it('service-address', async () => {
    assert.equal(await mesh.request(sleep, 'httpbin.bar'), 200);
    const record = await mesh.record('httpbin.bar', (entry) => entry.transport === 'mtls' && entry.decision === 'allowed');
    assert.equal((record.downstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/foo/sa/sleep');
    assert.equal(record.originalDestination, `${httpbin.pod.ipv4}:8000`);
  });

  it('pod-address-ipv4', async () => assert.equal(await get(sleep, `http://${httpbin.pod.ipv4}:8000/get`), 200));

  it('pod-address-ipv6', async () => {
    assert.equal(await get(sleep, `http://[${httpbin.pod.ipv6}]:8000/get`), 200);
    const record = await mesh.record('httpbin.bar', (entry) => entry.originalDestination === `[${httpbin.pod.ipv6}]:8000`);
    assert.equal(record.transport, 'mtls');
  });

  it('plaintext-from-outside-the-mesh-is-refused-by-both-families', async () => {
    assert.equal(await get(legacy, `http://${httpbin.pod.ipv4}:8000/get`), 0);
    assert.equal(await get(legacy, `http://[${httpbin.pod.ipv6}]:8000/get`), 0);
    assert.ok(await mesh.record('httpbin.bar', (entry) => entry.code === 'PLAINTEXT_UNDER_STRICT'));
  });

  it('a-pod-calls-itself-through-its-service', async () => {
    const vip = mesh.addressOf('httpbin.bar', httpbin);
    assert.equal(await get(httpbin, `http://${vip}:8000/get`), 200);
    const record = await mesh.record(
      'httpbin.bar',
      (entry) =>
        (entry.downstream as Record<string, unknown>)?.spiffeId === 'spiffe://cluster.local/ns/bar/sa/httpbin' &&
        entry.direction === 'inbound',
    );
    assert.equal(record.transport, 'mtls');
  });

  it('a-pod-calls-itself-on-loopback-without-the-sidecar', async () => assert.equal(await get(httpbin, 'http://127.0.0.1:8000/get'), 200));

  it('direct-dial-of-the-sidecars-ports-is-a-loop-and-refused', async () => {
    for (const port of [15001, 15006]) {
      assert.equal(await get(legacy, `http://${httpbin.pod.ipv4}:${port}/get`), 0);
      assert.equal(await get(legacy, `http://[${httpbin.pod.ipv6}]:${port}/get`), 0);
      assert.equal(await get(sleep, `http://${httpbin.pod.ipv4}:${port}/get`), 0);
    }
    assert.ok(
      await mesh.record('httpbin.bar', (entry) => entry.code === 'SELF_LOOP' && String(entry.originalDestination).endsWith(':15001')),
    );
    assert.ok(
      await mesh.record('httpbin.bar', (entry) => entry.code === 'SELF_LOOP' && String(entry.originalDestination).endsWith(':15006')),
    );
    // From inside, nothing redirects a dial of loopback: there is no original destination but the listener itself.
    for (const port of [15001, 15006]) assert.equal(await get(httpbin, `http://127.0.0.1:${port}/get`), 0);
    assert.equal(await mesh.request(sleep, 'httpbin.bar'), 200);
  });

  it('readiness-is-reachable-from-outside-without-mtls', async () =>
    assert.equal(await get(legacy, `http://${httpbin.pod.ipv4}:15021/healthz/ready`), 200));

  it('an-edit-of-the-policy-file-turns-the-switch-and-a-bad-one-does-not', async () => {
    await mesh.configure('policy.yaml', [mode('PERMISSIVE')]);
    await eventually('PERMISSIVE to be in force', async () => (await get(legacy, `http://${httpbin.pod.ipv4}:8000/get`)) === 200);
    await mesh.configure('policy.yaml', [mode('STRICKT')]);
    const refusal = await mesh.record('up', (entry) => String(entry.msg).startsWith('configuration refused'));
    assert.match(
      String((refusal.problems as string[])[0]),
      /policy\.yaml:\d+: spec\.mtls\.mode "STRICKT" is not accepted; accepted: UNSET, DISABLE, PERMISSIVE, STRICT/,
    );
    assert.equal(await get(legacy, `http://${httpbin.pod.ipv4}:8000/get`), 200);
    await mesh.configure('policy.yaml', [mode('STRICT')]);
    await eventually('STRICT to be in force', async () => (await get(legacy, `http://${httpbin.pod.ipv4}:8000/get`)) === 0);
  });

  it('authorization-by-proven-name-and-by-the-address-that-the-kernel-saw', async () => {
    const refused = async (what: string) => eventually(what, async () => (await mesh.request(sleep, 'httpbin.bar')) === 0);
    const allowed = async (what: string) => eventually(what, async () => (await mesh.request(sleep, 'httpbin.bar')) === 200);
    await mesh.configure('authorization.yaml', [deny({ ipBlocks: [`${sleep.pod.ipv4}/32`] })]);
    await refused('the address to be refused');
    await mesh.configure('authorization.yaml', [deny({ ipBlocks: [`${legacy.pod.ipv4}/32`] })]);
    await allowed('another address not to be');
    await mesh.configure('authorization.yaml', [deny({ principals: ['cluster.local/ns/foo/sa/sleep'] })]);
    await refused('the name to be refused');
    const record = await mesh.record(
      'httpbin.bar',
      (entry) => entry.code === 'AUTHORIZATION_DENIED' && /sa\/sleep to port 8000 is denied/.test(String(entry.reason)),
    );
    assert.equal(record.decision, 'refused');
    await mesh.configure('authorization.yaml', [deny({ principals: ['cluster.local/ns/foo/sa/other'] })]);
    await allowed('another name not to be');
  });

  it('sigterm-drains-and-exits-zero', async () => {
    httpbinSidecar.kill('SIGTERM');
    const [code] = await once(httpbinSidecar, 'exit');
    assert.equal(code, 0);
    // Without its sidecar the pod is cut off, not open: the redirection still stands.
    assert.equal(await get(legacy, `http://${httpbin.pod.ipv4}:8000/get`), 0);
    assert.equal(await get(sleep, `http://${httpbin.pod.ipv4}:8000/get`), 0);
    httpbinSidecar = await mesh.startSidecar(httpbin);
    await mesh.awaitReady(httpbin);
    assert.equal(await mesh.request(sleep, 'httpbin.bar'), 200);
  });
});
