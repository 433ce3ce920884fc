// A peer with a good certificate and bad intentions: it is limited, and nobody else notices.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { say } from '../support/h2-applications.ts';
import {
  connectTo,
  data,
  END_STREAM,
  frame,
  headers,
  ping,
  type RawPeer,
  reset,
  settings,
  Type,
  uint32,
  windowUpdate,
} from '../support/h2-frames.ts';
import { rawClient } from '../support/h2-raw-client.ts';
import { TestCa } from '../support/pki.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const SECONDS = 1;
/** What one peer may make us do in that time: a burst, and so much a second. */
const bound = (seconds: number) => 1_000 + 200 * seconds + 50;
/** A second in which others have the processor is none: the attack lasts until it has had so much of it, up to a multiple of its time. */
const SHARE = 0.9;
const MOST = 5;

const ca = await TestCa.create();
const identities = {
  client: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
  server: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
};
let pair: TunnelledPair;
let serve: (socket: Socket) => void = (socket) => void socket.pipe(socket);
let open: { destroy(): void }[] = [];
let nobody = 0;

// A pair for each test: what an attack has left to be chewed on is not the next one's.
beforeEach(async () => {
  pair = await startTunnelledPair({ identities, server: { drainTimeoutMs: 1 }, onConnection: (socket) => serve(socket) });
});
afterEach(async () => {
  for (const socket of open) socket.destroy();
  open = [];
  serve = (socket) => void socket.pipe(socket);
  await pair[Symbol.asyncDispose]();
});

/** Somebody with an account that nobody has used before: limits are by peer. */
async function attacker(options: Parameters<typeof rawClient>[2] = {}): Promise<RawPeer> {
  const identity = await ca.identity(`spiffe://cluster.local/ns/foo/sa/attacker-${nobody++}`);
  const peer = await rawClient(identity, pair.server.sidecar.ports.tunnel, options);
  open.push(peer.socket);
  return peer;
}

const target = () => `127.0.0.1:${pair.application.endpoint.port}`;

/** An honest neighbour's conversation: one connection, one word. */
async function neighbour(): Promise<void> {
  const socket = pair.dial();
  open.push(socket);
  assert.equal(await say(socket, 'hello'), 'hello');
  socket.end();
}

/** Sends bursts for as long as the attack takes, whenever they can leave, and has a neighbour talk between them. Answers how many turns the neighbour had, and how long it took. */
async function attack(peer: RawPeer, burst: () => Uint8Array, seconds = SECONDS): Promise<{ turns: number; took: number }> {
  const begun = performance.now();
  const idle = process.cpuUsage();
  const took = () => (performance.now() - begun) / 1_000;
  const starved = () => {
    const { user, system } = process.cpuUsage(idle);
    return took() < MOST * seconds && (user + system) / 1e6 < SHARE * seconds;
  };
  let turns = 0;
  while (took() < seconds || starved()) {
    if (!peer.over && peer.socket.writableLength < 262_144) peer.send(burst());
    peer.unread.length = 0;
    await neighbour();
    turns++;
  }
  return { turns, took: took() };
}

/** Bursts of CONNECTs, each followed by what makes it pointless. */
function pointless(...after: ((id: number) => Buffer)[]): () => Buffer {
  let id = -1;
  return () =>
    Buffer.concat(
      Array.from({ length: 500 }, () => {
        id += 2;
        return Buffer.concat([connectTo(id, target()), ...after.map((make) => make(id))]);
      }),
    );
}

describe('streams that are opened to be reset', () => {
  const ways: [name: string, ...after: ((id: number) => Buffer)[]][] = [
    ['by-the-peer', (id) => reset(id)],
    ['by-us-for-a-window-update-of-0', (id) => windowUpdate(id, 0)],
    ['by-us-for-a-window-that-overflows', (id) => windowUpdate(id, 0x7fff_ffff)],
    ['by-us-for-data-behind-the-end', (id) => data(id, '', END_STREAM), (id) => data(id, 'more')],
    ['by-us-for-headers-in-the-middle', (id) => headers(id, [['x', 'y']])],
  ];
  for (const [name, ...after] of ways)
    it(`${name}-reach-the-application-at-a-bounded-rate-and-others-are-served`, async () => {
      const peer = await attacker();
      const before = pair.application.connections;
      const { turns, took } = await attack(peer, pointless(...after));
      const reached = pair.application.connections - before - turns;
      assert.ok(reached < bound(took), `${reached} in ${took} s; the neighbour was served ${turns} times`);
      assert.ok(turns > 5, `the neighbour was served ${turns} times in ${took} s`);
    });
});

