// Open connections under changes of policy, trust and registry: what is not allowed any more ends, what is goes on, and the record says why.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { type Authorization, emptyMatch } from '../../src/policy/authorization.ts';
import { clientTls } from '../../src/policy/model.ts';
import { trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { TestCa } from '../support/pki.ts';
import { Application, type MeshSpec, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const VIP = { address: '10.96.0.10', port: 80 };

let ca: TestCa;
let application: Application;
let client: RunningSidecar;
let server: RunningSidecar;
const open: Socket[] = [];

before(async () => {
  ca = await TestCa.create();
  application = await Application.start();
  client = await startSidecar({ namespace: 'foo', name: 'sleep', identity: await ca.identity(SLEEP) });
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

function world(
  change: {
    httpbin?: Partial<MeshSpec['workloads'][number]>;
    sleep?: Partial<MeshSpec['workloads'][number]>;
    authorizations?: Authorization[];
  } = {},
) {
  return meshOf({
    workloads: [
      { namespace: 'foo', name: 'sleep', ...change.sleep },
      {
        namespace: 'bar',
        name: 'httpbin',
        addresses: ['127.0.0.1'],
        services: { 'bar/httpbin': [80, server.sidecar.ports.inbound] },
        ...change.httpbin,
      },
    ],
    services: [{ namespace: 'bar', name: 'httpbin', address: VIP.address }],
    authorizations: change.authorizations ?? [],
  });
}

function everywhere(mesh: ReturnType<typeof world>): void {
  server.mesh.replace(mesh);
  client.mesh.replace(mesh);
}

beforeEach(async () => {
  const bundles = (await ca.identity(SLEEP)).bundles;
  for (const sidecar of [client, server]) if (sidecar.identity.current) sidecar.identity.replace({ ...sidecar.identity.current, bundles });
  everywhere(world());
  client.destination = VIP;
  server.destination = application.endpoint;
});

afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  await Promise.all([client.settled(), server.settled()]);
});

async function say(socket: Socket, word: string): Promise<string> {
  socket.write(word);
  const [answer] = await once(socket, 'data');
  return String(answer);
}

const closed = (socket: Socket) => new Promise((resolve) => socket.once('close', resolve));

/** An open connection through both sidecars that has been used. */
async function established(): Promise<Socket> {
  const socket = connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1' });
  socket.on('error', () => undefined);
  open.push(socket);
  assert.equal(await say(socket, 'hello'), 'hello');
  return socket;
}

const only = (principal: string, action: Authorization['action'], dryRun = false): Authorization => ({
  name: 'who',
  namespace: 'bar',
  scope: 'NAMESPACE',
  action,
  rules: [[[{ ...emptyMatch, principals: [{ kind: 'exact', value: principal }] }]]],
  dryRun,
});
const PRINCIPAL = SLEEP.slice('spiffe://'.length);

describe('authorization', () => {
  it('a-new-denial-ends-the-open-connection-and-says-who-denied', async () => {
    const socket = await established();
    const begun = performance.now();
    everywhere(world({ authorizations: [only(PRINCIPAL, 'DENY')] }));
    await closed(socket);
    console.log(`# from the new policy to the connection's end: ${(performance.now() - begun).toFixed(1)} ms`);
    const record = await server.records.connection('inbound');
    assert.equal(record.decision, 'cut');
    assert.equal(record.code, 'AUTHORIZATION_DENIED');
    assert.match(String(record.reason), /ns\/foo\/sa\/sleep.* is denied by AuthorizationPolicy bar\/who/);
  });

  it('somebody-else-s-denial-does-not', async () => {
    const socket = await established();
    everywhere(world({ authorizations: [only('cluster.local/ns/foo/sa/other', 'DENY')] }));
    assert.equal(await say(socket, 'again'), 'again');
  });

  it('an-allow-list-without-the-peer-ends-it-and-one-with-it-does-not', async () => {
    const socket = await established();
    everywhere(world({ authorizations: [only(PRINCIPAL, 'ALLOW')] }));
    assert.equal(await say(socket, 'again'), 'again');
    everywhere(world({ authorizations: [only('cluster.local/ns/foo/sa/other', 'ALLOW')] }));
    await closed(socket);
    assert.equal((await server.records.connection('inbound')).code, 'AUTHORIZATION_DENIED');
  });

  it('a-policy-that-is-named-and-has-not-come-refuses', async () => {
    const mesh = world();
    const self = mesh.registry.workload('bar', 'httpbin');
    assert.ok(self);
    const registry = mesh.registry.changed({
      workloads: { upserts: [{ ...self, authorizationPolicies: ['bar/late'] }], removed: [] },
      services: { upserts: [], removed: [] },
    });
    const socket = await established();
    server.mesh.replace({ ...mesh, registry });
    await closed(socket);
    assert.match(String((await server.records.connection('inbound')).reason), /bar\/late is bound to this workload and has not arrived/);
  });

  it('in-dry-run-it-is-in-the-record-alone', async () => {
    everywhere(world({ authorizations: [only(PRINCIPAL, 'DENY', true)] }));
    const socket = await established();
    socket.end();
    const record = await server.records.connection('inbound');
    assert.equal(record.decision, 'allowed');
    assert.equal((record.shadow as Record<string, unknown>).code, 'AUTHORIZATION_DENIED');
    assert.equal((await client.records.connection('outbound')).shadow, undefined);
  });
});

describe('trust', () => {
  it('a-root-that-is-withdrawn-ends-what-it-had-proven-on-either-side', async () => {
    const other = await TestCa.create();
    for (const [side, direction] of [
      [server, 'inbound'],
      [client, 'outbound'],
    ] as const) {
      const socket = await established();
      const current = side.identity.current;
      assert.ok(current);
      const { bundles } = await other.identity(SLEEP);
      side.identity.replace({ ...current, bundles });
      await closed(socket);
      const record = await side.records.connection(direction);
      assert.equal(record.code, 'CHAIN_UNTRUSTED');
      assert.match(String(record.reason), /a root that is not trusted any more/);
      side.identity.replace(current);
      await Promise.all([client.settled(), server.settled()]);
    }
  });

  it('one-that-is-added-and-a-new-certificate-do-not', async () => {
    const socket = await established();
    const other = await TestCa.create('other.example');
    for (const side of [server, client]) {
      const current = side.identity.current;
      assert.ok(current);
      const both = trustBundles(current.bundles.own, [(await other.identity('spiffe://other.example/x')).bundles.own]);
      side.identity.replace({ ...current, bundles: both });
      const rotated = await ca.identity(current.svid.id.uri);
      side.identity.replace({ ...rotated, bundles: both });
    }
    assert.equal(await say(socket, 'again'), 'again');
  });
});

describe('the switch of the client', () => {
  const rule = (mode: 'DISABLE' | 'ISTIO_MUTUAL') => ({
    clientTls: [
      {
        host: 'httpbin',
        tls: clientTls(mode, `DestinationRule foo/${mode}`),
        ports: new Map(),
      },
    ],
  });

  it('plaintext-drains-when-the-client-turns-to-mtls-and-the-next-connection-is-mtls', async () => {
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' }, sleep: rule('DISABLE') }));
    const socket = await established();
    const errors: Error[] = [];
    socket.on('error', (error) => errors.push(error));
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' }, sleep: rule('ISTIO_MUTUAL') }));
    // Still good for an answer, and then quiet.
    assert.equal(await say(socket, 'again'), 'again');
    await closed(socket);
    assert.deepEqual(errors, []);
    const record = await client.records.connection('outbound');
    assert.deepEqual(
      [record.decision, record.outcome, record.code, record.transport],
      ['allowed', 'drained', 'TRANSPORT_CHANGED', 'plaintext'],
    );
    (await established()).end();
    assert.equal((await client.records.connection('outbound', 2)).transport, 'mtls');
  });

  it('where-the-server-refuses-plaintext-it-ends-at-once', async () => {
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' }, sleep: rule('DISABLE') }));
    const socket = await established();
    everywhere(world({ httpbin: { mode: 'STRICT' }, sleep: rule('DISABLE') }));
    await closed(socket);
    assert.equal((await server.records.connection('inbound')).code, 'PLAINTEXT_UNDER_STRICT');
    (await established()).end();
    assert.equal((await client.records.connection('outbound', 2)).transport, 'mtls', 'DISABLE never dials what is known to be refused');
  });

  it('mtls-goes-on-when-the-client-turns-to-plaintext', async () => {
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' }, sleep: rule('ISTIO_MUTUAL') }));
    const socket = await established();
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' }, sleep: rule('DISABLE') }));
    assert.equal(await say(socket, 'again'), 'again');
    (await established()).end();
    assert.equal((await client.records.connection('outbound')).transport, 'plaintext');
  });
});

describe('the switch of the server', () => {
  it('mtls-drains-where-plaintext-alone-is-about-to-be-taken', async () => {
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' } }));
    const socket = await established();
    const errors: Error[] = [];
    socket.on('error', (error) => errors.push(error));
    everywhere(world({ httpbin: { mode: 'PERMISSIVE', announced: 'DISABLE' } }));
    assert.equal(await say(socket, 'again'), 'again');
    await closed(socket);
    assert.deepEqual(errors, []);
    assert.equal((await client.records.connection('outbound')).outcome, 'drained');
    (await established()).end();
    assert.equal((await client.records.connection('outbound', 2)).transport, 'plaintext');
  });

  it('what-was-drained-ends-though-both-sides-keep-their-half', async () => {
    await using stubborn = await Application.start((socket) => socket.on('data', (chunk) => socket.write(chunk)));
    server.destination = stubborn.endpoint;
    everywhere(world({ httpbin: { mode: 'PERMISSIVE' } }));
    const socket = connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => undefined);
    open.push(socket);
    assert.equal(await say(socket, 'hello'), 'hello');
    everywhere(world({ httpbin: { mode: 'PERMISSIVE', announced: 'DISABLE' } }));
    assert.equal(await say(socket, 'again'), 'again');
    // Whoever keeps his half hears of no reset before he writes: the record tells.
    const record = await client.records.connection('outbound');
    assert.deepEqual([record.decision, record.code], ['cut', 'TRANSPORT_CHANGED']);
    assert.match(String(record.reason), /it did not end/);
  });
});

describe('the registry', () => {
  it('another-identity-at-the-address-ends-the-connection', async () => {
    const socket = await established();
    everywhere(world({ httpbin: { serviceAccount: 'somebody-else' } }));
    await closed(socket);
    const codes = [(await client.records.connection('outbound')).code, (await server.records.connection('inbound')).code];
    assert.deepEqual(codes, ['SECURE_NAMING_MISMATCH', 'IDENTITY_MISMATCH']);
  });

  it('a-pod-that-leaves-drains-by-itself', async () => {
    const socket = await established();
    everywhere(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }] }));
    assert.equal(await say(socket, 'again'), 'again');
  });
});
