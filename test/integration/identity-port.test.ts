// The identity port over a real agent and a real CA: tokens issued and judged, keys withdrawn, identities revoked, and whoever is away.

import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { openIdentityPort } from '../../src/commands/identity-port.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { readJws } from '../../src/spiffe/jwt.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { freePort } from '../support/free-port.ts';
import { handfast, Role } from '../support/handfast.ts';
import { askIdentity, GUARD, issue, validate } from '../support/identity-api.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

const A = 'spiffe://cluster.local/ns/foo/sa/a';

let records: RecordingLog;
let plane: ControlPlane;
let ports: { close(): Promise<void> }[];

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  ports = [];
});
afterEach(async () => {
  for (const port of ports) await port.close();
  await plane[Symbol.asyncDispose]();
});

/** The identity port of a pod's sidecar, once it can judge. */
async function portOf(name: string, token?: string): Promise<number> {
  const opened = await openIdentityPort({
    port: await freePort(),
    target: unixTarget(plane.address('agent')),
    nodeId: name,
    token: new Snapshot(token ?? (await plane.token(name))),
    log: records.log,
    now: Date.now,
  });
  assert.ok(opened !== undefined);
  ports.push(opened);
  if (token === undefined) await eventually(async () => (await askIdentity(opened.port, '/v1/jwks')).status === 200);
  return opened.port;
}

const tokenOf = async (port: number, audience = 'b') => String((await issue(port, [audience])).body.token);
const reasonOf = async (port: number, token: string) => {
  const { body } = await validate(port, token);
  return body.valid === true ? 'valid' : body.reason;
};
const signings = () => records.records.filter(({ msg }) => msg === 'JWT-SVID issued').length;
const kidsOf = async (port: number) => ((await askIdentity(port, '/v1/jwks')).body.keys as { kid: string }[]).map(({ kid }) => kid);

describe('one pod proves itself to another', () => {
  it('by-a-token-that-is-signed-once-for-half-its-life', async () => {
    await plane.start();
    const [a, b] = [await portOf('a'), await portOf('b')];
    const { status, body } = await issue(a, ['b']);
    assert.deepEqual([status, body.spiffeId], [200, A]);
    assert.deepEqual(readJws(String(body.token)).claims.iss, undefined);
    const { body: verdict } = await validate(b, body.token);
    assert.deepEqual(verdict, {
      valid: true,
      spiffeId: A,
      trustDomain: 'cluster.local',
      namespace: 'foo',
      serviceAccount: 'a',
      audience: ['b'],
      expiresAt: body.expiresAt,
    });
    assert.equal((await validate(b, body.token, 'c')).body.reason, 'AUDIENCE_MISMATCH');
    assert.equal(await tokenOf(a), body.token);
    assert.equal(signings(), 1);
    assert.notEqual(await tokenOf(a, 'c'), body.token);
    assert.equal(signings(), 2);
  });

  it('with-an-issuer-where-the-ca-has-one', async () => {
    await plane.start({ ca: { jwtIssuer: 'https://identity.example' } });
    const a = await portOf('a');
    const token = await tokenOf(a);
    assert.equal(readJws(token).claims.iss, 'https://identity.example');
    assert.equal(await reasonOf(a, token), 'valid');
    const { body } = await askIdentity(a, '/.well-known/openid-configuration');
    assert.deepEqual([body.issuer, body.jwks_uri], ['https://identity.example', 'https://identity.example/v1/jwks']);
    assert.deepEqual(await kidsOf(a), [readJws(token).kid]);
  });
});

describe('what is taken back', () => {
  it('a-withdrawn-key-verifies-nothing-and-the-next-one-signs', async () => {
    await plane.start();
    const [a, b] = [await portOf('a'), await portOf('b')];
    const old = await tokenOf(a);
    assert.equal(await reasonOf(b, old), 'valid');
    const before = performance.now();
    await plane.ask('ca', 'POST', '/jwt-keys/withdraw', { kid: readJws(old).kid });
    await eventually(async () => (await reasonOf(b, old)) === 'KEY_UNKNOWN');
    console.log(`# from the operator's word to the refused token: ${Math.round(performance.now() - before)} ms`);
    await eventually(async () => !(await kidsOf(a)).includes(String(readJws(old).kid)));
    const next = await tokenOf(a);
    assert.notEqual(next, old);
    assert.equal(await reasonOf(b, next), 'valid');
    assert.equal(await reasonOf(b, old), 'KEY_UNKNOWN');
  });

  it('a-revoked-identity-has-and-proves-nothing-and-its-tokens-stay-dead-when-that-is-lifted', async () => {
    await plane.start();
    const [a, b] = [await portOf('a'), await portOf('b')];
    const [old, other] = [await tokenOf(a), await tokenOf(b)];
    assert.equal(await reasonOf(b, old), 'valid');
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: A });
    await eventually(async () => (await reasonOf(b, old)) === 'IDENTITY_BLOCKED');
    await eventually(async () => (await issue(a, ['b'])).body.code === 'IDENTITY_BLOCKED');
    assert.equal(await reasonOf(b, other), 'valid');
    await plane.ask('ca', 'POST', '/revocations/lift', { spiffeId: A });
    await eventually(async () => (await reasonOf(b, old)) === 'BEFORE_REVOCATION');
    // Tokens are dated to the second: of the one in which it was revoked none counts.
    await eventually(async () => (await reasonOf(b, await tokenOf(a))) === 'valid');
    assert.equal(await reasonOf(b, old), 'BEFORE_REVOCATION');
    // A CA that is started anew knows it still.
    await plane.stopCa();
    await plane.startCa();
    const c = await portOf('c');
    assert.equal(await reasonOf(c, old), 'BEFORE_REVOCATION');
  });
});

