// The whole path as it runs: real iptables, real original destinations, processes as uid 1337, IPv4 and IPv6, tunnels between the sidecars.

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
  const get = (from: MeshPod, url: string) => mesh.get(from, url);

  it('service-address', async () => {
    assert.equal(await mesh.request(sleep, 'httpbin.bar'), 200);
    const record = await mesh.record('httpbin.bar', (entry) => entry.transport === 'mtls' && entry.decision === 'allowed');
    assert.equal((record.downstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/foo/sa/sleep');
    assert.equal(record.originalDestination, `${httpbin.pod.ipv4}:8000`);
    assert.equal(record.tunnel, 'HBONE');
    const outbound = await mesh.record('sleep.foo', (entry) => entry.direction === 'outbound' && entry.decision === 'allowed');
    assert.deepEqual([outbound.transport, outbound.tunnel], ['mtls', 'HBONE']);
  });

  it('nothing-leaves-the-pod-but-by-the-tunnels-port', async () => {
    const count = async (family: 'iptables' | 'ip6tables', address: string) => {
      const { stdout } = await sleep.pod.exec([`${family}-save`, '-c', '-t', 'mangle']);
      const packets = (rule: RegExp) =>
        Number(
          stdout
            .split('\n')
            .find((line) => line.includes(address) && rule.test(line))
            ?.match(/\d+/)?.[0],
        );
      return { tunnel: packets(/tcp --dport 15008/), others: packets(/tcp ! --dport 15008/) };
    };
    for (const [family, address, url] of [
      ['iptables', httpbin.pod.ipv4, `http://${httpbin.pod.ipv4}:8000/get`],
      ['ip6tables', httpbin.pod.ipv6, `http://[${httpbin.pod.ipv6}]:8000/get`],
    ] as const) {
      const rule = ['POSTROUTING', '-o', 'eth0', '-d', address, '-p', 'tcp'];
      for (const port of [['--dport'], ['!', '--dport']])
        await sleep.pod.exec([family, '-w', '-t', 'mangle', '-A', ...rule, '-m', 'tcp', ...port, '15008']);
      assert.equal(await get(sleep, url), 200);
      const { tunnel, others } = await count(family, address);
      assert.ok(tunnel > 0, `${family}: ${tunnel} packets to port 15008`);
      assert.equal(others, 0);
      // The twin: what does leave for another port is counted. The sidecar's uid is not redirected.
      const readiness = url.replace('8000/get', '15021/healthz/ready');
      await sleep.pod.exec(['curl', '-g', '-s', '-m', '5', '-o', '/dev/null', readiness], { uid: 1337, gid: 1337 });
      assert.ok((await count(family, address)).others > 0);
      await sleep.pod.exec([family, '-w', '-t', 'mangle', '-F', 'POSTROUTING']);
    }
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

  it('the-identity-port-answers-the-pod-alone', async () => {
    const keys = (host: string) => `http://${host}:15004/v1/jwks`;
    for (const host of ['127.0.0.1', '[::1]', 'localhost']) assert.equal(await get(httpbin, keys(host)), 200, host);
    const ask = ['-H', 'workload.spiffe.io: true', '-d', '{"audience": ["b"]}'];
    assert.equal(await mesh.get(httpbin, 'http://127.0.0.1:15004/v1/jwt-svid', ...ask), 200);
    assert.equal(await mesh.get(httpbin, 'http://127.0.0.1:15004/v1/jwt-svid', ...ask.slice(2)), 403);
    // By the pod's own address nobody has it, whether mesh member or not, nor the pod itself.
    for (const from of [legacy, sleep, httpbin])
      for (const host of [httpbin.pod.ipv4, `[${httpbin.pod.ipv6}]`])
        assert.equal(await mesh.get(from, keys(host), '-H', 'host: 127.0.0.1:15004'), 0, `${from.name} to ${host}`);
    // By the sidecar's user, which nothing redirects.
    const { stdout } = await sleep.pod.attempt(
      ['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '-m', '5', '-H', 'host: 127.0.0.1:15004', keys(httpbin.pod.ipv4)],
      { uid: 1337, gid: 1337 },
    );
    assert.equal(Number(stdout), 0);
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
    // The first that failed may have been open already, and cut; the next one is refused.
    assert.equal(await mesh.request(sleep, 'httpbin.bar'), 0);
    const record = await mesh.record(
      'httpbin.bar',
      (entry) => entry.decision === 'refused' && /sa\/sleep to port 8000 is denied/.test(String(entry.reason)),
    );
    assert.equal(record.code, 'AUTHORIZATION_DENIED');
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
