// What an application would see on a plain connection it sees through the pair: half-close, backpressure, resets, whole transfers.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { TestCa } from '../support/pki.ts';
import { Application, collect, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

let ca: TestCa;
let client: RunningSidecar;
let server: RunningSidecar;

before(async () => {
  ca = await TestCa.create();
  client = await startSidecar({
    namespace: 'foo',
    name: 'sleep',
    identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
    settings: { halfCloseTimeoutMs: 700 },
  });
  server = await startSidecar({
    namespace: 'bar',
    name: 'httpbin',
    identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  });
  const mesh = meshOf({
    workloads: [
      { namespace: 'foo', name: 'sleep' },
      { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'] },
    ],
  });
  client.mesh.replace(mesh);
  server.mesh.replace(mesh);
  client.destination = { address: '127.0.0.1', port: server.sidecar.ports.inbound };
});

after(async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

/** The next test's records are its own. */
afterEach(async () => {
  await Promise.all([client.settled(), server.settled()]);
});

function dialTo(application: Application): Socket {
  server.destination = application.endpoint;
  return connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
}

describe('half-close', () => {
  it('answer-after-the-clients-end-arrives', async () => {
    await using application = await Application.start((socket) => {
      const chunks: Buffer[] = [];
      socket.on('data', (chunk) => chunks.push(chunk));
      socket.on('end', () => setImmediate(() => socket.end(`got ${Buffer.concat(chunks)}`)));
    });
    const socket = dialTo(application);
    socket.end('everything');
    assert.deepEqual(await collect(socket), { text: 'got everything' });
  });

  it('client-may-go-on-after-the-servers-end', async () => {
    const heard = Promise.withResolvers<string>();
    await using application = await Application.start((socket) => {
      socket.end('hello and goodbye');
      let text = '';
      socket.on('data', (chunk) => {
        text += String(chunk);
      });
      socket.on('end', () => heard.resolve(text));
    });
    const socket = dialTo(application);
    const ended = once(socket, 'end');
    socket.resume();
    await ended;
    socket.write('still ');
    socket.end('talking');
    assert.equal(await heard.promise, 'still talking');
  });

  it('half-closed-and-wordless-connections-end-at-their-deadline', async () => {
    await using application = await Application.start(() => undefined);
    const socket = dialTo(application);
    socket.end('and now silence');
    await collect(socket);
    assert.equal((await client.records.connection('outbound')).outcome, 'half-close-timeout');
  });
});

describe('backpressure', () => {
  it('a-reader-that-stops-stops-the-writer', async () => {
    let paused: Socket | undefined;
    await using application = await Application.start((socket) => {
      socket.pause();
      paused = socket;
    });
    const socket = dialTo(application);
    const chunk = Buffer.alloc(1024 * 1024);
    let accepted = 0;
    // Writes until nothing drains any more: what is then under way is bounded by buffers, not by memory.
    for (;;) {
      const flowing = socket.write(chunk);
      accepted += chunk.length;
      if (flowing) continue;
      const drained = await Promise.race([
        once(socket, 'drain').then(() => true),
        new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 400)),
      ]);
      if (!drained) break;
      assert.ok(accepted < 64 * 1024 * 1024, 'the pair swallowed 64 MB that nobody read');
    }
    let received = 0;
    paused?.on('data', (data) => {
      received += data.length;
    });
    paused?.resume();
    socket.end();
    if (paused !== undefined) await once(paused, 'end');
    assert.equal(received, accepted);
    paused?.end();
    await collect(socket);
  });
});

describe('resets', () => {
  it('client-reset-reaches-the-application', async () => {
    let ended: Promise<unknown> | undefined;
    await using application = await Application.start((socket) => {
      ended = collect(socket);
      socket.write('x');
    });
    const socket = dialTo(application);
    await once(socket, 'data');
    socket.resetAndDestroy();
    await ended;
    assert.deepEqual(await ended, { text: '', error: 'ECONNRESET' });
  });

  it('application-reset-reaches-the-client', async () => {
    await using application = await Application.start((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const socket = dialTo(application);
    socket.write('x');
    const { error } = await collect(socket);
    assert.equal(error, 'ECONNRESET');
  });
});

describe('every way to end at once', () => {
  it('end-and-reset-together-leave-nothing-open', async () => {
    // The application resets while the sidecars pass on the client's end: a shutdown under way is what libuv refuses to reset.
    await using application = await Application.start((socket) => {
      socket.write('x');
      socket.pause();
      setTimeout(() => socket.resetAndDestroy(), 5);
    });
    for (let i = 0; i < 40; i++) {
      const socket = dialTo(application);
      socket.on('error', () => undefined);
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.resume();
      if (i % 2 === 0) socket.end('x'.repeat(i * 50_000));
      else {
        socket.write('x'.repeat(i * 50_000));
        setTimeout(() => socket.resetAndDestroy(), 5);
      }
      await closed;
    }
    await Promise.all([client.settled(), server.settled()]);
    assert.deepEqual([client.sidecar.tracker.size, server.sidecar.tracker.size], [0, 0]);
  });

  it('half-close-before-anything-else-ends-at-its-deadline-under-permissive', async () => {
    await using application = await Application.start(() => undefined);
    const own = await startSidecar({
      namespace: 'bar',
      name: 'httpbin',
      identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
      settings: { halfCloseTimeoutMs: 200 },
    });
    own.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'PERMISSIVE' }] }));
    own.destination = application.endpoint;
    const socket = connect({ port: own.sidecar.ports.inbound, host: '127.0.0.1', allowHalfOpen: true });
    socket.end();
    await collect(socket);
    assert.equal((await own.records.connection('inbound')).outcome, 'half-close-timeout');
    await own[Symbol.asyncDispose]();
  });
});

