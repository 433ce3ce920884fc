// A sidecar that asks for each destination: what it dials, what it refuses, and what it hears of later, with an agent that comes and goes.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { cleanups, rawClient } from '../support/ads-rig.ts';
import { type AskingSidecar, DiscoveryRig, startAsking } from '../support/on-demand.ts';
import { TestCa } from '../support/pki.ts';
import { Application, type LogRecord, type MeshSpec, uidOf } from '../support/sidecar-harness.ts';

const VIP = { address: '10.96.0.1', port: 80 };
const ca = await TestCa.create();
const SLEEP = { namespace: 'foo', name: 'sleep' };

/** Looks until it holds. */
async function eventually(holds: () => boolean): Promise<void> {
  const until = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > until) throw new Error('what was waited for did not happen within 10 s');
    await delay(5);
  }
}

async function application(host = '127.0.0.1'): Promise<Application> {
  const started = await Application.start((socket) => socket.pipe(socket), host);
  cleanups.push(() => started[Symbol.asyncDispose]());
  return started;
}

/** A service at VIP whose endpoints are those applications, outside the mesh. */
function world(applications: readonly Application[], rest: Partial<MeshSpec> & { outbound?: 'REGISTRY_ONLY' } = {}): MeshSpec {
  const { outbound = 'ALLOW_ANY', workloads = [], services = [], ...others } = rest;
  return {
    workloads: [
      { ...SLEEP, outbound },
      ...applications.map(({ endpoint: { address, port } }, index) => ({
        namespace: 'bar',
        name: `web-${index}`,
        addresses: [address],
        meshed: false,
        services: { 'bar/web': [VIP.port, port] as const },
      })),
      // The rest of the mesh.
      ...Array.from({ length: 50 }, (_, index) => ({ namespace: 'other', name: `pod-${index}`, addresses: [`10.1.0.${index}`] })),
      ...workloads,
    ],
    services: [{ namespace: 'bar', name: 'web', address: VIP.address }, ...services],
    ...others,
  };
}

