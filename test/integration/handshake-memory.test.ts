// What a mutual handshake leaves behind when its connection has ended, on either side: nothing. Node 24.21.0 lost 4 KB and more with each certificate of a client.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import koffi from 'koffi';
import { dial } from '../../src/net/dial.ts';
import { libc } from '../../src/net/libc.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { originate } from '../../src/tls/originate.ts';
import { Terminator } from '../../src/tls/terminate.ts';
import { TestCa } from '../support/pki.ts';

const [SERVER, CLIENT] = ['spiffe://cluster.local/ns/foo/sa/server', 'spiffe://cluster.local/ns/foo/sa/client'];
const AT_ONCE = 16;
/** A tenth of a certificate as OpenSSL keeps it. */
const MOST_BYTES_EACH = 512;

const fields = ['arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'] as const;
koffi.struct('mallinfo2', Object.fromEntries(fields.map((field) => [field, 'size_t'])));
const mallinfo2 = libc.func('mallinfo2 mallinfo2(void)');

/** Bytes that malloc has given out and nobody has returned, after everything that can be collected was. */
async function inUse(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const gc: unknown = runInNewContext('gc');
  assert.ok(typeof gc === 'function');
  for (let times = 0; times < 3; times++) {
    gc({ type: 'major', flavor: 'last-resort' });
    // Finalizers have their turn.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { uordblks, hblkhd } = mallinfo2();
  return Number(uordblks) + Number(hblkhd);
}

test('a mutual handshake leaves nothing behind', async (t) => {
  const ca = await TestCa.create();
  const [server, client] = [await ca.identity(SERVER), await ca.identity(CLIENT)];
  const common = { revocations: () => noRevocations, now: Date.now };
  const terminator = new Terminator({ ...common, handshakeTimeoutMs: 5_000, chooseAlpn: ([first]) => first });
  terminator.replace(server);
  const listener = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (raw: Socket) => {
    raw.on('error', () => undefined);
    void terminator.terminate(raw, { offersAlpn: true }).then(({ socket, peer }) => {
      assert.equal(peer.id.uri, CLIENT);
      socket
        .on('error', () => undefined)
        .resume()
        .end('done');
    });
  });
  await once(listener.listen(0, '127.0.0.1'), 'listening');
  const { port } = listener.address() as AddressInfo;
  const connection = async () => {
    const raw = await dial({ host: '127.0.0.1', port, timeoutMs: 5_000 });
    raw.on('error', () => undefined);
    const to = { allowed: [SERVER], destination: 'the server', serverName: undefined, handshakeTimeoutMs: 5_000 };
    const { socket } = await originate(raw, { ...to, identity: client, revocations: noRevocations, now: Date.now });
    socket.resume().end();
    await once(socket, 'close');
  };
  const connections = async (count: number) => {
    for (let done = 0; done < count; done += AT_ONCE) await Promise.all(Array.from({ length: AT_ONCE }, connection));
  };

  await connections(10 * AT_ONCE);
  const before = await inUse();
  const count = 25 * AT_ONCE;
  await connections(count);
  const each = Math.round(((await inUse()) - before) / count);
  t.diagnostic(`${each} bytes of malloc's for each of ${count} connections, both of their ends`);
  assert.ok(each < MOST_BYTES_EACH, `each connection left ${each} bytes behind`);
  listener.close();
});
