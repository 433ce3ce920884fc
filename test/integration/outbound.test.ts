// The client's side: who is dialled, by which transport, and who is refused for not being who the destination is supposed to be.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import { clientTls } from '../../src/policy/model.ts';
import { freePort } from '../support/free-port.ts';
import { TestCa } from '../support/pki.ts';
import { Application, collect, type MeshSpec, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const VIP = { address: '10.96.0.10', port: 80 };
const SERVICE = { namespace: 'bar', name: 'httpbin', address: VIP.address };

let ca: TestCa;
let application: Application;
let client: RunningSidecar;
let server: RunningSidecar;

before(async () => {
  ca = await TestCa.create();
  application = await Application.start();
  client = await startSidecar({ namespace: 'foo', name: 'sleep', identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep') });
  server = await startSidecar({
    namespace: 'bar',
    name: 'httpbin',
    identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  });
});

after(async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
  await application[Symbol.asyncDispose]();
});

/** sleep.foo and httpbin.bar behind a service; the endpoint's port is the server sidecar's, as iptables would have it. */
function world(change: Partial<MeshSpec['workloads'][number]> = {}, outbound: 'ALLOW_ANY' | 'REGISTRY_ONLY' = 'ALLOW_ANY') {
  return meshOf({
    workloads: [
      { namespace: 'foo', name: 'sleep', outbound },
      {
        namespace: 'bar',
        name: 'httpbin',
        addresses: ['127.0.0.1'],
        services: { 'bar/httpbin': [80, server.sidecar.ports.inbound] },
        ...change,
      },
    ],
    services: [SERVICE],
  });
}

afterEach(async () => {
  await Promise.all([client.settled(), server.settled()]);
});

beforeEach(() => {
  client.mesh.replace(world());
  server.mesh.replace(world());
  client.destination = VIP;
  server.destination = application.endpoint;
  application.bytes = 0;
  application.connections = 0;
});

const dial = (): Socket => connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });

async function hello(): Promise<{ text: string; error?: string }> {
  const socket = dial();
  socket.end('hello');
  return collect(socket);
}

async function assertRefused(code: string): Promise<string> {
  assert.equal((await hello()).text, '');
  const record = await client.records.connection('outbound');
  assert.equal(record.code, code, String(record.reason));
  assert.equal(application.bytes, 0, 'the application heard something');
  return String(record.reason);
}

