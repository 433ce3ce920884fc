// The dialling side against a peer that answers in its own way: what is wrong is refused, what was not looked at is tried again, and nobody hears a word twice.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { ending } from '../support/h2-applications.ts';
import {
  Code,
  data,
  END_HEADERS,
  END_STREAM,
  errorCodeOf,
  type Frame,
  frame,
  goaway,
  headers,
  type RawPeer,
  reset,
  settings,
  Type,
  uint32,
  windowUpdate,
} from '../support/h2-frames.ts';
import { askThrough, startCaller, startRawServer } from '../support/h2-raw-server.ts';
import { TestCa } from '../support/pki.ts';
import type { RunningSidecar } from '../support/sidecar-harness.ts';

const ca = await TestCa.create();
const client = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');
const server = await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin');
const MAX_CONCURRENT_STREAMS = 3;
const OK = [[':status', '200']] as const;
let open: Socket[] = [];

afterEach(() => {
  for (const socket of open) socket.destroy();
  open = [];
});

function dial(caller: RunningSidecar): Socket {
  const socket = connect({ port: caller.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined);
  open.push(socket);
  return socket;
}

/** Accepts every CONNECT and says back what comes. */
function obliging(peer: RawPeer): void {
  const look = () => {
    for (const { type, streamId, payload, flags } of peer.unread.splice(0)) {
      if (type === Type.HEADERS && (flags & END_STREAM) === 0) peer.send(headers(streamId, OK));
      if (type === Type.DATA) peer.send(data(streamId, payload, flags & END_STREAM));
    }
  };
  peer.socket.on('data', look);
  look();
}

const isConnect = ({ type }: Frame) => type === Type.HEADERS;
const id = async (peer: RawPeer) => (await peer.next(isConnect)).streamId;

/** What a client's application gets when its CONNECT, stream 1, is answered so; and how the peer is told. */
async function answered(...said: Buffer[]): Promise<{ end: string; peer: RawPeer; record: Record<string, unknown> }> {
  await using raw = await startRawServer(server);
  await using caller = await startCaller(client, raw.port, { dialTimeoutMs: 400, handshakeTimeoutMs: 400 });
  const socket = dial(caller);
  const peer = await raw.session(1);
  await peer.next(isConnect);
  peer.send(...said);
  const end = await soon(ending(socket));
  socket.resetAndDestroy();
  const record = await caller.records.connection('outbound');
  return { end, peer, record };
}

/** What is waited for, or the news that it does not happen: so that a failure is one of the test that fails. */
async function soon(happening: Promise<string>): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const never = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve('it goes on'), 1_000);
  });
  const first = await Promise.race([happening, never]);
  clearTimeout(timer);
  return first;
}

