// Which callers a sidecar asks its agent about: those that it lets in, and of those that it refuses only few, and none that has proven who it is.

import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, it } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { emptyMatch } from '../../src/policy/authorization.ts';

import type { MutualTlsMode } from '../../src/policy/model.ts';
import { TestCa } from '../support/pki.ts';
import { Application, collect, type MeshSpec, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const ca = await TestCa.create();
const application = await Application.start();
const running: RunningSidecar[] = [];
after(async () => {
  for (const sidecar of running) await sidecar[Symbol.asyncDispose]();
  await application[Symbol.asyncDispose]();
});

/** Whom it asks about is in `asked`; nothing is known of any address. */
async function serverOf(mode: MutualTlsMode, rest: Partial<MeshSpec> = {}): Promise<{ server: RunningSidecar; asked: string[] }> {
  const asked: string[] = [];
  const identity = await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin');
  const interests = { hold: () => () => undefined, ask: (address: string) => asked.push(address) };
  const server = await startSidecar({ namespace: 'bar', name: 'httpbin', identity, interests });
  running.push(server);
  server.mesh.replace({ ...meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode }], ...rest }), knows: () => false });
  server.destination = application.endpoint;
  return { server, asked };
}

function calls(server: RunningSidecar, count: number): Promise<{ text: string }[]> {
  const addresses = Array.from({ length: count }, (_, nth) => `127.0.1.${nth + 1}`);
  return Promise.all(
    addresses.map((localAddress) => {
      const socket = connect({ port: server.sidecar.ports.inbound, host: '127.0.0.1', localAddress });
      socket.end('hello');
      return collect(socket);
    }),
  );
}

it('all-that-are-let-in', async () => {
  const { server, asked } = await serverOf('PERMISSIVE');
  assert.ok((await calls(server, 100)).every(({ text }) => text === 'hello'));
  assert.equal(new Set(asked).size, 100);
});

it('few-of-those-that-are-refused', async () => {
  const { server, asked } = await serverOf('STRICT');
  const began = performance.now();
  assert.ok((await calls(server, 100)).every(({ text }) => text === ''));
  // A burst, and some a second after it.
  const most = 50 + Math.ceil((performance.now() - began) / 100) + 1;
  assert.ok(asked.length >= 50 && asked.length <= Math.min(most, 99), `${asked.length}`);
});

it('none-that-has-proven-who-it-is-and-is-refused', async () => {
  const identity = await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep');
  const hello = async (server: RunningSidecar) => {
    const tls = { ca: ca.rootPem, cert: identity.chain, key: identity.key, checkServerIdentity: () => undefined, ALPNProtocols: ['istio'] };
    const socket = tlsConnect({ host: '127.0.0.1', port: server.sidecar.ports.inbound, ...tls });
    socket.on('secureConnect', () => socket.end('hello'));
    return (await collect(socket)).text;
  };
  const denied = await serverOf('STRICT', {
    authorizations: [
      {
        name: 'deny',
        namespace: 'bar',
        scope: 'NAMESPACE',
        action: 'DENY',
        dryRun: false,
        rules: [[[{ ...emptyMatch, namespaces: [{ kind: 'exact', value: 'foo' }] }]]],
      },
    ],
  });
  assert.equal(await hello(denied.server), '');
  assert.equal((await denied.server.records.connection('inbound')).code, 'AUTHORIZATION_DENIED');
  assert.deepEqual(denied.asked, []);
  const allowed = await serverOf('STRICT');
  assert.equal(await hello(allowed.server), 'hello');
  assert.deepEqual(allowed.asked, ['127.0.0.1']);
});
