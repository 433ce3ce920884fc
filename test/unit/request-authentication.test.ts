// RequestAuthentication for one request: whose token counts, what is refused, and what of it the application hears.

import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, test } from 'node:test';
import type { JwtRule } from '../../src/policy/jwt-rule.ts';
import { type Authenticated, authenticateRequest } from '../../src/policy/request-authentication.ts';

const NOW = Date.UTC(2026, 0, 1);
const seconds = NOW / 1000;
const ISS = 'https://issuer.example';

const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ed = generateKeyPairSync('ed25519');

const jwk = (key: KeyObject, more: object) => ({ ...key.export({ format: 'jwk' }), ...more });
const JWKS = JSON.stringify({ keys: [jwk(ec.publicKey, { kid: 'ec' }), jwk(rsa.publicKey, { kid: 'rsa' })] });

const rule = (more: Partial<JwtRule> = {}): JwtRule => ({
  issuer: ISS,
  audiences: [],
  jwks: JWKS,
  fromHeaders: [],
  fromParams: [],
  fromCookies: [],
  outputPayloadToHeader: undefined,
  outputClaims: [],
  forwardOriginalToken: false,
  source: 'RequestAuthentication foo/jwt',
  ...more,
});

const b64 = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const claimsOf = (more: object = {}) => ({ iss: ISS, sub: 'alice', aud: ['shop'], exp: seconds + 60, ...more });

