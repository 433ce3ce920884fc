// Revocation from the operator's word to the cut connection: by SPIFFE ID, by serial, by key; said before it is done; undone for what comes later.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CaClient } from '../../src/ca/client.ts';
import { createCsr } from '../../src/spiffe/csr.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { type MeshedPair, startMeshedPair } from '../support/meshed-pair.ts';
import { startMeshedSidecar } from '../support/meshed-sidecar.ts';
import { keyPair } from '../support/pki.ts';
import { RecordingLog, type RunningSidecar } from '../support/sidecar-harness.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';

let records: RecordingLog;
let plane: ControlPlane;
let pair: MeshedPair;
let client: RunningSidecar;
let server: RunningSidecar;

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  await plane.start();
  pair = await startMeshedPair(plane);
  ({ client, server } = pair);
});

afterEach(async () => {
  await pair[Symbol.asyncDispose]();
  await plane[Symbol.asyncDispose]();
});

/** What comes back for hello; empty when refused. */
const ask = async () => (await pair.ask()).text;

/** An open connection that has carried something. */
async function open(): Promise<Socket> {
  const socket = connect(client.sidecar.ports.outbound, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write('hello');
  await once(socket, 'data');
  return socket;
}

const closed = (socket: Socket) => new Promise<void>((resolve) => socket.once('close', () => resolve()));
const serialOf = (sidecar: RunningSidecar) => sidecar.identity.current?.svid.serial;

describe('a revoked identity', () => {
  it('by-spiffe-id-open-connections-are-cut-and-new-ones-refused', async () => {
    const socket = await open();
    const cut = closed(socket);
    const before = performance.now();
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: SLEEP, reason: 'keyCompromise', text: 'stolen laptop' });
    await cut;
    const took = performance.now() - before;
    const record = await server.records.find((entry) => entry.decision === 'cut');
    assert.equal(record.code, 'CERTIFICATE_REVOKED');
    assert.match(String(record.reason), /foo\/sa\/sleep/);
    assert.equal(await ask(), '');
    console.log(`# from the operator's word to the cut connection: ${Math.round(took)} ms`);
  });

  it('gets-no-certificate-any-more-and-one-again-after-the-lift-but-the-old-one-stays-dead', async () => {
    const old = serialOf(client);
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: SLEEP });
    await assert.rejects(certificateFor('sleep'), { code: 'IDENTITY_BLOCKED' });
    const { lifted } = Object(await plane.ask('ca', 'POST', '/revocations/lift', { spiffeId: SLEEP }));
    assert.equal(lifted, true);
    const again = await startMeshedSidecar(plane, { name: 'sleep' });
    assert.notEqual(serialOf(again), old);
    await again.records.find((entry) => entry.msg === 'revocation list in force');
    assert.ok(again.revocations.current?.serials.has(String(old)), 'what was revoked stays revoked');
    assert.equal(again.revocations.current?.blockedIds.size, 0);
    await again[Symbol.asyncDispose]();
  });

  it('by-serial-the-next-certificate-of-the-same-workload-is-good', async () => {
    const revoked = serialOf(client);
    const socket = await open();
    const cut = closed(socket);
    await plane.ask('ca', 'POST', '/revocations', { serial: revoked });
    await cut;
    // The agent sees what was revoked, and asks for another certificate at once.
    const next = await client.records.find((entry) => entry.msg === 'identity in force' && entry.serial !== revoked);
    assert.equal(next.spiffeId, SLEEP);
    assert.equal(await ask(), 'hello');
  });

  it('by-key-of-a-certificate', async () => {
    const certificate = client.identity.current?.svid.certificates[0]?.toString();
    const socket = await open();
    const cut = closed(socket);
    await plane.ask('ca', 'POST', '/revocations', { key: certificate });
    await cut;
    assert.equal((await server.records.find((entry) => entry.decision === 'cut')).code, 'CERTIFICATE_REVOKED');
  });

  it('the-revoked-sidecar-itself-says-so', async () => {
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: SLEEP });
    await client.records.find((entry) => entry.msg === 'revocation list in force' && entry.serials === 1);
    assert.equal(await ask(), '');
    const refused = await client.records.find((entry) => entry.code === 'NO_IDENTITY');
    assert.match(String(refused.reason), /our own certificate is of no use/);
  });

  it('others-are-left-alone', async () => {
    const socket = await open();
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: 'spiffe://cluster.local/ns/foo/sa/somebody-else' });
    await server.records.find((entry) => entry.msg === 'revocation list in force' && (entry.blockedIds as string[]).length === 1);
    socket.write('still there');
    const [data] = await once(socket, 'data');
    assert.equal(String(data), 'still there');
    assert.equal(await ask(), 'hello');
    socket.destroy();
  });
});

describe('--dry-run', () => {
  it('names-what-would-end-and-does-nothing', async () => {
    const socket = await open();
    const effect = Object(await plane.ask('ca', 'POST', '/revocations', { spiffeId: SLEEP, dryRun: true }));
    assert.deepEqual(effect.blockedIds, [SLEEP]);
    assert.ok(effect.serials.includes(serialOf(client)));
    const deadline = Date.now() + 10_000;
    let live: { spiffeId: string; connections: number }[] = [];
    while (!live.some(({ spiffeId }) => spiffeId === SLEEP)) {
      assert.ok(Date.now() < deadline, 'the sidecar did not report its connection');
      const { reports } = Object(await plane.ask('control', 'GET', '/connections'));
      live = reports.flatMap(({ peers }: { peers: [] }) => peers);
      await delay(50);
    }
    assert.equal(live.find(({ spiffeId }) => spiffeId === SLEEP)?.connections, 1);
    assert.equal(await ask(), 'hello');
    socket.destroy();
  });
});

describe('mistakes', () => {
  const bad: readonly [string, object, RegExp][] = [
    ['nothing-named', {}, /name one of/],
    ['two-named', { serial: '01', spiffeId: SLEEP }, /name one of/],
    ['a-foreign-trust-domain', { spiffeId: 'spiffe://elsewhere/ns/foo/sa/x' }, /no workload of trust domain/],
    ['an-unknown-serial', { serial: 'ABCDEF' }, /ABCDEF/],
    ['a-serial-that-is-none', { serial: 'xyz' }, /hexadecimal/],
    ['an-unknown-reason', { spiffeId: SLEEP, reason: 'because' }, /keyCompromise/],
    ['an-unknown-field', { spiffeId: SLEEP, force: 1 }, /force/],
  ];
  for (const [name, body, says] of bad) {
    it(name, async () => {
      await assert.rejects(plane.ask('ca', 'POST', '/revocations', body), says);
      assert.equal(await ask(), 'hello');
    });
  }
});

/** Rejects with the CA's reason when it gives no certificate. */
async function certificateFor(name: string): Promise<void> {
  const ca = new CaClient(unixTarget(plane.address('ca')));
  try {
    await ca.sign({ csr: createCsr(keyPair()), token: await plane.token(name) });
  } finally {
    ca.close();
  }
}
