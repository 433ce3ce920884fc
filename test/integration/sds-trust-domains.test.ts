// Several trust domains at once, as SPIRE sends them: each vouches for its own members alone, on both sides of a connection; and what cannot be
// used leaves the last good state in force.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { runIdentityStreams } from '../../src/discovery/identity-streams.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import { clientContext } from '../../src/tls/context.ts';
import type { DataSource } from '../../src/wire/gen/envoy/config/core/v3/base.ts';
import { type Secret, SPIFFECertValidatorConfig } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { TestCa } from '../support/pki.ts';
import { bundleSecret, bytes, ScriptedSds, tlsSecret } from '../support/sds-server.ts';
import { Application, collect, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const [A, B, C] = ['a.example', 'b.example', 'c.example'] as const;
const ID = `spiffe://${A}/ns/foo/sa/httpbin`;
const VALIDATOR = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig';

let dir: string;
let a: TestCa;
let b: TestCa;
let c: TestCa;
let application: Application;
let sds: ScriptedSds;
/** Has its identity from SDS, and stands on both sides: peers call it, and it calls them. */
let sidecar: RunningSidecar;
let peer: RunningSidecar;
let stop: AbortController;
let running: Promise<void>;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-domains-'));
  [a, b, c] = [await TestCa.create(A), await TestCa.create(B), await TestCa.create(C)];
  application = await Application.start();
});

