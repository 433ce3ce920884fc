// The webhook over real TLS, as an API server calls it: pods in, patches out, and what it does with callers that are none.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { Agent, type RequestOptions, request } from 'node:https';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { scriptArguments } from '../../src/commands/iptables.ts';
import type { Shares } from '../../src/fair-share.ts';
import { KubeNamespaceLabels, type NamespaceLabels } from '../../src/injector/namespace-labels.ts';
import { answerReview } from '../../src/injector/review.ts';
import { LIFETIMES, makeServing, renewLeaf, type ServingMaterial } from '../../src/injector/serving-material.ts';
import { WebhookServer } from '../../src/injector/webhook-server.ts';
import { logInto } from '../../src/observe/log.ts';
import { metricsText, single } from '../../src/observe/metrics-text.ts';
import { isJsonObject } from '../../src/spiffe/strict-json.ts';
import { FakeKubeApi } from '../unit/injector/fake-kube-api.ts';
import { configOf } from '../unit/injector/injecting.ts';

const NAME = 'handfast-injector.handfast-system.svc';
const MAX_BODY_BYTES = 20_000;
const making = () => ({ dnsNames: [NAME], now: Date.now(), lifetimes: LIFETIMES });
const silent = logInto({ write: () => undefined }, { level: 'silent', base: {} });

let api: FakeKubeApi;
let serving: ServingMaterial;
let server: WebhookServer;
let agent: Agent;

const start = (of: { namespaces?: NamespaceLabels; bodyTimeoutMs?: number; connections?: Shares } = {}) =>
  WebhookServer.start({
    port: 0,
    host: '127.0.0.1',
    serving,
    answer: (body) =>
      answerReview(body, {
        config: configOf(),
        captureArguments: scriptArguments,
        namespaces: of.namespaces ?? new KubeNamespaceLabels({ api, now: () => performance.now() }),
      }),
    metrics: () => metricsText([single({ name: 'handfast_unmeshed_pods_known', type: 'gauge', help: 'Known.' }, 1)]),
    log: silent,
    maxBodyBytes: MAX_BODY_BYTES,
    ...(of.connections === undefined ? {} : { connections: of.connections }),
    bodyTimeoutMs: of.bodyTimeoutMs ?? 5_000,
  });

beforeEach(async () => {
  api = new FakeKubeApi();
  api.put('/api/v1/namespaces/shop', { kind: 'Namespace', metadata: { name: 'shop', labels: { 'istio-injection': 'enabled' } } });
  api.put('/api/v1/namespaces/plain', { kind: 'Namespace', metadata: { name: 'plain' } });
  serving = await makeServing(making());
  server = await start();
  agent = new Agent({ keepAlive: true, maxSockets: 1 });
});
afterEach(async () => {
  agent.destroy();
  await server.stop(0);
});

interface Answer {
  readonly status: number;
  readonly text: string;
  /** Serial of the server's certificate; of a new connection, as Node forgets it once it was asked. */
  readonly serial: string;
  readonly reused: boolean;
}

/** As an API server asks: by the Service's name, trusting the bundle alone. */
function ask(of: RequestOptions & { body?: string } = {}): Promise<Answer> {
  const { body, ...options } = of;
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        host: '127.0.0.1',
        port: server.port,
        servername: NAME,
        ca: serving.caCertificate,
        method: 'POST',
        path: '/inject?timeout=10s',
        agent: false,
        ...options,
      },
      (answer) => {
        const socket = answer.socket as TLSSocket;
        const serial = socket.getPeerX509Certificate()?.serialNumber ?? '';
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', reject);
        answer.on('end', () =>
          resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString(), serial, reused: asked.reusedSocket }),
        );
      },
    );
    asked.on('error', reject).end(body);
  });
}

const pod = (of: Readonly<Record<string, unknown>> = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { generateName: 'cart-', creationTimestamp: null, ...of },
  spec: { containers: [{ name: 'app', image: 'registry.example/cart:7' }] },
});

function review(of: { request?: Readonly<Record<string, unknown>>; [field: string]: unknown } = {}): string {
  const { request: asked, ...fields } = of;
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      operation: 'CREATE',
      namespace: 'shop',
      object: pod(),
      ...asked,
    },
    ...fields,
  });
}

async function responseTo(body: string): Promise<Readonly<Record<string, unknown>>> {
  const { status, text } = await ask({ body });
  assert.equal(status, 200, text);
  const answer: unknown = JSON.parse(text);
  assert.ok(isJsonObject(answer) && isJsonObject(answer.response));
  assert.equal(answer.apiVersion, 'admission.k8s.io/v1');
  assert.equal(answer.kind, 'AdmissionReview');
  assert.equal(answer.response.uid, '705ab4f5-6393-11e8-b7cc-42010a800002');
  return answer.response;
}

