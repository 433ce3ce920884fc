// The identity port as applications and attackers meet it: agent and keys are stood in for. Each refusal has its allowed twin.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { JwtSvidRequest } from '../../src/agent/jwt-svid-cache.ts';
import { type ErrorCode, HandfastError } from '../../src/errors.ts';
import type { IdentityRequestsOptions } from '../../src/identity-api/identity-requests.ts';
import { serveIdentity } from '../../src/identity-api/identity-server.ts';
import { parseJwks } from '../../src/spiffe/jwt.ts';
import type { JwtTrust } from '../../src/spiffe/jwt-trust.ts';
import { formatJwtTrust, parseJwtTrust } from '../../src/spiffe/jwt-trust.ts';
import { type Asking, askIdentity, GUARD, issue, sayRaw, validate } from '../support/identity-api.ts';
import { JwtKey } from '../support/jwt.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/a';
const NOW = Date.UTC(2030, 0, 1);
const NOW_S = NOW / 1000;
const HOUR = 3_600_000;

const key = new JwtKey('k1');
const encode = (part: unknown) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
const claims = { sub: ID, aud: ['b'], iat: NOW_S, exp: NOW_S + 300 };
const without = (name: string) => Object.fromEntries(Object.entries(claims).filter(([each]) => each !== name));

function trustOf(change: Partial<JwtTrust> & { keys?: readonly JwtKey[] } = {}): JwtTrust {
  const { keys = [key], ...rest } = change;
  const text = JSON.stringify({ keys: keys.map(({ jwk }) => jwk), spiffe_sequence: 1 });
  return {
    trustDomain: 'cluster.local',
    issuer: undefined,
    texts: new Map([['cluster.local', text]]),
    keySets: new Map([['cluster.local', parseJwks(text)]]),
    blockedIds: new Set(),
    notBefore: new Map(),
    validUntil: NOW + HOUR,
    ...rest,
  };
}

let port: number;
let trust: JwtTrust | undefined;
let now: number;
let signed: JwtSvidRequest[];
let fails: ErrorCode | undefined;
let token: string | undefined;
let log: RecordingLog;
let close: () => Promise<void>;

async function serve(change: Partial<IdentityRequestsOptions & { timeouts: object }> = {}): Promise<void> {
  await close?.();
  const server = await serveIdentity({
    port: 0,
    signer: {
      signJwtSvid: async (request) => {
        signed.push(request);
        if (fails !== undefined) throw new HandfastError(fails, 'secret reason');
        return { spiffeId: ID, token: key.sign({ ...claims, aud: request.audience }), issuedAt: NOW_S, expiresAt: NOW_S + 300 };
      },
    },
    token: () => token,
    trust: () => trust,
    log: log.log,
    now: () => now,
    ...change,
  });
  ({ port, close } = server);
}

beforeEach(async () => {
  [trust, now, signed, fails, token, log] = [trustOf(), NOW, [], undefined, 'own', new RecordingLog()];
  await serve();
});
afterEach(async () => {
  await close();
  close = async () => undefined;
});

