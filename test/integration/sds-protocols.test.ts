// SDS servers of every temper, in both protocols: whatever order, repetition, gap or end they choose, the sidecar holds the last good pair. And a
// revocation list has a stream of its own.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { ServerCredentials } from '@grpc/grpc-js';
import { sdsSource } from '../../src/commands/sds-source.ts';
import { runIdentityStreams } from '../../src/discovery/identity-streams.ts';
import { parseProxyConfig } from '../../src/proxy/config.ts';
import { clientContext } from '../../src/tls/context.ts';
import type { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { type GrpcTarget, unixTarget } from '../../src/wire/grpc-target.ts';
import { type Pem, TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';
import { bundleSecret, bytes, ScriptedSds, tlsSecret } from '../support/sds-server.ts';
import { type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const ID = 'spiffe://cluster.local/ns/bar/sa/httpbin';
const SERVER = 'spiffe://cluster.local/sds';

let dir: string;
let ca: TestCa;
let good: Pem;
let sidecar: RunningSidecar;
let stop: AbortController;
let running: Promise<void>[];
const servers: ScriptedSds[] = [];

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-protocols-'));
  ca = await TestCa.create();
});

after(() => rm(dir, { recursive: true }));

beforeEach(async () => {
  good = await ca.svid(ID);
  sidecar = await startSidecar({ namespace: 'bar', name: 'httpbin', awaitRevocations: true });
  stop = new AbortController();
  running = [];
});

afterEach(async () => {
  stop.abort();
  await Promise.all(running);
  for (const server of servers.splice(0)) await server[Symbol.asyncDispose]();
  await sidecar[Symbol.asyncDispose]();
});

async function serve(of: Parameters<typeof ScriptedSds.start>[1] = {}): Promise<ScriptedSds> {
  const server = await ScriptedSds.start(join(dir, 'sds.sock'), of);
  servers.push(server);
  return server;
}

function follow(of: { protocol?: 'delta' | 'state-of-the-world'; target?: GrpcTarget; crl?: string } = {}): void {
  running.push(
    runIdentityStreams({
      target: of.target ?? unixTarget(`unix:${join(dir, 'sds.sock')}`),
      nodeId: 'test',
      token: undefined,
      protocol: of.protocol ?? 'state-of-the-world',
      crl: of.crl,
      identity: sidecar.identity,
      revocations: sidecar.revocations,
      prove: clientContext,
      log: sidecar.records.log,
      now: Date.now,
      signal: stop.signal,
    }),
  );
}

const serial = () => sidecar.identity.current?.svid.serial;
const ended = (count: number) =>
  sidecar.records.quiet(
    () => sidecar.records.records.filter(({ msg }) => msg?.startsWith('discovery stream ended') === true).length >= count,
  );
const serialsInForce = () => sidecar.records.records.filter(({ msg }) => msg === 'identity in force').length;

for (const protocol of ['state-of-the-world', 'delta'] as const) {
  const push = (sds: ScriptedSds, secrets: readonly Secret[]) => (protocol === 'delta' ? sds.pushDelta(secrets) : sds.push(secrets));
  const ack = async (sds: ScriptedSds, secrets: readonly Secret[]) => {
    const { errorDetail } = await push(sds, secrets);
    assert.equal(errorDetail, undefined, errorDetail?.message);
  };

  describe(protocol, () => {
    let sds: ScriptedSds;
    beforeEach(async () => {
      sds = await serve();
      follow({ protocol });
    });

    it('either-order-in-responses-of-their-own', async () => {
      await ack(sds, [bundleSecret(ca.rootPem)]);
      assert.equal(serial(), undefined);
      await ack(sds, [tlsSecret(good)]);
      const first = serial();
      assert.notEqual(first, undefined);
      const next = await TestCa.create();
      await ack(sds, [tlsSecret(await next.svid(ID))]);
      assert.equal(serial(), first, 'waits for its bundle');
      await ack(sds, [bundleSecret(next.rootPem)]);
      assert.notEqual(serial(), first);
    });

    it('nothing-and-the-same-again-change-nothing', async () => {
      await ack(sds, [tlsSecret(good), bundleSecret(ca.rootPem)]);
      const before = sidecar.identity.current;
      await ack(sds, []);
      await ack(sds, [bundleSecret(ca.rootPem)]);
      await ack(sds, [tlsSecret(good), tlsSecret(good)]);
      assert.equal(sidecar.identity.current, before);
    });

    it('one-name-with-two-contents-is-refused', async () => {
      await ack(sds, [tlsSecret(good), bundleSecret(ca.rootPem)]);
      const before = sidecar.identity.current;
      const { errorDetail } = await push(sds, [tlsSecret(await ca.svid(ID)), tlsSecret(await ca.svid(ID))]);
      assert.match(errorDetail?.message ?? 'ACK', /twice in one response, with different contents/);
      assert.equal(sidecar.identity.current, before);
    });

    it('a-renewed-certificate-under-the-old-serial-is-taken', async () => {
      const validity = { notBefore: Date.now() - 60_000, notAfter: Date.now() + 3_600_000 };
      await ack(sds, [tlsSecret(await ca.svid(ID, validity, Buffer.of(1))), bundleSecret(ca.rootPem)]);
      const before = sidecar.identity.current;
      await ack(sds, [tlsSecret(await ca.svid(ID, validity, Buffer.of(1)))]);
      assert.notEqual(sidecar.identity.current, before);
    });

    it('a-server-that-ends-after-each-word-is-asked-ever-more-seldom-and-nothing-is-lost', async () => {
      await ack(sds, [tlsSecret(good), bundleSecret(ca.rootPem)]);
      for (let i = 1; i <= 3; i++) {
        sds.endStreams();
        await ended(i);
        await sds.opened(i + 1);
        await ack(sds, [tlsSecret(await ca.svid(ID))]);
      }
      const waits = sidecar.records.records.flatMap(({ msg, retryInMs }) =>
        msg?.startsWith('discovery stream ended') === true ? [Number(retryInMs)] : [],
      );
      const [first = 0, , third = 0] = waits;
      assert.ok(third >= 2 * first * 0.99, `back-off grows: ${waits}`);
      assert.equal(serialsInForce(), 4);
    });

    it('a-restarted-server-with-nonces-and-versions-of-its-own', async () => {
      await ack(sds, [tlsSecret(good), bundleSecret(ca.rootPem)]);
      await servers.pop()?.[Symbol.asyncDispose]();
      await ended(1);
      const again = await serve({ space: 'another-' });
      if (protocol === 'delta') {
        const { initialResourceVersions, responseNonce } = await again.subscribedDelta();
        assert.deepEqual(Object.keys(initialResourceVersions).sort(), ['ROOTCA', 'default']);
        assert.equal(responseNonce, '');
      } else
        assert.deepEqual((({ versionInfo, responseNonce }) => [versionInfo, responseNonce])(await again.subscribed()), ['version-1', '']);
      const before = serial();
      await ack(again, [tlsSecret(await ca.svid(ID))]);
      assert.notEqual(serial(), before);
    });
  });
}

describe('delta alone', () => {
  it('withdrawn-secrets-stay-in-force-and-may-come-again', async () => {
    const sds = await serve();
    follow({ protocol: 'delta' });
    await sds.pushDelta([tlsSecret(good), bundleSecret(ca.rootPem)]);
    const before = sidecar.identity.current;
    assert.equal((await sds.pushDelta([], ['default', 'ROOTCA'])).errorDetail, undefined);
    assert.equal(sidecar.identity.current, before);
    await sidecar.records.find(({ msg }) => msg?.includes('withdrew') === true);
    assert.equal((await sds.pushDelta([tlsSecret(await ca.svid(ID))])).errorDetail, undefined);
    assert.notEqual(sidecar.identity.current, before);
  });

  it('a-secret-under-the-name-of-another-is-refused', async () => {
    const sds = await serve();
    follow({ protocol: 'delta' });
    const { errorDetail } = await sds.pushDelta([{ as: 'ROOTCA', secret: tlsSecret(good) }]);
    assert.match(errorDetail?.message ?? 'ACK', /"ROOTCA" holds the secret "default"/);
  });
});

describe('an SDS server over mutual TLS', () => {
  const file = (name: string) => join(dir, name);
  const flags = (port: number, change: Record<string, string | undefined> = {}) => {
    const all: Record<string, string | undefined> = {
      sds: `127.0.0.1:${port}`,
      'sds-server-id': SERVER,
      'sds-tls-bundle': file('bundle.pem'),
      'sds-tls-cert': file('cert.pem'),
      'sds-tls-key': file('key.pem'),
      'pod-name': 'httpbin',
      'pod-namespace': 'bar',
      ...change,
    };
    return parseProxyConfig(Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, value])));
  };
  const writeOwn = async ({ chain, key }: Pem) => {
    await writeFile(file('cert.pem'), chain);
    await writeFile(file('key.pem'), key);
  };
  const serveTls = async (id = SERVER, by = ca) => {
    const { chain, key } = await by.svid(id);
    const pair = { cert_chain: Buffer.from(chain), private_key: Buffer.from(key) };
    return serve({ credentials: ServerCredentials.createSsl(Buffer.from(ca.rootPem), [pair], true) });
  };
  beforeEach(async () => {
    await writeFile(file('bundle.pem'), ca.rootPem);
    await writeOwn(await ca.svid('spiffe://cluster.local/node'));
  });

  it('with-the-right-id-is-believed', async () => {
    const sds = await serveTls();
    follow({ target: sdsSource(flags(sds.port), Date.now).target });
    assert.equal((await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)])).errorDetail, undefined);
    assert.equal(sidecar.identity.current?.svid.id.uri, ID);
  });

  it('with-another-id-is-not', async () => {
    const sds = await serveTls('spiffe://cluster.local/somebody');
    follow({ target: sdsSource(flags(sds.port), Date.now).target });
    const { reason } = await sidecar.records.find(({ msg }) => msg?.startsWith('discovery stream ended') === true);
    assert.match(String(reason), /must be spiffe:\/\/cluster\.local\/sds, but proved to be .*somebody/);
    assert.equal(sds.streams, 0);
  });

  it('of-another-ca-is-not', async () => {
    const sds = await serveTls(SERVER, await TestCa.create());
    follow({ target: sdsSource(flags(sds.port), Date.now).target });
    await ended(1);
    assert.equal(sds.streams, 0);
  });

  it('without-the-flags-is-refused-by-name', () => {
    for (const name of ['sds-server-id', 'sds-tls-bundle', 'sds-tls-cert', 'sds-tls-key'])
      assert.throws(
        () => sdsSource(flags(1, { [name]: undefined }), Date.now),
        refusal('CONFIG_INVALID', '--sds 127.0.0.1:1', `--${name}`),
      );
    assert.throws(
      () => sdsSource(flags(1, { 'sds-tls-key': file('none') }), Date.now),
      refusal('CONFIG_INVALID', '--sds-tls-key', 'ENOENT'),
    );
    assert.throws(() => sdsSource(flags(1, { 'sds-tls-key': file('bundle.pem') }), Date.now), refusal('CONFIG_INVALID', '--sds-tls-key'));
    assert.throws(() => sdsSource(flags(1, { 'sds-server-id': 'nobody' }), Date.now), refusal('CONFIG_INVALID', '--sds-server-id'));
    assert.throws(() => sdsSource(flags(1, { sds: 'nowhere' }), Date.now), refusal('CONFIG_INVALID', 'nowhere'));
    assert.equal(sdsSource(flags(1), Date.now).crl, undefined, 'another server has no revocation list unless it is named');
  });

  it('renewed-files-are-used-from-the-next-connection-on-and-half-written-ones-waited-for', async () => {
    const sds = await serveTls();
    const { target } = sdsSource(flags(sds.port), Date.now);
    follow({ target });
    assert.equal((await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)])).errorDetail, undefined);
    const first = target.credentials();
    const renewed = await ca.svid('spiffe://cluster.local/node');
    await writeFile(file('cert.pem'), renewed.chain);
    sds.endStreams();
    await ended(2);
    assert.match(
      String(sidecar.records.records.findLast(({ msg }) => msg?.startsWith('discovery stream ended') === true)?.reason),
      /key does not belong/,
    );
    await writeFile(file('key.pem'), renewed.key);
    await sds.opened(2);
    assert.notEqual(target.credentials(), first);
    assert.equal((await sds.push([tlsSecret(await ca.svid(ID))])).errorDetail, undefined);
  });
});