const messageIn = ({ status }: Readonly<Record<string, unknown>>) => (isJsonObject(status) ? String(status.message) : '');

describe('a review', () => {
  test('of-a-pod-without-a-name-is-answered-with-a-patch', async () => {
    const response = await responseTo(review());
    assert.equal(response.allowed, true);
    assert.equal(response.patchType, 'JSONPatch');
    const patch: unknown = JSON.parse(Buffer.from(String(response.patch), 'base64').toString());
    assert.ok(Array.isArray(patch));
    assert.deepEqual(patch.map(({ op, path }: { op: string; path: string }) => `${op} ${path}`).sort(), [
      'add /metadata/annotations',
      'add /metadata/labels',
      'add /spec/initContainers',
      'add /spec/volumes',
    ]);
  });

  test('in-a-namespace-that-nobody-enabled-is-allowed-as-it-is', async () => {
    assert.deepEqual(await responseTo(review({ request: { namespace: 'plain' } })), {
      uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
      allowed: true,
    });
  });

  test('of-a-pod-that-cannot-be-protected-is-refused-with-the-way-out', async () => {
    const object = { ...pod(), spec: { ...pod().spec, hostNetwork: true } };
    const response = await responseTo(review({ request: { object } }));
    assert.equal(response.allowed, false);
    assert.deepEqual(isJsonObject(response.status) ? [response.status.code, response.status.reason] : [], [403, 'Forbidden']);
    assert.match(messageIn(response), /spec\.hostNetwork.*sidecar\.istio\.io\/inject: "false"/);
  });

  test('of-a-malformed-pod-is-refused', async () => {
    for (const object of [null, 'pod', [], {}, { spec: { containers: {} } }, { metadata: [], spec: { containers: [{ name: 'app' }] } }]) {
      const response = await responseTo(review({ request: { object } }));
      assert.equal(response.allowed, false, JSON.stringify(object));
      assert.match(messageIn(response), /this is no pod/);
    }
  });

  const notOurs: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
    'an-update': { operation: 'UPDATE' },
    'another-kind': { kind: { group: 'apps', version: 'v1', kind: 'Deployment' } },
    'a-pod-of-another-group': { kind: { group: 'example.com', version: 'v1', kind: 'Pod' } },
    'a-subresource': { subResource: 'ephemeralcontainers' },
  };
  for (const [name, asked] of Object.entries(notOurs)) {
    test(`of-${name}-is-allowed-without-a-patch`, async () => {
      const { allowed, patch } = await responseTo(review({ request: asked }));
      assert.deepEqual({ allowed, patch }, { allowed: true, patch: undefined });
    });
  }

  const malformed: Readonly<Record<string, string>> = {
    'of-the-older-version': review({ apiVersion: 'admission.k8s.io/v1beta1' }),
    'of-another-kind': review({ kind: 'ConversionReview' }),
    'without-a-uid': review({ request: { uid: '' } }),
    'without-a-namespace': review({ request: { namespace: '' } }),
    'that-is-no-json': '{"apiVersion":',
    'that-is-no-object': '[]',
    'that-is-nothing': '',
  };
  for (const [name, body] of Object.entries(malformed)) {
    test(`${name}-is-answered-with-400`, async () => {
      const { status, text } = await ask({ body });
      assert.equal(status, 400);
      assert.match(text, /AdmissionReview/);
    });
  }

  test('while-the-api-server-cannot-be-asked-for-labels-is-refused', async () => {
    api.away = true;
    const response = await responseTo(review());
    assert.equal(response.allowed, false);
    assert.match(messageIn(response), /the labels of namespace shop cannot be read/);
    api.away = false;
    assert.equal((await responseTo(review())).allowed, true);
  });

  test('of-pods-that-are-skipped-anyway-asks-nobody', async () => {
    api.away = true;
    for (const asked of [
      { namespace: 'kube-system' },
      { namespace: 'handfast-system' },
      { object: pod({ labels: { 'sidecar.istio.io/inject': 'false' } }) },
    ])
      assert.equal((await responseTo(review({ request: asked }))).allowed, true);
    assert.deepEqual(api.asked, []);
  });
});

