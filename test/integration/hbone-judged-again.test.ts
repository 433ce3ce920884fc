// Streams that are open while policy, revocations and trust change: what is not allowed any more is cut on both sides, what is goes on.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { deny, ending, say } from '../support/h2-applications.ts';
import { TestCa } from '../support/pki.ts';
import { Application, collect, type RunningSidecar } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';

const ca = await TestCa.create();
let pair: TunnelledPair;
let open: Socket[] = [];

beforeEach(async () => {
  pair = await startTunnelledPair({ identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) } });
});
afterEach(async () => {
  for (const socket of open) socket.destroy();
  open = [];
  await pair[Symbol.asyncDispose]();
});

/** A connection through the tunnel that has been used, to the pair's application or to another. */
async function established(to = pair.application): Promise<Socket> {
  pair.client.destination = to.endpoint;
  const socket = pair.dial();
  socket.on('error', () => undefined);
  open.push(socket);
  assert.equal(await say(socket, 'hello'), 'hello');
  return socket;
}

async function refused(): Promise<void> {
  pair.client.destination = pair.application.endpoint;
  const connections = pair.application.connections;
  const socket = pair.dial();
  socket.write('hello');
  assert.equal((await collect(socket)).text, '');
  assert.equal(pair.application.connections, connections, 'the application was dialled');
}

const serialOf = ({ identity }: RunningSidecar) => identity.current?.svid.serial ?? '';

describe('a new policy', () => {
  it('cuts-the-streams-it-denies-and-leaves-their-neighbours-in-the-same-session', async () => {
    await using second = await Application.start();
    const denied = await established();
    const neighbour = await established(second);
    const end = ending(denied);
    pair.replace(pair.world({}, { authorizations: [deny({ port: pair.application.endpoint.port })] }));
    assert.equal(await end, 'ECONNRESET');
    const record = await pair.server.records.connection('inbound');
    assert.deepEqual([record.decision, record.code], ['cut', 'AUTHORIZATION_DENIED']);
    assert.equal(await say(neighbour, 'again'), 'again');
    await established(second);
  });

  it('cuts-where-the-server-may-not-be-who-it-is', async () => {
    const socket = await established();
    const end = ending(socket);
    pair.client.mesh.replace(pair.world({ serviceAccount: 'somebody-else' }));
    assert.equal(await end, 'ECONNRESET');
    assert.equal((await pair.client.records.connection('outbound')).code, 'SECURE_NAMING_MISMATCH');
    await refused();
  });
});

describe('a revocation', () => {
  for (const [whom, by, direction] of [
    ['client', 'server', 'inbound'],
    ['server', 'client', 'outbound'],
  ] as const)
    for (const how of ['serial', 'id'] as const)
      it(`of-the-${whom}-by-${how}-cuts-its-streams-and-refuses-the-next`, async () => {
        const socket = await established();
        const end = ending(socket);
        pair[by].revocations.replace({
          ...noRevocations,
          ...(how === 'serial'
            ? { serials: new Set([serialOf(pair[whom])]) }
            : { blockedIds: new Set([whom === 'client' ? CLIENT : SERVER]) }),
        });
        assert.equal(await end, 'ECONNRESET');
        const record = await pair[by].records.connection(direction);
        assert.deepEqual([record.decision, record.code], ['cut', 'CERTIFICATE_REVOKED']);
        await refused();
        assert.equal(pair.application.sockets.size, 0, 'the application is still connected');
      });

  it('of-somebody-else-does-not', async () => {
    const socket = await established();
    for (const side of [pair.client, pair.server])
      side.revocations.replace({ ...noRevocations, serials: new Set(['01']), blockedIds: new Set([`${CLIENT}s`]) });
    assert.equal(await say(socket, 'again'), 'again');
  });

  for (const whom of ['client', 'server'] as const)
    it(`of-the-${whom}-s-former-certificate-does-not-hurt-the-next`, async () => {
      const socket = await established();
      const former = serialOf(pair[whom]);
      pair[whom].identity.replace(await ca.identity(whom === 'client' ? CLIENT : SERVER));
      const end = ending(socket);
      for (const side of [pair.client, pair.server]) side.revocations.replace({ ...noRevocations, serials: new Set([former]) });
      assert.equal(await end, 'ECONNRESET');
      const next = await established();
      assert.equal(await say(next, 'again'), 'again');
    });
});

describe('a trust bundle', () => {
  for (const [by, direction] of [
    ['server', 'inbound'],
    ['client', 'outbound'],
  ] as const)
    it(`without-the-peer-s-root-cuts-at-the-${by}-and-refuses-the-next`, async () => {
      const socket = await established();
      const end = ending(socket);
      const current = pair[by].identity.current;
      assert.ok(current);
      const rival = await TestCa.create();
      pair[by].identity.replace({ ...current, bundles: (await rival.identity(CLIENT)).bundles });
      assert.equal(await end, 'ECONNRESET');
      assert.equal((await pair[by].records.connection(direction)).code, 'CHAIN_UNTRUSTED');
      await refused();
    });

  it('with-one-root-more-does-not', async () => {
    const socket = await established();
    const foreign = await TestCa.create('other.example');
    for (const side of [pair.client, pair.server]) {
      const current = side.identity.current;
      assert.ok(current);
      const more = (await foreign.identity('spiffe://other.example/x')).bundles.own;
      side.identity.replace({ ...current, bundles: trustBundles(current.bundles.own, [more]) });
    }
    assert.equal(await say(socket, 'again'), 'again');
    await established();
  });
});
