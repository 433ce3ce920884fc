// Who is kept out, each with the allowed twin: the record's code is asserted, and that the application heard nothing.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { type ConnectionOptions, connect as tlsConnect } from 'node:tls';
import type { MutualTlsMode } from '../../src/policy/model.ts';
import { type Pem, TestCa } from '../support/pki.ts';
import { Application, collect, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const CLIENT = 'spiffe://cluster.local/ns/foo/sa/sleep';
const HOUR = 3_600_000;

let ca: TestCa;
let rogue: TestCa;
let otherDomain: TestCa;
let application: Application;
let server: RunningSidecar;

const inMode = (mode: MutualTlsMode) => meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode }] });

before(async () => {
  [ca, rogue, otherDomain] = await Promise.all([TestCa.create(), TestCa.create(), TestCa.create('other.example')]);
  application = await Application.start();
  server = await startSidecar({
    namespace: 'bar',
    name: 'httpbin',
    identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  });
  server.destination = application.endpoint;
});

after(async () => {
  await server[Symbol.asyncDispose]();
  await application[Symbol.asyncDispose]();
});

afterEach(() => server.settled());

beforeEach(() => {
  server.mesh.replace(inMode('STRICT'));
  server.destination = application.endpoint;
  application.bytes = 0;
  application.connections = 0;
});

/** Says hello over TLS and reports what came back. */
async function helloOverTls(client: Pem | undefined, options: ConnectionOptions = {}): Promise<{ text: string; error?: string }> {
  const socket = tlsConnect({
    host: '127.0.0.1',
    port: server.sidecar.ports.inbound,
    ca: ca.rootPem,
    checkServerIdentity: () => undefined,
    ALPNProtocols: ['istio'],
    ...(client === undefined ? {} : { cert: client.chain, key: client.key }),
    ...options,
  });
  socket.on('secureConnect', () => socket.end('hello'));
  return collect(socket);
}

async function assertAllowed(client: Pem): Promise<void> {
  assert.deepEqual(await helloOverTls(client), { text: 'hello' });
  const record = await server.records.connection('inbound');
  assert.equal(record.decision, 'allowed');
  assert.equal(record.transport, 'mtls');
}

async function assertRefused(code: string, attempt: Promise<{ text: string }>): Promise<void> {
  const { text } = await attempt;
  assert.equal(text, '', 'the client got an answer');
  const record = await server.records.connection('inbound');
  assert.equal(record.code, code, String(record.reason));
  assert.ok(record.decision === 'refused' || record.decision === 'failed');
  assert.ok(String(record.reason).length > 10, 'the reason is a sentence');
  assert.equal(application.bytes, 0, 'the application heard something');
  assert.equal(application.connections, 0, 'the application was dialled');
}