const sidecarOf = async (rig: DiscoveryRig, more: Partial<Parameters<typeof startAsking>[1]> = {}) =>
  startAsking(rig, { ...SLEEP, identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'), ...more });

function dial(sidecar: AskingSidecar): Socket {
  const socket = connect({ port: sidecar.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined);
  cleanups.push(() => socket.destroy());
  return socket;
}

/** What the application says, or that the connection was ended. */
const heard = (socket: Socket): Promise<string> =>
  new Promise((resolve) => {
    socket.once('data', (data) => resolve(String(data)));
    socket.once('close', () => resolve('closed'));
  });

async function asks(sidecar: AskingSidecar): Promise<string> {
  const socket = dial(sidecar);
  socket.write('hello');
  const said = await heard(socket);
  socket.destroy();
  return said;
}

const ending = (sidecar: AskingSidecar, nth = 1): Promise<LogRecord> => sidecar.records.connection('outbound', nth);

describe('a destination that is asked for', () => {
  it('is-asked-for-once-and-dialled-and-of-the-rest-of-the-mesh-nothing-is-heard', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig);
    client.destination = VIP;
    assert.equal(client.mesh.current?.knows(VIP.address), false);
    assert.deepEqual(await Promise.all(Array.from({ length: 200 }, () => asks(client))), Array(200).fill('hello'));
    assert.deepEqual(
      rig.asked.filter((address) => address === VIP.address),
      [VIP.address],
    );
    const known = [...(client.mesh.current?.registry.workloads() ?? [])].map(({ name }) => name);
    assert.deepEqual(known.sort(), ['sleep', 'web-0']);
  });

  it('nobody-has-is-passed-through-after-the-answer-and-refused-under-registry-only', async () => {
    const outside = await application();
    const rig = await DiscoveryRig.start(world([]));
    const client = await sidecarOf(rig);
    client.destination = outside.endpoint;
    assert.equal(await asks(client), 'hello');
    rig.publish(world([], { outbound: 'REGISTRY_ONLY' }));
    await client.records.find(({ msg, outbound }) => msg === 'policy in force' && outbound === 'REGISTRY_ONLY');
    assert.equal(await asks(client), 'closed');
    assert.equal((await ending(client, 2)).code, 'DESTINATION_UNKNOWN');
  });

  it('is-not-dialled-in-any-way-without-an-answer-while-known-ones-go-on', async () => {
    const [web, outside] = [await application(), await application('127.0.0.2')];
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig, { settings: { dialTimeoutMs: 300 } });
    client.destination = VIP;
    assert.equal(await asks(client), 'hello');
    await rig.stop();
    assert.equal(await asks(client), 'hello');
    client.destination = outside.endpoint;
    assert.equal(await asks(client), 'closed');
    const { code, decision, reason } = await ending(client, 3);
    assert.deepEqual([code, decision], ['DESTINATION_UNANSWERED', 'failed']);
    assert.match(String(reason), /127\.0\.0\.2:\d+: the agent has not said within 300 ms/);
    assert.equal(outside.connections, 0);
    // Its twin: the agent is there again.
    await rig.restart(world([web]));
    await eventually(() => client.mesh.current?.knows('127.0.0.2') === true);
    assert.equal(await asks(client), 'hello');
  });

  it('is-given-up-by-a-client-that-has-gone', async () => {
    const rig = await DiscoveryRig.start(world([]));
    const client = await sidecarOf(rig, { settings: { dialTimeoutMs: 60_000 } });
    await rig.stop();
    client.destination = { address: '10.9.9.9', port: 1 };
    const socket = dial(client);
    await once(socket, 'connect');
    await eventually(() => client.interests.size === 1);
    client.sidecar.tracker.cutAll('DRAINING', 'the test');
    assert.equal((await ending(client)).code, 'DRAINING');
  });

  it('that-joins-the-mesh-later-ends-what-was-passed-through', async () => {
    const outside = await application();
    const rig = await DiscoveryRig.start(world([]));
    const client = await sidecarOf(rig);
    client.destination = outside.endpoint;
    const socket = dial(client);
    socket.write('hello');
    assert.equal(await heard(socket), 'hello');
    rig.publish(world([], { workloads: [{ namespace: 'bar', name: 'late', addresses: ['127.0.0.1'] }] }));
    assert.equal((await ending(client)).code, 'TRANSPORT_CHANGED');
  });

  it('hears-of-endpoints-that-come-and-go', async () => {
    const [one, two] = [await application(), await application('127.0.0.2')];
    const rig = await DiscoveryRig.start(world([one]));
    const client = await sidecarOf(rig);
    client.destination = VIP;
    assert.equal(await asks(client), 'hello');
    rig.publish(world([one, two]));
    await eventually(() => client.mesh.current?.registry.workload('bar', 'web-1') !== undefined);
    rig.publish(world([]));
    await eventually(() => client.mesh.current?.registry.workload('bar', 'web-0') === undefined);
    assert.equal(await asks(client), 'closed');
    assert.equal((await ending(client, 2)).code, 'NO_HEALTHY_ENDPOINT');
  });

  it('is-up-to-date-again-after-another-agent-took-the-place-of-a-stopped-one', async () => {
    const [web, outside] = [await application(), await application('127.0.0.2')];
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig);
    client.destination = VIP;
    assert.equal(await asks(client), 'hello');
    client.destination = outside.endpoint;
    const socket = dial(client);
    socket.write('hello');
    assert.equal(await heard(socket), 'hello');
    await rig.stop();
    // Meanwhile the stranger has joined, and the service has lost its endpoint.
    await rig.restart(world([], { workloads: [{ namespace: 'bar', name: 'late', addresses: ['127.0.0.2'] }] }));
    assert.equal((await ending(client, 2)).code, 'TRANSPORT_CHANGED');
    await eventually(() => client.mesh.current?.registry.workload('bar', 'web-0') === undefined);
    client.destination = VIP;
    assert.equal(await asks(client), 'closed');
    assert.equal((await ending(client, 3)).code, 'NO_HEALTHY_ENDPOINT');
  });

  it('is-watched-on-while-connected-though-it-has-left-its-service', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig);
    client.destination = VIP;
    const socket = dial(client);
    socket.write('hello');
    assert.equal(await heard(socket), 'hello');
    await eventually(() => client.mesh.current?.knows('127.0.0.1') === true);
    const left = { namespace: 'bar', name: 'web-0', addresses: ['127.0.0.1'] };
    rig.publish(world([], { workloads: [{ ...left, meshed: false }] }));
    await eventually(() => client.mesh.current?.registry.workload('bar', 'web-0')?.services.size === 0);
    assert.equal(client.sidecar.tracker.size, 1);
    rig.publish(world([], { workloads: [left] }));
    assert.equal((await ending(client)).code, 'TRANSPORT_CHANGED');
  });
});

