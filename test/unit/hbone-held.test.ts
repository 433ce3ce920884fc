// What waits for slow readers is bounded for the whole process, and only those who add to it pay for that.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { H2Error } from '../../src/hbone/frame.ts';
import { ReceiveBudget } from '../../src/hbone/receive-budget.ts';
import { TunnelStream } from '../../src/hbone/tunnel-stream.ts';

const HELD = 10_000;

/** Streams of one process whose readers take what the test says. */
function rig() {
  const budget = new ReceiveBudget({ held: HELD });
  const resets: [number, number][] = [];
  const sender = {
    emit: () => 0,
    enqueue: () => undefined,
    writeEnd: () => undefined,
    writeReset: (stream: TunnelStream, code: number) => resets.push([stream.id, code]),
    writeCredit: () => undefined,
  };
  const host = { budget, sender, retain: () => () => undefined, forget: () => undefined };
  const open = (id: number, takes: boolean) => {
    const stream = new TunnelStream(id, { host, sendWindow: 0 });
    const broken: string[] = [];
    const nothing = () => undefined;
    stream.attach({ data: () => takes, end: nothing, drained: nothing, broken: (reason) => broken.push(reason), closed: nothing });
    return { stream, broken };
  };
  return { host, open, resets };
}

describe('bytes that wait for a reader', () => {
  it('beyond-the-bound-end-the-stream-that-sends-them-and-no-other', () => {
    const { open, resets } = rig();
    const [slow, quick] = [open(1, false), open(3, true)];
    slow.stream.receive(Buffer.alloc(9_000));
    assert.deepEqual(slow.broken, []);
    slow.stream.receive(Buffer.alloc(9_000));
    quick.stream.receive(Buffer.alloc(9_000));
    assert.deepEqual(resets, [[1, H2Error.ENHANCE_YOUR_CALM]]);
    assert.equal(slow.broken.length, 1);
    assert.deepEqual(quick.broken, []);
  });

  it('count-for-more-than-themselves-when-they-come-one-by-one', () => {
    const { open } = rig();
    const slow = open(1, false);
    for (let sent = 0; sent < 100; sent++) slow.stream.receive(Buffer.alloc(1));
    assert.equal(slow.broken.length, 1);
  });

  it('make-room-when-they-are-taken-or-gone', () => {
    const { open } = rig();
    const [first, second, third] = [open(1, false), open(3, false), open(5, false)];
    first.stream.receive(Buffer.alloc(9_000));
    first.stream.consumed(9_000);
    second.stream.receive(Buffer.alloc(9_000));
    second.stream.reset();
    third.stream.receive(Buffer.alloc(9_000));
    assert.deepEqual([...first.broken, ...second.broken, ...third.broken], []);
  });

  it('before-anybody-reads-them-count-too', () => {
    const { host, resets } = rig();
    const early = new TunnelStream(1, { host, sendWindow: 0 });
    early.receive(Buffer.alloc(9_000));
    early.receive(Buffer.alloc(9_000));
    assert.deepEqual(resets, [[1, H2Error.ENHANCE_YOUR_CALM]]);
  });
});
