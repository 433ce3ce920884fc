// The sessions beneath the streams: shared, never lent to another identity, made anew when they are lost, and left in peace.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { freePort } from '../support/free-port.ts';
import { ending, say } from '../support/h2-applications.ts';
import { Relay } from '../support/h2-relay.ts';
import { TestCa } from '../support/pki.ts';
import { Application, collect, startSidecar } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';
const VIPS = ['10.96.0.10', '10.96.0.11'] as const;

const ca = await TestCa.create();
let relay: Relay;
let pair: TunnelledPair;
let tunnelPort: () => number;
let open: Socket[] = [];

beforeEach(async () => {
  tunnelPort = () => relay.port;
  pair = await startTunnelledPair({
    identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) },
    client: { tunnelPortOf: () => tunnelPort() },
    server: { drainTimeoutMs: 5_000 },
  });
  relay = await Relay.to(pair.server.sidecar.ports.tunnel);
});
afterEach(async () => {
  for (const socket of [...open, ...pair.application.sockets]) socket.destroy();
  open = [];
  await relay[Symbol.asyncDispose]();
  await pair[Symbol.asyncDispose]();
});

function dial(): Socket {
  const socket = pair.dial();
  socket.on('error', () => undefined);
  open.push(socket);
  return socket;
}

async function established(): Promise<Socket> {
  const socket = dial();
  assert.equal(await say(socket, 'hello'), 'hello');
  return socket;
}

describe('a session', () => {
  it('carries-1000-connections-at-a-time-with-few-others', async () => {
    const sockets = await Promise.all(Array.from({ length: 1_000 }, established));
    assert.equal(new Set(pair.application.sockets).size, 1_000);
    assert.deepEqual(
      await Promise.all(sockets.map((socket, index) => say(socket, `word ${index}`))),
      sockets.map((_, index) => `word ${index}`),
    );
    assert.ok(relay.connections <= 4, `${relay.connections} sessions`);
  });

  it('that-is-cut-resets-its-streams-and-the-next-connection-makes-a-new-one', async () => {
    const sockets = await Promise.all([established(), established(), established()]);
    const ends = sockets.map(ending);
    const made = relay.connections;
    relay.cut();
    assert.deepEqual(await Promise.all(ends), ['ECONNRESET', 'ECONNRESET', 'ECONNRESET']);
    await Promise.all([1, 2, 3].map((nth) => pair.server.records.connection('inbound', nth)));
    assert.equal(pair.application.sockets.size, 0);
    await established();
    assert.ok(relay.connections > made);
  });

  it('is-made-anew-when-the-peer-has-been-started-again', async () => {
    // Nobody is to wait here for what is open.
    await pair[Symbol.asyncDispose]();
    pair = await startTunnelledPair({
      identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) },
      client: { tunnelPortOf: () => relay.port },
      server: { drainTimeoutMs: 1 },
    });
    relay.target = pair.server.sidecar.ports.tunnel;
    await established();
    await pair.server[Symbol.asyncDispose]();
    await using again = await startSidecar({ namespace: 'bar', name: 'httpbin', identity: await ca.identity(SERVER) });
    again.mesh.replace(pair.world());
    relay.target = again.sidecar.ports.tunnel;
    await established();
    for (const socket of open) socket.destroy();
  });

  it('is-not-shared-by-services-whose-names-differ-at-one-address', async () => {
    const { port } = pair.application.endpoint;
    const services = VIPS.map((address, index) => ({
      namespace: 'bar',
      name: `service-${index}`,
      address,
      subjectAltNames: [`spiffe://x/${index}`],
    }));
    pair.replace(pair.world({ services: { 'bar/service-0': [80, port], 'bar/service-1': [80, port] } }, { services }));
    for (const address of [...VIPS, ...VIPS]) {
      pair.client.destination = { address, port: 80 };
      await established();
    }
    assert.equal(relay.connections, 2);
  });

  it('is-shared-by-services-whose-names-are-the-same', async () => {
    const { port } = pair.application.endpoint;
    const services = VIPS.map((address, index) => ({ namespace: 'bar', name: `service-${index}`, address }));
    pair.replace(pair.world({ services: { 'bar/service-0': [80, port], 'bar/service-1': [80, port] } }, { services }));
    for (const address of [...VIPS, ...VIPS]) {
      pair.client.destination = { address, port: 80 };
      await established();
    }
    assert.equal(relay.connections, 1);
  });
});

