// How connections through a tunnel end: by halves, by resets, in whatever order, and never earlier than the last byte.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ending, pattern, say } from '../support/h2-applications.ts';
import { connectTo, data, END_STREAM, errorCodeOf, Type, windowUpdate } from '../support/h2-frames.ts';
import { rawClient } from '../support/h2-raw-client.ts';
import { TestCa } from '../support/pki.ts';
import { collect } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';

const BODY = pattern(3_000_001);

let ca: TestCa;
let pair: TunnelledPair;
let serve: (socket: Socket) => void;
const open: { destroy(): void }[] = [];

before(async () => {
  ca = await TestCa.create();
  pair = await startTunnelledPair({
    identities: { client: await ca.identity(CLIENT), server: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin') },
    onConnection: (socket) => serve(socket),
  });
});
after(() => pair[Symbol.asyncDispose]());
afterEach(async () => {
  for (const socket of [...open.splice(0), ...pair.application.sockets]) socket.destroy();
  await Promise.all([pair.client.settled(), pair.server.settled()]);
});

/** Both applications' ends of one connection that has been used. */
async function joined(): Promise<{ client: Socket; server: Socket }> {
  const accepted = Promise.withResolvers<Socket>();
  serve = accepted.resolve;
  const client = pair.dial();
  client.on('error', () => undefined);
  open.push(client);
  client.write('hello');
  const server = await accepted.promise;
  await once(server, 'data');
  return { client, server };
}

/** Reads in small sips, with whatever else there is to do between them. The length, or -1 for other bytes than there should be. */
async function sip(socket: Socket): Promise<number> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) {
    chunks.push(chunk);
    await turn();
  }
  const all = Buffer.concat(chunks);
  return all.equals(BODY.subarray(0, all.length)) ? all.length : -1;
}

describe('the end of one half', () => {
  it('of-the-client-leaves-the-server-its-say', async () => {
    const { client, server } = await joined();
    client.end();
    await once(server.resume(), 'end');
    server.write('one');
    assert.equal(String((await once(client, 'data'))[0]), 'one');
    server.end('two');
    assert.deepEqual(await collect(client), { text: 'two' });
  });

  it('of-the-server-leaves-the-client-its-say', async () => {
    const { client, server } = await joined();
    server.end();
    await once(client.resume(), 'end');
    client.write('one');
    assert.equal(String((await once(server, 'data'))[0]), 'one');
    client.end('two');
    assert.deepEqual(await collect(server), { text: 'two' });
  });

  it('comes-even-where-nothing-was-said', async () => {
    const accepted = Promise.withResolvers<Socket>();
    serve = accepted.resolve;
    const client = pair.dial();
    client.end();
    const server = await accepted.promise;
    server.end();
    assert.deepEqual(await Promise.all([collect(client), collect(server)]), [{ text: '' }, { text: '' }]);
    assert.equal((await pair.server.records.connection('inbound')).outcome, 'closed');
  });

  it('comes-behind-the-whole-answer-to-clients-that-sip', async () => {
    const sizes = [1, 65_535, 65_536, 131_072, 200_001, 1_000_003, 3_000_001];
    serve = (socket) => {
      let asked = '';
      socket.on('data', (bytes) => {
        asked += bytes;
      });
      socket.on('end', () => socket.end(BODY.subarray(0, Number(asked))));
    };
    const got = await Promise.all(
      sizes.map((size) => {
        const client = pair.dial();
        open.push(client);
        client.end(String(size));
        return sip(client).catch(() => -1);
      }),
    );
    assert.deepEqual(got, sizes);
  });

  it('comes-behind-the-whole-body-to-servers-that-have-answered-and-sip', async () => {
    const sizes = [1, 65_535, 65_536, 131_072, 200_001, 1_000_003, 3_000_001];
    const got: Promise<number>[] = [];
    serve = (socket) => {
      socket.end('enough');
      got.push(sip(socket).catch(() => -1));
    };
    await Promise.all(
      sizes.map(async (size) => {
        const client = pair.dial();
        open.push(client);
        await once(client.resume(), 'end');
        client.end(BODY.subarray(0, size));
        await ending(client);
      }),
    );
    assert.deepEqual(
      (await Promise.all(got)).sort((a, b) => a - b),
      sizes,
    );
  });

  it('of-an-application-that-is-gone-already-waits-for-the-peer-s-window', async () => {
    const over = Promise.withResolvers<void>();
    serve = (socket) => {
      socket.on('error', () => undefined);
      socket.on('close', () => over.resolve());
      socket.resume().on('end', () => socket.end(Buffer.alloc(65_536)));
    };
    const peer = await rawClient(await ca.identity(CLIENT), pair.server.sidecar.ports.tunnel);
    open.push(peer.socket);
    const { address, port } = pair.application.endpoint;
    peer.send(connectTo(1, `${address}:${port}`), data(1, 'all of it', END_STREAM));
    assert.equal(await peer.status(1), '200');
    await peer.bytes(1, 65_535);
    await over.promise;
    await peer.heard();
    peer.send(windowUpdate(0, 1_000), windowUpdate(1, 1_000));
    const next = await peer.next(({ streamId, type }) => streamId === 1 && (type === Type.DATA || type === Type.RST_STREAM));
    assert.equal(next.type, Type.DATA, `reset with ${next.type === Type.RST_STREAM ? errorCodeOf(next) : ''} instead of the rest`);
    assert.equal(next.payload.length, 1);
  });
});

describe('a reset', () => {
  it('by-the-client-is-one-for-the-server', async () => {
    const { client, server } = await joined();
    const end = ending(server);
    client.resetAndDestroy();
    assert.equal(await end, 'ECONNRESET');
    const [out, back] = await Promise.all([pair.client.records.connection('outbound'), pair.server.records.connection('inbound')]);
    assert.deepEqual([out.outcome, back.outcome], ['downstream-reset', 'downstream-reset']);
  });

  it('by-the-server-is-one-for-the-client', async () => {
    const { client, server } = await joined();
    const end = ending(client);
    server.resetAndDestroy();
    assert.equal(await end, 'ECONNRESET');
    const [out, back] = await Promise.all([pair.client.records.connection('outbound'), pair.server.records.connection('inbound')]);
    assert.deepEqual([out.outcome, back.outcome], ['upstream-reset', 'upstream-reset']);
  });

  it('after-the-other-half-has-ended-is-one-too', async () => {
    const { client, server } = await joined();
    client.end();
    await once(server.resume(), 'end');
    const end = ending(client);
    server.resetAndDestroy();
    assert.equal(await end, 'ECONNRESET');
  });

  it('of-one-leaves-its-neighbours-alone', async () => {
    const first = await joined();
    const second = await joined();
    const end = ending(first.server);
    first.client.resetAndDestroy();
    assert.equal(await end, 'ECONNRESET');
    second.server.on('data', (bytes) => second.server.write(bytes));
    assert.equal(await say(second.client, 'still here'), 'still here');
  });
});

it('a-server-that-speaks-first-is-heard', async () => {
  serve = (socket) => socket.write('220 ready');
  const client = pair.dial();
  open.push(client);
  assert.equal(String((await once(client, 'data'))[0]), '220 ready');
});