describe('an address that nobody uses', () => {
  const limits = { most: 8, makeRoomFor: 4, idleMs: 0, sweepMs: 20 };

  it('is-let-go-of-with-all-that-belongs-to-it-and-asked-for-anew', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig, { limits });
    client.destination = VIP;
    for (let times = 1; times <= 3; times++) {
      assert.equal(await asks(client), 'hello');
      await eventually(() => client.interests.size === 0);
      await eventually(() => client.mesh.current?.registry.workload('bar', 'web-0') === undefined);
      assert.equal(client.mesh.current?.knows(VIP.address), false);
      assert.equal(rig.asked.filter((address) => address === VIP.address).length, times);
    }
  });

  it('makes-room-for-others-and-one-in-use-does-not', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig, { limits: { ...limits, idleMs: 600_000 } });
    client.destination = VIP;
    const socket = dial(client);
    socket.write('hello');
    assert.equal(await heard(socket), 'hello');
    for (let host = 1; host <= 40; host++) {
      client.interests.ask(`10.7.0.${host}`);
      await eventually(() => client.mesh.current?.knows(`10.7.0.${host}`) === true);
      assert.ok(client.interests.size <= limits.most);
    }
    assert.equal(client.mesh.current?.knows(VIP.address), true);
    assert.equal(client.mesh.current?.knows('10.7.0.1'), false);
    socket.write('again');
    assert.equal(await heard(socket), 'again');
  });
});

describe('a stream that asks for too much', () => {
  it('is-ended-and-others-are-served', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(world([web]));
    const hostile = rawClient(rig.server);
    const names = Array.from({ length: 5_000 }, (_, index) => `/10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`);
    hostile.send({ typeUrl: typeUrls.address, resourceNamesSubscribe: names });
    assert.equal((await hostile.ended).code, status.RESOURCE_EXHAUSTED);
    const modest = rawClient(rig.server);
    modest.send({ typeUrl: typeUrls.address, resourceNamesSubscribe: names.slice(0, 100) });
    const [answer] = await modest.received.count(1);
    assert.equal(answer?.removedResources.length, 100);
    const client = await sidecarOf(rig);
    client.destination = VIP;
    assert.equal(await asks(client), 'hello');
  });
});

describe('a sidecar whose agent takes no more', () => {
  it('lets-go-of-what-nobody-uses-and-comes-back', async () => {
    const [web, outside] = [await application(), await application('127.0.0.2')];
    const rig = await DiscoveryRig.start(world([web]));
    const client = await sidecarOf(rig);
    client.destination = VIP;
    const socket = dial(client);
    socket.write('hello');
    assert.equal(await heard(socket), 'hello');
    const idle = Array.from({ length: 200 }, (_, host) => `10.7.0.${host}`);
    for (const address of idle) client.interests.ask(address);
    const known = () => idle.filter((address) => client.mesh.current?.knows(address) === true).length;
    await eventually(() => known() === idle.length);
    await rig.stop();
    await rig.restart(world([web]), { all: 100, each: 100 });
    await eventually(() => known() < idle.length);
    assert.equal(known(), 30);
    // Whom it speaks to it knows, and whoever else it is to speak to it asks for.
    assert.equal(client.mesh.current?.knows(VIP.address), true);
    client.destination = outside.endpoint;
    assert.equal(await asks(client), 'hello');
    client.destination = VIP;
    assert.equal(await asks(client), 'hello');
    socket.write('again');
    assert.equal(await heard(socket), 'again');
  });
});

