// Two sidecars of two workers each: both serve, and what comes into force does so in all of them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { parseRevocationList } from '../../src/spiffe/crl.ts';
import { TestCa } from '../support/pki.ts';
import { collect } from '../support/sidecar-harness.ts';
import { closed, eventually, RunningWorkers, startWorkersPair, type WorkersPair } from '../support/workers-pair.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';

const ca = await TestCa.create();
let pair: WorkersPair;
let sockets: Socket[] = [];

beforeEach(async () => {
  pair = await startWorkersPair({ identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) } });
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets = [];
  await pair[Symbol.asyncDispose]();
});

async function openMany(count: number): Promise<Socket[]> {
  const opened = await Promise.all(Array.from({ length: count }, () => pair.open()));
  sockets.push(...opened);
  return opened;
}

const total = (side: RunningWorkers, direction: 'inbound' | 'outbound') =>
  side.workers.livePeers().reduce((sum, peer) => sum + (peer.direction === direction ? peer.connections : 0), 0);

describe('two workers a sidecar', () => {
  it('200-connections-are-served-by-both-and-reported-once', async () => {
    await openMany(200);
    await eventually(() => total(pair.client, 'outbound') === 200 && total(pair.server, 'inbound') === 200);
    assert.deepEqual(
      pair.server.workers.livePeers().map(({ spiffeId, connections }) => [spiffeId, connections]),
      [[CLIENT, 200]],
    );
    for (const socket of sockets) socket.destroy();
    await eventually(() => total(pair.server, 'inbound') === 0);
    for (const [side, direction] of [
      [pair.client, 'outbound'],
      [pair.server, 'inbound'],
    ] as const) {
      await eventually(() => [...side.recorded(direction).values()].reduce((a, b) => a + b, 0) === 200);
      assert.deepEqual([...side.recorded(direction).keys()].sort(), [1, 2]);
    }
    await eventually(() => pair.server.workers.ledger.inboundTotals.connections === 200);
    await eventually(() => pair.server.workers.ledger.changedAfter(-1).every(({ open }) => open === 0));
    const entries = pair.server.workers.ledger.changedAfter(-1);
    assert.deepEqual(
      entries.map(({ peerId, transport, outcome, connections, tripwire }) => ({ peerId, transport, outcome, connections, tripwire })),
      [{ peerId: CLIENT, transport: 'mtls', outcome: 'allowed', connections: 200, tripwire: false }],
    );
  });

  it('tunnels-are-dealt-to-whoever-has-fewest', async () => {
    const { chain, key } = await ca.svid(CLIENT);
    const before = pair.server.workers.tunnels.reduce((a, b) => a + b, 0);
    const tunnels = Array.from({ length: 20 }, () =>
      tlsConnect({
        host: '127.0.0.1',
        port: pair.server.workers.ports.tunnel,
        rejectUnauthorized: false,
        cert: chain,
        key,
        ALPNProtocols: ['h2'],
      }),
    );
    sockets.push(...tunnels);
    await Promise.all(tunnels.map((tunnel) => once(tunnel, 'data')));
    await eventually(() => pair.server.workers.tunnels.reduce((a, b) => a + b, 0) === before + 20);
    const [one = 0, two = 0] = pair.server.workers.tunnels;
    assert.ok(Math.abs(one - two) <= 1, `${one} and ${two}`);
    for (const tunnel of tunnels) tunnel.destroy();
    await eventually(() => pair.server.workers.tunnels.reduce((a, b) => a + b, 0) === before);
  });

  it('a-rotation-reaches-every-worker', async () => {
    const before = await openMany(40);
    const next = await ca.identity(CLIENT);
    pair.client.identity.replace(next);
    const renewed = () => pair.server.workers.livePeers().find(({ serial }) => serial === next.svid.serial)?.connections ?? 0;
    // Nobody waits for the other threads: the next connections may still be made with the old one.
    await eventually(async () => {
      await openMany(2);
      return renewed() > 0;
    });
    await openMany(2);
    const proven = renewed();
    await openMany(40);
    await eventually(() => renewed() >= proven + 40);
    assert.ok(before.every(({ destroyed }) => !destroyed));
  });

  it('a-policy-is-held-against-the-connections-of-every-worker', async () => {
    const open = await openMany(60);
    const ended = Promise.all(open.map(closed));
    const deny = { namespace: 'bar', name: 'deny', scope: 'NAMESPACE', action: 'DENY', rules: [], dryRun: false } as const;
    pair.server.replace(pair.spec({}, { authorizations: [{ ...deny, rules: [[]] }] }));
    await ended;
    await eventually(() => [...pair.server.recorded('inbound').values()].reduce((a, b) => a + b, 0) === 60);
    const cut = pair.server.records.records.filter(({ code }) => code === 'AUTHORIZATION_DENIED');
    assert.equal(cut.length, 60);
    assert.deepEqual(new Set(cut.map(({ worker }) => worker)), new Set([1, 2]));
    await assert.rejects(pair.open());
  });

  it('a-revocation-cuts-in-every-worker', async () => {
    const open = await openMany(60);
    const ended = Promise.all(open.map(closed));
    const { bundles } = pair.server.identity.current ?? assert.fail();
    pair.server.revocations.replace(parseRevocationList(await ca.crl([CLIENT]), bundles.own));
    await ended;
    await eventually(() => pair.server.records.records.filter(({ code }) => code === 'CERTIFICATE_REVOKED').length >= 60);
    await assert.rejects(pair.open());
    await eventually(() => pair.server.workers.ledger.changedAfter(-1).every(({ open: still }) => still === 0));
  });

  it('a-stranger-is-refused-by-each', async () => {
    const rogue = await TestCa.create();
    const { chain, key } = await rogue.svid(CLIENT);
    const good = await ca.svid(CLIENT);
    const attempt = async (pem: { chain: string; key: string }, alpn: string, port: number) => {
      const socket = tlsConnect({
        host: '127.0.0.1',
        port,
        rejectUnauthorized: false,
        cert: pem.chain,
        key: pem.key,
        ALPNProtocols: [alpn],
      });
      socket.on('secureConnect', () => socket.end('hello'));
      return collect(socket);
    };
    const { inbound, tunnel } = pair.server.workers.ports;
    for (let turn = 0; turn < 10; turn++) {
      const ended = await Promise.all([attempt({ chain, key }, 'h2', tunnel), attempt({ chain, key }, 'istio', inbound)]);
      assert.deepEqual(
        ended.map(({ text }) => text),
        ['', ''],
      );
      assert.equal((await attempt(good, 'istio', inbound)).text, 'hello');
    }
    const refused = () => pair.server.records.records.filter(({ code }) => code === 'CHAIN_UNTRUSTED');
    await eventually(() => refused().length === 20);
    assert.deepEqual(new Set(refused().map(({ worker }) => worker)), new Set([1, 2]));
    assert.equal(pair.application.connections, 10);
    await eventually(() => pair.server.workers.ledger.inboundTotals.failures === 20);
  });

  it('bytes-arrive-whole-in-both-directions', async () => {
    const socket = pair.dial();
    const bytes = Buffer.alloc(3 * 1024 * 1024, 'handfast');
    socket.end(bytes);
    assert.equal((await collect(socket)).text, bytes.toString());
  });
});

