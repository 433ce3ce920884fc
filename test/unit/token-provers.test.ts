// Who a token proves its holder to be, as an OIDC issuer's keys or a Kubernetes API server have it. Every refusal has its allowed twin.

import assert from 'node:assert/strict';
import { type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createLocalToken, LOCAL_ISSUER, LocalTokenProver, type TokenProver } from '../../src/ca/local-token.ts';
import { OidcProver, type OidcProverOptions } from '../../src/ca/oidc-prover.ts';
import { ProverChain } from '../../src/ca/prover-chain.ts';
import { type TokenReviewOptions, TokenReviewProver } from '../../src/ca/token-review-prover.ts';
import { HandfastError } from '../../src/errors.ts';
import { type Answer, type Asked, JsonServer, loopbackCertificate } from '../support/json-server.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const NOW = Date.UTC(2030, 0, 1);
const NOW_S = NOW / 1000;
const AUDIENCE = 'handfast-ca';
const { publicKey, privateKey } = keyPair();
const next = keyPair();

type Part = Readonly<Record<string, unknown>>;
const encode = (part: unknown) => Buffer.from(JSON.stringify(part)).toString('base64url');
const jwk = (key: KeyObject, kid: string) => ({ ...key.export({ format: 'jwk' }), kid, use: 'sig', alg: 'ES256' });
const base: Part = { sub: 'system:serviceaccount:foo:sleep', aud: [AUDIENCE], iat: NOW_S, nbf: NOW_S, exp: NOW_S + 600 };
function jwt(claims: Part, of: { kid?: string; key?: KeyObject } = {}): string {
  const text = `${encode({ alg: 'ES256', kid: of.kid ?? 'one' })}.${encode(claims)}`;
  return `${text}.${sign('sha256', Buffer.from(text), { key: of.key ?? privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

let scratch: string;
const servers: JsonServer[] = [];
before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'handfast-provers-'));
});
after(async () => {
  for (const server of servers) await server.stop();
  rmSync(scratch, { recursive: true, force: true });
});
const file = (name: string, content: string) => {
  const path = join(scratch, name);
  writeFileSync(path, content);
  return path;
};
async function serve(answer: (asked: Asked, origin: () => string) => Answer, tls?: { key: string; cert: string }): Promise<JsonServer> {
  let origin = '';
  const server = await JsonServer.start((asked) => answer(asked, () => origin), tls);
  origin = server.origin;
  servers.push(server);
  return server;
}

describe('keys of an OIDC issuer', () => {
  let now = NOW;
  let published = [jwk(publicKey, 'one')];
  let away = false;
  /** An issuer whose documents a test may change. */
  async function issuer(documents: { discovery?: (origin: string) => Answer; jwks?: Answer; tls?: { key: string; cert: string } } = {}) {
    [now, published, away] = [NOW, [jwk(publicKey, 'one')], false];
    return serve(({ path }, origin) => {
      if (away) return { status: 503, body: '' };
      if (path === '/.well-known/openid-configuration')
        return documents.discovery?.(origin()) ?? { body: { issuer: origin(), jwks_uri: `${origin()}/keys` } };
      return path === '/keys' ? (documents.jwks ?? { body: { keys: published } }) : { status: 404, body: '' };
    }, documents.tls);
  }
  const prover = (at: { origin: string }, more: Partial<OidcProverOptions> = {}) =>
    new OidcProver({ issuer: at.origin, audience: AUDIENCE, now: () => now, timeoutMs: 2000, ...more });
  const token = (at: { origin: string }, more: Part = {}, of: { kid?: string; key?: KeyObject } = {}) =>
    jwt({ iss: at.origin, ...base, ...more }, of);

  test('prove a service account, and say of which pod; they are fetched once', async () => {
    const at = await issuer();
    const oidc = prover(at);
    assert.deepEqual(await oidc.prove(token(at)), { namespace: 'foo', serviceAccount: 'sleep' });
    const bound = { 'kubernetes.io': { namespace: 'foo', pod: { name: 'sleep-1', uid: 'u-1' }, serviceaccount: { name: 'sleep' } } };
    assert.deepEqual(await oidc.prove(token(at, bound)), { namespace: 'foo', serviceAccount: 'sleep', podName: 'sleep-1', podUid: 'u-1' });
    assert.deepEqual(await oidc.prove(token(at, { aud: AUDIENCE, 'kubernetes.io': 'x' })), { namespace: 'foo', serviceAccount: 'sleep' });
    assert.deepEqual(
      at.asked.map(({ path }) => path),
      ['/.well-known/openid-configuration', '/keys'],
    );
  });

  const refused: Readonly<Record<string, readonly [more: Part, says: string]>> = {
    'another audience': [{ aud: ['other'] }, 'audience'],
    'no audience': [{ aud: undefined }, 'audience'],
    'an audience that only contains ours': [{ aud: `${AUDIENCE}.evil` }, 'audience'],
    'an expiry that has passed': [{ exp: NOW_S }, 'expired'],
    'no expiry': [{ exp: undefined }, 'expired'],
    'an expiry that is text': [{ exp: '9999999999' }, 'expired'],
    'a time that has not come': [{ nbf: NOW_S + 31 }, 'not valid yet'],
    'an issue in the future': [{ iat: NOW_S + 31 }, 'not valid yet'],
    'a user': [{ sub: 'jane' }, 'no service account'],
    'a node': [{ sub: 'system:node:n1' }, 'no service account'],
    'a subject that adds to the path': [{ sub: 'system:serviceaccount:foo/sa/admin:sleep' }, 'no service account'],
    'another issuer': [{ iss: 'https://evil.example' }, 'issuer'],
    'no issuer': [{ iss: undefined }, 'issuer'],
  };
  for (const [name, [more, says]] of Object.entries(refused)) {
    test(`refuse a token with ${name}`, async () => {
      const at = await issuer();
      await assert.rejects(prover(at).prove(token(at, more)), refusal('TOKEN_REFUSED', says));
      assert.ok(await prover(at).prove(token(at)));
    });
  }

  test('refuse what a stranger signed under a known kid', async () => {
    const at = await issuer();
    await assert.rejects(prover(at).prove(token(at, {}, { key: next.privateKey })), refusal('TOKEN_REFUSED', 'signature'));
    await assert.rejects(prover(at).prove('x.y'), refusal('TOKEN_REFUSED', 'three parts'));
  });

  test('are fetched again for a new kid, but not for each that somebody makes up', async () => {
    const at = await issuer();
    const oidc = prover(at);
    await oidc.prove(token(at));
    const rotated = token(at, {}, { kid: 'two', key: next.privateKey });
    published = [...published, jwk(next.publicKey, 'two')];
    await assert.rejects(oidc.prove(rotated), refusal('TOKEN_REFUSED', '"two"'));
    now += 10_000;
    assert.ok(await oidc.prove(rotated));
    const asked = at.asked.length;
    now += 10_000;
    for (let i = 0; i < 20; i++) await assert.rejects(oidc.prove(token(at, {}, { kid: `made-up-${i}` })), refusal('TOKEN_REFUSED'));
    assert.equal(at.asked.length, asked + 2);
  });

  test('that are withdrawn prove nothing five minutes later', async () => {
    const at = await issuer();
    const oidc = prover(at);
    const old = token(at, { exp: NOW_S + 3600 });
    assert.ok(await oidc.prove(old));
    published = [jwk(next.publicKey, 'two')];
    now += 300_001;
    await assert.rejects(oidc.prove(old), refusal('TOKEN_REFUSED', '"one"'));
  });

  test('are kept when the issuer is away; a kid that nobody knows is then no refusal', async () => {
    const at = await issuer();
    const oidc = prover(at);
    await oidc.prove(token(at));
    away = true;
    now += 301_000;
    assert.ok(await oidc.prove(token(at)));
    await assert.rejects(oidc.prove(token(at, {}, { kid: 'two', key: next.privateKey })), refusal('UNAVAILABLE', '503'));
    await assert.rejects(prover(at).prove(token(at)), refusal('UNAVAILABLE', '503'));
    away = false;
    now += 10_000;
    published = [...published, jwk(next.publicKey, 'two')];
    assert.ok(await oidc.prove(token(at, {}, { kid: 'two', key: next.privateKey })));
  });

  test('asked for by a hundred at once are fetched once', async () => {
    const at = await issuer();
    const oidc = prover(at);
    await Promise.all(Array.from({ length: 100 }, () => oidc.prove(token(at))));
    assert.equal(at.asked.length, 2);
  });

  const broken: Readonly<Record<string, readonly [Parameters<typeof issuer>[0], string]>> = {
    'a document of another issuer': [{ discovery: (origin) => ({ body: { issuer: `${origin}/`, jwks_uri: `${origin}/keys` } }) }, 'not of'],
    'a document without keys': [{ discovery: (origin) => ({ body: { issuer: origin } }) }, 'jwks_uri'],
    'keys in plaintext elsewhere': [
      { discovery: (origin) => ({ body: { issuer: origin, jwks_uri: 'http://192.0.2.1/keys' } }) },
      'may not be asked',
    ],
    'keys in a file': [{ discovery: (origin) => ({ body: { issuer: origin, jwks_uri: 'file:///etc/passwd' } }) }, 'may not be asked'],
    'a redirect': [{ discovery: () => ({ status: 302, headers: { location: '/x' }, body: '' }) }, '302'],
    'a document that is no JSON': [{ discovery: () => ({ body: '<html>' }) }, 'openid-configuration'],
    'keys that are none': [{ jwks: { body: '[]' } }, 'key set'],
    'a private key among them': [{ jwks: { body: { keys: [privateKey.export({ format: 'jwk' })] } } }, 'private key material'],
    'an answer of a megabyte': [{ jwks: { body: 'x'.repeat(1_000_000) } }, 'longer than'],
  };
  for (const [name, [documents, says]] of Object.entries(broken)) {
    test(`cannot be had from ${name}`, async () => {
      const at = await issuer(documents);
      await assert.rejects(prover(at).prove(token(at)), refusal('UNAVAILABLE', says));
    });
  }

  test('that never come are given up', async () => {
    const at = await issuer({ jwks: { hang: true } });
    await assert.rejects(prover(at, { timeoutMs: 50 }).prove(token(at)), refusal('UNAVAILABLE', 'no answer within 50 ms'));
  });

  test('come over https from whom the CA file vouches for, and from nobody else', async () => {
    const [tls, other] = [await loopbackCertificate(), await loopbackCertificate()];
    const at = await issuer({ tls });
    assert.ok(await prover(at, { caFile: file('issuer.pem', tls.cert) }).prove(token(at)));
    await assert.rejects(prover(at, { caFile: file('other.pem', other.cert) }).prove(token(at)), refusal('UNAVAILABLE'));
    await assert.rejects(prover(at).prove(token(at)), refusal('UNAVAILABLE'));
    await assert.rejects(prover(at, { caFile: join(scratch, 'absent') }).prove(token(at)), refusal('UNAVAILABLE', 'absent'));
  });

  test('come from a file, without anybody being asked; the file is read again for a new kid', async () => {
    now = NOW;
    const at = { origin: 'https://kubernetes.default.svc' };
    const path = file('jwks.json', JSON.stringify({ keys: [jwk(publicKey, 'one')] }));
    const oidc = prover(at, { jwksFile: path });
    assert.ok(await oidc.prove(token(at)));
    file('jwks.json', JSON.stringify({ keys: [jwk(next.publicKey, 'two')] }));
    now += 10_000;
    assert.ok(await oidc.prove(token(at, {}, { kid: 'two', key: next.privateKey })));
    await assert.rejects(prover(at, { jwksFile: join(scratch, 'absent') }).prove(token(at)), refusal('UNAVAILABLE', 'absent'));
  });

  test('of an issuer in plaintext elsewhere, or of none, are not asked for at all', () => {
    for (const origin of [
      'http://issuer.example',
      'http://127.0.0.1.evil.example',
      'ftp://x',
      'issuer',
      'https://a.example/?x=1',
      'https://u:p@a.example',
    ])
      assert.throws(() => prover({ origin }), refusal('CONFIG_INVALID', origin));
    for (const origin of ['https://issuer.example', 'http://localhost:8080', 'http://[::1]:1', 'https://a.example/path'])
      assert.ok(prover({ origin }));
    assert.throws(() => prover({ origin: 'https://issuer.example' }, { audience: '' }), refusal('CONFIG_INVALID', 'audience'));
  });
});

describe('a TokenReview', () => {
  let tls: { key: string; cert: string };
  let caFile: string;
  let tokenFile: string;
  before(async () => {
    tls = await loopbackCertificate();
    caFile = file('api.pem', tls.cert);
    tokenFile = file('own-token', 'own-secret\n');
  });
  const extra = { 'authentication.kubernetes.io/pod-name': ['sleep-1'], 'authentication.kubernetes.io/pod-uid': ['u-1'] };
  const good: Part = { authenticated: true, user: { username: 'system:serviceaccount:foo:sleep', uid: 'x', extra }, audiences: [AUDIENCE] };
  const review = (status: unknown): Answer => ({
    status: 201,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', status },
  });
  const api = (answer: Answer) => serve(() => answer, tls);
  const prover = (at: { origin: string }, more: Partial<TokenReviewOptions> = {}) =>
    new TokenReviewProver({ server: at.origin, caFile, tokenFile, audience: AUDIENCE, timeoutMs: 2000, ...more });

  test('of more reviews than may wait the last is refused as not answered, the others are made', async () => {
    const at = await api(review(good));
    const limited = prover(at, { reviews: { atOnce: 1, waiting: 1, waitMs: 5_000 } });
    const outcomes = await Promise.allSettled(['a', 'b', 'c'].map((each) => limited.prove(each)));
    assert.deepEqual(
      outcomes.map((outcome) => (outcome.status === 'fulfilled' ? 'proven' : outcome.reason.code)),
      ['proven', 'proven', 'UNAVAILABLE'],
    );
    assert.equal(at.asked.length, 2);
  });

  test('proves a service account and its pod; we ask with our own token, about the audience', async () => {
    const at = await api(review(good));
    assert.deepEqual(await prover(at).prove('their-token'), {
      namespace: 'foo',
      serviceAccount: 'sleep',
      podName: 'sleep-1',
      podUid: 'u-1',
    });
    const [asked] = at.asked;
    assert.deepEqual(
      [asked?.method, asked?.path, asked?.authorization],
      ['POST', '/apis/authentication.k8s.io/v1/tokenreviews', 'Bearer own-secret'],
    );
    assert.deepEqual(JSON.parse(asked?.body ?? ''), {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token: 'their-token', audiences: [AUDIENCE] },
    });
  });

  test('reads our own token again each time', async () => {
    const at = await api(review(good));
    const path = file('rotating-token', 'first');
    const prove = prover(at, { tokenFile: path });
    await prove.prove('t');
    file('rotating-token', 'second');
    await prove.prove('t');
    assert.deepEqual(
      at.asked.map(({ authorization }) => authorization),
      ['Bearer first', 'Bearer second'],
    );
  });

  const refused: Readonly<Record<string, readonly [status: unknown, says: string]>> = {
    'is not authenticated': [{ authenticated: false, error: 'token has expired' }, 'token has expired'],
    'is authenticated in words': [{ ...good, authenticated: 'true' }, 'not authenticated'],
    'is for another audience': [{ ...good, audiences: ['api'] }, 'without handfast-ca'],
    'is answered for without audiences, as an old API server does': [{ ...good, audiences: undefined }, 'without handfast-ca'],
    'belongs to a user': [{ ...good, user: { username: 'jane' } }, 'no service account'],
    'belongs to a node': [{ ...good, user: { username: 'system:node:n1' } }, 'no service account'],
    'belongs to nobody': [{ ...good, user: undefined }, 'no service account'],
  };
  for (const [name, [status, says]] of Object.entries(refused)) {
    test(`of a token that ${name} is a refusal`, async () => {
      const at = await api(review(status));
      await assert.rejects(prover(at).prove('t'), refusal('TOKEN_REFUSED', says));
    });
  }

  test('of no token, and of an absurdly long one, is not asked for', async () => {
    const at = await api(review(good));
    for (const token of ['', 'x'.repeat(20_000)]) await assert.rejects(prover(at).prove(token), refusal('TOKEN_REFUSED'));
    assert.equal(at.asked.length, 0);
  });

  test('with an odd pod name proves the account, and the pod by its uid; one that is bound to no pod proves nothing', async () => {
    const uid = { 'authentication.kubernetes.io/pod-uid': ['u-1'] };
    const at = await api(
      review({
        ...good,
        user: { username: 'system:serviceaccount:foo:sleep', extra: { 'authentication.kubernetes.io/pod-name': ['a', 'b'], ...uid } },
      }),
    );
    assert.deepEqual(await prover(at).prove('t'), { namespace: 'foo', serviceAccount: 'sleep', podUid: 'u-1' });
    const unbound = await api(review({ ...good, user: { username: 'system:serviceaccount:foo:sleep' } }));
    await assert.rejects(prover(unbound).prove('t'), refusal('TOKEN_REFUSED', 'bound to no pod'));
  });

  const unavailable: Readonly<Record<string, readonly [Answer, string]>> = {
    'that we may not ask for': [{ status: 403, body: {} }, 'system:auth-delegator'],
    'for which our own token is too old': [{ status: 401, body: {} }, 'system:auth-delegator'],
    'that fails': [{ status: 500, body: 'x' }, '500'],
    'that is no JSON': [{ status: 201, body: '<html>' }, 'cannot be read'],
    'that is something else': [{ status: 201, body: { kind: 'Status', status: 'Failure' } }, 'not a TokenReview'],
    'without a status': [review(undefined), 'not a TokenReview'],
    'that is redirected': [{ status: 307, headers: { location: 'https://evil.example' }, body: '' }, '307'],
    'that is endless': [{ status: 201, body: 'x'.repeat(300_000) }, 'longer than'],
  };
  for (const [name, [answer, says]] of Object.entries(unavailable)) {
    test(`${name} is no refusal: the token may be good`, async () => {
      await assert.rejects(prover(await api(answer)).prove('t'), refusal('UNAVAILABLE', says));
    });
  }

  test('that never comes, from a server that is gone, or under a certificate of somebody else, is no refusal', async () => {
    const hanging = await api({ hang: true });
    await assert.rejects(prover(hanging, { timeoutMs: 50 }).prove('t'), refusal('UNAVAILABLE', 'no answer within 50 ms'));
    const at = await api(review(good));
    const other = file('not-api.pem', (await loopbackCertificate()).cert);
    await assert.rejects(prover(at, { caFile: other }).prove('t'), refusal('UNAVAILABLE'));
    await assert.rejects(prover(at, { tokenFile: join(scratch, 'absent') }).prove('t'), refusal('UNAVAILABLE', 'absent'));
    await assert.rejects(prover(at, { tokenFile: file('empty', '\n') }).prove('t'), refusal('UNAVAILABLE', 'no bearer token'));
    assert.equal(at.asked.length, 0);
    await at.stop();
    servers.splice(servers.indexOf(at), 1);
    await assert.rejects(prover(at).prove('t'), refusal('UNAVAILABLE', 'ECONNREFUSED'));
  });

  test('is not asked for in plaintext, not even on loopback', () => {
    for (const origin of ['http://127.0.0.1:1', 'kubernetes', ''])
      assert.throws(() => prover({ origin }), refusal('CONFIG_INVALID', 'https'));
    assert.ok(prover({ origin: 'https://kubernetes.default.svc' }));
  });
});

describe('several provers', () => {
  const key = keyPair().privateKey;
  const local = new LocalTokenProver({ key, audience: AUDIENCE, now: () => NOW });
  const ours = (more: { audience?: string } = {}) =>
    createLocalToken({ namespace: 'foo', serviceAccount: 'sleep', audience: AUDIENCE, ttlS: 60, key, now: NOW, ...more });
  /** Proves or refuses everything, and counts. */
  function counting(refuses = false): TokenProver & { count: number } {
    const made = {
      count: 0,
      prove: async () => {
        made.count++;
        if (refuses) throw new HandfastError('TOKEN_REFUSED', 'token refused: by the other one');
        return { namespace: 'bar', serviceAccount: 'other' };
      },
    };
    return made;
  }

  test('each is asked about the tokens of its issuer', async () => {
    const other = counting();
    const chain = new ProverChain([
      { issuer: LOCAL_ISSUER, prover: local },
      { issuer: 'https://k8s.example', prover: other },
    ]);
    assert.deepEqual(await chain.prove(ours()), { namespace: 'foo', serviceAccount: 'sleep' });
    assert.equal(other.count, 0);
    assert.deepEqual(await chain.prove(jwt({ iss: 'https://k8s.example' })), { namespace: 'bar', serviceAccount: 'other' });
  });

  test('a refusal is final: no other one is asked', async () => {
    const otherwise = counting();
    const chain = new ProverChain([{ issuer: LOCAL_ISSUER, prover: local }], otherwise);
    await assert.rejects(chain.prove(ours({ audience: 'x' })), refusal('TOKEN_REFUSED', 'audience'));
    // A forged issuer chooses the prover that then finds the forgery.
    await assert.rejects(chain.prove(jwt({ ...base, iss: LOCAL_ISSUER })), refusal('TOKEN_REFUSED'));
    assert.equal(otherwise.count, 0);
    await chain.prove(jwt({ iss: 'https://unlisted.example' }));
    assert.equal(otherwise.count, 1);
  });

  test('an issuer that nobody knows is refused, naming those that are; so is a token without one', async () => {
    const chain = new ProverChain([{ issuer: LOCAL_ISSUER, prover: local }]);
    await assert.rejects(chain.prove(jwt({ iss: 'https://evil.example' })), refusal('TOKEN_REFUSED', 'evil.example', LOCAL_ISSUER));
    for (const token of [jwt({}), jwt({ iss: 7 }), '', 'x', 'a.b.c']) await assert.rejects(chain.prove(token), refusal('TOKEN_REFUSED'));
    await chain.prove(ours());
  });

  test('two for one issuer are a mistake', () => {
    const twice = [1, 2].map(() => ({ issuer: LOCAL_ISSUER, prover: local }));
    assert.throws(() => new ProverChain(twice), refusal('CONFIG_INVALID'));
  });
});
