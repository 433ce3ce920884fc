// The CA's roots, told to whoever publishes them: the first ones, both of a rotation, and nothing when only something else has changed.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startCa } from '../../src/ca/ca.ts';
import { publishedBundle } from '../../src/commands/published-bundle.ts';
import { openLog } from '../../src/observe/log.ts';
import { askOperator } from '../../src/wire/operator-client.ts';
import { freePort } from '../support/free-port.ts';

const { log, close } = openLog({ role: 'test', level: 'silent' });
let dir: string;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'handfast-bundle-'));
});

after(async () => {
  await rm(dir, { recursive: true, force: true });
  close();
});

const flags = (place: string | undefined, server: string | undefined) => ({
  'publish-bundle': place,
  'kube-server': server,
  'kube-ca': join(dir, 'ca.crt'),
  'kube-token': join(dir, 'token'),
});

test('the roots are told at the start and when there is another one, not when a certificate is revoked', async () => {
  const told: string[] = [];
  const operatorSocket = join(dir, 'ca-operator.sock');
  const ca = await startCa({
    stateDir: join(dir, 'ca'),
    socket: join(dir, 'ca.sock'),
    operatorSocket,
    trustDomain: 'cluster.local',
    svidTtlMs: 3_600_000,
    nodeTtlMs: 3_600_000,
    jwtTtlMs: 300_000,
    audience: 'handfast-ca',
    tokensAlone: false,
    onBundle: (bundlePem) => told.push(bundlePem),
    log,
    now: Date.now,
  });
  const roots = () => told.map((pem) => pem.match(/BEGIN CERTIFICATE/g)?.length);
  try {
    assert.deepEqual(roots(), [1]);
    await askOperator(operatorSocket, {
      method: 'POST',
      path: '/revocations',
      body: { spiffeId: 'spiffe://cluster.local/ns/foo/sa/sleep' },
    });
    assert.deepEqual(roots(), [1]);
    await askOperator(operatorSocket, { method: 'POST', path: '/root/prepare', body: {} });
    assert.deepEqual(roots(), [1, 2]);
  } finally {
    await ca.stop();
  }
});

test('nobody asks for it: nothing is published; a place that is none is refused, and so is one outside a cluster without --kube-server', () => {
  const at = { env: {}, log };
  assert.equal(publishedBundle(flags(undefined, undefined), at), undefined);
  for (const place of ['handfast-ca-root', 'a/b/c', '../x', 'ns/', 'ns/..%2f'])
    assert.throws(() => publishedBundle(flags(place, 'https://127.0.0.1:1'), at), { code: 'CONFIG_INVALID', message: /--publish-bundle/ });
  assert.throws(() => publishedBundle(flags('ns/name', undefined), at), { code: 'CONFIG_INVALID', message: /--kube-server/ });
});

test('an API server that cannot be reached keeps nobody from stopping', async () => {
  for (const name of ['ca.crt', 'token']) await writeFile(join(dir, name), 'x');
  const published = publishedBundle(flags('ns/name', `https://127.0.0.1:${await freePort()}`), { env: {}, log });
  assert.ok(published);
  published.replace('roots');
  published.replace('other roots');
  await published.stop();
});
