// Certificates that change under a tunnel: what is open goes on, what is new has the new one, and nobody fails meanwhile.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TestCa } from '../support/pki.ts';
import { collect } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';

const ca = await TestCa.create();
let pair: TunnelledPair;

beforeEach(async () => {
  pair = await startTunnelledPair({ identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) } });
});
afterEach(() => pair[Symbol.asyncDispose]());

async function once(): Promise<string> {
  const socket = pair.dial();
  socket.end('hello');
  const { text, error } = await collect(socket);
  return error ?? text;
}

/** The serials that both sidecars saw in the latest connection. */
async function serials(): Promise<{ client: unknown; server: unknown }> {
  const nth = pair.server.records.records.filter(({ direction, msg }) => msg === 'connection' && direction === 'inbound').length + 1;
  assert.equal(await once(), 'hello');
  const back = await pair.server.records.connection('inbound', nth);
  const out = pair.client.records.records.findLast(({ direction }) => direction === 'outbound');
  return {
    client: (back.downstream as Record<string, unknown>).serial,
    server: ((out ?? (await pair.client.records.connection('outbound', nth))).upstream as Record<string, unknown>).serial,
  };
}

const ids = { client: CLIENT, server: SERVER };

async function rotate(...sides: ('client' | 'server')[]): Promise<void> {
  for (const side of sides) pair[side].identity.replace(await ca.identity(ids[side]));
}

/** Says number after number and hears them again, until it is told to stop. */
function counting(socket: Socket): { stop(): Promise<void> } {
  let said = '';
  let heard = '';
  let stopping = false;
  const speak = (n: number) => {
    if (stopping) {
      socket.end();
      return;
    }
    said += `${n} `;
    socket.write(`${n} `, () => setImmediate(speak, n + 1));
  };
  speak(0);
  const over = new Promise<void>((resolve, reject) => {
    socket.on('data', (bytes) => {
      heard += bytes;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve());
  });
  return {
    stop: async () => {
      stopping = true;
      await over;
      assert.equal(heard, said);
    },
  };
}

describe('a new certificate', () => {
  for (const sides of [['client'], ['server'], ['client', 'server']] as const)
    it(`of-${sides.join('-and-')}-loses-no-byte-of-what-is-open-and-is-used-for-what-is-new`, async () => {
      await once();
      const stream = counting(pair.dial());
      await rotate(...sides);
      const wanted = { client: pair.client.identity.current?.svid.serial, server: pair.server.identity.current?.svid.serial };
      // A session under the former one may go on while the next is being made: not for long.
      let seen = await serials();
      for (let tries = 0; tries < 200 && JSON.stringify(seen) !== JSON.stringify(wanted); tries++) seen = await serials();
      assert.deepEqual(seen, wanted);
      assert.deepEqual(await serials(), wanted, 'and it stays so');
      await stream.stop();
    });

  it('every-50-ms-on-both-sides-fails-nobody', async () => {
    const stream = counting(pair.dial());
    const made = await Promise.all(
      Array.from({ length: 25 }, async () => ({ client: await ca.identity(CLIENT), server: await ca.identity(SERVER) })),
    );
    let turn = 0;
    const rotating = setInterval(() => {
      const next = made[turn++];
      if (next === undefined) clearInterval(rotating);
      else for (const side of ['client', 'server'] as const) pair[side].identity.replace(next[side]);
    }, 50);
    const failures: string[] = [];
    let served = 0;
    await Promise.all(
      Array.from({ length: 50 }, async () => {
        while (turn < made.length) {
          const answer = await once();
          if (answer === 'hello') served++;
          else failures.push(answer);
        }
      }),
    );
    clearInterval(rotating);
    await stream.stop();
    const reasons = [...pair.client.records.records, ...pair.server.records.records]
      .filter(({ msg, decision }) => msg === 'connection' && decision !== 'allowed')
      .map(({ code, reason }) => `${code}: ${reason}`);
    assert.deepEqual([failures.length, [...new Set(reasons)]], [0, []], `${failures.length} failed, ${served} were served`);
    // What was being made when the last one came must not stay behind.
    let seen = await serials();
    const wanted = { client: pair.client.identity.current?.svid.serial, server: pair.server.identity.current?.svid.serial };
    for (let tries = 0; tries < 200 && JSON.stringify(seen) !== JSON.stringify(wanted); tries++) seen = await serials();
    assert.deepEqual(seen, wanted);
  });
});
