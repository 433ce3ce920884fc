// Who is slow, and who is not: windows keep what is in between bounded, and nobody waits for a neighbour.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { pattern, say } from '../support/h2-applications.ts';
import { ACK, connectTo, data, END_STREAM, headers, type RawPeer, settings, Type, windowUpdate } from '../support/h2-frames.ts';
import { rawClient } from '../support/h2-raw-client.ts';
import { startCaller, startRawServer } from '../support/h2-raw-server.ts';
import { TestCa } from '../support/pki.ts';
import { collect } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';
const MB = 1024 * 1024;
const INITIAL_WINDOW_SIZE = 4;

let ca: TestCa;
let pair: TunnelledPair;
let serve: (socket: Socket) => void;
let open: { destroy(): void }[] = [];

before(async () => {
  ca = await TestCa.create();
  pair = await startTunnelledPair({
    identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) },
    onConnection: (socket) => serve(socket),
  });
});
after(() => pair[Symbol.asyncDispose]());
afterEach(async () => {
  for (const socket of [...open, ...pair.application.sockets]) socket.destroy();
  open = [];
  await Promise.all([pair.client.settled(), pair.server.settled()]);
});

function dial(): Socket {
  const socket = pair.dial();
  socket.on('error', () => undefined);
  open.push(socket);
  return socket;
}

const echo = (socket: Socket) => {
  socket.pipe(socket);
};

/** Small conversations with an echo, one after another: each is proof that the session lives. */
async function converse(times: number): Promise<void> {
  serve = echo;
  const socket = dial();
  for (let n = 0; n < times; n++) assert.equal(await say(socket, `${n}`), `${n}`);
  socket.end();
}

/** Writes as fast as it is let, for ever. */
function flood(socket: Socket): () => number {
  const chunk = Buffer.alloc(65_536);
  const more = () => {
    while (socket.writable && socket.write(chunk));
  };
  socket.on('drain', more);
  more();
  return () => socket.bytesWritten - socket.writableLength;
}

/** How much a sender got rid of, once that does not grow any more while others talk. */
async function settledAt(sent: () => number): Promise<number> {
  for (let last = -1; last !== sent(); ) {
    last = sent();
    await converse(100);
  }
  return sent();
}

describe('a reader that has stopped', () => {
  for (const whose of ['server', 'client'] as const)
    it(`at-the-${whose}-stops-neither-its-neighbours-nor-the-bound-of-what-is-kept-for-it`, async () => {
      const accepted = Promise.withResolvers<Socket>();
      serve = (socket) => {
        accepted.resolve(socket.pause());
        socket.on('error', () => undefined);
      };
      const client = dial();
      client.pause();
      const server = await accepted.promise;
      const sent = whose === 'server' ? flood(client) : flood(server);
      const kept = await settledAt(sent);
      // Two kernels' socket buffers are in it too.
      assert.ok(kept < 12 * MB, `${kept} bytes were taken`);
      await Promise.all(Array.from({ length: 20 }, () => converse(10)));
      const before = sent();
      const reader = whose === 'server' ? server : client;
      reader.resume();
      await once(reader, 'data');
      await converse(50);
      assert.ok(sent() > before, 'it does not go on when it is read again');
    });

  it('has-a-window-that-ends', async () => {
    const accepted = Promise.withResolvers<Socket>();
    serve = (socket) => accepted.resolve(socket.pause());
    const peer = await rawClient(await ca.identity(CLIENT), pair.server.sidecar.ports.tunnel);
    open.push(peer.socket);
    peer.send(connectTo(1, `127.0.0.1:${pair.application.endpoint.port}`));
    assert.equal(await peer.status(1), '200');
    await accepted.promise;
    let credit = 65_535;
    let given = 0;
    const chunk = Buffer.alloc(16_384);
    const collectCredit = () => {
      for (const { type, streamId, payload } of peer.unread.splice(0))
        if (type === Type.WINDOW_UPDATE && streamId === 1) {
          credit += payload.readUInt32BE(0);
          given += payload.readUInt32BE(0);
        }
    };
    for (let quiet = 0; quiet < 50; quiet++) {
      while (credit > 0) {
        const length = Math.min(credit, chunk.length);
        peer.send(data(1, chunk.subarray(0, length)));
        credit -= length;
        quiet = 0;
      }
      await peer.heard();
      collectCredit();
    }
    // What the application's kernel has taken is in it.
    assert.ok(given < 8 * MB, `${given} bytes of window given to a peer whose words nobody reads`);
  });
});

