// Secrets where control is over the network: each workload asks in its own name, by its own certificate, and a node's agent has no word in it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type ServiceError, status } from '@grpc/grpc-js';
import { CaClient } from '../../src/ca/client.ts';
import { startControl } from '../../src/control/control.ts';
import { WORKLOAD_METADATA } from '../../src/discovery/secret-feed.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { createCsr } from '../../src/spiffe/csr.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import type { DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { bearerMetadata, channelOptions } from '../../src/wire/grpc.ts';
import { openStream, tlsTarget, unixTarget } from '../../src/wire/grpc-target.ts';
import { askOperator } from '../../src/wire/operator-client.ts';
import { ControlPlane, TRUST_DOMAIN } from '../support/control-plane.ts';
import { freePort } from '../support/free-port.ts';
import { Role } from '../support/handfast.ts';
import { askIdentity, GUARD } from '../support/identity-api.ts';
import { keyPair, keyPem } from '../support/pki.ts';
import { SECRET_TYPE } from '../support/sds-server.ts';
import { SecretSidecar, SecretsDir } from '../support/secrets.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

let records: RecordingLog;
let plane: ControlPlane;
let secrets: SecretsDir;
let addresses: { ca: string; control: string };
const at = (name: string) => join(plane.dir, name);

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  secrets = await SecretsDir.create(at('secrets'));
  await secrets.secret('db', { versions: { 7: { key: 'sesame' } }, current: '7' });
  await secrets.policy('a', { secrets: ['db'], recipients: { serviceAccounts: ['foo/a'] } });
  const ca = await plane.startCa({ listen: { host: '127.0.0.1', port: 0 }, tokensAlone: true, svidTtlMs: 10_000 });
  const root = await readFile(at('ca/root.pem'), 'utf8');
  await writeFile(at('bundle.pem'), root.slice(root.indexOf('-----BEGIN CERTIFICATE')));
  await writeFile(at('control-join'), await joinToken({ role: 'control' }));
  const node = {
    ca: `127.0.0.1:${ca.port}`,
    caKind: 'handfast' as const,
    trustDomain: TRUST_DOMAIN,
    trustBundleFile: at('bundle.pem'),
    caServerName: undefined,
    stateDir: at('control-state'),
    joinTokenFile: at('control-join'),
    log: plane.log,
    now: Date.now,
  };
  const control = await plane.startControl({
    listen: { host: '127.0.0.1', port: 0, node },
    servesSidecars: true,
    secrets: { from: { folder: secrets.path }, auditLog: at('audit.jsonl') },
  });
  addresses = { ca: node.ca, control: `127.0.0.1:${control.port}` };
});
afterEach(() => plane[Symbol.asyncDispose]());

async function joinToken(of: { role: 'agent' | 'control'; node?: string }): Promise<string> {
  return Object(await plane.ask('ca', 'POST', '/join-tokens', { ttlMs: 60_000, ...of })).token;
}

async function startNode(): Promise<void> {
  await writeFile(at('agent-join'), await joinToken({ role: 'agent', node: 'node-1' }));
  await plane.startAgent({
    ca: addresses.ca,
    controls: [addresses.control],
    trustBundleFile: at('bundle.pem'),
    joinTokenFile: at('agent-join'),
  });
}

const bundles = async () => trustBundles(parseTrustBundle(await readFile(at('bundle.pem'), 'utf8'), TRUST_DOMAIN));

/** What control says to somebody with this identity who asks for the secret, and says that he asks for `said`. */
async function askControl(identity: Identity, said?: string): Promise<DeltaDiscoveryResponse | ServiceError> {
  const known = await bundles();
  const target = tlsTarget({
    address: addresses.control,
    identity: () => identity,
    bundles: () => known,
    revocations: () => noRevocations,
    expected: { spiffeIds: [`spiffe://${TRUST_DOMAIN}/handfast/control`] },
    now: Date.now,
  });
  const metadata = bearerMetadata(undefined);
  if (said !== undefined) metadata.set(WORKLOAD_METADATA, said);
  const call = openStream(SecretDiscoveryServiceClient, { target, options: channelOptions }, (client) => client.deltaSecrets(metadata));
  try {
    return await new Promise((resolve) => {
      call.on('data', resolve).on('error', (error) => resolve(error as ServiceError));
      call.write({
        node: undefined,
        typeUrl: SECRET_TYPE,
        resourceNamesSubscribe: ['secret:foo/db'],
        resourceNamesUnsubscribe: [],
        initialResourceVersions: {},
        responseNonce: '',
        errorDetail: undefined,
      });
    });
  } finally {
    call.cancel();
  }
}

