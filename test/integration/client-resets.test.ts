// Clients of direct mTLS that reset their connection, at any moment: nothing of it stays open, and each has its one record.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { type Pem, TestCa } from '../support/pki.ts';
import { Application, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const TIMES = 20;
const BLOCK = Buffer.alloc(256 * 1024);

let ca: TestCa;
let client: Pem;
let application: Application;
let server: RunningSidecar;

before(async () => {
  ca = await TestCa.create();
  client = await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep');
  application = await Application.start((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (bytes) => {
      const asked = String(bytes);
      if (asked === 'answer and end') socket.end('answer');
      else if (asked === 'answer') socket.write('answer');
      else if (asked === 'pour') {
        const fill = () => {
          while (!socket.destroyed && socket.write(BLOCK));
        };
        socket.on('drain', fill);
        fill();
      }
    });
  });
  server = await startSidecar({
    namespace: 'bar',
    name: 'httpbin',
    identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
  });
  server.destination = application.endpoint;
  server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', mode: 'STRICT' }] }));
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await application[Symbol.asyncDispose]();
});

const turn = () => new Promise((resolve) => setImmediate(resolve));
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Says it when the handshake is over. */
async function say(socket: TLSSocket, words: string): Promise<void> {
  await once(socket, 'secureConnect');
  socket.write(words);
}

/** When a client resets, by what it has said. */
const moments: readonly (readonly [string, (socket: TLSSocket) => Promise<unknown>])[] = [
  ['in-the-middle-of-the-handshake', () => wait(2)],
  ['when-the-handshake-is-over', (socket) => once(socket, 'secureConnect')],
  ['a-turn-after-its-question', (socket) => say(socket, 'answer and end').then(turn)],
  ['some-turns-after-its-question', (socket) => say(socket, 'answer and end').then(() => wait(3))],
  ['when-the-answer-comes', (socket) => say(socket, 'answer and end').then(() => once(socket, 'data'))],
  ['after-an-answer-that-goes-on', (socket) => say(socket, 'answer').then(() => once(socket, 'data'))],
  ['in-the-middle-of-a-long-answer', (socket) => say(socket, 'pour').then(() => once(socket, 'data'))],
  ['when-the-application-has-ended', (socket) => say(socket, 'answer and end').then(() => once(socket.resume(), 'end'))],
];

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Until it holds; fails with what is left when it never does. */
async function until(holds: () => boolean, left: () => string): Promise<void> {
  for (const deadline = performance.now() + 5_000; !holds(); await wait(10)) assert.ok(performance.now() < deadline, left());
}

describe('a client that resets', () => {
  for (const [moment, reach] of moments)
    it(`${moment}-leaves-nothing-open`, async () => {
      await server.settled();
      await until(
        () => application.sockets.size === 0,
        () => 'connections of the test before',
      );
      const before = descriptors();
      await Promise.all(
        Array.from({ length: TIMES }, async () => {
          const raw = connect({ port: server.sidecar.ports.inbound, host: '127.0.0.1' });
          raw.on('error', () => undefined);
          await once(raw, 'connect');
          const tls = {
            cert: client.chain,
            key: client.key,
            ca: ca.rootPem,
            ALPNProtocols: ['istio'],
            checkServerIdentity: () => undefined,
          };
          const socket = connectTls({ ...tls, socket: raw });
          socket.on('error', () => undefined);
          await reach(socket);
          // Not from inside OpenSSL, which says that the handshake is over.
          await turn();
          raw.resetAndDestroy();
          socket.destroy();
        }),
      );
      await until(
        () => server.sidecar.tracker.size === 0,
        () => `${server.sidecar.tracker.size} connections are open`,
      );
      await until(
        () => descriptors() <= before,
        () => `${descriptors() - before} descriptors are open`,
      );
      const records = server.records.records.filter(({ msg }) => msg === 'connection');
      assert.equal(records.length, TIMES, 'each has one record');
    });
});