describe('a sidecar that stops', () => {
  it('lets-open-streams-finish-and-takes-no-new-ones', async () => {
    const socket = await established();
    const accepted = pair.application.connections;
    const stopped = pair.server.sidecar.stop();
    assert.equal(await say(socket, 'again'), 'again');
    const late = dial();
    late.write('late');
    assert.deepEqual((await collect(late)).text, '');
    assert.equal(pair.application.connections, accepted, 'the application was dialled while draining');
    assert.equal(await say(socket, 'still'), 'still');
    socket.end('bye');
    assert.deepEqual(await collect(socket), { text: 'bye' });
    await stopped;
    assert.equal((await pair.server.records.connection('inbound')).decision, 'allowed');
    assert.equal(relay.open, 0, 'a session is left');
  });

  it('cuts-what-outlives-its-drain-time', async () => {
    await using impatient = await startTunnelledPair({
      identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) },
      server: { drainTimeoutMs: 1 },
    });
    const socket = impatient.dial();
    assert.equal(await say(socket, 'hello'), 'hello');
    const end = ending(socket);
    await impatient.server.sidecar.stop();
    assert.equal(await end, 'ECONNRESET');
    assert.equal((await impatient.server.records.connection('inbound')).code, 'DRAINING');
  });
});

describe('a peer without a tunnel port', () => {
  beforeEach(async () => {
    const nobody = await freePort();
    tunnelPort = () => nobody;
    pair.client.destination = { address: '127.0.0.1', port: pair.server.sidecar.ports.inbound };
    pair.server.inboundDestination = pair.application.endpoint;
  });

  it('is-called-by-mtls-for-each-connection', async () => {
    for (let nth = 1; nth <= 3; nth++) {
      (await established()).end();
      const back = await pair.server.records.connection('inbound', nth);
      const out = await pair.client.records.connection('outbound', nth);
      assert.deepEqual([back.transport, back.tunnel, out.transport, out.tunnel], ['mtls', undefined, 'mtls', undefined]);
    }
  });

  it('is-never-called-in-plaintext', async () => {
    let heard = '';
    await using plain = await Application.start((socket) => {
      socket.on('data', (bytes) => {
        heard += bytes.toString('latin1');
        socket.resetAndDestroy();
      });
    });
    pair.client.destination = plain.endpoint;
    const socket = dial();
    socket.write('a secret');
    assert.equal(await ending(socket), 'ECONNRESET');
    assert.doesNotMatch(heard, /secret/);
    assert.equal((await pair.client.records.connection('outbound')).code, 'HANDSHAKE_FAILED');
  });

  it('is-not-even-dialled-when-it-takes-tunnels-and-fails-in-other-ways', async () => {
    let dialled = 0;
    await using hostile = await Application.start((socket) => {
      dialled++;
      socket.resetAndDestroy();
    });
    tunnelPort = () => hostile.endpoint.port;
    const before = pair.server.records.records.length;
    const socket = dial();
    socket.write('a secret');
    assert.equal(await ending(socket), 'ECONNRESET');
    assert.equal(dialled, 1);
    assert.equal(pair.server.records.records.length, before);
    assert.equal(pair.application.connections, 0);
  });
});

it('a-server-that-ends-at-once-is-no-reason-for-a-second-try', async () => {
  await using brief = await Application.start((socket) => socket.end('bye'));
  pair.client.destination = brief.endpoint;
  const socket = dial();
  await once(socket.resume(), 'end');
  socket.end();
  await pair.client.records.connection('outbound');
  assert.equal(brief.connections, 1);
});
