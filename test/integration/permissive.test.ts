// PERMISSIVE: everything is let in, and each kind is told apart: mesh TLS, the application's own TLS, plaintext, servers that speak first.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { createServer as createTlsServer, type Server as TlsServer, connect as tlsConnect } from 'node:tls';
import { type Pem, TestCa } from '../support/pki.ts';
import { Application, collect, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

let ca: TestCa;
let client: Pem;
let server: RunningSidecar;
let echo: Application;

before(async () => {
  ca = await TestCa.create();
  client = await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep');
  echo = await Application.start();
  server = await startSidecar({
    namespace: 'bar',
    name: 'httpbin',
    identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  });
  server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'PERMISSIVE' }] }));
});

after(async () => {
  await server[Symbol.asyncDispose]();
  await echo[Symbol.asyncDispose]();
});

afterEach(async () => {
  await Promise.all([server.settled()]);
});

beforeEach(() => {
  server.destination = echo.endpoint;
});

const dial = (): Socket => connect({ port: server.sidecar.ports.inbound, host: '127.0.0.1', allowHalfOpen: true });
const mesh = (options: object) =>
  tlsConnect({
    host: '127.0.0.1',
    ca: ca.rootPem,
    cert: client.chain,
    key: client.key,
    ALPNProtocols: ['istio'],
    checkServerIdentity: () => undefined,
    ...options,
  });

async function transport(): Promise<unknown> {
  return (await server.records.connection('inbound')).transport;
}

