// A session may live longer than the certificates it began with: what is open goes on, as on a connection of its own, and nothing new begins.

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { say } from '../support/h2-applications.ts';
import { TestCa } from '../support/pki.ts';
import { collect } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const HOUR = 3_600_000;
const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';

const ca = await TestCa.create();
let pair: TunnelledPair;
let clock = 0;
afterEach(() => pair[Symbol.asyncDispose]());

const until = (hours: number) => ({ notBefore: Date.now() - HOUR, notAfter: Date.now() + hours * HOUR });

/** One side's certificate lasts an hour, the other's for long; the clock that decides is the other's. */
async function start(expiring: 'client' | 'server'): Promise<void> {
  clock = Date.now();
  const now = () => clock;
  pair = await startTunnelledPair({
    identities: {
      client: await ca.identity(CLIENT, until(expiring === 'client' ? 1 : 100)),
      server: await ca.identity(SERVER, until(expiring === 'server' ? 1 : 100)),
    },
    ...(expiring === 'client' ? { server: { now } } : { client: { now } }),
  });
}

describe('when the certificate of an open session has expired', () => {
  for (const expiring of ['client', 'server'] as const) {
    it(`the-${expiring}s-a-new-connection-is-refused-and-the-open-one-goes-on`, async () => {
      await start(expiring);
      const open = pair.dial();
      open.on('error', () => undefined);
      assert.equal(await say(open, 'hello'), 'hello');
      const connections = pair.application.connections;
      clock += 2 * HOUR;

      const late = pair.dial();
      late.write('late');
      assert.equal((await collect(late)).text, '');
      assert.equal(pair.application.connections, connections, 'the application was dialled');
      const { records } = expiring === 'client' ? pair.server : pair.client;
      const record = await records.connection(expiring === 'client' ? 'inbound' : 'outbound');
      assert.equal(record.code, 'CERTIFICATE_EXPIRED');
      assert.equal(await say(open, 'again'), 'again');
      open.destroy();
    });
  }

  it('and-not-yet-expired-a-new-connection-is-let-in', async () => {
    await start('client');
    clock += HOUR / 2;
    const socket = pair.dial();
    socket.end('hello');
    assert.equal((await collect(socket)).text, 'hello');
  });
});
