// Requests behind real iptables: declared by a Service, judged by files in the configuration directory, in one process and in two workers, by tunnel and by direct mTLS.

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually, Mesh, type MeshPod } from '../support/local-mesh.ts';
import { requireNamespaces } from '../support/namespaces.ts';

const skip = requireNamespaces();

const security = (kind: string, name: string, spec: object, namespace = 'istio-system') => ({
  apiVersion: 'security.istio.io/v1',
  kind,
  metadata: { name, namespace },
  spec,
});

const key = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwks = JSON.stringify({ keys: [{ ...key.publicKey.export({ format: 'jwk' }), kid: 'a' }] });

function token(claims: object): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'ES256', kid: 'a' })}.${part({ iss: 'https://issuer', sub: 'alice', exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
  return `${signed}.${sign('sha256', Buffer.from(signed), { key: key.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

describe('requests behind real iptables', { skip }, () => {
  let dir: string;
  let mesh: Mesh;
  let sleep: MeshPod;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'handfast-test-'));
    chmodSync(dir, 0o755);
    mesh = await Mesh.create(dir, { rotateEvery: '1h', label: 'http' });
    sleep = await mesh.addPod({ name: 'sleep', namespace: 'foo', meshed: true });
    await mesh.addPod({ name: 'httpbin', namespace: 'one', meshed: true, http: true });
    await mesh.addPod({ name: 'httpbin', namespace: 'many', meshed: true, http: true, workers: 2, tunnels: false });
    await mesh.addPod({ name: 'sleep', namespace: 'legacy', meshed: false });
    await mesh.configureRegistry();
    await mesh.startControlPlane();
    await Promise.all(
      [...mesh.pods.values()]
        .filter(({ meshed }) => meshed)
        .map(async (pod) => {
          await mesh.startSidecar(pod);
          if (pod.name === 'httpbin') await mesh.startApplication(pod, 'httpbin.ts', ['8000']);
          await mesh.awaitReady(pod);
        }),
    );
  });

  after(async () => {
    await mesh?.dispose();
    rmSync(dir, { recursive: true, force: true });
  });

  const ask = (from: MeshPod, target: string, path: string, ...more: string[]) => mesh.ask(from, target, path, ...more);

  for (const target of ['httpbin.one', 'httpbin.many']) {
    const namespace = target.split('.')[1] ?? '';
    describe(target, () => {
      it('the application hears who called, and not what the caller says of itself', async () => {
        const { status, headers } = await ask(
          sleep,
          target,
          '/get',
          '-H',
          'x-forwarded-client-cert: By=evil',
          '-H',
          'x_forwarded_client_cert: evil',
        );
        assert.equal(status, 200);
        assert.match(
          headers['x-forwarded-client-cert'] ?? '',
          new RegExp(
            `^By=spiffe://cluster\\.local/ns/${namespace}/sa/httpbin;Hash=[0-9a-f]{64};URI=spiffe://cluster\\.local/ns/foo/sa/sleep$`,
          ),
        );
        assert.equal(headers.x_forwarded_client_cert, undefined);
        const record = await mesh.record(target, ({ msg }) => msg === 'request');
        assert.equal(record.request, headers['x-request-id']);
        assert.equal(record.path, '/get');
      });

      it('a stranger in plaintext is answered, and brings no certificate in', async () => {
        const { status, headers } = await ask(mesh.pod('sleep.legacy'), target, '/get', '-H', 'x-forwarded-client-cert: By=evil');
        assert.equal(status, 200);
        assert.equal(headers['x-forwarded-client-cert'], undefined);
      });
    });
  }

  it('policies for methods, paths and tokens bite for each request, and are taken back', async () => {
    const allow = {
      action: 'ALLOW',
      rules: [{ to: [{ operation: { methods: ['GET'] } }] }, { from: [{ source: { requestPrincipals: ['https://issuer/*'] } }] }],
    };
    const deny = { action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin', '/admin/*'] } }] }] };
    const tokens = { jwtRules: [{ issuer: 'https://issuer', jwks, outputClaimToHeaders: [{ header: 'x-user', claim: 'sub' }] }] };
    await mesh.configure('http.yaml', [
      security('AuthorizationPolicy', 'a', allow),
      security('AuthorizationPolicy', 'd', deny),
      security('RequestAuthentication', 'r', tokens),
    ]);
    for (const target of ['httpbin.one', 'httpbin.many']) {
      const status = async (path: string, ...more: string[]) => (await ask(sleep, target, path, ...more)).status;
      await eventually(`${target} to be judged by them`, async () => (await status('/get', '-X', 'POST')) === 403);
      assert.equal(await status('/get'), 200);
      for (const path of ['/admin', '//admin', '/x/..;/admin', '/%61dmin/x', '/x/%2e%2e/admin'])
        assert.equal(await status(path), 403, path);
      assert.equal(await status('/administrator'), 200);
      const bearer = (text: string) => ['-H', `Authorization: Bearer ${text}`];
      const heard = await ask(sleep, target, '/get', '-X', 'POST', ...bearer(token({})), '-H', 'x-user: root');
      assert.equal(heard.status, 200);
      assert.equal(heard.headers['x-user'], 'alice');
      assert.equal(heard.headers.authorization, undefined);
      assert.equal(await status('/get', ...bearer(token({ exp: 1 }))), 401);
      assert.equal(await status('/get', ...bearer('none')), 401);
      assert.equal(await status('/admin', ...bearer(token({}))), 403);
    }
    const { stdout } = await mesh.operator('explain', 'one/httpbin');
    assert.match(stdout, /requests are read on port 8000/);
    assert.match(stdout, /RequestAuthentication istio-system\/r +https:\/\/issuer +holds/);
    // An empty file could have been cut short, and is not taken.
    await mesh.configure('http.yaml', [security('AuthorizationPolicy', 'a', { action: 'ALLOW', rules: [{}] })]);
    for (const target of ['httpbin.one', 'httpbin.many'])
      await eventually(`${target} to be open again`, async () => (await ask(sleep, target, '/admin', '-X', 'POST')).status === 200);
  });
});
