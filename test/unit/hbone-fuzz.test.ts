// Frames from a generator with a seed: cut anywhere, and broken in every way. A session goes on or says why not; it never throws, and it keeps nothing.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ClientSession } from '../../src/hbone/client-session.ts';
import { FrameReader } from '../../src/hbone/frame-reader.ts';
import { ReceiveBudget } from '../../src/hbone/receive-budget.ts';
import { ServerSession } from '../../src/hbone/server-session.ts';
import type { Session } from '../../src/hbone/session.ts';
import { memoryWire } from '../support/h2-duplex.ts';
import {
  ACK,
  connectTo,
  data,
  END_STREAM,
  frame,
  goaway,
  headers,
  PADDED,
  PREFACE,
  ping,
  reset,
  settings,
  Type,
  windowUpdate,
} from '../support/h2-frames.ts';
import { deafSink } from '../support/h2-tunnel-rig.ts';

/** mulberry32: the same numbers for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

type Random = ReturnType<typeof generator>;

/** A frame that is right by itself, for one of a few streams. */
function anyFrame(random: Random, answers: boolean): Buffer {
  const id = 1 + 2 * random(4);
  const flags = random(4) === 0 ? END_STREAM : 0;
  switch (random(11)) {
    case 0:
    case 1:
      return answers ? headers(id, [[':status', ['200', '503', '103'][random(3)] ?? '200']], flags) : connectTo(id, '127.0.0.1:80', flags);
    case 2:
    case 3:
    case 4:
      return data(id, Buffer.alloc(random(2_000), random(256)), flags);
    case 5: {
      const padding = random(50);
      return frame(Type.DATA, flags | PADDED, id, Buffer.alloc(1 + padding + random(50), padding));
    }
    case 6:
      return reset(id, random(14));
    case 7:
      return windowUpdate(random(2) * id, 1 + random(100_000));
    case 8:
      return random(2) === 0 ? ping(random(2) * ACK) : settings([4, random(200_000)]);
    case 9:
      return frame(10 + random(200), random(256), random(20), Buffer.alloc(random(100)));
    default:
      return random(20) === 0 ? goaway(random(20), random(14)) : headers(id, [['x', 'y']], END_STREAM);
  }
}

const sequence = (random: Random, answers: boolean, length = 60) => Buffer.concat(Array.from({ length }, () => anyFrame(random, answers)));

function* cuts(random: Random, bytes: Buffer, largest: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + random(largest));
    yield Buffer.from(bytes.subarray(at, end));
    at = end;
  }
}

/** What a reader makes of it: payloads of DATA as one, whatever pieces they come in. */
function events(chunks: Iterable<Buffer>): string[] {
  const seen: string[] = [];
  let parts: Buffer[] = [];
  const reader = new FrameReader({
    dataBegins: (...what) => void seen.push(`data ${what.join(' ')}`),
    data: (bytes) => {
      assert.ok(bytes.length > 0);
      parts.push(Buffer.from(bytes));
    },
    dataEnds: () => {
      seen.push(`ends ${Buffer.concat(parts).toString('hex')}`);
      parts = [];
    },
    frame: (type, flags, streamId, payload) => void seen.push(`frame ${type} ${flags} ${streamId} ${payload.toString('hex')}`),
  });
  for (const chunk of chunks) reader.push(chunk);
  return seen;
}

