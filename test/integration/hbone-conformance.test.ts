// The serving side against a peer that breaks RFC 9113, section by section: what must end the session does, what must end a stream ends that one, what must be ignored is.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  ACK,
  block,
  Code,
  connectTo,
  data,
  END_HEADERS,
  END_STREAM,
  errorCodeOf,
  frame,
  goaway,
  headers,
  PADDED,
  PREFACE,
  PRIORITY,
  ping,
  type RawPeer,
  Type,
} from '../support/h2-frames.ts';
import { authority, byte, ignored, sessionErrors, streamErrors } from '../support/h2-misbehaviour.ts';
import { rawClient, silentClient } from '../support/h2-raw-client.ts';
import { startTunnelRig, type TunnelRig } from '../support/h2-tunnel-rig.ts';
import { TestCa } from '../support/pki.ts';

const ca = await TestCa.create();
const client = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');
const { DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION } = Type;
let rig: TunnelRig;

before(async () => {
  rig = await startTunnelRig(await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'));
});
after(() => rig[Symbol.asyncDispose]());

/** A stream works: what is said on it comes back. */
async function works(peer: RawPeer, streamId: number): Promise<void> {
  peer.send(connectTo(streamId), data(streamId, 'hello'));
  assert.equal(await peer.status(streamId), '200');
  assert.equal(String(await peer.bytes(streamId, 5)), 'hello');
}

const named = (codes: number | readonly number[]) => (typeof codes === 'number' ? [codes] : codes);

describe('a session ends for', () => {
  for (const [name, codes, ...said] of sessionErrors)
    it(name, async () => {
      const peer = await rawClient(client, rig.port);
      peer.send(...said);
      const code = await peer.goneWith();
      assert.ok(named(codes).includes(code), `GOAWAY with ${code}`);
    });

  for (const [name, ...said] of [
    ['a-preface-that-is-http-1', Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')],
    ['a-preface-that-is-nearly-right', Buffer.concat([PREFACE.subarray(0, -1), Buffer.of(0)])],
    ['a-first-frame-that-is-no-settings', PREFACE, ping()],
    ['headers-before-settings', PREFACE, connectTo(1)],
    ['a-first-frame-that-acknowledges', PREFACE, frame(SETTINGS, ACK, 0)],
  ] as const)
    it(name, async () => {
      const before = rig.requests.length;
      const peer = await silentClient(client, rig.port);
      peer.send(...said);
      assert.equal(await peer.goneWith(), Code.PROTOCOL_ERROR);
      assert.equal(rig.requests.length, before);
    });
});

describe('a stream ends for', () => {
  for (const [name, codes, ...said] of streamErrors)
    it(name, async () => {
      const peer = await rawClient(client, rig.port);
      peer.send(...said, ping(0, Buffer.from('last one')));
      const end = await peer.next(
        ({ type, streamId, payload }) => (type === RST_STREAM && streamId === 1) || (type === PING && String(payload) === 'last one'),
      );
      assert.equal(end.type, RST_STREAM, 'it goes on');
      assert.ok(named(codes).includes(errorCodeOf(end)), `reset with ${errorCodeOf(end)}`);
      await works(peer, 3);
      peer.socket.destroy();
    });

  it('data-behind-the-end', async () => {
    const peer = await rawClient(client, rig.port);
    const { onConnect } = rig;
    rig.onConnect = ({ accept }) => accept();
    peer.send(connectTo(1, undefined, END_STREAM), data(1, 'x'));
    assert.equal(await peer.resetOf(1), Code.STREAM_CLOSED);
    rig.onConnect = onConnect;
    await works(peer, 3);
    peer.socket.destroy();
  });

  it('more-data-than-its-window', async () => {
    const peer = await rawClient(client, rig.port);
    const { onConnect } = rig;
    // Nobody reads it.
    rig.onConnect = ({ accept }) => accept();
    peer.send(connectTo(1));
    assert.equal(await peer.status(1), '200');
    rig.onConnect = onConnect;
    for (let sent = 0; sent < 65_535; sent += 13_107) peer.send(data(1, byte(13_107)));
    peer.send(data(1, 'x'));
    assert.equal(await peer.resetOf(1), Code.FLOW_CONTROL_ERROR);
    await works(peer, 3);
    peer.socket.destroy();
  });
});

describe('a session goes on after', () => {
  for (const [name, ...said] of ignored)
    it(name, async () => {
      const peer = await rawClient(client, rig.port);
      peer.send(...said);
      await works(peer, 9);
      peer.socket.destroy();
    });

  it('a-stream-below-the-last-one-opens-nothing', async () => {
    const peer = await rawClient(client, rig.port);
    await works(peer, 5);
    const before = rig.requests.length;
    peer.send(connectTo(3));
    // nghttp2 ignores it, the RFC would have the session end: either way nobody is connected.
    await Promise.race([peer.heard(), peer.ended()]);
    assert.equal(rig.requests.length, before);
    peer.socket.destroy();
  });

  it('padding-which-is-nobody-s-to-read', async () => {
    const peer = await rawClient(client, rig.port);
    const padded = Buffer.concat([Buffer.of(7), block(authority), byte(7)]);
    peer.send(frame(HEADERS, END_HEADERS | PADDED, 1, padded));
    assert.equal(await peer.status(1), '200');
    peer.send(frame(DATA, PADDED, 1, Buffer.concat([Buffer.of(250), Buffer.from('hello'), byte(250)])));
    assert.equal(String(await peer.bytes(1, 5)), 'hello');
    // Padding counts, and is given back: more than a window of it.
    for (let n = 0; n < 400; n++) {
      peer.send(frame(DATA, PADDED, 1, Buffer.concat([Buffer.of(250), Buffer.from('x'), byte(250)])));
      await peer.bytes(1, 1);
    }
    peer.socket.destroy();
  });

  it('headers-with-a-priority-in-pieces', async () => {
    const peer = await rawClient(client, rig.port);
    const whole = block(authority);
    peer.send(
      frame(HEADERS, PRIORITY, 1, Buffer.concat([Buffer.from([0, 0, 0, 0, 16]), whole.subarray(0, 3)])),
      frame(CONTINUATION, 0, 1, whole.subarray(3, 9)),
      frame(CONTINUATION, END_HEADERS, 1, whole.subarray(9)),
    );
    assert.equal(await peer.status(1), '200');
    peer.socket.destroy();
  });

  it('trailers-which-are-an-end', async () => {
    const peer = await rawClient(client, rig.port);
    await works(peer, 1);
    peer.send(headers(1, [['x', 'y']], END_STREAM));
    const last = await peer.ofType(DATA, 1);
    assert.equal(last.flags & END_STREAM, END_STREAM);
    peer.socket.destroy();
  });

  it('a-ping-which-is-answered-with-what-it-said', async () => {
    const peer = await rawClient(client, rig.port);
    peer.send(ping(0, Buffer.from('12345678')));
    const { flags, payload } = await peer.ofType(PING);
    assert.deepEqual([flags, String(payload)], [ACK, '12345678']);
    peer.socket.destroy();
  });
});

describe('a request', () => {
  it('that-is-no-connect-is-405-and-nobody-hears-of-it', async () => {
    const before = rig.requests.length;
    const peer = await rawClient(client, rig.port);
    const get = [
      [':method', 'GET'],
      [':scheme', 'https'],
      [':path', '/'],
      [':authority', 'x'],
    ] as const;
    peer.send(headers(1, get, END_STREAM));
    assert.equal(await peer.status(1), '405');
    assert.equal(rig.requests.length, before);
    await works(peer, 3);
    peer.socket.destroy();
  });

  it('with-more-headers-than-announced-is-431', async () => {
    const before = rig.requests.length;
    const peer = await rawClient(client, rig.port);
    // One field of 3,000 bytes put into the table, and named ten times.
    const long = Buffer.concat([Buffer.from([0x40, 1]), Buffer.from('x'), Buffer.from([0x7f, 0xb9, 0x16]), Buffer.alloc(3_000, 'y')]);
    peer.send(frame(HEADERS, END_HEADERS, 1, Buffer.concat([block(authority), long, Buffer.alloc(10, 0xbe)])));
    assert.equal(await peer.status(1), '431');
    assert.equal(rig.requests.length, before);
    await works(peer, 3);
    peer.socket.destroy();
  });
});

describe('goaway', () => {
  it('by-the-client-lets-its-streams-finish-and-ends-the-session-with-the-last', async () => {
    const peer = await rawClient(client, rig.port);
    await works(peer, 1);
    peer.send(goaway(0));
    peer.send(data(1, 'again'));
    assert.equal(String(await peer.bytes(1, 5)), 'again');
    peer.send(data(1, '', END_STREAM));
    await peer.ended();
  });

  it('by-us-is-said-twice-so-that-no-stream-is-lost', async () => {
    const peer = await rawClient(client, rig.port, { acknowledge: false });
    peer.send(frame(SETTINGS, ACK, 0));
    await works(peer, 1);
    rig.server.drain();
    const first = await peer.ofType(GOAWAY);
    assert.deepEqual([first.payload.readUInt32BE(0), errorCodeOf(first)], [0x7fff_ffff, 0]);
    // Sent before it was heard: still taken.
    await works(peer, 3);
    const asked = await peer.next(({ type, flags }) => type === PING && flags === 0);
    peer.send(ping(ACK, asked.payload));
    const second = await peer.ofType(GOAWAY);
    assert.equal(second.payload.readUInt32BE(0), 3);
    peer.send(connectTo(5));
    assert.equal(await peer.resetOf(5), Code.REFUSED_STREAM);
    peer.send(data(1, '', END_STREAM), data(3, '', END_STREAM));
    await peer.ended();
  });
});
