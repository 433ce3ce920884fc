// What an operator types, against `handfast up` as a process: status, revoke, root, join-token.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createLocalToken, openLocalTokenKey } from '../../src/ca/local-token.ts';
import { serveOperators } from '../../src/wire/operator-server.ts';
import { AUDIENCE } from '../support/control-plane.ts';
import { type Ended, handfast, Role } from '../support/handfast.ts';
import { startMeshedSidecar } from '../support/meshed-sidecar.ts';
import type { RunningSidecar } from '../support/sidecar-harness.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const PEER = {
  reporter: 'spiffe://cluster.local/ns/foo/sa/web',
  spiffeId: SLEEP,
  serial: 'AB',
  direction: 'inbound',
  connections: 1,
};

let dir: string;
let up: Role;
let sidecar: RunningSidecar;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-operator-'));
  await mkdir(join(dir, 'config'));
  await writeFile(join(dir, 'config/mesh.yaml'), 'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n');
  up = new Role('up', '--config', join(dir, 'config'), '--state', join(dir, 'ca'), '--run-dir', join(dir, 'run'));
  await up.said('agent listening');
  const plane = {
    address: (name: string) => `unix:${join(dir, 'run', `${name}.sock`)}`,
    token: async (serviceAccount: string) => {
      const key = await openLocalTokenKey(join(dir, 'ca'));
      return createLocalToken({ namespace: 'foo', serviceAccount, audience: AUDIENCE, ttlS: 600, now: Date.now(), key });
    },
  };
  sidecar = await startMeshedSidecar(plane, { name: 'sleep' });
});

after(async () => {
  await sidecar[Symbol.asyncDispose]();
  await up.stop();
  await rm(dir, { recursive: true });
});

const ask = (...args: string[]): Promise<Ended> => handfast(...args, '--run-dir', join(dir, 'run'));

async function answer(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await ask(...args);
  assert.equal(code, 0, stderr);
  return stdout;
}

describe('operators', () => {
  it('sockets-for-root-alone', async () => {
    for (const role of ['ca', 'control', 'agent']) {
      assert.equal((await stat(join(dir, 'run', `${role}-operator.sock`))).mode & 0o777, 0o600, role);
    }
    assert.equal((await stat(join(dir, 'run/agent.sock'))).mode & 0o777, 0o666);
  });

  it('status-names-workloads-and-streams-in-words-and-json', async () => {
    assert.match(await answer('status'), /streams: 2, .*\n.*SPIFFE ID[\s\S]*ns\/foo\/sa\/sleep/);
    const status = JSON.parse(await answer('status', '--output', 'json'));
    assert.equal(status.workloads[0].spiffeId, SLEEP);
    assert.doesNotMatch(JSON.stringify(status), /PRIVATE KEY|eyJ/);
  });

  it('root-stages-in-their-order-and-not-out-of-it', async () => {
    assert.match(await answer('root', 'bundle'), /^-----BEGIN CERTIFICATE-----\n/);
    const early = await ask('root', 'activate');
    assert.notEqual(early.code, 0);
    assert.match(early.stderr, /prepare/);
    assert.match(await answer('root', 'prepare'), /prepared/);
    assert.equal((await answer('root', 'bundle')).match(/BEGIN/g)?.length, 2);
    assert.match(await answer('root', 'abort'), /stable/);
    assert.match(await answer('root', 'status'), /confirmed the bundle: \d of 1/);
    assert.equal((await ask('root', 'rename')).code, 2);
  });

  it('join-tokens-are-made-for-a-node', async () => {
    assert.match(await answer('join-token', 'create', '--node', 'node-1'), /^[\w-]{43}\n$/);
    assert.match((await ask('join-token', 'create')).stderr, /--node NAME is needed/);
    assert.match((await ask('join-token', 'create', '--node', '../evil')).stderr, /node name/);
  });

  it('revoke-says-first-what-it-would-do-then-does-it', async () => {
    const dry = await answer('revoke', '--spiffe-id', SLEEP, '--dry-run');
    assert.match(dry, /1 certificates would be revoked\nspiffe:.*sleep would be blocked/);
    assert.match(dry, /0 open connections would end/);
    assert.doesNotMatch(dry, /report/);
    const done = JSON.parse(
      await answer('revoke', '--spiffe-id', SLEEP, '--reason', 'keyCompromise', '--text', 'test', '--output', 'json'),
    );
    assert.equal(done.serials.length, 1);
    await sidecar.records.find((record) => record.msg === 'revocation list in force' && record.serials === 1);
    assert.match(await answer('revoke', '--spiffe-id', SLEEP, '--lift'), /^lifted/);
    assert.match(await answer('revoke', '--spiffe-id', SLEEP, '--lift'), /not blocked/);
    assert.equal((await ask('revoke')).code, 2);
    assert.match((await ask('revoke', '--jwt-key', 'nobody')).stderr, /nobody/);
  });

  it('what-nobody-can-know-is-said-before-a-revocation', async () => {
    const reports = [
      { node: 'n1', state: 'complete', peers: [{ ...PEER, pod: '\u001b[2Jfoo/x' }] },
      { node: 'n2', state: 'truncated', peers: [] },
      { node: 'n3', state: 'missing', peers: [] },
    ];
    const fake = join(dir, 'fake');
    await mkdir(fake);
    const ca = await serveOperators({
      path: join(fake, 'ca-operator.sock'),
      takeOver: false,
      routes: [
        {
          method: 'POST',
          path: '/revocations',
          handle: () => ({
            serials: [],
            blockedIds: [SLEEP],
            blockedKeyIds: [],
            certificates: [{ serial: 'AB', spiffeId: SLEEP, node: 'n4', notAfter: 0 }],
          }),
        },
      ],
    });
    const routes = [{ method: 'GET' as const, path: '/connections', handle: () => ({ reports }) }];
    const other = await serveOperators({ path: join(fake, 'control-operator.sock'), takeOver: false, routes });
    try {
      const { stdout, stderr } = await handfast('revoke', '--spiffe-id', SLEEP, '--dry-run', '--run-dir', fake);
      assert.match(stdout, /1 open connections would end/, stderr);
      assert.match(stdout, /n1 +spiffe:\/\/cluster.local\/ns\/foo\/sa\/web +\ufffd\[2Jfoo\/x +inbound/);
      assert.match(stdout, /node n2 has more connections than its report holds/);
      assert.match(stdout, /node n3 has sent no report/);
      assert.match(stdout, /node n4 has sent no report/);
      assert.doesNotMatch(stdout, /node n1 has/);
    } finally {
      await other.close();
      await ca.close();
    }
  });

  it('nobody-there-is-said-with-the-way-out', async () => {
    const { code, stderr } = await handfast('status', '--run-dir', join(dir, 'nowhere'));
    assert.equal(code, 1);
    assert.match(stderr, /is the process running, and is this its --run-dir\?/);
  });
});
