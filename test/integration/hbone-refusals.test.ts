// Whom a tunnel lets through, and to where: each refusal with the twin that is let in, and nothing dialled for what is refused.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { after, afterEach, before, describe, it } from 'node:test';
import { deny, ending, say } from '../support/h2-applications.ts';
import { connectTo } from '../support/h2-frames.ts';
import { rawClient } from '../support/h2-raw-client.ts';
import { TestCa } from '../support/pki.ts';
import type { MeshSpec } from '../support/sidecar-harness.ts';
import { Application, collect, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const SLEEP = 'cluster.local/ns/foo/sa/sleep';
const VIP = { address: '10.96.0.10', port: 80 };

let ca: TestCa;
let pair: TunnelledPair;
/** A second pod of the same account, at an address of its own. */
let other: RunningSidecar;
let otherApplication: Application;
let heard: string[] = [];
let dead: number;
const open: Socket[] = [];

before(async () => {
  ca = await TestCa.create();
  const identities = {
    client: await ca.identity(`spiffe://${SLEEP}`),
    server: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  };
  // Below the ports that are given out: one that was free may be another test's by now.
  dead = 1;
  otherApplication = await Application.start((socket) => {
    socket.on('data', (bytes) => heard.push(String(bytes)));
    socket.pipe(socket);
  }, '127.0.0.2');
  other = await startSidecar({ namespace: 'bar', name: 'second', serviceAccount: 'httpbin', identity: identities.server });
  pair = await startTunnelledPair({
    identities,
    client: { tunnelPortOf: (address) => (address === '127.0.0.2' ? other : pair.server).sidecar.ports.tunnel },
  });
});
after(async () => {
  await pair[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
  await otherApplication[Symbol.asyncDispose]();
});
afterEach(async () => {
  for (const socket of [...open.splice(0), ...pair.application.sockets, ...otherApplication.sockets]) socket.destroy();
  pair.client.destination = pair.application.endpoint;
  await Promise.all([pair.client.settled(), pair.server.settled(), other.settled()]);
  everywhere(pair.world());
  pair.application.bytes = 0;
  heard = [];
});

function everywhere(mesh: ReturnType<TunnelledPair['world']>): void {
  pair.replace(mesh);
  other.mesh.replace(mesh);
}

/** What the client's application gets for a word, both records, and how often the server's was connected meanwhile. */
async function ask(): Promise<{ text: string; error?: string; out: Record<string, unknown>; back: Record<string, unknown> }> {
  const socket = pair.dial();
  socket.write('hello');
  socket.once('data', () => socket.end());
  const answer = await collect(socket);
  const [out, back] = await Promise.all([pair.client.records.connection('outbound'), pair.server.records.connection('inbound')]);
  return { ...answer, out, back };
}

const service = (port: number) => ({ 'bar/httpbin': [80, port] as const });
/** Two pods behind one service: nobody listens at the first. */
const halfDead = (): MeshSpec => ({
  workloads: [
    { namespace: 'foo', name: 'sleep' },
    { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], hbone: true, services: service(dead) },
    {
      namespace: 'bar',
      name: 'second',
      serviceAccount: 'httpbin',
      addresses: ['127.0.0.2'],
      hbone: true,
      services: service(otherApplication.endpoint.port),
    },
  ],
  services: [{ namespace: 'bar', name: 'httpbin', address: VIP.address }],
});

describe('an application that nobody runs', () => {
  it('is-a-reset-and-both-sidecars-say-why', async () => {
    pair.client.destination = { address: '127.0.0.1', port: dead };
    const { text, error, out, back } = await ask();
    assert.deepEqual([text, error], ['', 'ECONNRESET']);
    assert.deepEqual([out.code, back.code], ['DIAL_FAILED', 'DIAL_FAILED']);
    assert.deepEqual([out.decision, back.decision], ['failed', 'failed']);
  });

  for (const [how, words] of [
    ['written', (socket: Socket) => socket.write('once')],
    ['written-with-the-end-behind-them', (socket: Socket) => socket.end('once')],
  ] as const)
    it(`is-passed-over-and-the-next-hears-the-first-words-once-when-${how}`, async () => {
      everywhere(pair.world({}, halfDead()));
      pair.client.destination = VIP;
      // Occupies the living one, so that the dead one is less loaded and tried first.
      const busy = pair.dial();
      open.push(busy);
      assert.equal(await say(busy, 'busy'), 'busy');
      const tried = () => pair.server.records.records.filter(({ code }) => code === 'DIAL_FAILED').length;
      const before = tried();
      const socket = pair.dial();
      open.push(socket);
      words(socket);
      assert.deepEqual(
        [await Promise.race([once(socket, 'data').then(([bytes]) => String(bytes)), ending(socket)]), tried() - before, heard],
        ['once', 1, ['busy', 'once']],
      );
    });

  it('is-passed-over-and-the-next-hears-the-whole-of-a-long-upload', async () => {
    everywhere(pair.world({}, halfDead()));
    pair.client.destination = VIP;
    const busy = pair.dial();
    open.push(busy);
    assert.equal(await say(busy, 'busy'), 'busy');
    heard.length = 0;
    const upload = Array.from({ length: 125_000 }, (_, index) => String(index).padStart(8)).join('');
    const socket = pair.dial();
    open.push(socket);
    socket.end(upload);
    await ending(socket);
    assert.ok(heard.join('') === upload, `of ${upload.length} bytes ${heard.join('').length} were heard, or others`);
  });
});

describe('authorization', () => {
  it('denied-the-application-never-hears-a-byte', async () => {
    const before = pair.application.connections;
    everywhere(pair.world({}, { authorizations: [deny({ principal: SLEEP })] }));
    const { text, error, out, back } = await ask();
    assert.deepEqual([text, error], ['', 'ECONNRESET']);
    assert.deepEqual([out.code, back.code], ['TUNNEL_REFUSED', 'AUTHORIZATION_DENIED']);
    assert.deepEqual([pair.application.connections - before, pair.application.bytes], [0, 0]);
    assert.doesNotMatch(String(out.reason), /denial|AuthorizationPolicy/, 'the reason is not the peer s to know');
  });

  it('allowed-where-somebody-else-is-denied', async () => {
    everywhere(pair.world({}, { authorizations: [deny({ principal: 'cluster.local/ns/foo/sa/other' })] }));
    assert.equal((await ask()).text, 'hello');
  });

  it('is-judged-by-the-port-of-the-application-not-of-the-tunnel', async () => {
    everywhere(pair.world({}, { authorizations: [deny({ port: 15008 }), deny({ port: pair.server.sidecar.ports.tunnel })] }));
    assert.equal((await ask()).text, 'hello');
    everywhere(pair.world({}, { authorizations: [deny({ port: pair.application.endpoint.port })] }));
    const socket = pair.dial();
    socket.write('hello');
    assert.deepEqual(await collect(socket), { text: '', error: 'ECONNRESET' });
  });

  it('denied-is-a-reset-also-for-a-client-that-has-said-all-it-had-to-say', async () => {
    everywhere(pair.world({}, { authorizations: [deny({ principal: SLEEP })] }));
    const socket = pair.dial();
    socket.end('hello');
    assert.deepEqual(await collect(socket), { text: '', error: 'ECONNRESET' });
  });
});

describe('the switch', () => {
  for (const mode of ['STRICT', 'PERMISSIVE'] as const)
    it(`${mode}-lets-a-tunnel-in`, async () => {
      everywhere(pair.world({ mode }));
      const { text, back } = await ask();
      assert.deepEqual([text, back.mode, back.transport, back.tunnel], ['hello', mode, 'mtls', 'HBONE']);
    });
});

describe('secure naming', () => {
  it('a-server-that-is-somebody-else-gets-no-byte', async () => {
    const before = pair.application.connections;
    pair.client.mesh.replace(pair.world({ serviceAccount: 'somebody-else' }));
    const socket = pair.dial();
    socket.end('hello');
    assert.deepEqual(await collect(socket), { text: '', error: 'ECONNRESET' });
    const { code, reason } = await pair.client.records.connection('outbound');
    assert.equal(code, 'SECURE_NAMING_MISMATCH');
    assert.match(String(reason), /must be spiffe:.*somebody-else.* proved to be spiffe:.*httpbin/);
    assert.equal(pair.application.connections, before);
    assert.equal(pair.server.records.records.filter(({ direction, code }) => direction === 'inbound' && code === undefined).length, 0);
  });

  it('the-right-one-does', async () => assert.equal((await ask()).text, 'hello'));
});

describe('a CONNECT', () => {
  let elsewhere: Application;
  before(async () => {
    elsewhere = await Application.start(undefined, '127.0.0.9');
  });
  after(() => elsewhere[Symbol.asyncDispose]());

  const places: [name: string, authority: () => string][] = [
    ['loopback', () => `127.0.0.9:${elsewhere.endpoint.port}`],
    ['loopback-of-ipv6', () => `[::1]:${pair.application.endpoint.port}`],
    ['the-address-of-another-pod', () => `127.0.0.2:${otherApplication.endpoint.port}`],
    ['every-address', () => `0.0.0.0:${pair.application.endpoint.port}`],
    ['our-inbound-port', () => `127.0.0.1:${pair.server.sidecar.ports.inbound}`],
    ['our-outbound-port', () => `127.0.0.1:${pair.server.sidecar.ports.outbound}`],
    ['our-tunnel-port', () => `127.0.0.1:${pair.server.sidecar.ports.tunnel}`],
    ['our-readiness-port', () => `127.0.0.1:${pair.server.sidecar.ports.readiness}`],
    ['the-admin-port', () => '127.0.0.1:15000'],
    ['the-well-known-tunnel-port', () => '127.0.0.1:15008'],
    ['a-host-name', () => `localhost:${pair.application.endpoint.port}`],
    ['a-short-form-of-the-address', () => `127.1:${pair.application.endpoint.port}`],
    ['the-address-as-a-number', () => `2130706433:${pair.application.endpoint.port}`],
    ['port-0', () => '127.0.0.1:0'],
    ['a-port-that-wraps-around', () => `127.0.0.1:${65_536 + pair.application.endpoint.port}`],
    ['no-port', () => '127.0.0.1'],
    ['nothing', () => ''],
    ['a-url', () => `http://127.0.0.1:${pair.application.endpoint.port}/`],
    ['an-address-with-a-user', () => `a@127.0.0.1:${pair.application.endpoint.port}`],
    ['an-address-with-a-line-break', () => `127.0.0.1:${pair.application.endpoint.port}\n`],
  ];

  it('to-the-pod-s-own-address-is-let-in', async () => {
    const peer = await rawClient(await ca.identity(`spiffe://${SLEEP}`), pair.server.sidecar.ports.tunnel);
    peer.send(connectTo(1, `127.0.0.1:${pair.application.endpoint.port}`));
    assert.equal(await peer.status(1), '200');
    peer.socket.destroy();
  });

  for (const [name, authority] of places)
    it(`to-${name}-is-refused-and-nothing-dialled`, async () => {
      const dialled = () => pair.application.connections + otherApplication.connections + elsewhere.connections;
      const before = dialled();
      const peer = await rawClient(await ca.identity(`spiffe://${SLEEP}`), pair.server.sidecar.ports.tunnel);
      peer.send(connectTo(1, authority()));
      const answer = await peer.next(({ streamId }) => streamId === 1);
      if (answer.type === 1) assert.notEqual(answer.payload[0], 0x88, 'it was let in');
      await peer.heard();
      assert.equal(dialled(), before);
      peer.socket.destroy();
    });
});
