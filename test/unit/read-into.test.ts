// Sockets read into a buffer that is used over and over: nothing lost, nothing twice, whoever reads.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type Reading, readAsStream, readInto } from '../../src/net/read-into.ts';

let server: Server;
let far: Socket;
let near: Socket;

beforeEach(async () => {
  server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  far = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true });
  far.on('error', () => undefined);
  [near] = (await once(server, 'connection')) as [Socket];
});
afterEach(async () => {
  far.destroy();
  near.destroy();
  server.close();
  await once(server, 'close');
});

/** Until it holds; fails when it never does. */
async function until(holds: () => boolean): Promise<void> {
  for (let turns = 0; !holds(); turns++) {
    assert.ok(turns < 5_000, 'it never came');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function collect(socket: Socket, { takesOver = false } = {}): { reading: Reading; text: () => string } {
  const buffer = Buffer.alloc(8);
  let text = '';
  const onBytes = (bytes: Buffer) => {
    // The first bytes after a change still come in the buffer of whoever was there before.
    if (!takesOver) assert.equal(bytes.buffer, buffer.buffer, 'it is read into our buffer');
    text += bytes.toString('latin1');
  };
  return { reading: readInto(socket, { buffer: () => buffer, onBytes }), text: () => text };
}

describe('a socket that is read into a buffer', () => {
  it('gives-all-bytes-in-order-through-a-small-buffer', async () => {
    const { reading, text } = collect(near);
    reading.start();
    far.write('0123456789abcdefghijklmnop');
    await until(() => text().length === 26);
    assert.equal(text(), '0123456789abcdefghijklmnop');
  });

  it('gives-nothing-before-it-is-started-and-nothing-while-it-is-stopped', async () => {
    const { reading, text } = collect(near);
    far.write('abc');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(text(), '');
    reading.start();
    await until(() => text() === 'abc');
    reading.stop();
    far.write('def');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(text(), 'abc');
    reading.start();
    await until(() => text() === 'abcdef');
  });

  it('says-that-it-has-ended-though-no-stream-flows', async () => {
    const { reading, text } = collect(near);
    const ended = once(near, 'end');
    far.end('abc');
    reading.start();
    await ended;
    assert.deepEqual([text(), near.readableEnded, near.destroyed], ['abc', true, false]);
  });

  it('hands-on-what-the-stream-holds-already', () => {
    near.unshift('before');
    let text = '';
    readInto(near, { buffer: () => Buffer.alloc(8), onBytes: (bytes) => (text += bytes.toString()) });
    assert.equal(text, 'before');
  });

  it('is-not-read-before-it-is-started-though-its-stream-held-something', async () => {
    for (const again of [false, true]) {
      near.unshift('before');
      const { reading, text } = collect(near, { takesOver: true });
      far.write('after');
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(text(), 'before', `again: ${again}`);
      reading.start();
      await until(() => text() === 'beforeafter');
      reading.stop();
    }
  });

  it('can-be-taken-over-by-another-reader', async () => {
    const first = collect(near);
    first.reading.start();
    far.write('abc');
    await until(() => first.text() === 'abc');
    const second = collect(near, { takesOver: true });
    second.reading.start();
    far.write('def');
    await until(() => second.text() === 'def');
    assert.equal(first.text(), 'abc');
  });
});

describe('a socket that is a stream again', () => {
  it('has-what-was-put-back-and-all-that-follows-with-its-end', async () => {
    const { reading, text } = collect(near);
    far.write('abc');
    reading.start();
    await until(() => text() === 'abc');
    reading.stop();
    near.unshift('abc');
    readAsStream(near);
    far.end('def');
    let read = '';
    for await (const bytes of near) read += bytes;
    assert.equal(read, 'abcdef');
  });

  it('holds-its-peer-up-where-its-reader-is-slow-and-loses-nothing', async () => {
    collect(near);
    readAsStream(near);
    const whole = Buffer.alloc(8 * 1024 * 1024, 'x');
    let sent = false;
    far.end(whole, () => {
      sent = true;
    });
    const slow = new PassThrough({ highWaterMark: 1024 });
    const piped = pipeline(near, slow);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual([sent, near.readableLength < 1024 * 1024], [false, true]);
    let length = 0;
    for await (const bytes of slow) length += bytes.length;
    await piped;
    assert.equal(length, whole.length);
  });
});