describe('a caller that proves nothing', () => {
  const httpbin = { namespace: 'bar', name: 'httpbin' };
  const mesh: MeshSpec = {
    workloads: [
      { ...httpbin, mode: 'PERMISSIVE' },
      { namespace: 'legacy', name: 'sleep', addresses: ['127.0.0.9'], meshed: false },
    ],
  };

  async function called(server: AskingSidecar, to: Application): Promise<void> {
    server.inboundDestination = to.endpoint;
    const socket = connect({ port: server.sidecar.ports.inbound, host: '127.0.0.1', localAddress: '127.0.0.9' });
    cleanups.push(() => socket.destroy());
    socket.write('hello');
    assert.equal(await heard(socket), 'hello');
    socket.destroy();
  }

  const entries = (server: AskingSidecar) => server.sidecar.tracker.ledger.changedAfter(-1);

  it('has-its-name-in-the-ledger-from-its-first-connection-on', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(mesh);
    const server = await startAsking(rig, { ...httpbin, identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin') });
    await called(server, web);
    await eventually(() => entries(server).length === 1 && entries(server)[0]?.open === 0);
    const [entry] = entries(server);
    assert.deepEqual(
      [entry?.peerWorkload, entry?.peerRegisteredId, entry?.transport, entry?.connections],
      ['legacy/sleep', 'spiffe://cluster.local/ns/legacy/sa/sleep', 'plaintext', 1],
    );
  });

  it('that-is-refused-has-it-too', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start({ workloads: mesh.workloads.map((each) => ({ ...each, mode: 'STRICT' })) });
    const server = await startAsking(rig, { ...httpbin, identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin') });
    server.inboundDestination = web.endpoint;
    const socket = connect({ port: server.sidecar.ports.inbound, host: '127.0.0.1', localAddress: '127.0.0.9' });
    socket.on('error', () => undefined);
    socket.write('hello');
    assert.equal(await heard(socket), 'closed');
    await eventually(() => entries(server).length === 1);
    const [entry] = entries(server);
    assert.deepEqual([entry?.peerWorkload, entry?.code], ['legacy/sleep', 'PLAINTEXT_UNDER_STRICT']);
  });

  it('is-noted-by-its-address-when-the-agent-does-not-answer', async () => {
    const web = await application();
    const rig = await DiscoveryRig.start(mesh);
    const server = await startAsking(rig, { ...httpbin, identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin') });
    await rig.stop();
    await called(server, web);
    assert.equal(entries(server).length, 0);
    server.sidecar.tracker.close();
    const [entry] = entries(server);
    assert.deepEqual([entry?.peerAddress, entry?.peerWorkload, entry?.connections], ['127.0.0.9', '', 1]);
  });
});

it('names-of-others-are-no-answer-to-what-was-not-asked', async () => {
  const web = await application();
  const rig = await DiscoveryRig.start(world([web]));
  const client = rawClient(rig.server);
  client.send({ typeUrl: typeUrls.trafficPolicy, resourceNamesSubscribe: [uidOf('foo/sleep')] });
  const [first] = await client.received.count(1);
  client.send({ typeUrl: typeUrls.trafficPolicy, responseNonce: first?.nonce ?? '' });
  client.send({ typeUrl: typeUrls.address, resourceNamesSubscribe: [`/${VIP.address}`] });
  const all = await client.received.until((received) => received.some(({ typeUrl }) => typeUrl === typeUrls.address));
  const address = all.find(({ typeUrl }) => typeUrl === typeUrls.address);
  // The endpoint came with its service; its own address was not asked for, and whoever comes there beside it is not said.
  assert.deepEqual(address?.resources.map(({ name, aliases }) => [name, aliases]).sort(), [
    ['bar/web', [`/${VIP.address}`]],
    [uidOf('bar/web-0'), []],
    [uidOf('foo/sleep'), []],
  ]);
});