async function svidOf(name: string): Promise<Identity> {
  const keys = keyPair();
  const client = new CaClient(unixTarget(plane.address('ca')));
  try {
    const { chain } = await client.sign({ csr: createCsr(keys), token: await plane.token(name) });
    return { svid: parseX509Svid({ chain, key: keyPem(keys.privateKey) }), bundles: await bundles() };
  } finally {
    client.close();
  }
}

describe('over a node', () => {
  it('whoever-is-entitled-has-it-by-his-own-certificate-and-nobody-else', async () => {
    await startNode();
    await using a = await SecretSidecar.open(plane, 'a');
    await using b = await SecretSidecar.open(plane, 'b');
    assert.equal(await a.text('foo/db', 'key'), 'sesame');
    assert.equal((await b.ask('foo/db')).status, 404);
    assert.equal((await a.confirm('foo/db', '7')).status, 204);
    const holders = async () => Object(await plane.ask('control', 'POST', '/secrets', {})).secrets[0].holders;
    await eventually(async () => (await holders())[0]?.confirmed > 0);
    assert.deepEqual([(await holders())[0].node, (await holders())[0].pod], ['node-1', 'foo/a']);
    const handed = records.records.find(({ event }) => event === 'handed');
    assert.deepEqual([handed?.spiffeId, handed?.from], ['spiffe://cluster.local/ns/foo/sa/a', '127.0.0.1']);
  });

  it('the-stream-of-a-workload-ends-with-its-certificate-and-the-next-one-goes-on', async () => {
    await startNode();
    await using a = await SecretSidecar.open(plane, 'a');
    assert.equal(await a.text('foo/db', 'key'), 'sesame');
    const first = a.identity.current?.svid.serial;
    // A certificate lives for 10 s here, which is as long as one look waits.
    const ended = () => records.find(({ msg, stream }) => String(msg).startsWith('discovery stream ended') && stream === 'secrets');
    await ended().catch(ended);
    assert.notEqual(a.identity.current?.svid.serial, first);
    await secrets.secret('db', { versions: { 8: { key: 'next' } }, current: '8' });
    await eventually(async () => (await a.text('foo/db', 'key')) === 'next');
  });

  it('a-stolen-agent-is-handed-nothing-in-its-own-name-nor-in-that-of-a-workload-that-it-does-not-hold', async () => {
    await startNode();
    const pem = await readFile(at('agent/node.pem'), 'utf8');
    const key = /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----\n?/.exec(pem)?.[0] ?? '';
    const node: Identity = { svid: parseX509Svid({ chain: pem.replace(key, ''), key }), bundles: await bundles() };
    for (const said of [undefined, 'spiffe://cluster.local/ns/foo/sa/a']) {
      const answer = await askControl(node, said);
      assert.ok('code' in answer && answer.code === status.PERMISSION_DENIED);
    }
    // Nor has a workload's certificate the word of another.
    const other = await askControl(await svidOf('b'), 'spiffe://cluster.local/ns/foo/sa/a');
    assert.ok('removedResources' in other && other.resources.length === 0);
    const own = await askControl(await svidOf('a'));
    assert.ok('resources' in own && own.resources.length === 1);
  });
});

