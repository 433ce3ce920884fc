// Clocks that differ: half a minute either way nobody notices; five minutes are refused with a reason that shows both sides of the disagreement.

import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { credentials, status } from '@grpc/grpc-js';
import { SecretDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { bearerMetadata } from '../../src/wire/grpc.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { startMeshedSidecar } from '../support/meshed-sidecar.ts';
import { TestCa } from '../support/pki.ts';
import { Application, collect, meshOf, RecordingLog, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const BOTH_SIDES = /our clock says \d{4}-.*Z, it is valid from \d{4}-.*Z to \d{4}-.*Z/;

let records: RecordingLog;
let plane: ControlPlane;
let application: Application;
let open: AsyncDisposable[];

beforeEach(async () => {
  open = [];
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  application = await Application.start();
});

afterEach(async () => {
  for (const one of open.reverse()) await one[Symbol.asyncDispose]();
  await application[Symbol.asyncDispose]();
  await plane[Symbol.asyncDispose]();
});

const mesh = meshOf({
  workloads: [
    { namespace: 'foo', name: 'sleep' },
    { namespace: 'foo', name: 'httpbin', addresses: ['127.0.0.1'] },
  ],
});

async function ask(client: RunningSidecar, server: RunningSidecar): Promise<string> {
  for (const one of [client, server]) one.mesh.replace(mesh);
  server.destination = application.endpoint;
  client.destination = { address: '127.0.0.1', port: server.sidecar.ports.inbound };
  const socket = connect(client.sidecar.ports.outbound, '127.0.0.1');
  socket.write('hello');
  socket.once('data', () => socket.end());
  return (await collect(socket)).text;
}

describe("the CA's clock", () => {
  for (const [name, skew] of [
    ['30-s-ahead', 30 * SECOND],
    ['30-s-behind', -30 * SECOND],
  ] as const) {
    it(`${name}-works-through-two-sidecars`, async () => {
      await plane.start({ ca: { now: () => Date.now() + skew, svidTtlMs: MINUTE } });
      const client = await startMeshedSidecar(plane, { name: 'sleep' });
      const server = await startMeshedSidecar(plane, { name: 'httpbin', protocol: 'delta', names: { svid: 'default', bundle: 'ALL' } });
      open.push(client, server);
      await Promise.all(open.map(() => client.records.find(({ msg }) => msg === 'revocation list in force')));
      assert.equal(await ask(client, server), 'hello');
    });
  }

  for (const [name, offMs, says] of [
    ['ahead', 5 * MINUTE, /not valid before/],
    ['behind', -5 * MINUTE, /expired/],
  ] as const) {
    it(`five-minutes-${name}-is-refused-by-the-agent-which-does-not-ask-without-end`, async () => {
      await plane.start({ ca: { now: () => Date.now() + offMs, svidTtlMs: MINUTE } });
      const client = new SecretDiscoveryServiceClient(plane.address('agent'), credentials.createInsecure());
      // The CA takes tokens by its own clock.
      const token = await plane.token('sleep', { now: Date.now() + offMs });
      const call = client.streamSecrets(bearerMetadata(token));
      const error = await new Promise<Error & { code?: number }>((resolve) => call.on('error', resolve));
      client.close();
      assert.equal(error.code, status.UNAVAILABLE);
      assert.match(error.message, BOTH_SIDES);
      assert.match(error.message, says);
      assert.equal(records.records.filter(({ msg }) => msg === 'certificate issued').length, 1);
    });
  }
});

describe("a peer's certificate five minutes off", () => {
  for (const [name, from, code] of [
    ['not-yet-valid', 5 * MINUTE, 'CERTIFICATE_NOT_YET_VALID'],
    ['expired', -15 * MINUTE, 'CERTIFICATE_EXPIRED'],
  ] as const) {
    for (const side of ['inbound', 'outbound'] as const) {
      it(`${name}-is-refused-${side}-by-both-clocks`, async () => {
        const ca = await TestCa.create();
        const off = { notBefore: Date.now() + from, notAfter: Date.now() + from + 10 * MINUTE };
        const usual = { notBefore: Date.now() - 60 * MINUTE, notAfter: Date.now() + 60 * MINUTE };
        const sidecar = async (workload: string, validity = usual) => {
          const started = await startSidecar({
            namespace: 'foo',
            name: workload,
            identity: await ca.identity(`spiffe://cluster.local/ns/foo/sa/${workload}`, validity),
            // Its own clock is as wrong as its certificate.
            now: () => Date.now() + (validity === usual ? 0 : from + MINUTE),
          });
          open.push(started);
          return started;
        };
        const client = await sidecar('sleep', side === 'inbound' ? off : usual);
        const server = await sidecar('httpbin', side === 'outbound' ? off : usual);
        assert.equal(await ask(client, server), '');
        const judge = side === 'inbound' ? server : client;
        const record = await judge.records.connection(side);
        assert.equal(record.code, code);
        assert.match(String(record.reason), BOTH_SIDES);
      });
    }
  }

  it('and-within-its-window-it-is-accepted', async () => {
    const ca = await TestCa.create();
    const started = await Promise.all(
      ['sleep', 'httpbin'].map(async (name) =>
        startSidecar({ namespace: 'foo', name, identity: await ca.identity(`spiffe://cluster.local/ns/foo/sa/${name}`) }),
      ),
    );
    open.push(...started);
    const [client, server] = started;
    assert.ok(client && server);
    assert.equal(await ask(client, server), 'hello');
  });
});
