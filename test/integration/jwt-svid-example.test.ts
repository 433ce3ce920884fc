// examples/jwt-svid, as it stands there: A asks for a token and calls B through the mesh, B has it judged by its sidecar and decides.

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openIdentityPort } from '../../src/commands/identity-port.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { freePort } from '../support/free-port.ts';
import { askIdentity, issue } from '../support/identity-api.ts';
import { type MeshedPair, startMeshedPair } from '../support/meshed-pair.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

const example = (name: string) => fileURLToPath(new URL(`../../examples/jwt-svid/${name}`, import.meta.url));

describe('A calls B', () => {
  const records = new RecordingLog();
  let plane: ControlPlane;
  let pair: MeshedPair;
  let b: ChildProcess;
  const ports = new Map<string, { port: number; close(): Promise<void> }>();
  const portOf = (name: string) => ports.get(name)?.port ?? 0;

  before(async () => {
    plane = await ControlPlane.create(records.log);
    await plane.start();
    pair = await startMeshedPair(plane);
    for (const name of ['a', 'stranger', 'b']) {
      const [port, token] = [await freePort(), new Snapshot(await plane.token(name))];
      const common = { target: unixTarget(plane.address('agent')), nodeId: name, log: records.log, now: Date.now };
      const opened = await openIdentityPort({ ...common, port, token });
      assert.ok(opened !== undefined);
      ports.set(name, opened);
      await eventually(async () => (await askIdentity(port, '/v1/jwks')).status === 200);
    }
    b = spawn(process.execPath, [example('b.mjs'), '0'], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, HANDFAST_IDENTITY_PORT: `${portOf('b')}` },
    });
    assert.ok(b.stdout !== null);
    const [line] = await once(createInterface(b.stdout), 'line');
    pair.server.destination = { address: '127.0.0.1', port: JSON.parse(String(line)).port };
  });
  after(async () => {
    const ended = once(b, 'close');
    b.kill('SIGKILL');
    await ended;
    for (const port of ports.values()) await port.close();
    await pair[Symbol.asyncDispose]();
    await plane[Symbol.asyncDispose]();
  });

  const through = () => `http://127.0.0.1:${pair.client.sidecar.ports.outbound}/`;
  const call = async (as: string) => {
    const env = { ...process.env, HANDFAST_IDENTITY_PORT: `${portOf(as)}` };
    const { stdout } = await promisify(execFile)(process.execPath, [example('a.mjs'), through()], { env, timeout: 20_000 });
    return JSON.parse(stdout);
  };
  const present = (authorization: string | undefined) =>
    new Promise<{ status: number | undefined; body: unknown }>((resolve, reject) => {
      const headers = authorization === undefined ? {} : { authorization };
      const asked = request(through(), { agent: false, headers }, (response) => {
        let text = '';
        response
          .on('data', (chunk) => (text += String(chunk)))
          .on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }));
      });
      asked.on('error', reject).end();
    });

  it('and-is-let-in-by-its-identity', async () => {
    assert.deepEqual(await call('a'), { status: 200, body: { hello: 'spiffe://cluster.local/ns/foo/sa/a' } });
    const { transport } = await pair.server.records.connection('inbound');
    assert.equal(transport, 'mtls');
  });

  it('another-is-known-and-not-let-in', async () => {
    assert.deepEqual(await call('stranger'), {
      status: 403,
      body: { reason: 'NOT_A_READER', caller: 'spiffe://cluster.local/ns/foo/sa/stranger' },
    });
  });

  it('no-token-one-for-somebody-else-and-one-that-was-altered-are-not', async () => {
    assert.deepEqual(await present(undefined), { status: 401, body: { reason: 'TOKEN_MISSING' } });
    const forOthers = (await issue(portOf('a'), ['c'])).body.token;
    assert.deepEqual(await present(`Bearer ${forOthers}`), { status: 401, body: { reason: 'AUDIENCE_MISMATCH' } });
    const token = String((await issue(portOf('a'), ['b'])).body.token);
    const [header, payload, signature = ''] = token.split('.');
    const altered = `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    assert.deepEqual(await present(`Bearer ${altered}`), { status: 401, body: { reason: 'SIGNATURE_WRONG' } });
    assert.equal((await present(`Bearer ${token}`)).status, 200);
  });

  it('a-sidecar-that-is-away-lets-nobody-in', async () => {
    const token = String((await issue(portOf('a'), ['b'])).body.token);
    await ports.get('b')?.close();
    ports.delete('b');
    assert.deepEqual(await present(`Bearer ${token}`), { status: 503, body: { reason: 'UNAVAILABLE' } });
  });
});
