// The sidecar's side of SDS: what cannot be used is refused with a NACK that says why, and traffic goes on with the last good pair.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { IdentitySource } from '../../src/discovery/identity-source.ts';
import { runSdsClient } from '../../src/discovery/sds-client.ts';
import { clientContext } from '../../src/tls/context.ts';
import type { DiscoveryRequest } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { keyPair, keyPem, type Pem, TestCa } from '../support/pki.ts';
import { bundleSecret, ScriptedSds, tlsSecret } from '../support/sds-server.ts';
import { Application, collect, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const ID = 'spiffe://cluster.local/ns/bar/sa/httpbin';

let dir: string;
let ca: TestCa;
let good: Pem;
let application: Application;
let sds: ScriptedSds;
let sidecar: RunningSidecar;
let stop: AbortController;
let running: Promise<void>;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-sds-'));
  ca = await TestCa.create();
  application = await Application.start();
});

after(async () => {
  await application[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

beforeEach(async () => {
  good = await ca.svid(ID);
  sds = await ScriptedSds.start(join(dir, 'sds.sock'));
  sidecar = await startSidecar({ namespace: 'bar', name: 'httpbin' });
  sidecar.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin' }] }));
  sidecar.destination = application.endpoint;
  stop = new AbortController();
  const source = new IdentitySource({ identity: sidecar.identity, prove: clientContext, log: sidecar.records.log, now: Date.now });
  running = runSdsClient({
    target: unixTarget(`unix:${join(dir, 'sds.sock')}`),
    nodeId: 'test',
    token: undefined,
    resourceNames: ['default', 'ROOTCA'],
    accept: (secrets) => source.accept(secrets),
    log: sidecar.records.log,
    signal: stop.signal,
  });
});

afterEach(async () => {
  stop.abort();
  await running;
  await sds[Symbol.asyncDispose]();
  await sidecar[Symbol.asyncDispose]();
});

/** The serial that a client of the sidecar sees, after a round trip to the application. */
async function serialSeen(): Promise<string> {
  const client = await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep');
  const socket = tlsConnect({
    port: sidecar.sidecar.ports.inbound,
    host: '127.0.0.1',
    ca: ca.rootPem,
    cert: client.chain,
    key: client.key,
    ALPNProtocols: ['istio'],
    checkServerIdentity: () => undefined,
  });
  let serial = '';
  socket.on('secureConnect', () => {
    serial = socket.getPeerX509Certificate()?.serialNumber ?? '';
    socket.end('hello');
  });
  assert.equal((await collect(socket)).text, 'hello');
  return serial;
}

const ready = async () => {
  const response = await fetch(`http://127.0.0.1:${sidecar.sidecar.ports.readiness}/healthz/ready`);
  return { status: response.status, text: await response.text() };
};

function assertAck(answer: DiscoveryRequest): void {
  assert.equal(answer.errorDetail, undefined, answer.errorDetail?.message);
}

describe('a good pair', () => {
  it('subscribes-to-default-and-rootca-and-becomes-ready-with-both', async () => {
    const first = await sds.subscribed();
    assert.deepEqual(first.resourceNames, ['default', 'ROOTCA']);
    assert.equal((await ready()).status, 503);
    assertAck(await sds.push([tlsSecret(good)]));
    assert.equal((await ready()).status, 503, 'half a pair is no identity');
    const answer = await sds.push([bundleSecret(ca.rootPem)]);
    assertAck(answer);
    assert.equal(answer.versionInfo, 'version-2');
    assert.deepEqual(await ready(), { status: 200, text: 'ready\n' });
    await serialSeen();
  });

  it('bundle-first-works-as-well', async () => {
    assertAck(await sds.push([bundleSecret(ca.rootPem)]));
    assertAck(await sds.push([tlsSecret(good)]));
    assert.equal((await ready()).status, 200);
  });

  it('new-root-and-new-svid-are-published-together', async () => {
    await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)]);
    const next = await TestCa.create();
    const before = sidecar.identity.current;
    assertAck(await sds.push([tlsSecret(await next.svid(ID))]));
    assert.equal(sidecar.identity.current, before, 'an SVID that does not chain to the bundle waits for its bundle');
    assertAck(await sds.push([bundleSecret(next.rootPem)]));
    assert.notEqual(sidecar.identity.current, before);
    assert.equal(sidecar.identity.current?.bundles.own.pem.trim(), next.rootPem.trim());
  });

  it('duplicate-answers-change-nothing', async () => {
    await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)]);
    const before = sidecar.identity.current;
    assertAck(await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)]));
    assert.equal(sidecar.identity.current, before);
  });
});

