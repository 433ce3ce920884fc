// CA, control and agent as they run in `handfast up`: a token gets its own identity and nothing else, rotation goes on, policy follows the files.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type ClientDuplexStream, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { CaClient } from '../../src/ca/client.ts';
import { createLocalToken } from '../../src/ca/local-token.ts';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { MeshSource, meshTypeUrls } from '../../src/discovery/mesh-source.ts';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { createCsr } from '../../src/spiffe/csr.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import type { DataSource } from '../../src/wire/gen/envoy/config/core/v3/base.ts';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { keyPair, keyPem } from '../support/pki.ts';
import { SECRET_TYPE } from '../support/sds-server.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const AUDIENCE = 'handfast-ca';
const pod = (name: string, ip: string) => `apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: foo, labels: {app: ${name}, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: ${name}}
status: {podIP: ${ip}}
`;

let plane: ControlPlane;
let records: RecordingLog;

const socket = (name: string) => plane.socket(name);
const token = (...of: Parameters<ControlPlane['token']>) => plane.token(...of);

before(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  await writeFile(join(plane.configDir, 'pods.yaml'), pod('sleep', '10.0.0.1'));
  await plane.start({ agent: { rotateEveryMs: 200 } });
});

after(async () => {
  await plane[Symbol.asyncDispose]();
});

/** A stream to the agent: its responses as they come, its error as a status. */
function openSds(bearer: string | undefined): {
  stream: ClientDuplexStream<DiscoveryRequest, DiscoveryResponse>;
  ask(names: string[]): void;
  close(): void;
} {
  const client = new SecretDiscoveryServiceClient(`unix:${socket('agent')}`, credentials.createInsecure());
  const metadata = new Metadata();
  if (bearer !== undefined) metadata.set('authorization', `Bearer ${bearer}`);
  const stream = client.streamSecrets(metadata);
  return {
    stream,
    ask: (resourceNames) =>
      stream.write({ versionInfo: '', node: undefined, resourceNames, typeUrl: SECRET_TYPE, responseNonce: '', errorDetail: undefined }),
    close: () => {
      stream.on('error', () => undefined);
      stream.cancel();
      client.close();
    },
  };
}

async function statusOf(bearer: string | undefined, names: string[]): Promise<ServiceError> {
  const { stream, ask, close } = openSds(bearer);
  stream.on('data', () => undefined);
  ask(names);
  const error = await new Promise<ServiceError>((resolve) => stream.once('error', (cause) => resolve(cause as ServiceError)));
  close();
  return error;
}

function certificateOf(response: DiscoveryResponse): { uri: string; serial: string; key: string } {
  const secret = Secret.decode(response.resources[0]?.value ?? Buffer.alloc(0));
  assert.equal(secret.type?.$case, 'tlsCertificate');
  if (secret.type?.$case !== 'tlsCertificate') throw new Error('unreachable');
  const pem = (source: DataSource | undefined) =>
    source?.specifier?.$case === 'inlineBytes' ? Buffer.from(source.specifier.value).toString() : '';
  const svid = parseX509Svid({ chain: pem(secret.type.value.certificateChain), key: pem(secret.type.value.privateKey) });
  return { uri: svid.id.uri, serial: svid.serial, key: svid.keyPem };
}