describe('STRICT', () => {
  it('mesh-certificate-is-let-in', async () => {
    await assertAllowed(await ca.svid(CLIENT));
    const record = await server.records.connection('inbound');
    assert.equal((record.downstream as Record<string, unknown>).spiffeId, CLIENT);
    assert.equal((record.upstream as Record<string, unknown>).spiffeId, 'spiffe://cluster.local/ns/bar/sa/httpbin');
    assert.equal(record.mode, 'STRICT');
    assert.equal(record.modeSource, 'the test');
  });

  it('no-client-certificate', async () => assertRefused('NO_CLIENT_CERTIFICATE', helloOverTls(undefined)));

  it('rogue-ca-same-spiffe-id', async () => assertRefused('CHAIN_UNTRUSTED', helloOverTls(await rogue.svid(CLIENT))));

  it('rogue-ca-with-our-intermediate-appended', async () => {
    const forged = await rogue.svid(CLIENT);
    await assertRefused('CHAIN_UNTRUSTED', helloOverTls({ ...forged, chain: forged.chain + ca.intermediatePem }));
  });

  it('no-uri-san', async () => assertRefused('SPIFFE_ID_INVALID', helloOverTls(await ca.badLeaf({ uris: [] }))));

  it('two-uri-sans', async () => assertRefused('SPIFFE_ID_INVALID', helloOverTls(await ca.badLeaf({ uris: [CLIENT, `${CLIENT}2`] }))));

  it('uri-san-with-a-comma-is-not-split', async () =>
    assertRefused(
      'SPIFFE_ID_INVALID',
      helloOverTls(await ca.badLeaf({ uris: [`${CLIENT}, URI:spiffe://cluster.local/ns/foo/sa/admin`] })),
    ));

  it('one-uri-san-from-the-same-builder-is-let-in', async () => assertAllowed(await ca.badLeaf({ uris: [CLIENT] })));

  it('ca-certificate-as-leaf', async () => assertRefused('LEAF_INVALID', helloOverTls(await ca.badLeaf({ ca: true }))));

  it('leaf-that-may-sign-certificates', async () => assertRefused('LEAF_INVALID', helloOverTls(await ca.badLeaf({ keyUsage: 0x84 }))));

  it('expired', async () => {
    const validity = { notBefore: Date.now() - HOUR, notAfter: Date.now() - 60_000 };
    await assertRefused('CERTIFICATE_EXPIRED', helloOverTls(await ca.svid(CLIENT, validity)));
  });

  it('not-yet-valid', async () => {
    const validity = { notBefore: Date.now() + 60_000, notAfter: Date.now() + HOUR };
    await assertRefused('CERTIFICATE_NOT_YET_VALID', helloOverTls(await ca.svid(CLIENT, validity)));
  });

  it('wrong-trust-domain-own-ca', async () =>
    assertRefused('CHAIN_UNTRUSTED', helloOverTls(await otherDomain.svid('spiffe://other.example/ns/foo/sa/sleep'))));

  it('wrong-trust-domain-signed-by-our-ca', async () =>
    assertRefused('TRUST_DOMAIN_UNKNOWN', helloOverTls(await ca.svid('spiffe://other.example/ns/foo/sa/sleep'))));

  it('plaintext', async () => {
    const socket = connect(server.sidecar.ports.inbound, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    const answer = collect(socket);
    await assertRefused('PLAINTEXT_UNDER_STRICT', answer);
    assert.equal((await answer).error, 'ECONNRESET');
  });

  it('tls-without-mesh-alpn', async () =>
    assertRefused('ALPN_MISMATCH', helloOverTls(await ca.svid(CLIENT), { ALPNProtocols: ['http/1.1'] })));

  it('garbage-after-a-tls-record-header', async () => {
    const socket = connect(server.sidecar.ports.inbound, '127.0.0.1');
    socket.write(Buffer.from('160301000501000001ff', 'hex'));
    await assertRefused('PLAINTEXT_UNDER_STRICT', collect(socket));
  });

  it('client-that-ends-in-mid-handshake-is-let-go-at-once', async () => {
    // A real ClientHello, taken from a client that dials somebody who only listens.
    const listener = createServer().listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const address = listener.address();
    assert.ok(typeof address === 'object' && address !== null);
    const client = tlsConnect({ host: '127.0.0.1', port: address.port, ALPNProtocols: ['istio'] });
    client.on('error', () => undefined);
    const [accepted] = await once(listener, 'connection');
    const [hello] = await once(accepted, 'data');
    client.destroy();
    accepted.destroy();
    listener.close();

    const socket = connect({ port: server.sidecar.ports.inbound, host: '127.0.0.1', allowHalfOpen: true });
    socket.end(hello);
    // HANDSHAKE_TIMEOUT would be the deadline's word.
    await assertRefused(
      'HANDSHAKE_FAILED',
      collect(socket).then(() => ({ text: '' })),
    );
  });

  it('direct-dial-of-the-inbound-port', async () => {
    server.destination = { address: '127.0.0.1', port: server.sidecar.ports.inbound };
    await assertRefused('SELF_LOOP', helloOverTls(await ca.svid(CLIENT)));
  });

  it('direct-dial-of-the-outbound-port', async () => {
    server.destination = { address: '127.0.0.1', port: server.sidecar.ports.outbound };
    const socket = connect(server.sidecar.ports.outbound, '127.0.0.1');
    socket.write('hello');
    assert.equal((await collect(socket)).text, '');
    assert.equal((await server.records.connection('outbound')).code, 'SELF_LOOP');
  });

  it('no-original-destination', async () => {
    server.destination = undefined;
    await assertRefused('NO_ORIGINAL_DESTINATION', helloOverTls(await ca.svid(CLIENT)));
  });

  it('destination-that-is-not-this-pods', async () => {
    server.destination = { address: '192.0.2.7', port: 80 };
    await assertRefused('DESTINATION_NOT_LOCAL', helloOverTls(await ca.svid(CLIENT)));
  });

  it('a-session-cannot-be-resumed', async () => {
    const client = await ca.svid(CLIENT);
    const sessions: Buffer[] = [];
    const dial = (session?: Buffer) =>
      tlsConnect({
        host: '127.0.0.1',
        port: server.sidecar.ports.inbound,
        ca: ca.rootPem,
        checkServerIdentity: () => undefined,
        ALPNProtocols: ['istio'],
        cert: client.chain,
        key: client.key,
        ...(session === undefined ? {} : { session }),
      });
    const first = dial();
    first.on('session', (session) => sessions.push(session));
    first.on('secureConnect', () => first.end('hello'));
    assert.equal((await collect(first)).text, 'hello');
    const own = first.getSession();
    for (const session of [...sessions, ...(own === undefined ? [] : [own])]) {
      const second = dial(session);
      await once(second, 'secureConnect');
      assert.equal(second.isSessionReused(), false);
      second.destroy();
    }
  });
});

describe('no usable state: refuse', () => {
  it('no-policy-yet', async () => {
    const bare = await startSidecar({
      namespace: 'bar',
      name: 'httpbin',
      identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
    });
    bare.destination = application.endpoint;
    const socket = connect(bare.sidecar.ports.inbound, '127.0.0.1');
    socket.write('hello');
    assert.equal((await collect(socket)).text, '');
    assert.equal((await bare.records.connection('inbound')).code, 'NO_POLICY');
    assert.equal(application.bytes, 0);
    // The twin: once policy is there, the same connection is let in.
    bare.mesh.replace(inMode('PERMISSIVE'));
    const again = connect(bare.sidecar.ports.inbound, '127.0.0.1');
    again.end('hello');
    assert.equal((await collect(again)).text, 'hello');
    await bare[Symbol.asyncDispose]();
  });

  it('no-certificate-yet', async () => {
    const bare = await startSidecar({ namespace: 'bar', name: 'httpbin' });
    bare.destination = application.endpoint;
    bare.mesh.replace(inMode('STRICT'));
    const client = await ca.svid(CLIENT);
    const socket = tlsConnect({
      host: '127.0.0.1',
      port: bare.sidecar.ports.inbound,
      ca: ca.rootPem,
      cert: client.chain,
      key: client.key,
      ALPNProtocols: ['istio'],
    });
    assert.equal((await collect(socket)).text, '');
    assert.equal((await bare.records.connection('inbound')).code, 'NO_IDENTITY');
    assert.equal(application.bytes, 0);
    await bare[Symbol.asyncDispose]();
  });

  it('registry-and-token-disagree-about-who-we-are', async () => {
    const wrong = await startSidecar({
      namespace: 'bar',
      name: 'httpbin',
      identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/impostor'),
    });
    wrong.destination = application.endpoint;
    wrong.mesh.replace(inMode('PERMISSIVE'));
    const socket = connect(wrong.sidecar.ports.inbound, '127.0.0.1');
    socket.write('hello');
    assert.equal((await collect(socket)).text, '');
    assert.equal((await wrong.records.connection('inbound')).code, 'IDENTITY_MISMATCH');
    await wrong[Symbol.asyncDispose]();
  });
});