describe('a token', () => {
  it('for-the-audiences-which-validates', async () => {
    const { status, body, headers } = await issue(port, ['b', 'c']);
    assert.equal(status, 200);
    assert.deepEqual([body.spiffeId, body.expiresAt, headers['cache-control']], [ID, '2030-01-01T00:05:00.000Z', 'no-store']);
    assert.deepEqual(signed, [{ token: 'own', audience: ['b', 'c'] }]);
    assert.deepEqual((await validate(port, body.token, 'c')).body, {
      valid: true,
      spiffeId: ID,
      trustDomain: 'cluster.local',
      namespace: 'foo',
      serviceAccount: 'a',
      audience: ['b', 'c'],
      expiresAt: '2030-01-01T00:05:00.000Z',
    });
  });

  const bad: Readonly<Record<string, unknown>> = {
    'no-audience': [],
    'an-empty-one': ['b', ''],
    'a-text': 'b',
    'a-number': [1],
    seventeen: Array.from({ length: 17 }, (_, i) => `a${i}`),
    'an-endless-one': ['a'.repeat(1025)],
    'a-line-break': ['a\nb'],
  };
  for (const [name, audience] of Object.entries(bad))
    it(`refused: audience ${name}`, async () => {
      assert.deepEqual((await issue(port, audience)).status, 400);
      assert.deepEqual(signed, []);
    });
  it('many-audiences-as-long-as-verifiers-take-the-token', async () => {
    const audience = Array.from({ length: 16 }, (_, i) => `${i}`.padEnd(250, 'a'));
    const { status, body } = await issue(port, audience);
    assert.deepEqual([status, (await validate(port, body.token, audience[0] ?? '')).body.valid], [200, true]);
    for (const tooMuch of [audience.map((each) => `${each}bbbbbb`), Array.from({ length: 8 }, (_, i) => `${i}`.padEnd(300, '\u20ac'))])
      assert.equal((await issue(port, tooMuch)).status, 400);
  });

  it('what-nobody-foresaw-is-500-and-in-the-log', async () => {
    await serve({
      token: () => {
        throw new Error('unforeseen');
      },
      now: () => {
        throw new Error('unforeseen, too');
      },
    });
    assert.equal((await issue(port, ['b'])).status, 503);
    assert.equal((await validate(port, 'x.y.z', 'b')).status, 500);
    assert.deepEqual(
      log.records.map(({ msg, reason }) => [msg, reason]),
      [
        ['no JWT-SVID for the application', 'unforeseen'],
        ['identity request not answered', 'unforeseen, too'],
      ],
    );
  });

  it('each-failure-has-its-answer-and-the-reason-stays-in-the-log', async () => {
    const answers: readonly (readonly [ErrorCode, number, string])[] = [
      ['TOKEN_REFUSED', 403, 'NOT_ISSUED'],
      ['IDENTITY_MISMATCH', 403, 'NOT_ISSUED'],
      ['IDENTITY_BLOCKED', 403, 'IDENTITY_BLOCKED'],
      ['RATE_LIMITED', 429, 'RATE_LIMITED'],
      ['UNAVAILABLE', 503, 'UNAVAILABLE'],
    ];
    for (const [failure, status, code] of answers) {
      fails = failure;
      const answer = await issue(port, ['b']);
      assert.deepEqual([answer.status, answer.body.code], [status, code]);
      assert.doesNotMatch(JSON.stringify(answer.body), /secret reason/);
    }
    await log.find(({ reason }) => reason === 'secret reason');
    fails = undefined;
    assert.equal((await issue(port, ['b'])).status, 200);
    token = undefined;
    assert.equal((await issue(port, ['b'])).status, 503);
  });

  it('not-too-often', async () => {
    await serve({ rates: { issue: { burst: 2, perSecond: 1 }, validate: { burst: 1, perSecond: 1 } }, clock: () => 0 });
    const statuses = [];
    for (let i = 0; i < 3; i++) statuses.push((await issue(port, ['b'])).status);
    assert.deepEqual(statuses, [200, 200, 429]);
    assert.equal((await validate(port, key.sign(claims))).status, 200);
    const { status, headers } = await validate(port, key.sign(claims));
    assert.deepEqual([status, headers['retry-after']], [429, '1']);
  });
});