describe('mTLS between two sidecars', () => {
  it('service-address-becomes-an-endpoint-by-mtls', async () => {
    assert.deepEqual(await hello(), { text: 'hello' });
    const out = await client.records.connection('outbound');
    assert.equal(out.decision, 'allowed');
    assert.equal(out.transport, 'mtls');
    assert.equal((out.upstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/bar/sa/httpbin');
    assert.equal((out.downstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/foo/sa/sleep');
    const into = await server.records.connection('inbound');
    assert.equal((into.downstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/foo/sa/sleep');
    assert.equal(into.bytesToApplication, 5);
    assert.equal(into.bytesFromApplication, 5);
  });

  it('pod-address-is-dialled-as-it-is', async () => {
    client.destination = { address: '127.0.0.1', port: server.sidecar.ports.inbound };
    assert.deepEqual(await hello(), { text: 'hello' });
    assert.equal((await client.records.connection('outbound')).transport, 'mtls');
  });

  it('application-sees-the-passthrough-source', async () => {
    application.sources.clear();
    await hello();
    assert.deepEqual([...application.sources], ['127.0.0.6']);
  });

  it('server-that-speaks-first-works-under-strict', async () => {
    await using greeter = await Application.start((socket) => socket.end('220 ready\r\n'));
    server.destination = greeter.endpoint;
    const socket = dial();
    assert.equal((await collect(socket)).text, '220 ready\r\n');
    assert.equal((await server.records.connection('inbound')).transport, 'mtls');
  });
});

describe('secure naming', () => {
  it('impostor-with-a-valid-certificate-of-another-service-account', async () => {
    // The impostor's own side believes in itself.
    server.mesh.replace(world({ serviceAccount: 'impostor' }));
    server.identity.replace(await ca.identity('spiffe://cluster.local/ns/bar/sa/impostor'));
    const reason = await assertRefused('SECURE_NAMING_MISMATCH');
    assert.match(reason, /must be spiffe:\/\/cluster\.local\/ns\/bar\/sa\/httpbin/);
    assert.match(reason, /proved to be spiffe:\/\/cluster\.local\/ns\/bar\/sa\/impostor/);
    server.mesh.replace(world());
    server.identity.replace(await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
    assert.deepEqual(await hello(), { text: 'hello' });
  });

  it('service-may-allow-a-further-identity', async () => {
    const spec = (subjectAltNames: string[]) =>
      meshOf({
        workloads: [
          { namespace: 'foo', name: 'sleep' },
          {
            namespace: 'bar',
            name: 'httpbin',
            serviceAccount: 'old',
            addresses: ['127.0.0.1'],
            services: { 'bar/httpbin': [80, server.sidecar.ports.inbound] },
          },
        ],
        services: [{ ...SERVICE, subjectAltNames }],
      });
    client.mesh.replace(spec([]));
    await assertRefused('SECURE_NAMING_MISMATCH');
    client.mesh.replace(spec(['spiffe://cluster.local/ns/bar/sa/httpbin']));
    assert.deepEqual(await hello(), { text: 'hello' });
  });

  it('server-with-a-certificate-of-another-ca', async () => {
    server.identity.replace(await (await TestCa.create()).identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
    await assertRefused('CHAIN_UNTRUSTED');
    server.identity.replace(await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
  });

  it('open-connection-is-cut-when-its-server-may-not-be-that-any-more', async () => {
    const socket = dial();
    socket.write('a');
    await once(socket, 'data');
    client.mesh.replace(world({ serviceAccount: 'somebody-else' }));
    assert.equal((await collect(socket)).error, 'ECONNRESET');
    const record = await client.records.connection('outbound');
    assert.equal(record.decision, 'cut');
    assert.equal(record.code, 'SECURE_NAMING_MISMATCH');
  });
});

describe('never plaintext by accident', () => {
  it('meshed-destination-that-speaks-plaintext-is-refused', async () => {
    await using plain = await Application.start((socket) => socket.end('plaintext answer'));
    client.mesh.replace(world({ services: { 'bar/httpbin': [80, plain.endpoint.port] } }));
    await assertRefused('HANDSHAKE_FAILED');
  });

  it('no-certificate-of-our-own-refuses-mesh-destinations', async () => {
    const bare = await startSidecar({ namespace: 'foo', name: 'sleep' });
    bare.mesh.replace(world());
    bare.destination = VIP;
    const socket = connect(bare.sidecar.ports.outbound, '127.0.0.1');
    socket.write('x');
    assert.equal((await collect(socket)).text, '');
    assert.equal((await bare.records.connection('outbound')).code, 'NO_IDENTITY');
    await bare[Symbol.asyncDispose]();
  });

  it('expired-certificate-of-our-own-refuses-mesh-destinations', async () => {
    let now = Date.now();
    const aging = await startSidecar({
      namespace: 'foo',
      name: 'sleep',
      identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
      now: () => now,
    });
    aging.mesh.replace(world());
    aging.destination = VIP;
    const ready = async () => (await fetch(`http://127.0.0.1:${aging.sidecar.ports.readiness}/healthz/ready`)).status;
    assert.equal(await ready(), 200);
    now += 2 * 3_600_000;
    assert.equal(await ready(), 503);
    const socket = connect(aging.sidecar.ports.outbound, '127.0.0.1');
    socket.write('x');
    assert.equal((await collect(socket)).text, '');
    assert.equal((await aging.records.connection('outbound')).code, 'NO_IDENTITY');
    await aging[Symbol.asyncDispose]();
  });

  it('workload-outside-the-mesh-is-reached-by-plaintext-and-said-so', async () => {
    client.mesh.replace(world({ meshed: false, services: { 'bar/httpbin': [80, application.endpoint.port] } }));
    assert.deepEqual(await hello(), { text: 'hello' });
    const record = await client.records.connection('outbound');
    assert.equal(record.transport, 'plaintext');
    assert.equal(record.mode, 'not in the mesh');
  });

  it('destination-under-disable-is-reached-by-plaintext', async () => {
    client.mesh.replace(world({ mode: 'DISABLE', services: { 'bar/httpbin': [80, application.endpoint.port] } }));
    assert.deepEqual(await hello(), { text: 'hello' });
    assert.equal((await client.records.connection('outbound')).transport, 'plaintext');
  });
});

describe('open plaintext is judged again', () => {
  const self = { namespace: 'foo', name: 'sleep' };
  const registered = (change: object) =>
    meshOf({ workloads: [self, { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], ...change }] });
  const called = (change: object, mode?: 'DISABLE' | 'SIMPLE') => {
    const rule = mode === undefined ? [] : [{ host: 'httpbin', tls: clientTls(mode, `DestinationRule foo/${mode}`), ports: new Map() }];
    const { port } = application.endpoint;
    const httpbin = { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], services: { 'bar/httpbin': [port, port] as const } };
    return meshOf({
      workloads: [
        { ...self, clientTls: rule },
        { ...httpbin, ...change },
      ],
      services: [SERVICE],
    });
  };
  const withoutPolicies = (mesh: MeshSnapshot): MeshSnapshot => {
    const own = mesh.registry.workload('foo', 'sleep')?.uid;
    return { ...mesh, policies: { get: (uid) => (uid === own ? mesh.policies.get(uid) : undefined) } };
  };
  // The client's side alone hears of it: the server is an application without a sidecar.
  const cases: readonly [string, () => MeshSnapshot, () => MeshSnapshot, string | undefined][] = [
    [
      'allow-any-to-registry-only',
      () => meshOf({ workloads: [self] }),
      () => meshOf({ workloads: [{ ...self, outbound: 'REGISTRY_ONLY' }] }),
      'DESTINATION_UNKNOWN',
    ],
    ['unknown-to-meshed', () => meshOf({ workloads: [self] }), () => registered({}), 'TRANSPORT_CHANGED'],
    ['unmeshed-to-meshed', () => registered({ meshed: false }), () => registered({}), 'TRANSPORT_CHANGED'],
    ['disable-to-strict', () => registered({ mode: 'DISABLE' }), () => registered({ mode: 'STRICT' }), 'TRANSPORT_CHANGED'],
    ['by-a-rule-disable-to-strict', () => called({ mode: 'PERMISSIVE' }, 'DISABLE'), () => called({}, 'DISABLE'), 'TRANSPORT_CHANGED'],
    ['disable-to-no-policy', () => registered({ mode: 'DISABLE' }), () => withoutPolicies(registered({})), 'TRANSPORT_CHANGED'],
    [
      'unknown-to-a-service',
      () => meshOf({ workloads: [self] }),
      () => meshOf({ workloads: [self], services: [{ ...SERVICE, address: '127.0.0.1' }] }),
      'TRANSPORT_CHANGED',
    ],
    ['unknown-to-registered-outside-the-mesh', () => meshOf({ workloads: [self] }), () => registered({ meshed: false }), undefined],
    ['unmeshed-and-gone-from-the-registry', () => registered({ meshed: false }), () => meshOf({ workloads: [self] }), undefined],
  ];
  for (const [name, from, to, code] of cases) {
    it(`${name}-${code === undefined ? 'goes-on' : 'is-cut'}`, async () => {
      client.mesh.replace(from());
      client.destination = application.endpoint;
      const socket = dial();
      socket.write('a');
      await once(socket, 'data');
      client.mesh.replace(to());
      if (code === undefined) {
        socket.write('b');
        await once(socket, 'data');
        socket.end();
        await collect(socket);
      } else {
        assert.equal((await collect(socket)).error, 'ECONNRESET');
        const record = await client.records.connection('outbound');
        assert.deepEqual([record.decision, record.code], ['cut', code]);
      }
    });
  }

  it('outside-the-mesh-to-tls-by-a-rule-drains', async () => {
    client.mesh.replace(called({ meshed: false }));
    client.destination = application.endpoint;
    const socket = dial();
    socket.write('a');
    await once(socket, 'data');
    client.mesh.replace(called({ meshed: false }, 'SIMPLE'));
    socket.write('b');
    assert.deepEqual(await collect(socket), { text: 'b' });
    const record = await client.records.connection('outbound');
    assert.deepEqual([record.decision, record.outcome, record.code], ['allowed', 'drained', 'TRANSPORT_CHANGED']);
  });
});

describe('destinations nobody registered', () => {
  it('allow-any-passes-them-on', async () => {
    client.destination = application.endpoint;
    client.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }] }));
    assert.deepEqual(await hello(), { text: 'hello' });
    assert.equal((await client.records.connection('outbound')).mode, 'ALLOW_ANY');
  });

  it('registry-only-refuses-them', async () => {
    client.destination = application.endpoint;
    client.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep', outbound: 'REGISTRY_ONLY' }] }));
    await assertRefused('DESTINATION_UNKNOWN');
  });

  it('refused-dial-is-a-reset', async () => {
    client.destination = { address: '127.0.0.1', port: await freePort() };
    client.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }] }));
    assert.equal((await hello()).error, 'ECONNRESET');
    assert.equal((await client.records.connection('outbound')).code, 'DIAL_FAILED');
  });
});

