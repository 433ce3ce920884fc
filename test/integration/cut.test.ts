// Ending a socket at once: a reset where that is possible, and always an end that is heard of.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { after, before, it } from 'node:test';
import { cut } from '../../src/net/splice.ts';
import { collect } from '../support/sidecar-harness.ts';

const server = createServer({ allowHalfOpen: true });

before(async () => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
after(() => server.close());

/** Both ends of one connection. */
async function pair(): Promise<{ near: Socket; far: Socket }> {
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const accepted = once(server, 'connection');
  const far = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true });
  const [near] = await accepted;
  return { near, far };
}

it('an-open-socket-is-reset', async () => {
  const { near, far } = await pair();
  const heard = collect(far);
  cut(near);
  assert.deepEqual(await heard, { text: '', error: 'ECONNRESET' });
});

it('a-socket-whose-shutdown-is-under-way-is-closed-and-says-so', async () => {
  for (let i = 0; i < 20; i++) {
    const { near, far } = await pair();
    const heard = collect(far);
    const closed = new Promise<void>((resolve) => near.once('close', () => resolve()));
    const errors: Error[] = [];
    near.on('error', (error) => errors.push(error));
    near.end();
    await new Promise<void>((resolve) => process.nextTick(resolve));
    cut(near);
    await closed;
    await heard;
    assert.deepEqual(errors, []);
  }
});

it('a-socket-that-ended-with-bytes-still-to-write-is-reset: no clean end stands for a whole answer', async () => {
  const { near, far } = await pair();
  near.on('error', () => undefined);
  far.pause();
  near.end(Buffer.alloc(16 * 1024 * 1024));
  // The far side does not read: most of it waits in this process.
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(near.writableLength > 0);
  const heard = collect(far);
  cut(near);
  far.resume();
  assert.equal((await heard).error, 'ECONNRESET');
});

it('a-socket-that-tls-is-shutting-down-is-closed-and-says-so', async () => {
  const { near, far } = await pair();
  const heard = collect(far);
  const closed = new Promise<void>((resolve) => near.once('close', () => resolve()));
  // Stands for the TLS on top: its end has begun and is not through.
  const top = (await pair()).near;
  top.end();
  cut(near, top);
  await closed;
  assert.equal((await heard).error, undefined);
  top.destroy();
});