describe('a verdict', () => {
  const [h = '', p = '', s = ''] = key.sign(claims).split('.');
  const hmac = `${encode({ alg: 'HS256', kid: 'k1' })}.${p}`;
  const header = (more: object) => key.sign(claims, { ...more });
  const valid: Readonly<Record<string, string>> = {
    'as-it-was-signed': key.sign(claims),
    'of-type-jose': header({ typ: 'JOSE' }),
    'an-audience-that-is-text': key.sign({ ...claims, aud: 'b' }),
    'several-audiences': key.sign({ ...claims, aud: ['x', 'b'] }),
    'an-issuer': key.sign({ ...claims, iss: 'https://identity.example' }),
    'an-nbf-that-is-past': key.sign({ ...claims, nbf: NOW_S }),
    'a-key-id-and-nothing-else': header({ typ: undefined }),
    'ten-thousand-bytes': key.sign({ ...claims, pad: 'x'.repeat(7_000) }),
  };
  for (const [name, good] of Object.entries(valid))
    it(`valid: ${name}`, async () => assert.equal((await validate(port, good)).body.valid, true));

  const invalid: Readonly<Record<string, readonly [token: string, reason: string]>> = {
    none: [`${encode({ alg: 'none', kid: 'k1' })}.${p}.`, 'ALGORITHM_REFUSED'],
    'hs256-over-the-public-key': [
      `${hmac}.${createHmac('sha256', JSON.stringify(key.jwk)).update(hmac).digest('base64url')}`,
      'ALGORITHM_REFUSED',
    ],
    eddsa: [`${encode({ alg: 'EdDSA', kid: 'k1' })}.${p}.${s}`, 'ALGORITHM_REFUSED'],
    'an-algorithm-that-is-not-the-keys': [`${encode({ alg: 'RS256', kid: 'k1' })}.${p}.${s}`, 'ALGORITHM_REFUSED'],
    'json-serialisation': [JSON.stringify({ protected: h, payload: p, signature: s }), 'MALFORMED'],
    jku: [header({ jku: 'https://evil.example' }), 'HEADER_REFUSED'],
    x5u: [header({ x5u: 'https://evil.example' }), 'HEADER_REFUSED'],
    x5c: [header({ x5c: [] }), 'HEADER_REFUSED'],
    jwk: [header({ jwk: key.jwk }), 'HEADER_REFUSED'],
    crit: [header({ crit: ['b64'], b64: false }), 'HEADER_REFUSED'],
    'another-type': [header({ typ: 'at+jwt' }), 'TYPE_REFUSED'],
    'no-kid': [header({ kid: undefined }), 'KEY_UNKNOWN'],
    'an-unknown-kid': [header({ kid: 'k2' }), 'KEY_UNKNOWN'],
    'the-same-kid-and-another-key': [new JwtKey('k1').sign(claims), 'SIGNATURE_WRONG'],
    'an-altered-payload': [`${h}.${encode({ ...claims, sub: `${ID}dmin` })}.${s}`, 'SIGNATURE_WRONG'],
    'no-audience': [key.sign(without('aud')), 'AUDIENCE_MISSING'],
    'an-empty-audience': [key.sign({ ...claims, aud: '' }), 'AUDIENCE_MISSING'],
    'an-empty-list-of-audiences': [key.sign({ ...claims, aud: [] }), 'AUDIENCE_MISSING'],
    'a-nested-audience': [key.sign({ ...claims, aud: [['b']] }), 'AUDIENCE_MISSING'],
    'another-audience': [key.sign({ ...claims, aud: ['b.evil'] }), 'AUDIENCE_MISMATCH'],
    'no-expiry': [key.sign(without('exp')), 'EXPIRY_MISSING'],
    'an-expiry-that-is-text': [key.sign({ ...claims, exp: '9999999999' }), 'TIME_INVALID'],
    expired: [key.sign({ ...claims, exp: NOW_S }), 'EXPIRED'],
    'not-valid-yet': [key.sign({ ...claims, nbf: NOW_S + 31 }), 'NOT_YET_VALID'],
    'from-the-future': [key.sign({ ...claims, iat: NOW_S + 31 }), 'NOT_YET_VALID'],
    'no-subject': [key.sign(without('sub')), 'SUBJECT_INVALID'],
    'a-subject-that-is-no-spiffe-id': [key.sign({ ...claims, sub: 'system:serviceaccount:foo:a' }), 'SUBJECT_INVALID'],
    'another-trust-domain': [key.sign({ ...claims, sub: 'spiffe://other.example/ns/foo/sa/a' }), 'TRUST_DOMAIN_UNKNOWN'],
    oversized: [key.sign({ ...claims, pad: 'x'.repeat(13_000) }), 'TOO_LONG'],
    garbage: ['garbage', 'MALFORMED'],
  };
  for (const [name, [bad, reason]] of Object.entries(invalid))
    it(`invalid: ${name}`, async () => {
      const { status, body } = await validate(port, bad);
      assert.deepEqual([status, body.valid, body.reason], [200, false, reason], String(body.message));
      assert.ok(String(body.message).length <= 300);
      assert.deepEqual(Object.keys(body).sort(), ['message', 'reason', 'valid']);
    });

  it('a-withdrawn-key-and-the-one-beside-it', async () => {
    const next = new JwtKey('k2');
    trust = trustOf({ keys: [key, next] });
    assert.deepEqual(
      [(await validate(port, key.sign(claims))).body.valid, (await validate(port, next.sign(claims))).body.valid],
      [true, true],
    );
    trust = trustOf({ keys: [next] });
    assert.equal((await validate(port, key.sign(claims))).body.reason, 'KEY_UNKNOWN');
    assert.equal((await validate(port, next.sign(claims))).body.valid, true);
  });

  it('a-blocked-identity-and-its-neighbour', async () => {
    trust = trustOf({ blockedIds: new Set([ID]) });
    assert.equal((await validate(port, key.sign(claims))).body.reason, 'IDENTITY_BLOCKED');
    assert.equal((await validate(port, key.sign({ ...claims, sub: `${ID}b` }))).body.valid, true);
  });

  it('from-before-a-revocation-that-was-lifted-and-from-after', async () => {
    trust = parseJwtTrust(formatJwtTrust(trustOf({ notBefore: new Map([[ID, NOW_S + 10]]) })));
    assert.equal((await validate(port, key.sign(claims))).body.reason, 'BEFORE_REVOCATION');
    assert.equal((await validate(port, key.sign(without('iat')))).body.reason, 'BEFORE_REVOCATION');
    assert.equal((await validate(port, key.sign({ ...claims, iat: NOW_S + 10 }))).body.valid, true);
    assert.equal((await validate(port, key.sign({ ...claims, sub: `${ID}b` }))).body.valid, true);
  });

  it('is-not-given-without-keys-nor-with-ones-too-old', async () => {
    now = NOW + HOUR - 1;
    assert.equal((await validate(port, key.sign({ ...claims, exp: NOW_S + 7200 }))).body.valid, true);
    now = NOW + HOUR;
    for (const path of ['/v1/jwks', '/.well-known/openid-configuration']) assert.equal((await askIdentity(port, path)).status, 503);
    const { status, body } = await validate(port, key.sign({ ...claims, exp: NOW_S + 7200 }));
    assert.deepEqual([status, body.code, body.valid], [503, 'UNAVAILABLE', undefined]);
    trust = undefined;
    assert.equal((await validate(port, key.sign(claims))).status, 503);
  });

  it('needs-one-token-and-one-audience', async () => {
    for (const body of [
      {},
      { token: 'x' },
      { token: 'x', audience: '' },
      { token: 'x', audience: ['b'] },
      { token: 1, audience: 'b' },
      { token: '', audience: 'b' },
    ])
      assert.equal((await askIdentity(port, '/v1/jwt-svid/validate', { body })).status, 400, JSON.stringify(body));
    const { body } = await askIdentity(port, '/v1/jwt-svid/validate', { body: { token: 'x', audience: 'b', aud: 'c' } });
    assert.match(String(body.message), /no member "aud"; there are: token, audience/);
    for (const body of ['[]', '{', '', '{"token":"x","token":"y","audience":"b"}', '\xff'])
      assert.equal((await askIdentity(port, '/v1/jwt-svid/validate', { method: 'POST', body })).status, 400, body);
  });
});

