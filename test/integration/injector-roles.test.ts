// `handfast injector`, `inject` and `wait` as processes: what they ask the API server, what they print, and how they end.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { isJsonObject } from '../../src/spiffe/strict-json.ts';
import { handfast, Role } from '../support/handfast.ts';
import { type Answer, type Asked, JsonServer, loopbackCertificate } from '../support/json-server.ts';
import { FakeKubeApi } from '../unit/injector/fake-kube-api.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-injector-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

const file = async (name: string, text: string) => {
  await writeFile(join(dir, name), text);
  return join(dir, name);
};

describe('handfast injector', () => {
  const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/handfast-injector';
  const SECRET = '/api/v1/namespaces/handfast-system/secrets/handfast-injector-tls';

  /** The fake's objects over HTTPS. */
  function answerFrom(api: FakeKubeApi) {
    return ({ method, path, body }: Asked): Answer => {
      if (method === 'GET') {
        const object = api.objects.get(path);
        return object === undefined ? { status: 404, body: { kind: 'Status', message: 'not found' } } : { body: object };
      }
      const object: unknown = JSON.parse(body);
      assert.ok(isJsonObject(object) && isJsonObject(object.metadata));
      api.put(method === 'POST' ? `${path}/${String(object.metadata.name)}` : path, object);
      return { status: method === 'POST' ? 201 : 200, body: object };
    };
  }

  test('makes-its-certificate-writes-the-bundle-serves-and-ends', async () => {
    const api = new FakeKubeApi();
    api.put(CONFIGURATION, {
      kind: 'MutatingWebhookConfiguration',
      metadata: { name: 'handfast-injector' },
      webhooks: [{ name: 'a', clientConfig: {} }],
    });
    const tls = await loopbackCertificate();
    const kube = await JsonServer.start(answerFrom(api), tls);
    try {
      await using role = new Role(
        'injector',
        `--config=${await file('injector.yaml', 'image: registry.example/handfast:1\n')}`,
        '--port=0',
        '--namespace=handfast-system',
        `--kube-server=${kube.origin}`,
        `--kube-ca=${await file('ca.crt', tls.cert)}`,
        `--kube-token=${await file('token', 'a-token')}`,
      );
      const { port, service } = await role.said('injector listening');
      assert.equal(service, 'handfast-injector.handfast-system.svc');
      assert.ok(Number(port) > 0);
      const data = api.objects.get(SECRET)?.data;
      assert.ok(isJsonObject(data) && typeof data['ca.crt'] === 'string');
      const webhooks = api.objects.get(CONFIGURATION)?.webhooks;
      assert.deepEqual(webhooks, [{ name: 'a', clientConfig: { caBundle: data['ca.crt'] } }]);
      assert.ok(kube.asked.every(({ authorization }) => authorization === 'Bearer a-token'));
      assert.equal(await role.stop(), 0);
    } finally {
      await kube.stop();
    }
  });

  test('refuses-a-configuration-that-it-does-not-understand-and-names-the-line', async () => {
    const config = await file('injector.yaml', 'image: registry.example/handfast:1\nsidecars: native\n');
    const { code, stderr } = await handfast('injector', `--config=${config}`);
    assert.equal(code, 2);
    assert.match(stderr, /injector\.yaml:2: unknown field sidecars/);
  });
});

