// Where ordinary use ends and an attack begins: by a clock of the test's own; and how long silence is put up with.

import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { afterEach, describe, it, mock } from 'node:test';
import { TLSSocket } from 'node:tls';
import { HandfastError } from '../../src/errors.ts';
import { ACK, connectTo, data, END_STREAM, PREFACE, ping, type RawPeer, reset, settings, Type } from '../support/h2-frames.ts';
import { rawClient, silentClient } from '../support/h2-raw-client.ts';
import { deafSink, echo, startTunnelRig, type TunnelRig } from '../support/h2-tunnel-rig.ts';
import { TestCa } from '../support/pki.ts';

const ca = await TestCa.create();
const server = await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin');
const client = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');

afterEach(() => mock.restoreAll());

/** How often the peer was not listened to. */
function watchPauses(): () => number {
  const { mock: calls } = mock.method(TLSSocket.prototype, 'pause');
  return () => calls.callCount();
}

/** Streams that are opened and reset, one every so many milliseconds of a clock that only this moves. */
async function resets(
  rig: TunnelRig,
  peer: RawPeer,
  { times, everyMs, enough = () => false }: { times: number; everyMs: number; enough?: () => boolean },
): Promise<void> {
  let now = performance.now();
  mock.method(performance, 'now', () => now);
  let over: () => void = () => undefined;
  rig.onConnect = ({ accept, stream }) => {
    accept();
    stream.attach({ ...deafSink, closed: () => over() });
  };
  for (let n = 0; n < times && !enough(); n++) {
    const id = 2 * n + 1;
    await new Promise<void>((resolve) => {
      over = resolve;
      peer.send(connectTo(id), reset(id));
    });
    now += everyMs;
    peer.unread.length = 0;
  }
}

describe('10,000 short connections', () => {
  it('in-a-minute-that-all-end-in-a-reset-are-ordinary', async () => {
    await using rig = await startTunnelRig(server);
    const peer = await rawClient(client, rig.port);
    await peer.heard();
    const pauses = watchPauses();
    await resets(rig, peer, { times: 10_000, everyMs: 6 });
    assert.equal(pauses(), 0);
    assert.equal(rig.requests.length, 10_000);
    peer.socket.destroy();
  });

  it('in-two-seconds-are-not-when-all-end-in-a-reset', async () => {
    await using rig = await startTunnelRig(server);
    const peer = await rawClient(client, rig.port);
    await peer.heard();
    const pauses = watchPauses();
    await resets(rig, peer, { times: 10_000, everyMs: 0.2, enough: () => pauses() > 0 });
    assert.ok(pauses() > 0);
    peer.socket.destroy();
  });

  it('as-fast-as-they-go-are-ordinary-when-they-end-as-they-should', async () => {
    await using rig = await startTunnelRig(server);
    const peer = await rawClient(client, rig.port);
    await peer.heard();
    const pauses = watchPauses();
    for (let n = 0; n < 10_000; n += 500) {
      const ids = Array.from({ length: 500 }, (_, index) => 2 * (n + index) + 1);
      peer.send(...ids.flatMap((id) => [connectTo(id), data(id, 'hello', END_STREAM)]));
      for (let ended = 0; ended < 500; ended++) await peer.next(({ type, flags }) => type === Type.DATA && (flags & END_STREAM) !== 0);
      peer.unread.length = 0;
    }
    assert.equal(pauses(), 0);
    assert.equal(rig.requests.length, 10_000);
    peer.socket.destroy();
  });
});

describe('a peer that says nothing', () => {
  for (const [name, words] of [
    ['at-all', []],
    ['but-half-a-preface', [PREFACE.subarray(0, 10)]],
    ['behind-its-preface', [PREFACE]],
  ] as const)
    it(`${name}-is-let-go`, async () => {
      await using rig = await startTunnelRig(server, { silenceMs: 50 });
      const peer = await silentClient(client, rig.port);
      peer.send(...words);
      await peer.ended();
      assert.equal(rig.server.sessions, 0);
    });

  it('while-streams-are-open-is-asked-and-let-go-if-it-does-not-answer', async () => {
    await using rig = await startTunnelRig(server, { silenceMs: 50 });
    const peer = await rawClient(client, rig.port, { acknowledge: false });
    peer.send(connectTo(1));
    assert.equal(await peer.status(1), '200');
    await peer.ofType(Type.PING);
    await peer.ended();
    assert.equal(rig.server.sessions, 0);
    assert.ok(rig.requests.every(({ stream }) => stream.closed));
  });

  it('but-answers-stays', async () => {
    await using rig = await startTunnelRig(server, { silenceMs: 50 });
    const peer = await rawClient(client, rig.port);
    peer.send(connectTo(1));
    assert.equal(await peer.status(1), '200');
    for (let n = 0; n < 3; n++) await peer.ofType(Type.PING);
    peer.send(data(1, 'still here'));
    assert.equal(String((await peer.ofType(Type.DATA, 1)).payload), 'still here');
    peer.socket.destroy();
  });

  it('after-its-settings-but-has-no-streams-stays-too', async () => {
    await using rig = await startTunnelRig(server, { silenceMs: 20 });
    const peer = await rawClient(client, rig.port, { acknowledge: false });
    await peer.heard();
    assert.equal(rig.server.sessions, 1);
    peer.send(settings());
    peer.socket.destroy();
  });
});