describe('what relying parties read', () => {
  it('public-keys-for-signatures-alone-without-the-guard-header', async () => {
    const { status, body } = await askIdentity(port, '/v1/jwks', { headers: {} });
    assert.equal(status, 200);
    assert.deepEqual(body, { keys: [{ ...key.jwk, use: 'sig' }] });
    assert.equal(parseJwks(JSON.stringify(body)).keys.length, 1);
  });

  it('the-discovery-document-where-there-is-an-issuer', async () => {
    assert.deepEqual((await askIdentity(port, '/.well-known/openid-configuration')).body.code, 'NO_ISSUER');
    trust = trustOf({ issuer: 'https://identity.example/mesh' });
    assert.deepEqual((await askIdentity(port, '/.well-known/openid-configuration', { headers: {} })).body, {
      issuer: 'https://identity.example/mesh',
      jwks_uri: 'https://identity.example/mesh/v1/jwks',
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['ES256'],
    });
  });
});

describe('who is not answered', () => {
  const at = (host: string) => `${host}:${port}`;
  const cases: Readonly<Record<string, readonly [() => Asking, status: number, code: string]>> = {
    'no-guard-header': [() => ({ headers: {} }), 403, 'HEADER_MISSING'],
    'another-guard': [() => ({ headers: { 'workload.spiffe.io': 'yes' } }), 403, 'HEADER_MISSING'],
    'the-guard-twice': [() => ({ headers: { 'workload.spiffe.io': ['true', 'true'] } }), 403, 'HEADER_MISSING'],
    'a-rebound-name': [() => ({ headers: { ...GUARD, host: at('evil.example') } }), 403, 'HOST_REFUSED'],
    'a-name-that-begins-like-ours': [() => ({ headers: { ...GUARD, host: at('127.0.0.1.evil.example') } }), 403, 'HOST_REFUSED'],
    'a-name-with-a-user': [() => ({ headers: { ...GUARD, host: at('127.0.0.1@evil.example') } }), 403, 'HOST_REFUSED'],
    'another-port': [() => ({ headers: { ...GUARD, host: '127.0.0.1:1' } }), 403, 'HOST_REFUSED'],
    'no-port': [() => ({ headers: { ...GUARD, host: '127.0.0.1' } }), 403, 'HOST_REFUSED'],
    'x-forwarded-for': [() => ({ headers: { ...GUARD, 'x-forwarded-for': '' } }), 403, 'FORWARDED'],
    forwarded: [() => ({ headers: { ...GUARD, forwarded: 'for=10.0.0.1' } }), 403, 'FORWARDED'],
    via: [() => ({ headers: { ...GUARD, via: '1.1 proxy' } }), 403, 'FORWARDED'],
    'a-page': [() => ({ headers: { ...GUARD, origin: 'https://evil.example' } }), 403, 'FROM_A_PAGE'],
    'a-page-of-no-origin': [() => ({ headers: { ...GUARD, origin: 'null' } }), 403, 'FROM_A_PAGE'],
    'whom-the-inbound-listener-passed-through': [() => ({ from: '127.0.0.6' }), 403, 'NOT_FROM_POD'],
    get: [() => ({ method: 'GET', body: undefined }), 405, 'METHOD_REFUSED'],
    put: [() => ({ method: 'PUT' }), 405, 'METHOD_REFUSED'],
    preflight: [() => ({ method: 'OPTIONS', body: undefined }), 405, 'METHOD_REFUSED'],
  };
  for (const [name, [asking, status, code]] of Object.entries(cases))
    it(name, async () => {
      const answer = await issue(port, ['b'], asking());
      assert.deepEqual([answer.status, answer.body.code], [status, code]);
      assert.deepEqual(signed, []);
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
    });

  const allowed: Readonly<Record<string, () => Asking>> = {
    'by-number': () => ({}),
    'by-name': () => ({ headers: { ...GUARD, host: at('localhost') } }),
    'by-its-other-number': () => ({ host: '::1' }),
    'from-another-loopback-address': () => ({ from: '127.0.0.9' }),
  };
  for (const [name, asking] of Object.entries(allowed))
    it(`allowed: ${name}`, async () => assert.equal((await issue(port, ['b'], asking())).status, 200));

  it('posts-to-documents-and-what-is-not-there', async () => {
    assert.equal((await askIdentity(port, '/v1/jwks', { body: {} })).status, 405);
    for (const path of ['/', '/v1/jwt-svid/', '/v1/jwt-svid?x=1', '//v1/jwt-svid', '/v1/../v1/jwt-svid', '/V1/jwt-svid'])
      assert.equal((await askIdentity(port, path, { body: { audience: ['b'] } })).status, 404, path);
    assert.deepEqual(signed, []);
  });
});

