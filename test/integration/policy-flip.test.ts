// The switch is turned in the very moment a handshake ends: the connection is refused, and the process lives. (It died once, by SIGSEGV.)

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import type { MutualTlsMode } from '../../src/policy/model.ts';
import { TestCa } from '../support/pki.ts';
import { Application, meshOf, startSidecar } from '../support/sidecar-harness.ts';

it('policy-that-changes-during-a-handshake-judges-it-and-crashes-nothing', async () => {
  const ca = await TestCa.create();
  const pem = await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep');
  await using application = await Application.start();
  const server = await startSidecar({
    namespace: 'bar',
    name: 'httpbin',
    identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  });
  server.destination = application.endpoint;
  const mesh = (mode: MutualTlsMode) => meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode }] });
  for (let round = 0; round < 60; round++) {
    server.mesh.replace(mesh('STRICT'));
    const sockets = Array.from({ length: 4 }, () =>
      tlsConnect({
        port: server.sidecar.ports.inbound,
        host: '127.0.0.1',
        ca: ca.rootPem,
        cert: pem.chain,
        key: pem.key,
        ALPNProtocols: ['istio'],
        checkServerIdentity: () => undefined,
      }),
    );
    const closed = sockets.map((socket) => {
      socket.on('error', () => undefined);
      socket.write('hello');
      socket.resume();
      return new Promise((resolve) => socket.once('close', resolve));
    });
    while (server.sidecar.tracker.size < 4) await new Promise((resolve) => setImmediate(resolve));
    server.mesh.replace(mesh('DISABLE'));
    await Promise.all(closed);
  }
  await server.settled();
  assert.equal(application.bytes, 0);
  await server[Symbol.asyncDispose]();
});