describe('a flood', () => {
  const many = (one: Buffer) => () => Buffer.concat(Array.from({ length: 2_000 }, () => one));
  const floods: [name: string, burst: () => Uint8Array][] = [
    ['PING', many(ping())],
    ['SETTINGS', many(settings([4, 65_535]))],
    ['PRIORITY', many(frame(Type.PRIORITY, 0, 1, Buffer.alloc(5)))],
    ['empty-DATA', many(data(1, ''))],
    ['DATA-of-a-closed-stream', many(data(3, '', END_STREAM))],
    ['WINDOW_UPDATE-of-the-session', many(windowUpdate(0, 1))],
    ['WINDOW_UPDATE-of-a-stream', many(windowUpdate(1, 1))],
    ['unknown-frames', many(frame(0xee, 0, 0, Buffer.alloc(8)))],
    ['RST_STREAM', many(frame(Type.RST_STREAM, 0, 3, uint32(8)))],
  ];
  for (const [name, burst] of floods)
    it(`of-${name}-does-not-hold-up-others`, async () => {
      const peer = await attacker();
      peer.send(connectTo(1, target()), connectTo(3, target()), reset(3));
      const { turns } = await attack(peer, burst, 0.3);
      assert.ok(turns > 5, `the neighbour was served ${turns} times`);
    });

  it('of-refused-CONNECTs-does-not-hold-up-others', async () => {
    const peer = await attacker();
    let id = -1;
    const burst = () =>
      Buffer.concat(
        Array.from({ length: 500 }, () => {
          id += 2;
          return connectTo(id, '10.9.9.9:80', END_STREAM);
        }),
      );
    const before = pair.server.records.records.length;
    const { turns, took } = await attack(peer, burst);
    const recorded = pair.server.records.records.length - before - turns;
    assert.ok(turns > 5, `the neighbour was served ${turns} times`);
    assert.ok(recorded < bound(took), `${recorded} records were written for one peer in ${took} s`);
  });
});

describe('a peer', () => {
  it('that-never-reads-does-not-fill-our-memory', async () => {
    let sent = () => 0;
    const flooding = Promise.withResolvers<void>();
    serve = (socket) => {
      const chunk = Buffer.alloc(65_536);
      const more = () => {
        while (socket.writable && socket.write(chunk));
      };
      socket.on('drain', more);
      socket.on('error', () => undefined);
      sent = () => socket.bytesWritten - socket.writableLength;
      more();
      flooding.resolve();
    };
    const peer = await attacker({ settings: [[4, 0x7fff_ffff]] });
    peer.socket.pause();
    peer.send(windowUpdate(0, 0x7fff_0000), connectTo(1, target()));
    await flooding.promise;
    serve = (socket) => void socket.pipe(socket);
    for (let last = -1; last !== sent(); ) {
      last = sent();
      for (let n = 0; n < 50; n++) await neighbour();
    }
    assert.ok(sent() < 16 * 1024 * 1024, `${sent()} bytes were taken from the application`);
  });

  it('that-never-reads-the-answers-to-its-pings-is-let-go-or-left-unheard', async () => {
    const peer = await attacker({ acknowledge: false });
    peer.socket.pause();
    const before = process.memoryUsage().rss;
    await attack(peer, () => Buffer.concat(Array.from({ length: 2_000 }, () => ping())), 0.5);
    assert.ok(process.memoryUsage().rss - before < 100 * 1024 * 1024);
  });

  it('has-at-most-1000-streams-on-a-session-and-the-others-are-refused-unprocessed', async () => {
    const peer = await attacker();
    const before = pair.application.connections;
    for (let id = 1; id < 2 * 2_100; id += 2) peer.send(connectTo(id, target()));
    let refused = 0;
    while (refused < 1_100) {
      const { payload } = await peer.ofType(Type.RST_STREAM);
      assert.equal(payload.readUInt32BE(0), 7);
      refused++;
    }
    for (let accepted = 0; accepted < 1_000; accepted++) assert.equal((await peer.ofType(Type.HEADERS)).payload[0], 0x88);
    await neighbour();
    assert.equal(pair.application.connections - before - 1, 1_000);
  });
});

it('1000-ordinary-short-connections-are-not-an-attack', async () => {
  let served = 0;
  let next = 0;
  await Promise.all(
    Array.from({ length: 64 }, async () => {
      while (next++ < 1_000) {
        await neighbour();
        served++;
        open.length = 0;
      }
    }),
  );
  assert.equal(served, 1_000);
  assert.equal(pair.server.records.records.filter(({ msg, decision }) => msg === 'connection' && decision !== 'allowed').length, 0);
});