describe('a session without a certificate of ours', () => {
  it('is-not-made', async () => {
    await using rig = await startTunnelRig(server);
    const rival = await TestCa.create();
    const peer = await silentClient(
      { ...(await rival.identity('spiffe://cluster.local/ns/foo/sa/sleep')), bundles: client.bundles },
      rig.port,
    );
    peer.send(PREFACE, settings(), connectTo(1));
    await peer.ended();
    assert.equal(rig.server.sessions, 0);
    assert.equal(rig.requests.length, 0);
  });

  it('is-with-one', async () => {
    await using rig = await startTunnelRig(server);
    rig.onConnect = echo;
    const peer = await rawClient(client, rig.port);
    peer.send(connectTo(1));
    assert.equal(await peer.status(1), '200');
    peer.socket.destroy();
  });
});

describe('sessions of one peer', () => {
  const SESSIONS = 64;
  const open = async (port: number, streamId?: number) => {
    const peer = await rawClient(client, port);
    if (streamId !== undefined) peer.send(connectTo(streamId));
    await peer.heard();
    return peer;
  };

  it('beyond-64-take-the-place-of-the-one-that-was-idle-longest', async () => {
    await using rig = await startTunnelRig(server);
    const busy = await open(rig.port, 1);
    const idle = await open(rig.port);
    const others = await Promise.all(Array.from({ length: SESSIONS - 2 }, () => open(rig.port)));
    const late = await open(rig.port, 1);
    assert.equal(await late.status(1), '200');
    await idle.ended();
    busy.send(data(1, 'still here'));
    assert.equal(String(await busy.bytes(1, 10)), 'still here');
    assert.equal(rig.server.sessions, SESSIONS);
    assert.ok(others.every(({ over }) => !over));
    for (const { socket } of [busy, late, ...others]) socket.destroy();
  });

  it('are-refused-beyond-64-that-are-all-in-use', async () => {
    await using rig = await startTunnelRig(server);
    const all = await Promise.all(Array.from({ length: SESSIONS }, () => open(rig.port, 1)));
    await assert.rejects(open(rig.port), /the session ended/);
    const somebodyElse = await rawClient(await ca.identity('spiffe://cluster.local/ns/foo/sa/else'), rig.port);
    await somebodyElse.heard();
    for (const { socket } of [somebodyElse, ...all]) socket.destroy();
  });
});

describe('a session that drains', () => {
  it('ends-though-nobody-says-that-it-was-heard', async () => {
    await using rig = await startTunnelRig(server, { silenceMs: 50 });
    const peer = await rawClient(client, rig.port, { acknowledge: false });
    await peer.heard();
    rig.server.drain();
    for (let n = 0; n < 2; n++) await peer.ofType(Type.GOAWAY);
    await peer.ended();
  });

  it('waits-for-the-answer-to-its-own-ping', async () => {
    await using rig = await startTunnelRig(server);
    const peer = await rawClient(client, rig.port, { acknowledge: false });
    await peer.heard();
    rig.server.drain();
    const { payload } = await peer.ofType(Type.PING);
    peer.send(ping(ACK, Buffer.from('another!')));
    await peer.ofType(Type.GOAWAY);
    await peer.heard();
    assert.equal(peer.unread.filter(({ type }) => type === Type.GOAWAY).length, 0);
    peer.send(ping(ACK, payload));
    await peer.ofType(Type.GOAWAY);
    await peer.ended();
  });
});

it('a-peer-that-is-not-trusted-any-more-when-its-handshake-is-done-is-let-go', async () => {
  await using rig = await startTunnelRig(server);
  rig.onAdmit = () => {
    throw new HandfastError('CERTIFICATE_REVOKED', 'meanwhile');
  };
  const peer = await rawClient(client, rig.port);
  peer.send(connectTo(1));
  await peer.ended();
  assert.deepEqual([rig.requests.length, rig.server.sessions], [0, 0]);
});

it('a-handshake-that-is-under-way-while-the-certificate-changes-has-the-next-one-or-is-asked-to-come-again', async () => {
  await using rig = await startTunnelRig(server);
  const next = await ca.identity(server.svid.id.uri);
  rig.onAccept = () => rig.rotate(next);
  const peer = await rawClient(client, rig.port);
  const { socket } = peer;
  assert.ok(socket instanceof TLSSocket);
  const { serialNumber } = socket.getPeerCertificate();
  const asked = await Promise.race([peer.ofType(Type.GOAWAY), peer.heard()]);
  assert.ok(serialNumber === next.svid.serial || asked !== undefined, 'it lives on with the former certificate');
  socket.destroy();
});
