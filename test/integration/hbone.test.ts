// Through a tunnel: what the applications see, and what the records say.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { after, afterEach, before, describe, it } from 'node:test';
import { TestCa } from '../support/pki.ts';
import { collect } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

let ca: TestCa;
let pair: TunnelledPair;

before(async () => {
  ca = await TestCa.create();
  pair = await startTunnelledPair({
    identities: {
      client: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
      server: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
    },
  });
});
after(() => pair[Symbol.asyncDispose]());
afterEach(() => Promise.all([pair.client.settled(), pair.server.settled()]));

describe('a connection through a tunnel', () => {
  it('carries-bytes-both-ways-and-the-end', async () => {
    const socket = pair.dial();
    socket.end('hello');
    assert.deepEqual(await collect(socket), { text: 'hello' });
    const [out, back] = await Promise.all([pair.client.records.connection('outbound'), pair.server.records.connection('inbound')]);
    assert.equal(out.tunnel, 'HBONE');
    assert.equal(back.tunnel, 'HBONE');
    assert.equal(back.decision, 'allowed');
  });

  it('many-share-one-session', async () => {
    const texts = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const socket = pair.dial();
        socket.end(`hello ${index}`);
        return (await collect(socket)).text;
      }),
    );
    assert.deepEqual(
      texts,
      Array.from({ length: 200 }, (_, index) => `hello ${index}`),
    );
  });

  it('a-large-transfer-arrives-whole', async () => {
    const bytes = randomBytes(20 * 1024 * 1024);
    const socket = pair.dial();
    socket.end(bytes);
    const hash = createHash('sha256');
    let length = 0;
    for await (const chunk of socket) {
      hash.update(chunk);
      length += chunk.length;
    }
    assert.equal(length, bytes.length);
    assert.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
  });
});