describe('what is one for all workers', () => {
  it('readiness-waits-for-all-and-says-for-whom', async () => {
    await using side = await RunningWorkers.start({
      namespace: 'bar',
      name: 'httpbin',
      awaitRevocations: true,
      test: { destination: pair.application.endpoint, tunnelPort: 0 },
    });
    await eventually(async () => (await side.readiness()).includes('worker 2: no certificate has arrived yet'));
    assert.match(await side.readiness(), /worker 1: no certificate has arrived yet\nworker 1: no policy has arrived from the agent yet/);
    side.identity.replace(await ca.identity(SERVER));
    side.replace(pair.spec());
    await eventually(async () => /^worker 1: no revocation list .*\nworker 2: no revocation list [^\n]*\n$/.test(await side.readiness()));
    side.revocations.replace(parseRevocationList('', (side.identity.current ?? assert.fail()).bundles.own));
    await side.ready();
  });

  it('a-change-that-cannot-be-used-is-refused-once-for-all', async () => {
    const nonsense = { upserts: new Map([['x', Buffer.from('nonsense')]]), removed: [] };
    assert.throws(() => pair.server.workers.apply('type.googleapis.com/istio.workload.Address', nonsense));
    await openMany(10);
    assert.equal(await pair.server.readiness(), 'ready\n');
  });

  it('no-descriptor-is-left-open', async () => {
    const count = () => readdirSync('/proc/self/fd').length;
    const round = async () => {
      await using side = await startWorkersPair({ identities: { client: await ca.identity(CLIENT), server: await ca.identity(SERVER) } });
      const open = await Promise.all(Array.from({ length: 50 }, () => side.open()));
      const ended = Promise.all(open.map(closed));
      for (const socket of open) socket.destroy();
      await ended;
    };
    await round();
    const before = count();
    await round();
    await round();
    await eventually(() => count() <= before);
  });

  it('a-port-in-use-is-refused-as-it-is-with-one', async () => {
    const test = { destination: pair.application.endpoint, tunnelPort: 0 };
    const free = { inbound: 0, outbound: 0, tunnel: 0, readiness: 0 };
    for (const ports of [
      { ...free, tunnel: pair.server.workers.ports.tunnel },
      { ...free, inbound: pair.server.workers.ports.tunnel },
    ])
      await assert.rejects(RunningWorkers.start({ namespace: 'bar', name: 'httpbin', test, ports }), { code: 'CONFIG_INVALID' });
  });
});
