// A worker that dies: its own connections are gone, the others go on, another takes its place; and what cannot go on says so.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TestCa } from '../support/pki.ts';
import { closed, eventually, startWorkersPair, type WorkersPair } from '../support/workers-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';

const ca = await TestCa.create();
let pair: WorkersPair;
let sockets: Socket[] = [];

beforeEach(async () => {
  pair = await startWorkersPair({
    identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) },
    server: { maxOldGenerationSizeMb: 64 },
  });
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets = [];
  await pair[Symbol.asyncDispose]();
});

const deaths = () => pair.server.records.records.filter(({ msg }) => msg === 'worker died');

/** Resolves when another has taken its place. */
async function kill(worker: number, how: 'throw' | 'fill memory'): Promise<void> {
  const before = replaced();
  pair.server.kill({ worker, how });
  await eventually(() => replaced() > before);
  await pair.server.ready();
}

const replaced = () => pair.server.records.records.filter(({ msg }) => msg === 'another worker took its place').length;

describe('a worker that dies', () => {
  for (const how of ['throw', 'fill memory'] as const) {
    it(`is-replaced-and-the-other-goes-on: ${how}`, async () => {
      const open = await Promise.all(Array.from({ length: 40 }, () => pair.open()));
      sockets.push(...open);
      await eventually(() => pair.server.workers.livePeers()[0]?.connections === 40);
      await kill(2, how);
      assert.match(String(deaths()[0]?.reason), how === 'throw' ? /the test wants it dead/ : /memory limit/);
      // Those of the worker that died have ended; those of the other have not.
      await eventually(() => open.some(({ destroyed, readableEnded }) => destroyed || readableEnded));
      const left = open.filter(({ destroyed, readableEnded }) => !destroyed && !readableEnded);
      assert.ok(left.length > 0 && left.length < 40, `${left.length} of 40 are left`);
      for (const socket of left) socket.write('again');
      await Promise.all(left.map((socket) => new Promise((resolve) => socket.once('data', resolve))));
      await eventually(() => pair.server.workers.livePeers()[0]?.connections === left.length);
      const inbound = () => pair.server.workers.ledger.changedAfter(-1).filter(({ outcome }) => outcome === 'allowed');
      await eventually(() => inbound().reduce((sum, { open: still }) => sum + still, 0) === left.length);
      // What comes later is served by the new one, too, from all that is in force.
      const later = await Promise.all(Array.from({ length: 40 }, () => pair.open()));
      sockets.push(...later);
      await eventually(() => pair.server.workers.livePeers()[0]?.connections === left.length + 40);
      // The ledger hears of them by messages of their own.
      await eventually(() => inbound().reduce((sum, { connections }) => sum + connections, 0) === 80);
      const ended = Promise.all([...left, ...later].map(closed));
      for (const socket of sockets) socket.destroy();
      await ended;
    });
  }

  it('leaves-no-descriptor-open', async () => {
    const count = () => readdirSync('/proc/self/fd').length;
    await Promise.all(Array.from({ length: 20 }, () => pair.open().then((socket) => socket.destroy())));
    await kill(1, 'throw');
    await eventually(() => pair.server.workers.livePeers().length === 0);
    const before = count();
    for (const worker of [2, 1]) {
      const dealt = Promise.allSettled(Array.from({ length: 20 }, () => pair.open().then((socket) => sockets.push(socket))));
      await kill(worker, 'throw');
      await dealt;
    }
    for (const socket of sockets) socket.destroy();
    await eventually(() => count() <= before + 4);
  });

  it('one-that-hangs-is-not-ready-until-it-speaks-again', async () => {
    pair.server.kill({ worker: 2, how: 'hang' });
    await eventually(async () => /^worker 2: it has said nothing for \d s\n$/.test(await pair.server.readiness()));
    await pair.server.ready();
    assert.equal(deaths().length, 0);
  });

  it('five-times-within-a-minute-ends-it', async () => {
    const failed = assert.rejects(pair.server.workers.failed, { code: 'UNAVAILABLE', message: /5 times within a minute.*wants it dead/ });
    for (const worker of [1, 2, 1, 2]) await kill(worker, 'throw');
    pair.server.kill({ worker: 1, how: 'throw' });
    await failed;
    assert.match(await pair.server.readiness(), /worker 1: it is starting/);
  });
});

describe('stopping', () => {
  it('drains-every-worker-and-then-cuts', async () => {
    sockets.push(...(await Promise.all(Array.from({ length: 30 }, () => pair.open()))));
    const ended = Promise.all(sockets.map(closed));
    await pair.server.workers.stop();
    for (const socket of sockets) socket.end();
    await ended;
    const drained = pair.server.records.records.filter(({ code }) => code === 'DRAINING');
    assert.equal(drained.length, 30);
    assert.deepEqual(new Set(drained.map(({ worker }) => worker)), new Set([1, 2]));
    const entries = pair.server.workers.ledger.changedAfter(-1);
    assert.equal(
      entries.reduce((sum, { open }) => sum + open, 0),
      0,
    );
    assert.deepEqual(entries.map(({ outcome, connections }) => [outcome, connections]).sort(), [
      ['allowed', 30],
      ['cut', 30],
    ]);
  });
});