describe('who speaks first: the client', () => {
  it('plaintext-is-passed-on', async () => {
    const socket = dial();
    socket.end('hello');
    assert.deepEqual(await collect(socket), { text: 'hello' });
    assert.equal(await transport(), 'plaintext');
  });

  it('mesh-tls-is-terminated', async () => {
    const socket = mesh({ port: server.sidecar.ports.inbound });
    socket.end('hello');
    assert.deepEqual(await collect(socket), { text: 'hello' });
    const record = await server.records.connection('inbound');
    assert.equal(record.transport, 'mtls');
    assert.equal((record.downstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/foo/sa/sleep');
  });

  it('client-hello-in-single-bytes-is-still-mesh-tls', async () => {
    const socket = dial();
    socket.setNoDelay(true);
    const drip = new Duplex({
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        // Byte by byte at first, as a client on a bad line would; then whole.
        const step = (at: number): void => {
          if (at >= chunk.length) done();
          else socket.write(chunk.subarray(at, at + (at < 600 ? 1 : chunk.length)), () => step(at + (at < 600 ? 1 : chunk.length)));
        };
        step(0);
      },
      final: (done) => {
        socket.end();
        done();
      },
    });
    socket.on('data', (chunk) => drip.push(chunk));
    socket.on('end', () => drip.push(null));
    const tls = mesh({ socket: drip });
    tls.end('hello');
    assert.equal((await collect(tls)).text, 'hello');
    assert.equal(await transport(), 'mtls');
  });

  it('application-tls-passes-through-raw-and-proves-nobody', async () => {
    const own: TlsServer = createTlsServer({ cert: client.chain, key: client.key, ALPNProtocols: ['http/1.1'] }, (socket) =>
      socket.end('from the application'),
    );
    own.listen(0, '127.0.0.1');
    await once(own, 'listening');
    const address = own.address();
    assert.ok(typeof address === 'object' && address !== null);
    server.destination = { address: '127.0.0.1', port: address.port };
    const socket = mesh({ port: server.sidecar.ports.inbound, ALPNProtocols: ['http/1.1'] });
    assert.equal((await collect(socket)).text, 'from the application');
    const record = await server.records.connection('inbound');
    assert.equal(record.transport, 'passthrough-tls');
    assert.equal((record.downstream as Record<string, unknown>).spiffeId, undefined);
    own.close();
  });

  it('mesh-tls-with-a-refused-certificate-does-not-fall-back-to-passing-through', async () => {
    const rogue = await (await TestCa.create()).svid('spiffe://cluster.local/ns/foo/sa/sleep');
    const bytesBefore = echo.bytes;
    const socket = mesh({ port: server.sidecar.ports.inbound, cert: rogue.chain, key: rogue.key });
    socket.on('secureConnect', () => socket.write('hello'));
    assert.equal((await collect(socket)).text, '');
    assert.equal((await server.records.connection('inbound')).code, 'CHAIN_UNTRUSTED');
    assert.equal(echo.bytes, bytesBefore);
  });

  it('a-client-hello-that-never-ends-is-refused', async () => {
    const socket = dial();
    const record = Buffer.concat([Buffer.from([0x16, 3, 1, 0x40, 0x00]), Buffer.from([1, 0xff, 0xff, 0xff]), Buffer.alloc(0x4000 - 4)]);
    for (let i = 0; i < 4; i++) socket.write(record);
    assert.equal((await collect(socket)).text, '');
    assert.equal((await server.records.connection('inbound')).code, 'SNIFF_LIMIT');
  });
});

describe('who speaks first: the server', () => {
  it('greeting-reaches-a-silent-plaintext-client', async () => {
    await using greeter = await Application.start((socket) => {
      socket.write('220 ready\r\n');
      socket.on('data', () => socket.end('bye\r\n'));
    });
    server.destination = greeter.endpoint;
    const socket = dial();
    const [greeting] = await once(socket, 'data');
    assert.equal(String(greeting), '220 ready\r\n');
    socket.end('QUIT\r\n');
    assert.equal((await collect(socket)).text, 'bye\r\n');
    assert.equal(await transport(), 'plaintext');
  });

  it('greeting-that-comes-late-reaches-the-client-too', async () => {
    let release: (() => void) | undefined;
    await using greeter = await Application.start((socket) => {
      release = () => socket.end('220 at last\r\n');
    });
    server.destination = greeter.endpoint;
    const socket = dial();
    const answer = collect(socket);
    // The application has been dialled, so the silence has been noticed.
    while (release === undefined) await new Promise((resolve) => setImmediate(resolve));
    release();
    assert.equal((await answer).text, '220 at last\r\n');
  });

  it('a-slow-mesh-client-is-not-turned-into-plaintext-by-the-silence', async () => {
    let dialled = false;
    await using application = await Application.start((socket) => {
      dialled = true;
      socket.pipe(socket);
    });
    server.destination = application.endpoint;
    const raw = dial();
    while (!dialled) await new Promise((resolve) => setImmediate(resolve));
    const socket = mesh({ socket: raw });
    socket.end('hello');
    assert.equal((await collect(socket)).text, 'hello');
    assert.equal(await transport(), 'mtls');
    assert.equal(application.connections, 1, 'dialled once');
  });

  it('an-application-that-closes-at-once-closes-the-silent-client', async () => {
    await using application = await Application.start((socket) => socket.end());
    server.destination = application.endpoint;
    const socket = dial();
    socket.on('end', () => socket.end());
    assert.equal((await collect(socket)).text, '');
    assert.equal((await server.records.connection('inbound')).decision, 'allowed');
  });
});

describe('the switch is turned while connections are open', () => {
  it('plaintext-is-cut-when-strict-arrives-and-mtls-goes-on', async () => {
    const plain = dial();
    plain.write('a');
    await once(plain, 'data');
    const secure = mesh({ port: server.sidecar.ports.inbound });
    secure.write('b');
    await once(secure, 'data');

    server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'STRICT' }] }));
    assert.equal((await collect(plain)).error, 'ECONNRESET');
    const record = await server.records.connection('inbound');
    assert.equal(record.decision, 'cut');
    assert.equal(record.code, 'PLAINTEXT_UNDER_STRICT');

    secure.write('c');
    const [answer] = await once(secure, 'data');
    assert.equal(String(answer), 'c');
    secure.end();
    await collect(secure);
    server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'PERMISSIVE' }] }));
  });

  it('port-level-mode-holds-for-its-port-alone', async () => {
    const { port } = echo.endpoint;
    server.mesh.replace(
      meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'PERMISSIVE', portModes: { [port]: 'STRICT' } }] }),
    );
    const refused = dial();
    refused.write('x');
    assert.equal((await collect(refused)).text, '');
    server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'STRICT', portModes: { [port]: 'DISABLE' } }] }));
    const allowed = dial();
    allowed.end('x');
    assert.equal((await collect(allowed)).text, 'x');
    server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'PERMISSIVE' }] }));
  });
});