describe('whoever is away', () => {
  it('agent-and-ca-are-not-needed-for-verdicts-nor-for-what-was-signed-already', async () => {
    await plane.start();
    const [a, b] = [await portOf('a'), await portOf('b')];
    const token = await tokenOf(a);
    await plane.stopAgent();
    await plane.stopCa();
    assert.equal(await reasonOf(b, token), 'valid');
    assert.equal(await tokenOf(a), token);
    const { status, body } = await issue(a, ['another']);
    assert.deepEqual([status, body.code], [503, 'UNAVAILABLE']);
    await plane.startCa();
    await plane.startAgent();
    await eventually(async () => (await issue(a, ['another'])).status === 200);
    // And it follows again.
    await plane.ask('ca', 'POST', '/jwt-keys/withdraw', { kid: readJws(token).kid });
    await eventually(async () => (await reasonOf(b, token)) === 'KEY_UNKNOWN');
  });

  it('a-new-sidecar-without-an-agent-says-that-it-cannot-judge', async () => {
    const a = await portOf('a', 'no token');
    assert.equal((await validate(a, 'x')).status, 503);
    assert.equal((await issue(a, ['b'])).status, 503);
  });
});

describe('who gets no token', () => {
  it('whose-own-token-the-ca-refuses', async () => {
    await plane.start();
    const stranger = await portOf('a', 'x.y.z');
    assert.deepEqual((await issue(stranger, ['b'])).body.code, 'NOT_ISSUED');
    assert.equal((await validate(stranger, 'x')).status, 503);
    assert.equal((await issue(await portOf('a'), ['b'])).status, 200);
  });

  it('a-process-that-is-not-registered-for-the-workload', async () => {
    await plane.startControl();
    await plane.startCa();
    const workloadsFile = join(plane.dir, 'workloads.yaml');
    const tokenFile = join(plane.dir, 'token');
    const register = (uid: number) =>
      writeFile(workloadsFile, `workloads:\n  - { spiffeId: "${A}", tokenFile: ${tokenFile}, selectors: { uid: ${uid} } }\n`);
    const [uid, token] = [process.getuid?.() ?? 0, await plane.token('a')];
    await writeFile(tokenFile, token);
    await register(uid + 1);
    await plane.startAgent({ workloadsFile });
    const a = await portOf('a', token);
    assert.equal((await issue(a, ['b'])).body.code, 'NOT_ISSUED');
    await records.find(({ msg }) => String(msg).includes('not registered for'));
    await register(uid);
    await eventually(async () => (await issue(a, ['b'])).status === 200);
  });
});

describe('handfast proxy', () => {
  const start = async (...more: string[]) => {
    await plane.start();
    await writeFile(join(plane.dir, 'token'), await plane.token('a'));
    const pod = ['--pod-name', 'a', '--pod-namespace', 'foo', '--token-file', join(plane.dir, 'token'), '--agent', plane.address('agent')];
    const others = ['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((port) => `--${port}-port=0`);
    return new Role('proxy', ...pod, ...others, ...more);
  };

  for (const workers of ['1', '2'])
    it(`serves-it-with-${workers}-workers`, async () => {
      const port = await freePort();
      await using proxy = await start('--workers', workers, `--identity-port=${port}`);
      const said = await proxy.said('sidecar listening');
      assert.equal(Object(said.ports).identity, port);
      await eventually(async () => (await askIdentity(port, '/v1/jwks')).status === 200);
      assert.equal(await reasonOf(port, await tokenOf(port)), 'valid');
      assert.equal((await issue(port, ['b'], { headers: {} })).body.code, 'HEADER_MISSING');
      assert.equal((await issue(port, ['b'], { host: '::1', headers: { ...GUARD, host: `[::1]:${port}` } })).status, 200);
      assert.equal(await proxy.stop(), 0);
    });

  it('has-none-at-port-0-and-says-so-of-one-in-use', async () => {
    await using proxy = await start('--identity-port=0');
    assert.equal(Object((await proxy.said('sidecar listening')).ports).identity, undefined);
    assert.equal(await proxy.stop(), 0);
    const a = await portOf('a');
    const pod = ['--pod-name', 'a', '--pod-namespace', 'foo', '--token-file', join(plane.dir, 'token'), '--agent', plane.address('agent')];
    const others = ['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((port) => `--${port}-port=0`);
    const { code, stderr } = await handfast('proxy', ...pod, ...others, `--identity-port=${a}`);
    assert.equal(code, 2);
    assert.match(stderr, /cannot listen for --identity-port: .*EADDRINUSE/);
  });
});

describe('--jwt-issuer', () => {
  for (const issuer of [
    'http://identity.example',
    'identity.example',
    'https://identity.example/',
    'https://u:p@identity.example',
    'https://identity.example?x=1',
    'https://IDENTITY.example',
  ])
    it(`refused: ${issuer}`, async () => {
      const state = join(plane.dir, 'other');
      const { code, stderr } = await handfast(
        'ca',
        '--state',
        state,
        '--socket',
        plane.socket('x'),
        '--operator-socket',
        plane.socket('y'),
        '--jwt-issuer',
        issuer,
      );
      assert.equal(code, 2);
      assert.match(stderr, /--jwt-issuer .* is not accepted: an https URL/);
      await rm(state, { recursive: true, force: true });
    });
  it('allowed-as-a-url-with-a-path', async () => {
    await using ca = new Role(
      'ca',
      '--state',
      join(plane.dir, 'other'),
      '--socket',
      plane.socket('x'),
      '--operator-socket',
      plane.socket('y'),
      '--jwt-issuer',
      'https://identity.example/mesh',
    );
    await ca.said('CA listening');
    assert.equal(await ca.stop(), 0);
  });
});