describe('handfast inject', () => {
  const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: cart}\nspec: {containers: [{name: app, image: a}]}\n';
  const HOST = 'apiVersion: v1\nkind: Pod\nmetadata: {name: host}\nspec: {hostNetwork: true, containers: [{name: app, image: a}]}\n';
  const OUT =
    'apiVersion: v1\nkind: Pod\nmetadata: {name: out, labels: {sidecar.istio.io/inject: "false"}}\nspec:   {containers: [{name: app}]}\n';
  const SERVICE = '# a service\nkind:   Service\napiVersion: v1\n';

  test('prints-injected-pods-and-the-rest-byte-for-byte', async () => {
    const { code, stdout, stderr } = await handfast(
      'inject',
      '-f',
      await file('all.yaml', `${SERVICE}---\n${POD}---\n${OUT}`),
      '--image=registry.example/handfast:1',
    );
    assert.equal(code, 0, stderr);
    assert.ok(stdout.startsWith(`${SERVICE}---\n`) && stdout.endsWith(`---\n${OUT}`));
    const [, pod] = parseAllDocuments(stdout);
    assert.equal(pod?.getIn(['spec', 'initContainers', 1, 'name']), 'handfast-proxy');
    assert.match(stderr, /^skipped: .*all\.yaml: document 3: Pod default\/out: /);
  });

  test('names-what-has-containers-and-is-not-injected', async () => {
    const rollout = `apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: web}\nspec:   {template: {spec: {containers: [{name: app}]}}}\n`;
    const { code, stdout, stderr } = await handfast('inject', '-f', await file('all.yaml', `${rollout}---\n${POD}`), '--image=a');
    assert.equal(code, 0, stderr);
    assert.ok(stdout.startsWith(`${rollout}---\n`));
    assert.match(stderr, /^not injected: .*all\.yaml: document 1: Rollout web: has containers[^\n]*\n$/);
  });

  test('prints-nothing-when-one-is-refused-and-names-each', async () => {
    const manifest = await file('all.yaml', `${POD}---\n${HOST}---\n${HOST.replace('{name: host}', '{name: other, namespace: shop}')}`);
    const { code, stdout, stderr } = await handfast('inject', `--file=${manifest}`, '--image=registry.example/handfast:1');
    assert.deepEqual([code, stdout], [1, '']);
    assert.match(stderr, /document 2: Pod default\/host: spec\.hostNetwork/);
    assert.match(stderr, /document 3: Pod shop\/other: spec\.hostNetwork/);
  });

  test('obeys-the-labels-that-the-namespace-is-said-to-have', async () => {
    const manifest = await file('pod.yaml', POD);
    const inject = (labels: string) => handfast('inject', '-f', manifest, '--image=a', '--namespace=shop', `--namespace-labels=${labels}`);
    assert.match((await inject('team=a,istio-injection=disabled')).stderr, /^skipped: .*Pod shop\/cart: namespace shop is labelled/);
    assert.match((await inject('pod-security.kubernetes.io/enforce=restricted')).stderr, /^refused: .*restricted/);
    assert.equal((await inject('pod-security.kubernetes.io/enforce=privileged')).stderr, '');
    assert.equal((await inject('no label')).code, 2);
  });

  test('needs-an-image-from-the-configuration-or-the-flag', async () => {
    const manifest = await file('pod.yaml', POD);
    const without = await handfast('inject', '-f', manifest);
    assert.equal(without.code, 2);
    assert.match(without.stderr, /image is missing/);
    const config = await file('injector.yaml', 'image: registry.example/handfast:1\nsidecar: classic\n');
    const { code, stdout } = await handfast('inject', '-f', manifest, '--config', config);
    assert.equal(code, 0);
    assert.equal(parseAllDocuments(stdout)[0]?.getIn(['spec', 'containers', 0, 'name']), 'handfast-proxy');
  });

  test('of-a-file-that-is-not-there-says-so', async () => {
    const { code, stderr } = await handfast('inject', '-f', join(dir, 'none.yaml'), '--image=a');
    assert.equal(code, 2);
    assert.match(stderr, /cannot read .*none\.yaml/);
  });
});

describe('handfast wait', () => {
  /** Not ready for the first answers. */
  async function sidecar(notReady: number) {
    let left = notReady;
    const server = createServer((request, response) => {
      const ready = request.url === '/healthz/ready' && left-- <= 0;
      response.writeHead(ready ? 200 : 503).end(ready ? 'ready\n' : 'no identity\nno policy\n');
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const address = server.address();
    return {
      port: typeof address === 'object' && address !== null ? address.port : 0,
      [Symbol.asyncDispose]: () =>
        new Promise<void>((resolve) => {
          server.closeAllConnections();
          server.close(() => resolve());
        }),
    };
  }

  test('ends-when-the-sidecar-is-ready', async () => {
    await using ready = await sidecar(2);
    assert.deepEqual(await handfast('wait', `--port=${ready.port}`), { code: 0, stdout: '', stderr: '' });
  });

  test('ends-in-time-and-says-what-was-missing', async () => {
    await using never = await sidecar(Number.POSITIVE_INFINITY);
    const { code, stderr } = await handfast('wait', `--port=${never.port}`, '--timeout=10ms');
    assert.equal(code, 1);
    assert.match(stderr, /not ready after 10 ms: no identity; no policy/);
  });

  test('where-nobody-listens-says-so', async () => {
    const { port, [Symbol.asyncDispose]: stop } = await sidecar(0);
    await stop();
    const { code, stderr } = await handfast('wait', `--port=${port}`, '--timeout=10ms');
    assert.equal(code, 1);
    assert.match(stderr, /ECONNREFUSED/);
  });
});