after(async () => {
  await application[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

beforeEach(async () => {
  sds = await ScriptedSds.start(join(dir, 'sds.sock'));
  sidecar = await startSidecar({ namespace: 'foo', name: 'httpbin' });
  peer = await startSidecar({ namespace: 'foo', name: 'peer' });
  stop = new AbortController();
  running = runIdentityStreams({
    target: unixTarget(`unix:${join(dir, 'sds.sock')}`),
    nodeId: 'test',
    token: undefined,
    names: { svid: 'default', bundle: 'ALL' },
    crl: undefined,
    identity: sidecar.identity,
    revocations: sidecar.revocations,
    prove: clientContext,
    log: sidecar.records.log,
    now: Date.now,
    signal: stop.signal,
  });
});

afterEach(async () => {
  stop.abort();
  await running;
  await sds[Symbol.asyncDispose]();
  await sidecar[Symbol.asyncDispose]();
  await peer[Symbol.asyncDispose]();
});

function validator(domains: readonly { name: string; trustBundle: string | DataSource | undefined }[]): Secret {
  const trustDomains = domains.map(({ name, trustBundle }) => ({
    name,
    trustBundle: typeof trustBundle === 'string' ? bytes(trustBundle) : trustBundle,
  }));
  const typedConfig = { typeUrl: VALIDATOR, value: Buffer.from(SPIFFECertValidatorConfig.encode({ trustDomains }).finish()) };
  return custom(typedConfig);
}

function custom(typedConfig: { typeUrl: string; value: Buffer } | undefined, trustedCa?: ReturnType<typeof bytes>): Secret {
  const customValidatorConfig = { name: 'envoy.tls.cert_validator.spiffe', typedConfig };
  return { name: 'ALL', type: { $case: 'validationContext', value: { trustedCa, crl: undefined, customValidatorConfig } } };
}

const of = (...cas: readonly TestCa[]) => validator(cas.map(({ trustDomain: name, rootPem }) => ({ name, trustBundle: rootPem })));
const ack = async (secrets: readonly Secret[]) => {
  const { errorDetail } = await sds.push(secrets);
  assert.equal(errorDetail, undefined, errorDetail?.message);
};

/** Both sidecars call each other; what came back, and what the one under test says of it. */
async function call(direction: 'inbound' | 'outbound', identity: Identity): Promise<{ text: string; code: unknown; reason: string }> {
  peer.identity.replace(identity);
  const trustDomain = identity.svid.id.trustDomain;
  const mesh = (server: string) =>
    meshOf({
      workloads: [
        { namespace: 'foo', name: 'httpbin', trustDomain: A, ...(server === 'httpbin' ? { addresses: ['127.0.0.1'] } : {}) },
        { namespace: 'foo', name: 'peer', trustDomain, ...(server === 'peer' ? { addresses: ['127.0.0.1'] } : {}) },
      ],
    });
  const [client, server] = direction === 'inbound' ? [peer, sidecar] : [sidecar, peer];
  for (const one of [client, server]) one.mesh.replace(mesh(direction === 'inbound' ? 'httpbin' : 'peer'));
  server.destination = application.endpoint;
  client.destination = { address: '127.0.0.1', port: server.sidecar.ports.inbound };
  const socket = connect(client.sidecar.ports.outbound, '127.0.0.1');
  socket.write('hello');
  socket.once('data', () => socket.end());
  const { text } = await collect(socket);
  const record = await sidecar.records.connection(direction);
  await client.settled();
  await server.settled();
  return { text, code: record.code, reason: String(record.reason ?? '') };
}

/** Of the peer: it trusts the sidecar's trust domain, whatever it is itself. */
async function trusting(signer: TestCa, trustDomain = signer.trustDomain): Promise<Identity> {
  const svid = parseX509Svid(await signer.svid(`spiffe://${trustDomain}/ns/foo/sa/peer`));
  const own =
    trustDomain === A
      ? parseTrustBundle(a.rootPem + (signer === a ? '' : signer.rootPem), A)
      : parseTrustBundle(signer.rootPem, trustDomain);
  return { svid, bundles: trustBundles(own, trustDomain === A ? [] : [parseTrustBundle(a.rootPem, A)]) };
}

const directions = ['inbound', 'outbound'] as const;

describe('peers of several trust domains', () => {
  beforeEach(async () => {
    await ack([tlsSecret(await a.svid(ID)), of(a, b)]);
  });

  for (const direction of directions) {
    it(`${direction}: one-of-each-is-accepted-by-its-intermediate`, async () => {
      // The bundles have roots alone: the intermediate that the peer sends is what its chain stands on (nodejs/node#65579).
      assert.equal((await call(direction, await trusting(a))).text, 'hello');
      assert.equal((await call(direction, await trusting(b))).text, 'hello');
    });

    it(`${direction}: a-certificate-of-a-signed-by-b-is-refused`, async () => {
      const { text, code, reason } = await call(direction, await trusting(b, A));
      assert.equal(text, '');
      assert.equal(code, 'CHAIN_UNTRUSTED');
      assert.match(reason, /does not chain to the bundle of a\.example/);
    });

    it(`${direction}: an-unknown-trust-domain-that-b-vouches-for-is-refused`, async () => {
      const { text, code } = await call(direction, await trusting(b, C));
      assert.equal(text, '');
      assert.equal(code, 'TRUST_DOMAIN_UNKNOWN');
    });

    it(`${direction}: a-stranger-of-an-unknown-root-is-refused`, async () => {
      const { text, code } = await call(direction, await trusting(c));
      assert.equal(text, '');
      assert.equal(code, 'CHAIN_UNTRUSTED');
    });

    it(`${direction}: a-bundle-without-b-ends-its-new-handshakes`, async () => {
      assert.equal((await call(direction, await trusting(b))).text, 'hello');
      await ack([of(a)]);
      const { text, code } = await call(direction, await trusting(b));
      assert.equal(text, '');
      assert.equal(code, 'CHAIN_UNTRUSTED');
      assert.equal((await call(direction, await trusting(a))).text, 'hello');
    });
  }

  it('b-is-dropped-also-while-an-svid-waits-for-its-root', async () => {
    const next = await TestCa.create(A);
    await ack([tlsSecret(await next.svid(ID))]);
    await ack([of(a)]);
    assert.equal((await call('inbound', await trusting(b))).code, 'CHAIN_UNTRUSTED');
    await ack([of(next)]);
    assert.equal(sidecar.identity.current?.bundles.own.pem, next.rootPem);
  });
});

describe('what cannot be used is refused, and the last good state stays', () => {
  const filename = (value: string) => ({ specifier: { $case: 'filename' as const, value } });
  const domain = (name: string, trustBundle: string | DataSource | undefined) => ({ name, trustBundle });
  const cases: readonly [string, () => Secret, RegExp][] = [
    [
      'both-trusted-ca-and-validator',
      () => custom({ typeUrl: VALIDATOR, value: Buffer.alloc(0) }, bytes(a.rootPem)),
      /both trusted_ca and custom_validator_config/,
    ],
    [
      'neither',
      () => ({
        name: 'ALL',
        type: { $case: 'validationContext', value: { trustedCa: undefined, crl: undefined, customValidatorConfig: undefined } },
      }),
      /trusted_ca is missing/,
    ],
    ['an-empty-validator', () => validator([]), /names no trust domain/],
    ['a-validator-without-config', () => custom(undefined), /is nothing, not SPIFFECertValidatorConfig/],
    [
      'a-validator-of-another-kind',
      () => custom({ typeUrl: 'type.googleapis.com/other.Validator', value: Buffer.alloc(0) }),
      /is type\.googleapis\.com\/other\.Validator/,
    ],
    ['a-validator-that-is-no-protobuf', () => custom({ typeUrl: VALIDATOR, value: Buffer.from('ffffffff', 'hex') }), /./],
    ['a-trust-domain-twice', () => validator([domain(A, a.rootPem), domain(A, a.rootPem)]), /a\.example twice/],
    ['a-bad-trust-domain', () => validator([domain('Not A Domain', a.rootPem)]), /Not A Domain/],
    ['a-trust-domain-as-an-id', () => validator([domain(`spiffe://${A}`, a.rootPem)]), /spiffe:\/\/a\.example/],
    ['a-file-name', () => validator([domain(A, filename('/etc/passwd'))]), /trust_bundle of a\.example must be inline/],
    ['a-trust-domain-without-a-bundle', () => validator([domain(A, undefined)]), /trust_bundle of a\.example is missing/],
    ['one-bad-bundle-among-good-ones', () => validator([domain(A, a.rootPem), domain(B, 'nonsense')]), /no PEM certificate/],
    [
      '101-trust-domains',
      () => validator(Array.from({ length: 101 }, (_, index) => domain(`td${index}`, a.rootPem))),
      /101 trust domains, at most 100/,
    ],
    ['101-certificates', () => validator([domain(A, a.rootPem.repeat(101))]), /101 certificates, at most 100/],
    ['two-megabytes', () => validator([domain(A, a.rootPem + '#'.repeat(2 * 1024 * 1024))]), /at most 1048576/],
    ['two-megabytes-of-armour', () => validator([domain(A, '-----BEGIN CERTIFICATE-----'.repeat(30_000))]), /no PEM certificate/],
  ];
  for (const [name, make, reason] of cases) {
    it(name, async () => {
      await ack([tlsSecret(await a.svid(ID)), of(a, b)]);
      const good = sidecar.identity.current;
      const { errorDetail, versionInfo } = await sds.push([make()]);
      assert.match(errorDetail?.message ?? 'ACK', reason);
      assert.equal(versionInfo, 'version-1');
      assert.equal(sidecar.identity.current, good);
      await ack([of(a)]);
      assert.equal(sidecar.identity.current?.bundles.all.length, 1);
    });
  }

  it('also-before-there-is-a-certificate', async () => {
    const { errorDetail } = await sds.push([validator(Array.from({ length: 101 }, (_, index) => domain(`td${index}`, a.rootPem)))]);
    assert.match(errorDetail?.message ?? 'ACK', /101 trust domains/);
    await ack([of(a)]);
    await ack([tlsSecret(await a.svid(ID))]);
    assert.equal(sidecar.identity.current?.svid.id.uri, ID);
  });

  it('a-bundle-under-its-own-name-is-a-trusted-ca-too', async () => {
    await ack([tlsSecret(await a.svid(ID)), { ...bundleSecret(a.rootPem), name: 'ALL' }]);
    assert.deepEqual(
      sidecar.identity.current?.bundles.all.map(({ trustDomain }) => trustDomain),
      [A],
    );
  });
});