describe('SDS: a token gets its own identity', () => {
  it('the-identity-that-the-token-proves', async () => {
    const { stream, ask, close } = openSds(await token('sleep'));
    ask(['default']);
    const [response] = await once(stream, 'data');
    assert.equal(certificateOf(response).uri, 'spiffe://cluster.local/ns/foo/sa/sleep');
    close();
  });

  it('may-be-asked-for-by-its-spiffe-id', async () => {
    const { stream, ask, close } = openSds(await token('sleep'));
    ask(['spiffe://cluster.local/ns/foo/sa/sleep']);
    const [response] = await once(stream, 'data');
    assert.equal(certificateOf(response).uri, 'spiffe://cluster.local/ns/foo/sa/sleep');
    close();
  });

  it('another-identity-than-the-tokens-is-refused', async () => {
    const error = await statusOf(await token('sleep'), ['spiffe://cluster.local/ns/foo/sa/admin']);
    assert.equal(error.code, status.PERMISSION_DENIED);
    assert.match(error.details, /proves spiffe:\/\/cluster\.local\/ns\/foo\/sa\/sleep/);
  });

  const bad: readonly [string, () => Promise<string | undefined>][] = [
    ['no-token', async () => undefined],
    ['garbage', async () => 'garbage'],
    ['another-audience', async () => token('sleep', { audience: 'somebody-else' })],
    ['expired', async () => token('sleep', { ttlS: 10, now: Date.now() - 60_000 })],
    [
      'payload-of-another-identity-under-this-signature',
      async () => {
        const [mine = '', other = ''] = [await token('sleep'), await token('admin')];
        const [header, , signature] = mine.split('.');
        return `${header}.${other.split('.')[1]}.${signature}`;
      },
    ],
    [
      'signed-by-another-key',
      async () =>
        createLocalToken({
          namespace: 'foo',
          serviceAccount: 'sleep',
          audience: AUDIENCE,
          ttlS: 60,
          key: keyPair().privateKey,
          now: Date.now(),
        }),
    ],
  ];
  for (const [name, make] of bad) {
    it(`refused: ${name}`, async () => {
      const error = await statusOf(await make(), ['default']);
      assert.equal(error.code, status.UNAUTHENTICATED);
    });
  }

  it('refused-reasons-do-not-leave-the-ca', async () => {
    const error = await statusOf(await token('sleep', { audience: 'x' }), ['default']);
    assert.doesNotMatch(error.details, /audience/);
    assert.ok(await records.find((record) => String(record.reason).includes('audience')));
  });
});