function token(claims: unknown = claimsOf(), header: Record<string, unknown> = {}, key: KeyObject = ec.privateKey): string {
  const alg = key.asymmetricKeyType === 'rsa' ? 'RS256' : 'ES256';
  const signed = `${b64({ alg, kid: alg === 'RS256' ? 'rsa' : 'ec', typ: 'JWT', ...header })}.${b64(claims)}`;
  const signature =
    key.asymmetricKeyType === 'ed25519'
      ? sign(null, Buffer.from(signed), key)
      : sign('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

type Brought = { headers?: Record<string, string | readonly string[]>; query?: string };

function ask({ headers = {}, query = '' }: Brought, rules: readonly JwtRule[] = [rule()], now = NOW): Authenticated {
  return authenticateRequest(rules, { values: (name) => [headers[name] ?? []].flat(), query }, now);
}

const bearer = (text: string): Brought => ({ headers: { authorization: `Bearer ${text}` } });
const principalOf = (found: Authenticated) => ('refused' in found ? 'refused' : (found.auth?.principal ?? 'nobody'));

describe('a token that is good', () => {
  for (const [what, text] of Object.entries({
    ES256: token(),
    RS256: token(claimsOf(), {}, rsa.privateKey),
    'an access token': token(claimsOf(), { typ: 'at+jwt' }),
    'without a type': token(claimsOf(), { typ: undefined }),
    'without a kid, where one key can be meant': token(claimsOf(), { kid: undefined }),
    'from a little ahead of us': token(claimsOf({ nbf: seconds + 30, iat: seconds + 30 })),
    'without an audience, where none is asked for': token(claimsOf({ aud: undefined })),
  }))
    test(what, () => assert.equal(principalOf(ask(bearer(text))), `${ISS}/alice`));

  test('its facts', () => {
    const found = ask(bearer(token(claimsOf({ azp: 'web', group: ['a'] }))));
    assert.ok(!('refused' in found));
    const { claims, ...facts } = found.auth ?? {};
    assert.deepEqual(facts, { principal: `${ISS}/alice`, audiences: ['shop'], presenter: 'web' });
    assert.deepEqual(claims?.group, ['a']);
  });

  test('without a subject it has no principal', () => assert.equal(principalOf(ask(bearer(token(claimsOf({ sub: undefined }))))), ''));
  test('no token is nobody', () => assert.equal(principalOf(ask({})), 'nobody'));
  test('another scheme is no token', () => assert.equal(principalOf(ask({ headers: { authorization: 'Basic abc' } })), 'nobody'));
  test('the scheme in another case is one', () =>
    assert.equal(principalOf(ask({ headers: { authorization: `bearer ${token()}` } })), `${ISS}/alice`));
  test('the one audience that is asked for', () =>
    assert.equal(principalOf(ask(bearer(token()), [rule({ audiences: ['bank', 'shop'] })])), `${ISS}/alice`));
  test('by the second rule of its issuer', () =>
    assert.equal(principalOf(ask(bearer(token()), [rule({ audiences: ['bank'] }), rule({ audiences: ['shop'] })])), `${ISS}/alice`));
});

describe('refused', () => {
  const signed = token();
  const [head = '', body = '', signature = ''] = signed.split('.');
  const hmac = (() => {
    const text = `${b64({ alg: 'HS256', kid: 'ec', typ: 'JWT' })}.${b64(claimsOf())}`;
    return `${text}.${createHmac('sha256', ec.publicKey.export({ format: 'pem', type: 'spki' }))
      .update(text)
      .digest('base64url')}`;
  })();
  for (const [what, text] of Object.entries({
    'another issuer': token(claimsOf({ iss: 'https://evil' })),
    'no issuer': token(claimsOf({ iss: undefined })),
    'a list of issuers': token(claimsOf({ iss: [ISS] })),
    'another key': token(claimsOf(), {}, other.privateKey),
    'an unknown kid': token(claimsOf(), { kid: 'x' }),
    'a key of another kind': token(claimsOf(), { kid: 'rsa' }),
    'alg none': `${b64({ alg: 'none', kid: 'ec' })}.${body}.`,
    'HS256 with the public key as its secret': hmac,
    EdDSA: token(claimsOf(), { alg: 'EdDSA' }, ed.privateKey),
    crit: token(claimsOf(), { crit: ['exp'] }),
    'a key of its own': token(claimsOf(), { jwk: jwk(ec.publicKey, {}) }),
    jku: token(claimsOf(), { jku: 'https://evil' }),
    x5u: token(claimsOf(), { x5u: 'https://evil' }),
    'a type that is none': token(claimsOf(), { typ: 'secevent+jwt' }),
    'JSON serialisation': JSON.stringify({ payload: body, signatures: [{ protected: head, signature }] }),
    'four parts': `${signed}.x`,
    'two parts': `${head}.${body}`,
    'a changed body': `${head}.${b64(claimsOf({ sub: 'root' }))}.${signature}`,
    'a stray bit in the signature': `${head}.${body}.${signature}=`,
    'a claim twice': (() => {
      const text = `${b64({ alg: 'ES256', kid: 'ec' })}.${b64(`{"iss":"${ISS}","sub":"a","sub":"b","exp":${seconds + 60}}`)}`;
      return `${text}.${sign('sha256', Buffer.from(text), { key: ec.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
    })(),
    expired: token(claimsOf({ exp: seconds })),
    'without an expiry': token(claimsOf({ exp: undefined })),
    'an expiry that is a text': token(claimsOf({ exp: String(seconds + 60) })),
    'not valid yet': token(claimsOf({ nbf: seconds + 120 })),
    'too long': token(claimsOf({ x: 'a'.repeat(20_000) })),
    'no token at all': 'opaque',
  }))
    test(what, () => {
      const found = ask(bearer(text));
      assert.ok('refused' in found, what);
      assert.deepEqual(found.refused.fields, [['www-authenticate', 'Bearer error="invalid_token"']]);
      assert.doesNotMatch(found.refused.reason, new RegExp(signature));
    });

  test('another audience', () => assert.equal(principalOf(ask(bearer(signed), [rule({ audiences: ['bank'] })])), 'refused'));
  test('no audience, where one is asked for', () =>
    assert.equal(principalOf(ask(bearer(token(claimsOf({ aud: undefined }))), [rule({ audiences: ['shop'] })])), 'refused'));
  test('while the keys have not been had', () => assert.equal(principalOf(ask(bearer(signed), [rule({ jwks: '' })])), 'refused'));
  test('once its key is withdrawn, however often it was good', () => {
    assert.equal(principalOf(ask(bearer(signed))), `${ISS}/alice`);
    const withdrawn = rule({ jwks: JSON.stringify({ keys: [jwk(rsa.publicKey, { kid: 'rsa' })] }) });
    assert.equal(principalOf(ask(bearer(signed), [withdrawn])), 'refused');
  });
  test('once it has expired, though its signature is remembered', () => {
    const one = rule();
    assert.equal(principalOf(ask(bearer(signed), [one])), `${ISS}/alice`);
    assert.equal(principalOf(ask(bearer(signed), [one], NOW + 60_000)), 'refused');
  });
  test('two tokens, though both are good', () =>
    assert.equal(
      principalOf(ask({ headers: { authorization: [`Bearer ${signed}`, `Bearer ${token(claimsOf({ sub: 'bob' }))}`] } })),
      'refused',
    ));
  test('a good one, and another in the query', () =>
    assert.equal(principalOf(ask({ ...bearer(signed), query: '?access_token=x' })), 'refused'));
  test('the same one twice is one', () =>
    assert.equal(principalOf(ask({ ...bearer(signed), query: `?access_token=${signed}` })), `${ISS}/alice`));
  test('an issuer that looks elsewhere', () =>
    assert.equal(
      principalOf(ask(bearer(signed), [rule({ issuer: 'https://a' }), rule({ fromHeaders: [{ name: 'x-jwt', prefix: '' }] })])),
      'refused',
    ));
});

describe('where tokens stand', () => {
  const text = token();
  test('a header of its own', () => {
    const rules = [rule({ fromHeaders: [{ name: 'x-jwt', prefix: 'JWT ' }] })];
    assert.equal(principalOf(ask({ headers: { 'x-jwt': `JWT ${text}` } }, rules)), `${ISS}/alice`);
    assert.equal(principalOf(ask(bearer(text), rules)), 'nobody', 'and then nowhere else');
  });
  test('a parameter', () => assert.equal(principalOf(ask({ query: `?a=b&t=${text}` }, [rule({ fromParams: ['t'] })])), `${ISS}/alice`));
  test('a cookie', () =>
    assert.equal(principalOf(ask({ headers: { cookie: `a=b; t=${text}` } }, [rule({ fromCookies: ['t'] })])), `${ISS}/alice`));
});

describe('what the application hears', () => {
  const text = token(claimsOf({ realm: { role: 'admin' }, n: 7, yes: true, list: ['a'], bad: 'a\r\nX-Evil: 1', name: 'Zoë' }));
  const heard = (brought: Brought, more: Partial<JwtRule>) => {
    const found = ask(brought, [rule(more)]);
    assert.ok(!('refused' in found));
    const { auth: _, ...rest } = found;
    return rest;
  };
  test('not the token', () => assert.deepEqual(heard(bearer(text), {}), { remove: ['authorization'], add: [] }));
  test('the token, where it is to go on', () =>
    assert.deepEqual(heard(bearer(text), { forwardOriginalToken: true }), { remove: [], add: [] }));
  test('the query without it, the rest as it was', () =>
    assert.deepEqual(heard({ query: `?a=%2F&access_token=${text}&b` }, {}), { remove: [], add: [], query: '?a=%2F&b' }));
  test('the query without it, and nothing else in it', () => assert.equal(heard({ query: `?access_token=${text}` }, {}).query, ''));
  test('the other cookies', () =>
    assert.deepEqual(heard({ headers: { cookie: `a=b; t=${text}; c=d` } }, { fromCookies: ['t'] }), {
      remove: ['cookie'],
      add: [['cookie', 'a=b; c=d']],
    }));
  test('its payload', () =>
    assert.deepEqual(heard(bearer(text), { outputPayloadToHeader: 'x-payload' }), {
      remove: ['x-payload', 'authorization'],
      add: [['x-payload', text.split('.')[1]]],
    }));
  test('claims, and none that would be more than a value', () => {
    const outputClaims = ['realm.role', 'n', 'yes', 'list', 'bad', 'name', 'none'].map((claim) => ({
      header: `x-${claim}`,
      claim: claim.split('.'),
    }));
    assert.deepEqual(heard(bearer(text), { outputClaims }).add, [
      ['x-realm.role', 'admin'],
      ['x-n', '7'],
      ['x-yes', 'true'],
      ['x-name', Buffer.from('Zoë').toString('latin1')],
    ]);
  });
  test('a claim that a caller says itself goes, with and without a token', () => {
    const more = { outputClaims: [{ header: 'x-role', claim: ['role'] }] };
    assert.deepEqual(heard({ headers: { 'x-role': 'root' } }, more), { remove: ['x-role'], add: [] });
    assert.ok(heard(bearer(text), more).remove.includes('x-role'));
  });
});