describe('an answer', () => {
  for (const [name, ...said] of [
    ['without-a-status', headers(1, [['x', 'y']])],
    ['with-a-status-that-is-no-number', headers(1, [[':status', 'ok']])],
    ['with-two-statuses', headers(1, [...OK, ...OK])],
    ['with-a-pseudo-header-of-requests', headers(1, [...OK, [':path', '/']])],
    ['that-is-data-before-headers', data(1, 'hello'), headers(1, OK)],
    ['that-is-101-and-the-end', headers(1, [[':status', '103']], END_STREAM)],
    ['with-a-name-in-upper-case', headers(1, [...OK, ['X-Y', 'z']])],
  ] as const)
    it(`${name}-is-none`, async () => {
      const { end, peer, record } = await answered(...said);
      assert.equal(end, 'ECONNRESET');
      assert.notEqual(record.decision, 'allowed');
      assert.equal(await peer.resetOf(1), Code.PROTOCOL_ERROR);
    });

  for (const [status, code] of [
    ['401', 'TUNNEL_REFUSED'],
    ['404', 'TUNNEL_REFUSED'],
    ['503', 'DIAL_FAILED'],
  ] as const)
    it(`of-${status}-is-${code}`, async () => {
      const { end, record } = await answered(headers(1, [[':status', status]], END_STREAM));
      assert.deepEqual([end, record.code], ['ECONNRESET', code]);
    });

  it('of-103-is-followed-by-another', async () => {
    await using raw = await startRawServer(server);
    await using caller = await startCaller(client, raw.port);
    const answer = askThrough(dial(caller), 'hello');
    const peer = await raw.session(1);
    const streamId = await id(peer);
    peer.send(headers(streamId, [[':status', '103']]), headers(streamId, OK));
    obliging(peer);
    assert.equal(await answer, 'hello');
  });

  it('that-ends-at-once-is-an-end', async () => {
    await using raw = await startRawServer(server);
    await using caller = await startCaller(client, raw.port);
    const socket = dial(caller);
    const peer = await raw.session(1);
    peer.send(headers(await id(peer), OK, END_STREAM));
    await once(socket.resume(), 'end');
    socket.end('still heard');
    assert.equal(String((await peer.ofType(Type.DATA, 1)).payload), 'still heard');
  });

  it('with-its-end-to-a-client-that-has-ended-already-is-an-end-on-both-sides', async () => {
    await using raw = await startRawServer(server);
    await using caller = await startCaller(client, raw.port);
    const socket = dial(caller);
    socket.end();
    const peer = await raw.session(1);
    const streamId = await id(peer);
    // Its end has come before the answer does.
    await new Promise((resolve) => setTimeout(resolve, 50));
    peer.socket.write(Buffer.concat([headers(streamId, OK), data(streamId, 'banner', END_STREAM)]));
    const [banner] = (await once(socket, 'data')) as [Buffer];
    assert.equal(String(banner), 'banner');
    const last = await peer.next(({ type }) => type === Type.DATA || type === Type.RST_STREAM);
    assert.deepEqual([last.type, last.flags], [Type.DATA, END_STREAM]);
    assert.equal((await caller.records.connection('outbound')).outcome, 'closed');
  });

  it('that-does-not-come-is-not-waited-for-for-ever', async () => {
    await using raw = await startRawServer(server);
    await using caller = await startCaller(client, raw.port, { dialTimeoutMs: 20, handshakeTimeoutMs: 200 });
    const socket = dial(caller);
    const peer = await raw.session(1);
    assert.equal(await ending(socket), 'ECONNRESET');
    assert.equal(await peer.resetOf(1), Code.CANCEL);
    assert.equal((await caller.records.connection('outbound')).code, 'DIAL_TIMEOUT');
  });
});

it('a-client-that-is-gone-takes-its-question-back', async () => {
  await using raw = await startRawServer(server);
  await using caller = await startCaller(client, raw.port, { dialTimeoutMs: 2_000, handshakeTimeoutMs: 2_000 });
  const socket = dial(caller);
  const peer = await raw.session(1);
  const streamId = await id(peer);
  socket.resetAndDestroy();
  assert.equal(await soon(peer.resetOf(streamId).then(String, String)), String(Code.CANCEL));
});

describe('a session of a peer that', () => {
  for (const [name, code, ...said] of [
    ['pushes', Code.PROTOCOL_ERROR, frame(Type.PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), Buffer.of(0x82)]))],
    ['opens-streams-of-its-own', Code.PROTOCOL_ERROR, headers(2, OK)],
    ['answers-what-was-not-asked', Code.PROTOCOL_ERROR, headers(5, OK)],
    ['sends-data-on-an-idle-stream', Code.PROTOCOL_ERROR, data(5, 'x')],
    ['says-that-it-pushes', Code.PROTOCOL_ERROR, settings([2, 1])],
    ['breaks-hpack', Code.COMPRESSION_ERROR, frame(Type.HEADERS, END_HEADERS, 1, Buffer.of(0x80))],
    ['overflows-the-window', Code.FLOW_CONTROL_ERROR, windowUpdate(0, 0x7fff_ffff)],
    ['sends-a-frame-that-is-too-long', Code.FRAME_SIZE_ERROR, data(1, Buffer.alloc(16_385))],
  ] as const)
    it(`${name}-ends`, async () => {
      const { end, peer } = await answered(...said);
      assert.equal(end, 'ECONNRESET');
      assert.equal(errorCodeOf(await peer.ofType(Type.GOAWAY)), code);
    });

  it('speaks-http-1-ends', async () => {
    await using raw = await startRawServer(server, { greeting: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n') });
    await using caller = await startCaller(client, raw.port);
    assert.equal(await askThrough(dial(caller), 'hello'), 'ECONNRESET');
  });
});