it('of-several-controls-another-one-takes-the-place-of-one-that-ends', async () => {
  const second = await startControl({
    objects: { directory: plane.configDir },
    socket: plane.socket('control-2'),
    operatorSocket: plane.socket('control-2-operator'),
    trustDomain: TRUST_DOMAIN,
    stateDir: undefined,
    secrets: { from: { folder: secrets.path } },
    log: plane.log,
    now: Date.now,
  });
  try {
    await plane.startAgent({ controls: [plane.address('control'), plane.address('control-2')] });
    await using a = await SecretSidecar.open(plane, 'a');
    assert.equal(await a.text('foo/db', 'key'), 'sesame');
    const of = async (name: string) =>
      Object(await askOperator(plane.socket(`${name}-operator`), { method: 'POST', path: '/secrets', body: {} })).secrets[0].holders.length;
    await eventually(async () => (await of('control')) === 1 && (await of('control-2')) === 1);
    await plane.control?.stop();
    plane.control = undefined;
    await secrets.secret('db', { versions: { 8: { key: 'next' } }, current: '8' });
    await eventually(async () => (await a.text('foo/db', 'key')) === 'next');
  } finally {
    await second.stop();
  }
});

it('without-an-agent-a-sidecar-asks-control-itself', async () => {
  const port = await freePort();
  await writeFile(at('a-token'), await plane.token('a'));
  await using sidecar = new Role(
    'proxy',
    `--agent=unix:${at('a.sock')}`,
    `--token-file=${at('a-token')}`,
    `--ca=${addresses.ca}`,
    `--control=${addresses.control}`,
    `--trust-bundle=${at('bundle.pem')}`,
    `--state=${at('a-state')}`,
    '--pod-name=a',
    '--pod-namespace=foo',
    `--identity-port=${port}`,
    '--secret=foo/db',
    ...['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((each) => `--${each}-port=0`),
  );
  await sidecar.said('sidecar listening');
  await eventually(async () => (await askIdentity(port, '/v1/secrets/foo/db')).status === 200);
  const holders = async () => Object(await plane.ask('control', 'POST', '/secrets', {})).secrets[0].holders;
  await eventually(async () => (await holders())[0]?.loaded > 0);
  const [{ spiffeId, pod }] = await holders();
  assert.deepEqual([spiffeId, pod], ['spiffe://cluster.local/ns/foo/sa/a', 'foo/a']);
  assert.equal((await askIdentity(port, '/v1/secrets/foo/other')).status, 404);
});

describe('a registered process without a sidecar', () => {
  const ask = (path: string, headers: Readonly<Record<string, string>> = GUARD) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const asked = request({ socketPath: plane.socket('identity'), path, headers, agent: false }, (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += String(chunk);
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      });
      asked.on('error', reject).end();
    });
  const register = async (name: string) => {
    await writeFile(at('process.token'), await plane.token(name));
    const spiffeId = `spiffe://cluster.local/ns/foo/sa/${name}`;
    await writeFile(
      at('workloads.yaml'),
      `workloads:\n  - { spiffeId: "${spiffeId}", tokenFile: ${at('process.token')}, selectors: { uid: ${process.getuid?.()} } }\n`,
    );
  };
  const startLocal = () => plane.startAgent({ workloadsFile: at('workloads.yaml'), identitySocket: plane.socket('identity') });

  it('has-the-secrets-of-its-workload-and-no-others', async () => {
    await register('a');
    await startLocal();
    const { status: code, text } = await ask('/v1/secrets/foo/db');
    assert.deepEqual([code, JSON.parse(text).version], [200, '7']);
    assert.equal((await ask('/v1/secrets/foo/db/data/key')).text, 'sesame');
    assert.equal((await ask('/v1/secrets/foo/other')).status, 404);
    assert.equal((await ask('/v1/secrets/foo/db', {})).status, 403);
    await register('b');
    await eventually(async () => (await ask('/v1/secrets/foo/db')).status === 404);
  });

  it('has-none-when-it-is-not-registered', async () => {
    await writeFile(at('workloads.yaml'), 'workloads: []\n');
    await startLocal();
    assert.equal((await ask('/v1/secrets/foo/db')).status, 403);
    await register('a');
    await eventually(async () => (await ask('/v1/secrets/foo/db')).status === 200);
  });
});