describe('rotation', () => {
  it('certificates-and-keys-change-while-the-stream-stays', async () => {
    const { stream, ask, close } = openSds(await token('sleep'));
    const serials = new Set<string>();
    const keys = new Set<string>();
    ask(['default', 'ROOTCA']);
    for (let i = 0; i < 4; i++) {
      const [response] = await once(stream, 'data');
      assert.equal(response.resources.length, i === 0 ? 2 : 1, 'SVID and bundle in one response; later what has changed alone');
      const { serial, key } = certificateOf(response);
      serials.add(serial);
      keys.add(key);
      stream.write({
        versionInfo: response.versionInfo,
        node: undefined,
        resourceNames: ['default', 'ROOTCA'],
        typeUrl: SECRET_TYPE,
        responseNonce: response.nonce,
        errorDetail: undefined,
      });
    }
    assert.equal(serials.size, 4);
    assert.equal(keys.size, 4, 'a new key each time');
    close();
  });

  it('the-ca-away-and-back-is-survived', async () => {
    const { stream, ask, close } = openSds(await token('survivor'));
    ask(['default']);
    const [first] = await once(stream, 'data');
    await plane.stopCa();
    await records.find(
      (record) => record.msg?.startsWith('certificate not renewed') === true && String(record.spiffeId).endsWith('survivor'),
    );
    await plane.startCa();
    const seen = certificateOf(first).serial;
    for (;;) {
      const [next] = await once(stream, 'data');
      if (certificateOf(next).serial !== seen) break;
    }
    close();
  });

  it('no-key-is-ever-on-disk-but-the-cas-own', async () => {
    const files = (await readdir(plane.dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
    const holding: string[] = [];
    for (const entry of files) {
      const path = join(entry.parentPath, entry.name);
      if ((await readFile(path, 'utf8')).includes('PRIVATE KEY')) holding.push(entry.name);
    }
    assert.deepEqual(holding.sort(), ['intermediate.pem', 'jwt-keys.json', 'root.pem', 'token-signing.pem']);
    for (const name of holding) assert.equal((await stat(join(plane.dir, 'ca', name))).mode & 0o777, 0o600);
  });
});

describe('the CA: identity comes from the token, never from the CSR', () => {
  const ca = () => new CaClient(unixTarget(`unix:${socket('ca')}`));

  it('csr-without-a-name-gets-the-tokens-identity', async () => {
    const client = ca();
    const keys = keyPair();
    const { chain } = await client.sign({ csr: createCsr(keys), token: await token('sleep') });
    assert.equal(parseX509Svid({ chain, key: keyPem(keys.privateKey) }).id.uri, 'spiffe://cluster.local/ns/foo/sa/sleep');
    client.close();
  });

  it('csr-that-asks-for-the-tokens-identity-gets-it', async () => {
    const client = ca();
    const keys = keyPair();
    const { chain } = await client.sign({
      csr: createCsr(keys, parseSpiffeId('spiffe://cluster.local/ns/foo/sa/sleep')),
      token: await token('sleep'),
    });
    assert.equal(parseX509Svid({ chain, key: keyPem(keys.privateKey) }).id.uri, 'spiffe://cluster.local/ns/foo/sa/sleep');
    client.close();
  });

  it('csr-that-asks-for-another-id-is-refused', async () => {
    const client = ca();
    const csr = createCsr(keyPair(), parseSpiffeId('spiffe://cluster.local/ns/foo/sa/admin'));
    await assert.rejects(client.sign({ csr, token: await token('sleep') }), { code: 'IDENTITY_MISMATCH' });
    client.close();
  });

  it('csr-whose-sender-does-not-hold-the-key-is-refused', async () => {
    const client = ca();
    const csr = createCsr({ publicKey: keyPair().publicKey, privateKey: keyPair().privateKey });
    await assert.rejects(client.sign({ csr, token: await token('sleep') }), { code: 'CSR_REFUSED' });
    client.close();
  });
});

describe('discovery through the agent', () => {
  it('edits-reach-a-proxy-and-bad-edits-do-not', async () => {
    const mesh = new Snapshot<MeshSnapshot>();
    const source = new MeshSource(mesh);
    const stop = new AbortController();
    const running = runDeltaAdsClient({
      target: unixTarget(`unix:${socket('agent')}`),
      nodeId: 'test',
      token: new Snapshot(await token('sleep')),
      typeUrls: meshTypeUrls,
      apply: (typeUrl, change) => source.apply(typeUrl, change),
      log: records.log,
      signal: stop.signal,
    });
    const next = () =>
      new Promise<MeshSnapshot>((resolve) => {
        const unsubscribe = mesh.subscribe((snapshot) => {
          unsubscribe();
          resolve(snapshot);
        });
      });
    const first = mesh.current ?? (await next());
    assert.ok(first.registry.workload('foo', 'sleep'));
    assert.equal(first.registry.workload('foo', 'httpbin'), undefined);

    const write = async (text: string) => {
      await writeFile(join(plane.dir, 'config/.new'), text);
      await rename(join(plane.dir, 'config/.new'), join(plane.dir, 'config/pods.yaml'));
    };
    await write(`${pod('sleep', '10.0.0.1')}---\nkind: Pod\napiVersion: v1\nmetadata: {name: x}\nspeck: {}\n`);
    const refused = await records.find((record) => record.msg?.startsWith('configuration refused') === true);
    assert.match(
      String((refused.problems as string[])[0]),
      /pods\.yaml:\d+: unknown field speck; accepted: apiVersion, kind, metadata, spec, status/,
    );
    assert.equal(mesh.current, first, 'the last good policy stays in force');

    const updated = next();
    await write(`${pod('sleep', '10.0.0.1')}---\n${pod('httpbin', '10.0.0.2')}`);
    assert.ok((await updated).registry.workload('foo', 'httpbin'));
    stop.abort();
    await running;
  });

  it('a-stream-without-a-token-gets-nothing', async () => {
    const stop = new AbortController();
    const quiet = new RecordingLog();
    let applied = false;
    const running = runDeltaAdsClient({
      target: unixTarget(`unix:${socket('agent')}`),
      nodeId: 'test',
      token: undefined,
      typeUrls: meshTypeUrls,
      apply: () => {
        applied = true;
      },
      log: quiet.log,
      signal: stop.signal,
    });
    const ended = await quiet.find((record) => record.msg?.startsWith('discovery stream ended') === true);
    assert.match(String(ended.reason), /UNAUTHENTICATED/);
    assert.equal(applied, false);
    stop.abort();
    await running;
  });
});