describe('a connection is tried again', () => {
  for (const [name, said, ended] of [
    ['when-the-peer-refused-the-stream', (streamId: number) => reset(streamId, Code.REFUSED_STREAM), false],
    ['when-the-peer-leaves-without-having-looked', () => goaway(0), true],
  ] as const)
    for (const [words, speak] of [
      ['and-its-first-words-with-it', (socket: Socket) => socket.write('hello')],
      ['and-its-only-words-with-it', (socket: Socket) => socket.end('hello')],
    ] as const)
      it(`${name}-${words}`, async () => {
        await using raw = await startRawServer(server);
        await using caller = await startCaller(client, raw.port);
        const socket = dial(caller);
        speak(socket);
        const first = await raw.session(1);
        const streamId = await id(first);
        await first.ofType(Type.DATA, streamId);
        first.send(said(streamId));
        void (ended ? raw.session(2) : Promise.resolve(first)).then(obliging);
        const heard = Promise.race([once(socket, 'data').then(([bytes]) => String(bytes)), ending(socket)]);
        assert.equal(await soon(heard), 'hello');
      });

  it('but-not-when-it-may-have-been-heard', async () => {
    await using raw = await startRawServer(server);
    await using caller = await startCaller(client, raw.port);
    const socket = dial(caller);
    socket.write('hello');
    const first = await raw.session(1);
    await first.ofType(Type.DATA, await id(first));
    const end = ending(socket);
    first.socket.destroy();
    assert.equal(await end, 'ECONNRESET');
    for (const peer of raw.peers.slice(1)) assert.equal(peer.unread.some(isConnect), false, 'it was said twice');
  });

  it('and-streams-below-the-last-one-finish-where-they-are', async () => {
    await using raw = await startRawServer(server);
    await using caller = await startCaller(client, raw.port);
    const socket = dial(caller);
    const first = await raw.session(1);
    first.send(headers(await id(first), OK), goaway(1));
    const late = dial(caller);
    const second = await raw.session(2);
    obliging(second);
    assert.equal(await askThrough(late, 'late'), 'late');
    socket.write('hello');
    const { payload } = await first.ofType(Type.DATA, 1);
    first.send(data(1, payload, END_STREAM));
    assert.equal(String((await once(socket, 'data'))[0]), 'hello');
    socket.end();
    await first.ended();
  });
});

/** A peer that takes so many streams at a time, and says so. */
function reluctant(limit: number): Parameters<typeof startRawServer>[1] {
  const onSession = (peer: RawPeer) => {
    const streams = new Set<number>();
    const take = ({ type, streamId, payload, flags }: Frame) => {
      if (type === Type.RST_STREAM) streams.delete(streamId);
      else if (type === Type.HEADERS && streams.size >= limit) peer.send(reset(streamId, Code.REFUSED_STREAM));
      else if (type === Type.HEADERS) {
        streams.add(streamId);
        peer.send(headers(streamId, OK));
      } else if (type === Type.DATA && streams.has(streamId)) {
        if ((flags & END_STREAM) !== 0) streams.delete(streamId);
        peer.send(data(streamId, payload, flags & END_STREAM));
      }
    };
    peer.socket.on('data', () => {
      for (const frame of peer.unread.splice(0)) take(frame);
    });
  };
  return { greeting: settings([MAX_CONCURRENT_STREAMS, limit]), onSession };
}

describe('a peer that takes few streams', () => {
  for (const limit of [1, 10])
    it(`${limit}-at-a-time-serves-60-short-connections-all-the-same`, async () => {
      await using raw = await startRawServer(server, reluctant(limit));
      await using caller = await startCaller(client, raw.port);
      const answers = await Promise.all(Array.from({ length: 60 }, (_, n) => askThrough(dial(caller), `word ${n}`)));
      assert.deepEqual(
        answers.filter((answer, n) => answer !== `word ${n}`),
        [],
      );
    });

  it('10-at-a-time-serves-60-that-stay', async () => {
    await using raw = await startRawServer(server, reluctant(10));
    await using caller = await startCaller(client, raw.port);
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, n) => {
        const socket = dial(caller);
        socket.write(`word ${n}`);
        return Promise.race([once(socket, 'data').then(([bytes]) => String(bytes)), ending(socket)]);
      }),
    );
    assert.deepEqual(
      answers.filter((answer, n) => answer !== `word ${n}`),
      [],
    );
  });
});