describe('what cannot be used', () => {
  const encrypted = () => {
    const { privateKey } = keyPair();
    return privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' }).toString();
  };
  const legacyEncrypted = () =>
    execFileSync('openssl', ['ec', '-aes256', '-passout', 'pass:x'], {
      input: keyPem(keyPair().privateKey),
      stdio: ['pipe', 'pipe', 'ignore'],
    }).toString();

  // Everything about it is right but its size, which OpenSSL refuses only when it is put to use.
  const weakRsa = async (): Promise<Pem> => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 1024 });
    return { chain: await ca.chainFor(ID, publicKey), key: keyPem(privateKey) };
  };
  const cases: readonly [string, () => Promise<Parameters<ScriptedSds['push']>[0]> | Parameters<ScriptedSds['push']>[0], RegExp][] = [
    ['mismatched-key', () => [tlsSecret({ chain: good.chain, key: keyPem(keyPair().privateKey) })], /does not belong/],
    ['empty-chain', () => [tlsSecret({ chain: '', key: good.key })], /chain is empty/],
    ['chain-missing', () => [tlsSecret({ key: good.key })], /certificate_chain is missing/],
    ['encrypted-key', () => [tlsSecret({ chain: good.chain, key: encrypted() })], /encrypted/],
    ['encrypted-key-of-the-old-style', () => [tlsSecret({ chain: good.chain, key: legacyEncrypted() })], /encrypted/],
    ['half-secret-without-a-key', () => [tlsSecret({ chain: good.chain })], /private_key is missing/],
    ['key-that-is-no-key', () => [tlsSecret({ chain: good.chain, key: 'hello' })], /private key is missing/],
    [
      'certificate-that-is-no-certificate',
      () => [tlsSecret({ chain: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', key: good.key })],
      /not a readable certificate/,
    ],
    ['leaf-without-a-spiffe-id', async () => [tlsSecret(await ca.badLeaf({ uris: [] }))], /not an X.509-SVID/],
    [
      'expired-certificate',
      async () => [tlsSecret(await ca.svid(ID, { notBefore: Date.now() - 9e6, notAfter: Date.now() - 1e6 }))],
      /expired/,
    ],
    ['key-that-tls-finds-too-small', async () => [tlsSecret(await weakRsa())], /TLS cannot use the certificate: .*key too small/],
    [
      'certificate-of-tomorrow',
      async () => [tlsSecret(await ca.svid(ID, { notBefore: Date.now() + 6e5, notAfter: Date.now() + 9e6 }))],
      /not valid before/,
    ],
    ['empty-bundle', () => [bundleSecret('')], /no PEM certificate/],
    ['bundle-with-a-leaf-in-it', () => [bundleSecret(good.chain)], /not a CA certificate/],
    [
      'good-svid-with-a-bad-bundle-in-one-response',
      async () => [tlsSecret(await ca.svid(ID)), bundleSecret('nonsense')],
      /no PEM certificate/,
    ],
    ['secret-nobody-asked-for', () => [{ ...tlsSecret(good), name: 'somebody-else' }], /was not asked for/],
    ['bundle-under-the-name-of-the-svid', () => [{ ...bundleSecret(ca.rootPem), name: 'default' }], /must be a tls_certificate/],
    [
      'file-name-instead-of-bytes',
      () => [
        {
          name: 'ROOTCA',
          type: {
            $case: 'validationContext',
            value: {
              trustedCa: { specifier: { $case: 'filename', value: '/etc/passwd' } },
              crl: undefined,
              customValidatorConfig: undefined,
            },
          },
        },
      ],
      /must be inline/,
    ],
  ];
  for (const [name, make, reason] of cases) {
    it(`${name}-is-refused-and-the-old-pair-stays`, async () => {
      assertAck(await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)]));
      const serial = await serialSeen();
      const answer = await sds.push(await make());
      assert.match(answer.errorDetail?.message ?? 'ACK', reason);
      assert.equal(answer.versionInfo, 'version-1', 'a NACK names the version that stays in force');
      assert.equal(await serialSeen(), serial);
      assert.equal((await ready()).status, 200);
    });
  }

  it('wrong-type-is-refused', async () => {
    const answer = await sds.push([tlsSecret(good)], 'type.googleapis.com/something.Else');
    assert.match(answer.errorDetail?.message ?? 'ACK', /something.Else/);
  });
});

describe('the SDS server goes away', () => {
  it('traffic-goes-on-and-the-stream-comes-back', async () => {
    assertAck(await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)]));
    const serial = await serialSeen();
    await sds[Symbol.asyncDispose]();
    const ended = await sidecar.records.find((record) => record.msg?.startsWith('discovery stream ended') === true);
    assert.ok(Number(ended.retryInMs) >= 100, 'waits before it comes back');
    assert.equal(await serialSeen(), serial);
    assert.equal((await ready()).status, 200);

    sds = await ScriptedSds.start(join(dir, 'sds.sock'));
    const again = await sds.subscribed();
    assert.equal(again.versionInfo, 'version-1', 'tells the new server what it holds');
    const next = await ca.svid(ID);
    assertAck(await sds.push([tlsSecret(next)]));
    assert.notEqual(await serialSeen(), serial);
  });

  it('readiness-turns-false-only-when-the-certificate-expires', async () => {
    const short = await ca.svid(ID, { notBefore: Date.now() - 60_000, notAfter: Date.now() + 3_000 });
    assertAck(await sds.push([tlsSecret(short), bundleSecret(ca.rootPem)]));
    await sds[Symbol.asyncDispose]();
    const notAfter = sidecar.identity.current?.svid.notAfter ?? 0;
    for (;;) {
      const before = Date.now();
      const { status, text } = await ready();
      if (status === 503) {
        assert.ok(Date.now() > notAfter, 'not before it expired');
        assert.match(text, /expired/);
        break;
      }
      assert.ok(before <= notAfter, 'still ready after it expired');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const socket = connect(sidecar.sidecar.ports.inbound, '127.0.0.1');
    socket.write(Buffer.from('16030100', 'hex'));
    socket.destroy();
  });
});