describe('requests that are no requests', () => {
  const line = (path: string, body: string, more = '') =>
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nworkload.spiffe.io: true\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`;

  it('two-hosts-an-absolute-target-and-no-host', async () => {
    const body = '{"audience":["b"]}';
    for (const text of [
      line('/v1/jwt-svid', body, 'Host: evil.example\r\nConnection: close\r\n'),
      line('http://evil.example/v1/jwt-svid', body, 'Connection: close\r\n'),
      `POST /v1/jwt-svid HTTP/1.0\r\nworkload.spiffe.io: true\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      line('/v1/jwt-svid', body, 'Transfer-Encoding: chunked\r\nConnection: close\r\n'),
    ])
      assert.match(await sayRaw(port, text), /^HTTP\/1\.1 40[034] /);
    assert.deepEqual(signed, []);
    assert.match(await sayRaw(port, line('/v1/jwt-svid', body, 'Connection: close\r\n')), /^HTTP\/1\.1 200 /);
  });

  it('pipelined-ones-are-answered-in-order-each-by-the-same-rules', async () => {
    const good = line('/v1/jwt-svid', '{"audience":["b"]}');
    const bad = good.replace('workload.spiffe.io: true\r\n', '');
    const last = line('/v1/jwt-svid', '{"audience":["c"]}', 'Connection: close\r\n');
    const statuses = (text: string) => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
    assert.deepEqual(statuses(await sayRaw(port, good + good + last)), ['200', '200', '200']);
    // What stands behind a body that nobody has read is not answered.
    assert.deepEqual(statuses(await sayRaw(port, good + bad + last)), ['200', '403']);
  });

  it('a-huge-body-announced-or-not', async () => {
    const huge = JSON.stringify({ token: 'x'.repeat(40_000), audience: 'b' });
    assert.match(
      await sayRaw(
        port,
        `POST /v1/jwt-svid/validate HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nworkload.spiffe.io: true\r\nContent-Length: 99999999\r\n\r\n{`,
      ),
      /^HTTP\/1\.1 413 /,
    );
    const chunked = `POST /v1/jwt-svid/validate HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nworkload.spiffe.io: true\r\nTransfer-Encoding: chunked\r\n\r\n`;
    assert.match(await sayRaw(port, `${chunked}${huge.length.toString(16)}\r\n${huge}\r\n`), /^HTTP\/1\.1 413 /);
    assert.equal((await validate(port, 'x'.repeat(30_000))).body.reason, 'TOO_LONG');
  });

  it('a-slow-body-and-a-slow-header-are-cut', async () => {
    await serve({ timeouts: { requestTimeout: 200, headersTimeout: 200, connectionsCheckingInterval: 50 } });
    assert.match(await sayRaw(port, line('/v1/jwt-svid', '{"audience":["b"]}').slice(0, -1)), /^$|^HTTP\/1\.1 408 /);
    assert.match(await sayRaw(port, 'POST /v1/jwt-svid HTTP/1.1\r\nHo'), /^$|^HTTP\/1\.1 408 /);
    assert.equal((await issue(port, ['b'])).status, 200);
  });

  it('a-port-in-use-is-said', async () => {
    await assert.rejects(
      serveIdentity({
        port,
        signer: { signJwtSvid: () => Promise.reject(new Error('no')) },
        token: () => token,
        trust: () => trust,
        log: log.log,
        now: () => now,
      }),
      { code: 'CONFIG_INVALID' },
    );
  });
});