describe('a large flow', () => {
  it('does-not-hold-up-small-ones', async () => {
    const LENGTH = 100 * MB;
    let received = 0;
    const done = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    serve = (socket) => {
      socket.on('data', (bytes) => {
        received += bytes.length;
        begun.resolve();
      });
      socket.on('end', () => {
        socket.end();
        done.resolve();
      });
    };
    const large = dial();
    const chunk = Buffer.alloc(MB);
    let sent = 0;
    const more = () => {
      while (sent < LENGTH) {
        sent += chunk.length;
        if (!large.write(chunk)) return;
      }
      large.end();
    };
    large.on('drain', more);
    more();
    await begun.promise;
    serve = echo;
    for (let n = 0; n < 20; n++) await converse(1);
    const atThatTime = received;
    assert.ok(atThatTime < LENGTH / 2, `20 small ones took as long as ${atThatTime} bytes of the large one`);
    await done.promise;
    assert.equal(received, LENGTH);
  });
});

describe('a peer with a small window', () => {
  for (const [window, length] of [
    [0, 1_000],
    [1, 300],
    [100, 5_000],
    [65_535, 300_000],
  ] as const)
    it(`of-${window}-gets-every-byte-as-it-makes-room`, async () => {
      const body = pattern(length);
      await using server = await startRawServer(await ca.identity(SERVER), { greeting: settings([INITIAL_WINDOW_SIZE, window]) });
      await using caller = await startCaller(await ca.identity(CLIENT), server.port);
      const dialCaller = () => {
        const socket = connect(caller.sidecar.ports.outbound, '127.0.0.1');
        open.push(socket.on('error', () => undefined));
        return socket;
      };
      // One to begin the session with: until our SETTINGS have come, the default window holds.
      dialCaller();
      const peer = await server.session(1);
      await peer.next(({ type, flags }) => type === Type.SETTINGS && flags === ACK);
      await peer.ofType(Type.HEADERS);
      const client = dialCaller();
      client.end(body);
      const { streamId } = await peer.ofType(Type.HEADERS);
      peer.send(headers(streamId, [[':status', '200']]), windowUpdate(0, length));
      let room: number = window;
      const got: Buffer[] = [];
      for (let had = 0; had < length; ) {
        if (room === 0) {
          // Nothing may come without a window.
          await peer.heard();
          assert.deepEqual(
            peer.unread.filter(({ type }) => type === Type.DATA),
            [],
          );
          room = Math.max(1, Math.min(window, 777));
          peer.send(windowUpdate(streamId, room));
        }
        const { payload } = await peer.ofType(Type.DATA, streamId);
        room -= payload.length;
        assert.ok(room >= 0, 'more than the window');
        had += payload.length;
        got.push(payload);
      }
      assert.ok(Buffer.concat(got).equals(body));
      const last = await peer.ofType(Type.DATA, streamId);
      assert.deepEqual([last.flags & END_STREAM, last.payload.length], [END_STREAM, 0], 'the end');
      peer.send(data(streamId, 'bye', END_STREAM));
      assert.deepEqual(await collect(client), { text: 'bye' });
    });

  it('that-takes-back-what-it-had-given-is-obeyed', async () => {
    const body = pattern(50_000);
    serve = (socket) => socket.end(body);
    const peer = await rawClient(await ca.identity(CLIENT), pair.server.sidecar.ports.tunnel, {
      settings: [[INITIAL_WINDOW_SIZE, 20_000]],
    });
    open.push(peer.socket);
    peer.send(connectTo(1, `127.0.0.1:${pair.application.endpoint.port}`, 0));
    const first = await peer.bytes(1, 20_000);
    // 20,000 bytes below nothing.
    peer.send(settings([INITIAL_WINDOW_SIZE, 0]));
    await peer.next(({ type, flags }) => type === Type.SETTINGS && flags === ACK);
    peer.send(windowUpdate(1, 20_000));
    await peer.heard();
    assert.deepEqual(
      peer.unread.filter(({ type }) => type === Type.DATA),
      [],
      'it sent into a window that is not there',
    );
    peer.send(windowUpdate(1, 10_000));
    const second = await peer.bytes(1, 10_000);
    peer.send(settings([INITIAL_WINDOW_SIZE, 20_000]));
    const third = await peer.bytes(1, 20_000);
    assert.ok(Buffer.concat([first, second, third]).equals(body));
  });

  it('of-the-session-is-obeyed-too', async () => {
    const body = pattern(100_000);
    serve = (socket) => socket.end(body);
    const peer: RawPeer = await rawClient(await ca.identity(CLIENT), pair.server.sidecar.ports.tunnel, {
      settings: [[INITIAL_WINDOW_SIZE, 1_000_000]],
    });
    open.push(peer.socket);
    peer.send(connectTo(1, `127.0.0.1:${pair.application.endpoint.port}`));
    const first = await peer.bytes(1, 65_535);
    assert.equal(first.length, 65_535);
    await peer.heard();
    assert.deepEqual(
      peer.unread.filter(({ type }) => type === Type.DATA),
      [],
    );
    peer.send(windowUpdate(0, 100_000));
    const rest = await peer.bytes(1, 100_000 - 65_535);
    assert.ok(Buffer.concat([first, rest]).equals(body));
  });
});