describe('rotation in the middle', () => {
  it('rotation-mid-transfer-of-100-mb', async () => {
    const total = 100 * 1024 * 1024;
    const chunk = randomBytes(1024 * 1024);
    const received = createHash('sha256');
    const sent = createHash('sha256');
    let bytes = 0;
    await using application = await Application.start((socket) => {
      socket.on('data', (data) => {
        received.update(data);
        bytes += data.length;
      });
      socket.on('end', () => socket.end('done'));
    });
    const socket = dialTo(application);
    const answer = collect(socket);
    let rotations = 0;
    for (let offset = 0; offset < total; offset += chunk.length) {
      sent.update(chunk);
      if (!socket.write(chunk)) await once(socket, 'drain');
      if (offset % (20 * chunk.length) === 0) {
        client.identity.replace(await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'));
        server.identity.replace(await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
        rotations++;
      }
    }
    socket.end();
    assert.equal((await answer).text, 'done');
    assert.equal(bytes, total);
    assert.equal(received.digest('hex'), sent.digest('hex'));
    assert.equal(rotations, 5);
    assert.equal((await server.records.connection('inbound')).decision, 'allowed');
  });

  it('new-connections-show-the-new-certificate', async () => {
    await using application = await Application.start();
    const serials = new Set<unknown>();
    for (let i = 1; i <= 5; i++) {
      const next = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');
      client.identity.replace(next);
      const socket = dialTo(application);
      socket.end('x');
      await collect(socket);
      const record = await server.records.connection('inbound', i);
      const { serial } = record.downstream as Record<string, unknown>;
      assert.equal(serial, next.svid.serial);
      serials.add(serial);
    }
    assert.equal(serials.size, 5);
  });

  it('certificates-of-a-withdrawn-root-are-refused-from-the-next-handshake-on', async () => {
    await using application = await Application.start();
    const next = await TestCa.create();
    server.identity.replace(await next.identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
    const socket = dialTo(application);
    socket.end('x');
    assert.equal((await collect(socket)).text, '');
    client.identity.replace(await next.identity('spiffe://cluster.local/ns/foo/sa/sleep'));
    const again = dialTo(application);
    again.end('x');
    assert.equal((await collect(again)).text, 'x');
    server.identity.replace(await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
    client.identity.replace(await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'));
  });
});

describe('drain', () => {
  it('open-connections-finish-new-inbound-is-refused-and-the-application-may-still-call-out', async () => {
    await using application = await Application.start();
    const own = await startSidecar({
      namespace: 'foo',
      name: 'sleep',
      drainTimeoutMs: 5_000,
      identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
    });
    own.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }] }));
    own.destination = application.endpoint;
    const socket = connect({ port: own.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
    socket.write('a');
    await once(socket, 'data');
    const stopped = own[Symbol.asyncDispose]();
    const late = connect(own.sidecar.ports.inbound, '127.0.0.1');
    assert.equal((await collect(late)).error, 'ECONNREFUSED');
    const call = connect(own.sidecar.ports.outbound, '127.0.0.1');
    call.end('c');
    assert.equal((await collect(call)).text, 'c');
    socket.end('b');
    assert.equal((await collect(socket)).text, 'b');
    await stopped;
    assert.equal((await own.records.connection('outbound', 2)).decision, 'allowed');
  });

  it('a-handshake-that-nobody-answers-does-not-outlast-the-drain-time', async () => {
    await using mute = await Application.start(() => undefined);
    const own = await startSidecar({
      namespace: 'foo',
      name: 'sleep',
      drainTimeoutMs: 50,
      identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
      settings: { handshakeTimeoutMs: 60_000 },
    });
    own.mesh.replace(
      meshOf({
        workloads: [
          { namespace: 'foo', name: 'sleep' },
          { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'] },
        ],
      }),
    );
    own.destination = mute.endpoint;
    const answer = collect(connect(own.sidecar.ports.outbound, '127.0.0.1'));
    while (mute.connections === 0) await new Promise((resolve) => setImmediate(resolve));
    await own[Symbol.asyncDispose]();
    assert.equal((await answer).error, 'ECONNRESET');
    assert.equal((await own.records.connection('outbound')).code, 'DRAINING');
  });

  it('an-application-that-calls-again-whenever-it-is-cut-does-not-keep-the-sidecar', async () => {
    await using application = await Application.start();
    const own = await startSidecar({
      namespace: 'foo',
      name: 'sleep',
      drainTimeoutMs: 100,
      identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
    });
    own.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }] }));
    own.destination = application.endpoint;
    let calling = true;
    const call = () => {
      const socket = connect(own.sidecar.ports.outbound, '127.0.0.1');
      socket.on('error', () => undefined);
      socket.on('close', () => calling && setImmediate(call));
      socket.write('x');
    };
    for (let i = 0; i < 10; i++) call();
    while (own.sidecar.tracker.size < 10) await new Promise((resolve) => setImmediate(resolve));
    await own[Symbol.asyncDispose]();
    calling = false;
    assert.equal(own.sidecar.tracker.size, 0);
  });

  it('connections-that-outstay-the-drain-time-are-cut', async () => {
    await using application = await Application.start();
    const own = await startSidecar({
      namespace: 'foo',
      name: 'sleep',
      drainTimeoutMs: 50,
      identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
    });
    own.mesh.replace(meshOf({ workloads: [{ namespace: 'foo', name: 'sleep' }] }));
    own.destination = application.endpoint;
    const socket = connect(own.sidecar.ports.outbound, '127.0.0.1');
    socket.write('a');
    await once(socket, 'data');
    const answer = collect(socket);
    await own[Symbol.asyncDispose]();
    assert.equal((await answer).error, 'ECONNRESET');
    assert.equal((await own.records.connection('outbound')).code, 'DRAINING');
  });
});