function broken(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let times = 1 + random(6); times > 0; times--) {
    const at = random(copy.length);
    copy[at] = random(3) === 0 ? random(256) : (copy[at] ?? 0) ^ (1 << random(8));
  }
  return random(4) === 0 ? copy.subarray(random(20), copy.length - random(20)) : copy;
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Lets a session have it all, ends the wire, and looks at what is left. */
async function survive(
  random: Random,
  bytes: Buffer,
  make: (options: ConstructorParameters<typeof ClientSession>[0]) => Session,
): Promise<void> {
  const LIMIT = 1_000_000;
  const budget = new ReceiveBudget({ windows: LIMIT });
  const { socket, far } = memoryWire();
  let closed = 0;
  const said: Buffer[] = [];
  // Its buffer is the session's again when it has been taken.
  far.on('data', (chunk: Buffer) => said.push(Buffer.from(chunk)));
  const session = make({ socket, budget, silenceMs: 60_000, effort: () => 0, onClosed: () => closed++ });
  for (const chunk of cuts(random, bytes, 3_000)) if (!far.destroyed && !far.writableEnded) far.write(chunk);
  await turn();
  if (session.closedBy !== undefined)
    assert.ok(everyFrame(Buffer.concat(said)).includes(Type.GOAWAY), `it ended without a GOAWAY: ${session.closedBy}`);
  far.end();
  far.destroy();
  socket.destroy();
  await turn();
  await turn();
  assert.equal(closed, 1, `it says that it is over once: ${session.closedBy}`);
  assert.equal(session.streams.size, 0, 'streams are left');
  assert.equal(budget.take(LIMIT), true, 'windows were not given back');
}

/** The types of what was said, which must be whole frames. */
function everyFrame(bytes: Buffer): number[] {
  const start = bytes.subarray(0, PREFACE.length).equals(PREFACE) ? PREFACE.length : 0;
  const types: number[] = [];
  let at = start;
  while (at + 9 <= bytes.length) {
    types.push(bytes[at + 3] ?? 0);
    at += 9 + bytes.readUIntBE(at, 3);
  }
  assert.equal(at, bytes.length, 'half a frame was said');
  return types;
}

describe('a reader', () => {
  for (let seed = 1; seed <= 150; seed++)
    it(`sees-the-same-in-any-pieces-${seed}`, () => {
      const random = generator(seed);
      const bytes = sequence(random, false);
      const whole = events([bytes]);
      assert.deepEqual(events(cuts(random, bytes, 1)), whole);
      assert.deepEqual(events(cuts(random, bytes, 20)), whole);
      assert.deepEqual(events(cuts(random, bytes, 5_000)), whole);
    });
});

const serving = (options: ConstructorParameters<typeof ClientSession>[0]) =>
  new ServerSession({
    ...options,
    maxStreams: 4,
    onConnect: ({ stream, accept, refuse }) => {
      if (stream.id % 5 === 0) return refuse(503);
      accept();
      if (stream.id % 3 === 0) stream.attach({ ...deafSink, data: (bytes) => stream.write(Buffer.from(bytes)) || true });
    },
  });

const dialling = (options: ConstructorParameters<typeof ClientSession>[0]) => {
  const session = new ClientSession(options);
  for (let n = 0; n < 4; n++) {
    const { stream, answered } = session.connect({ address: '127.0.0.1', port: 80 });
    stream.write(Buffer.alloc(100_000));
    void answered.then(({ kind }) => {
      if (kind === 'established') stream.attach({ ...deafSink, end: () => stream.end() });
    });
  }
  return session;
};

for (const [name, make, answers] of [
  ['server', serving, false],
  ['client', dialling, true],
] as const)
  describe(`a ${name}'s session`, () => {
    // Four streams from the start, so that few frames are for one that nobody opened.
    const begin = answers ? settings() : Buffer.concat([PREFACE, settings(), ...[1, 3, 5, 7].map((id) => connectTo(id))]);
    for (let round = 1; round <= 20; round++)
      it(`survives-any-sequence-${round}`, async () => {
        for (let seed = 0; seed < 15; seed++) {
          const random = generator(round * 1_000 + seed);
          await survive(random, Buffer.concat([begin, sequence(random, answers)]), make);
        }
      });
    for (let round = 1; round <= 20; round++)
      it(`survives-any-mutation-${round}`, async () => {
        for (let seed = 0; seed < 15; seed++) {
          const random = generator(round * 77_777 + seed);
          await survive(random, Buffer.concat([begin, broken(random, sequence(random, answers))]), make);
        }
      });
  });
