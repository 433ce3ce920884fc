// A peer that makes too much work: nothing more of it is looked at, nothing is lost, and in the end it is let go.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { Intake } from '../../src/hbone/intake.ts';
import { memoryWire } from '../support/h2-duplex.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));
let far: Duplex;
let socket: Duplex;
let intake: Intake;
let read: string;
let tooMuch: number;
let waitMs: number;
/** Reads so many letters of what comes and is charged for the last; all of it for 0. */
let attention: number;

beforeEach(() => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const wire = memoryWire();
  far = wire.far;
  socket = wire.socket;
  read = '';
  tooMuch = 0;
  waitMs = 0;
  attention = 0;
  intake = new Intake({
    socket: wire.socket,
    effort: () => waitMs,
    read: (bytes) => {
      const taken = attention === 0 ? bytes.length : Math.min(attention, bytes.length);
      read += bytes.toString('latin1', 0, taken);
      if (attention > 0) intake.charge();
      return intake.paused ? taken : bytes.length;
    },
    onPause: () => undefined,
    onTooMuch: () => {
      tooMuch++;
      intake.stop();
    },
  });
  intake.start();
});
afterEach(() => {
  intake.stop();
  mock.timers.reset();
});

describe('a peer that makes too much work', () => {
  it('is-read-no-further-until-the-pause-is-over-and-then-from-where-it-was', async () => {
    [attention, waitMs] = [3, 5];
    far.write('abcdef');
    far.write('ghi');
    await turn();
    assert.deepEqual([read, intake.paused], ['abc', true]);
    mock.timers.tick(99);
    await turn();
    assert.equal(read, 'abc');
    [attention, waitMs] = [0, 0];
    mock.timers.tick(1);
    await turn();
    assert.deepEqual([read, intake.paused], ['abcdefghi', false]);
  });

  it('is-not-read-while-it-still-owes-and-each-pause-is-longer', async () => {
    [attention, waitMs] = [1, 5];
    far.write('abc');
    await turn();
    mock.timers.tick(100);
    assert.deepEqual([read, intake.paused], ['a', true]);
    mock.timers.tick(199);
    waitMs = 0;
    attention = 0;
    assert.equal(intake.paused, true);
    mock.timers.tick(1);
    await turn();
    assert.equal(read, 'abc');
  });

  it('is-let-go-after-ten-pauses-in-a-row', () => {
    waitMs = 5;
    intake.charge();
    for (let pause = 1; pause < 10; pause++) mock.timers.tick(1_000);
    assert.deepEqual([tooMuch, intake.paused], [0, true]);
    mock.timers.tick(1_000);
    assert.equal(tooMuch, 1);
  });

  it('that-leaves-meanwhile-is-noticed', async () => {
    const over = once(socket, 'end');
    waitMs = 5;
    intake.charge();
    far.end('bye');
    await turn();
    assert.equal(socket.readableEnded, false);
    waitMs = 0;
    mock.timers.tick(100);
    await over;
    assert.equal(read, 'bye');
  });
});