describe('endpoints', () => {
  const two = (dead: number) =>
    meshOf({
      workloads: [
        { namespace: 'foo', name: 'sleep' },
        { namespace: 'bar', name: 'dead', serviceAccount: 'httpbin', addresses: ['127.0.0.2'], services: { 'bar/httpbin': [80, dead] } },
        { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], services: { 'bar/httpbin': [80, server.sidecar.ports.inbound] } },
      ],
      services: [SERVICE],
    });

  it('dead-endpoint-is-replaced-by-a-live-one', async () => {
    client.mesh.replace(two(1));
    for (let i = 0; i < 8; i++) assert.deepEqual(await hello(), { text: 'hello' });
  });

  it('service-without-endpoints-is-refused', async () => {
    client.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }], services: [SERVICE] }));
    await assertRefused('NO_HEALTHY_ENDPOINT');
  });

  it('connections-go-to-the-least-loaded', async () => {
    const spec = meshOf({
      workloads: [
        { namespace: 'foo', name: 'sleep' },
        ...['127.0.0.1', '127.0.0.2'].map((address, index) => ({
          namespace: 'bar',
          name: `httpbin-${index}`,
          serviceAccount: 'httpbin',
          addresses: [address],
          services: { 'bar/httpbin': [80, server.sidecar.ports.inbound] as const },
        })),
      ],
      services: [SERVICE],
    });
    client.mesh.replace(spec);
    const sockets = Array.from({ length: 6 }, dial);
    for (const socket of sockets) {
      socket.write('x');
      await once(socket, 'data');
    }
    for (const socket of sockets) socket.end();
    await Promise.all(sockets.map(collect));
    const upstreams = await Promise.all([1, 2, 3, 4, 5, 6].map((nth) => client.records.connection('outbound', nth)));
    const first = upstreams.filter((record) => String((record.upstream as Record<string, unknown>).address).startsWith('127.0.0.1')).length;
    assert.equal(first, 3);
  });
});