describe('the revocation list', () => {
  const crlSecret = (text: string): Secret => ({
    name: 'CRL',
    type: { $case: 'validationContext', value: { trustedCa: undefined, crl: bytes(text), customValidatorConfig: undefined } },
  });
  const BLOCKED = 'spiffe://cluster.local/ns/foo/sa/thief';
  const ready = async () => (await fetch(`http://127.0.0.1:${sidecar.sidecar.ports.readiness}/healthz/ready`)).text();
  const blocked = () => [...(sidecar.revocations.current?.blockedIds ?? [])];
  /** Its first stream is the keys', its latest the list's. */
  let sds: ScriptedSds;
  beforeEach(async () => {
    sds = await serve();
    follow({ crl: 'CRL' });
    assert.equal((await sds.push([tlsSecret(good), bundleSecret(ca.rootPem)])).errorDetail, undefined);
    await sds.opened(2);
  });

  it('is-missed-until-the-first-has-come', async () => {
    assert.match(await ready(), /no revocation list has arrived from the SDS server yet/);
    assert.equal((await sds.push([crlSecret('')])).errorDetail, undefined);
    assert.doesNotMatch(await ready(), /revocation list/);
  });

  it('that-cannot-be-used-leaves-the-last-and-an-empty-one-clears', async () => {
    assert.equal((await sds.push([crlSecret(await ca.crl([BLOCKED]))])).errorDetail, undefined);
    assert.deepEqual(blocked(), [BLOCKED]);
    const list = await ca.crl([]);
    const unsigned = list.replace(/[A-Za-z0-9+/]{8}(=*\n-----END X509 CRL)/, 'AAAAAAAA$1');
    const stranger = await TestCa.create();
    const bad = { garbage: 'garbage', truncated: list.slice(0, 200), unsigned, stranger: await stranger.crl([]), certificates: ca.rootPem };
    for (const [name, text] of Object.entries(bad)) {
      const { errorDetail } = await sds.push([crlSecret(text)]);
      assert.match(errorDetail?.message ?? 'ACK', /revocation list|CRL/, name);
      assert.deepEqual(blocked(), [BLOCKED], name);
    }
    assert.equal((await sds.push([crlSecret('')])).errorDetail, undefined);
    assert.deepEqual(blocked(), []);
  });

  it('of-another-signer-waits-for-its-root-while-keys-rotate-on', async () => {
    const next = await TestCa.create();
    const { errorDetail } = await sds.push([crlSecret(await next.crl([BLOCKED]))]);
    assert.match(errorDetail?.message ?? 'ACK', /does not chain/);
    const first = serial();
    const KEYS = 1;
    const answer = await sds.push([tlsSecret(await ca.svid(ID)), bundleSecret(ca.rootPem + next.rootPem)], undefined, KEYS);
    assert.equal(answer.errorDetail, undefined);
    assert.notEqual(serial(), first);
    assert.deepEqual(blocked(), [BLOCKED], 'comes into force by itself');
  });
});