describe('the listener', () => {
  test('answers-for-its-health-and-its-metrics', async () => {
    assert.deepEqual((await ask({ method: 'GET', path: '/healthz' })).status, 200);
    const metrics = await ask({ method: 'GET', path: '/metrics' });
    assert.deepEqual(
      [metrics.status, metrics.text],
      [200, '# HELP handfast_unmeshed_pods_known Known.\n# TYPE handfast_unmeshed_pods_known gauge\nhandfast_unmeshed_pods_known 1\n'],
    );
  });

  test('knows-no-other-path-or-method', async () => {
    assert.equal((await ask({ path: '/' })).status, 404);
    assert.equal((await ask({ path: '/healthz', body: review() })).status, 404);
    assert.equal((await ask({ method: 'GET' })).status, 405);
  });

  test('refuses-what-is-too-large-and-takes-what-is-just-not', async () => {
    const padded = (length: number) => {
      const body = review({ request: { object: pod({ annotations: { pad: '' } }) } });
      return body.replace('"pad":""', `"pad":"${'x'.repeat(length - body.length)}"`);
    };
    assert.equal((await ask({ body: padded(MAX_BODY_BYTES) })).status, 200);
    assert.equal((await ask({ body: padded(MAX_BODY_BYTES + 1) })).status, 413);
  });

  test('gives-up-a-client-that-does-not-end-its-review', async () => {
    await server.stop(0);
    server = await start({ bodyTimeoutMs: 50 });
    const asked = request({
      host: '127.0.0.1',
      port: server.port,
      servername: NAME,
      ca: serving.caCertificate,
      method: 'POST',
      path: '/inject',
      agent: false,
    });
    asked.on('error', () => undefined);
    asked.write('{"apiVersion":');
    const [answer] = await once(asked, 'response');
    assert.equal(answer.statusCode, 408);
    answer.resume();
    await once(answer, 'close');
    asked.destroy();
    assert.equal((await ask({ body: review() })).status, 200);
  });

  test('gives-one-address-its-share-of-connections-and-leaves-the-others-theirs', async () => {
    await server.stop(0);
    server = await start({ connections: { all: 8, each: 4 } });
    const open = async () => {
      const socket = connect({ host: '127.0.0.1', port: server.port, localAddress: '127.0.0.2' });
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      return socket;
    };
    const idle: Socket[] = [];
    for (let count = 0; count < 4; count++) idle.push(await open());
    const [more] = await Promise.all([open()]);
    if (!more.closed) await once(more, 'close');
    assert.equal((await ask({ body: review() })).status, 200);
    // What is given back can be had again, by requests too.
    const closed = idle.map((socket) => once(socket, 'close'));
    for (const socket of idle) socket.destroy();
    await Promise.all(closed);
    for (let count = 0; count < 12; count++) assert.equal((await ask({ body: review() })).status, 200);
  });

  test('answers-a-review-of-a-pod-that-is-too-large-to-check-at-once', async () => {
    await server.stop(0);
    server = await WebhookServer.start({
      port: 0,
      host: '127.0.0.1',
      serving,
      answer: (body) =>
        answerReview(body, {
          config: configOf(),
          captureArguments: scriptArguments,
          namespaces: new KubeNamespaceLabels({ api, now: () => performance.now() }),
        }),
      log: silent,
    });
    const containers = (count: number) => review({ request: { object: { spec: { containers: Array(count).fill(0) } } } });
    const { status, text } = await ask({ body: containers(1_500_000) });
    assert.equal(status, 200);
    assert.match(text, /no pod that could be checked/);
    assert.equal((await ask({ body: containers(1_900_000) })).status, 413);
  });

  test('speaks-tls-1.2-and-nothing-older', async () => {
    assert.equal((await ask({ body: review(), maxVersion: 'TLSv1.2' })).status, 200);
    await assert.rejects(ask({ body: review(), minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
  });

  test('proves-to-be-the-service-to-whoever-has-the-bundle', async () => {
    const { caCertificate } = await makeServing(making());
    await assert.rejects(ask({ body: review(), ca: caCertificate }));
    await assert.rejects(ask({ body: review(), servername: 'other.handfast-system.svc' }), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  test('shows-a-renewed-certificate-to-new-connections-and-keeps-the-open-ones', async () => {
    const first = await ask({ body: review(), agent });
    const renewed = await renewLeaf(serving, making());
    server.replace(renewed);
    const second = await ask({ body: review(), agent });
    assert.deepEqual([first.reused, second.reused, second.status], [false, true, 200]);
    const third = await ask({ body: review() });
    assert.deepEqual([third.status, third.serial], [200, new X509Certificate(renewed.certificate).serialNumber]);
    assert.notEqual(third.serial, first.serial);
  });

  test('answers-what-is-under-way-before-it-ends', async () => {
    await server.stop(0);
    const reached = Promise.withResolvers<void>();
    const labels = Promise.withResolvers<Readonly<Record<string, string>>>();
    server = await start({
      namespaces: {
        labelsOf: () => {
          reached.resolve();
          return labels.promise;
        },
      },
    });
    const asked = ask({ body: review(), agent });
    await reached.promise;
    const stopped = server.stop(10_000);
    labels.resolve({ 'istio-injection': 'enabled' });
    assert.equal((await asked).status, 200);
    await stopped;
    await assert.rejects(ask({ body: review() }), { code: 'ECONNREFUSED' });
  });
});
