// Signed tokens and key sets. Each forgery stands beside the valid twin that it was made from.

import assert from 'node:assert/strict';
import { constants, createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, test } from 'node:test';
import { type Jwks, parseJwks, readJws, verifyJws } from '../../src/spiffe/jwt.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const NOW = Date.UTC(2030, 0, 1);
const NOW_S = NOW / 1000;
const SUB = 'spiffe://cluster.local/ns/foo/sa/sleep';
const { privateKey, publicKey } = keyPair();
const stranger = keyPair().privateKey;

type Part = Readonly<Record<string, unknown>>;
const encode = (part: unknown) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');
const jwk = (key: KeyObject, more: Part = {}): Part => ({ ...key.export({ format: 'jwk' }), kid: 'one', use: 'jwt-svid', ...more });
const jwks = (...keys: unknown[]): Jwks => parseJwks(JSON.stringify({ keys }));
const header: Part = { alg: 'ES256', kid: 'one', typ: 'JWT' };
const claims: Part = { sub: SUB, aud: ['db'], iat: NOW_S, exp: NOW_S + 300 };
const without = (part: Part, ...names: string[]) => Object.fromEntries(Object.entries(part).filter(([name]) => !names.includes(name)));

/** Any header over any claims, rightly signed. Strings are taken as they are. */
function jwt(of: { header?: unknown; claims?: unknown; key?: KeyObject } = {}): string {
  const text = `${encode(of.header ?? header)}.${encode(of.claims ?? claims)}`;
  return `${text}.${sign('sha256', Buffer.from(text), { key: of.key ?? privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

const keys = jwks(jwk(publicKey));
const bundles = new Map([['cluster.local', keys]]);
const verifySvid = (token: string, options: { audience?: string; now?: number; bundles?: ReadonlyMap<string, Jwks> } = {}) =>
  verifyJwtSvid(token, { audience: 'db', bundles, now: NOW, ...options });

describe('every algorithm verifies with a key that fits, and with no other', () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const ec = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' } as const;
  const token = (alg: string, key: KeyObject, padding: object) => {
    const text = `${encode({ alg, kid: 'one' })}.${encode(claims)}`;
    return `${text}.${sign(`sha${alg.slice(2)}`, Buffer.from(text), { key, ...padding }).toString('base64url')}`;
  };
  const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']) {
    test(alg, () => {
      const good = token(alg, rsa.privateKey, alg.startsWith('PS') ? pss : {});
      assert.equal(verifyJws(good, jwks(jwk(rsa.publicKey))).claims.sub, SUB);
      assert.equal(verifyJws(good, jwks(jwk(rsa.publicKey, { alg }))).claims.sub, SUB);
      assert.throws(
        () => verifyJws(good, jwks(jwk(rsa.publicKey, { alg: alg === 'RS256' ? 'PS256' : 'RS256' }))),
        refusal('JWT_INVALID', 'sign with'),
      );
      assert.throws(() => verifyJws(good, keys), refusal('JWT_INVALID', `does not sign with ${alg}`));
      assert.throws(
        () => verifyJws(token(alg, rsa.privateKey, alg.startsWith('PS') ? {} : pss), jwks(jwk(rsa.publicKey))),
        refusal('JWT_INVALID', 'signature'),
      );
    });
  }
  for (const [alg, namedCurve] of Object.entries(ec)) {
    test(alg, () => {
      const pair = generateKeyPairSync('ec', { namedCurve });
      const good = token(alg, pair.privateKey, { dsaEncoding: 'ieee-p1363' });
      assert.equal(verifyJws(good, jwks(jwk(pair.publicKey))).claims.sub, SUB);
      assert.throws(() => verifyJws(good, jwks(jwk(rsa.publicKey))), refusal('JWT_INVALID', `does not sign with ${alg}`));
      assert.throws(() => verifyJws(token(alg, pair.privateKey, {}), jwks(jwk(pair.publicKey))), refusal('JWT_INVALID', 'signature'));
    });
  }
  test('a PSS salt of another length is refused', () => {
    const long = token('PS256', rsa.privateKey, { ...pss, saltLength: 20 });
    assert.throws(() => verifyJws(long, jwks(jwk(rsa.publicKey))), refusal('JWT_INVALID', 'signature'));
  });
});

describe('a token', () => {
  test('is taken as it was made', () => {
    const { id, expiresAt, claims: seen } = verifySvid(jwt());
    assert.equal(id.uri, SUB);
    assert.equal(expiresAt, NOW + 300_000);
    assert.equal(seen.iat, NOW_S);
  });

  const accepted: Readonly<Record<string, string>> = {
    'without a type': jwt({ header: without(header, 'typ') }),
    'of type JOSE': jwt({ header: { ...header, typ: 'JOSE' } }),
    'with an audience that is a string': jwt({ claims: { ...claims, aud: 'db' } }),
    'with several audiences': jwt({ claims: { ...claims, aud: ['x', 'db'] } }),
    'with claims that nobody knows': jwt({ claims: { ...claims, iss: 'x', jti: 'y', nested: { a: [{ a: 1 }, { a: 2 }] } } }),
    'with a name that stands in two objects': jwt({
      claims: '{"sub":"spiffe://cluster.local/ns/foo/sa/sleep","aud":"db","exp":1999999999,"x":{"exp":1},"y":[{"exp":"a\\"exp\\":"}]}',
    }),
    'from a clock ahead by less than the leeway': jwt({ claims: { ...claims, iat: NOW_S + 30, nbf: NOW_S + 30 } }),
    'without iat and nbf': jwt({ claims: without(claims, 'iat') }),
  };
  for (const [name, token] of Object.entries(accepted)) test(`${name} is accepted`, () => assert.ok(verifySvid(token)));

  const [h = '', p = '', s = ''] = jwt().split('.');
  const spki = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const hmac = `${encode({ alg: 'HS256', kid: 'one' })}.${p}`;
  const refused: Readonly<Record<string, readonly [token: string, says: string | RegExp]>> = {
    'signed by a stranger': [jwt({ key: stranger }), 'signature does not verify'],
    'with an altered payload': [`${h}.${encode({ ...claims, aud: ['db', 'x'] })}.${s}`, 'signature does not verify'],
    'of algorithm none': [`${encode({ alg: 'none', kid: 'one' })}.${p}.`, '"none"'],
    'of algorithm None': [`${encode({ alg: 'None', kid: 'one' })}.${p}.`, '"None"'],
    'with an HMAC over the public key': [`${hmac}.${createHmac('sha256', spki).update(hmac).digest('base64url')}`, '"HS256"'],
    'of an algorithm that is a member of every object': [jwt({ header: { ...header, alg: 'constructor' } }), 'constructor'],
    'without an algorithm': [jwt({ header: without(header, 'alg') }), 'algorithm'],
    'without a signature': [`${h}.${p}.`, 'signature does not verify'],
    'without a kid': [jwt({ header: without(header, 'kid') }), 'names no key'],
    'with an unknown kid': [jwt({ header: { ...header, kid: 'two' } }), '"two" is not among'],
    'with a kid that is a number': [jwt({ header: { ...header, kid: 1 } }), 'kid'],
    'with crit': [jwt({ header: { ...header, crit: ['b64'], b64: false } }), 'crit'],
    'with a key of its own (jwk)': [jwt({ header: { ...header, jwk: jwk(publicKey) }, key: stranger }), 'jwk'],
    'with jku': [jwt({ header: { ...header, jku: 'https://evil.example' } }), 'jku'],
    'with x5u': [jwt({ header: { ...header, x5u: 'https://evil.example' } }), 'x5u'],
    'with x5c': [jwt({ header: { ...header, x5c: [] } }), 'x5c'],
    'of another type': [jwt({ header: { ...header, typ: 'at+jwt' } }), 'at+jwt'],
    'with padding': [`${h}.${p}.${s}==`, 'base64url'],
    'with stray bits in the last character': [
      `${h}.${p}.${s.slice(0, -1)}${String.fromCharCode(s.charCodeAt(s.length - 1) + 1)}`,
      'base64url',
    ],
    'with a line break': [`${h}.${p}.${s}\n`, 'base64url'],
    'of two parts': [`${h}.${p}`, 'three parts'],
    'of four parts': [`${jwt()}.x`, 'three parts'],
    'of five parts': ['a.b.c.d.e', 'three parts'],
    'that is empty': ['', 'three parts'],
    'of ten million dots': ['.'.repeat(10_000_000), 'longer than'],
    'longer than 16 KiB': [jwt({ claims: { ...claims, pad: 'x'.repeat(16_384) } }), 'longer than'],
    'whose claims are a list': [jwt({ claims: '[]' }), 'claims'],
    'whose claims are no JSON': [jwt({ claims: '{' }), 'claims'],
    'with two subjects': [jwt({ claims: `{"sub":"${SUB}","sub":"${SUB}","aud":"db","exp":1999999999}` }), '"sub" stands twice'],
    'with two subjects, one escaped': [
      jwt({ claims: `{"sub":"${SUB}","s\\u0075b":"${SUB}","aud":"db","exp":1999999999}` }),
      'stands twice',
    ],
    'with two algorithms': [jwt({ header: '{"alg":"ES256","alg":"ES256","kid":"one"}' }), '"alg" stands twice'],
    'that is no UTF-8': [`${h}.${Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]).toString('base64url')}.${s}`, 'claims'],
    'with a byte order mark': [jwt({ claims: `\ufeff${JSON.stringify(claims)}` }), 'claims'],
    'for another audience': [jwt({ claims: { ...claims, aud: ['other'] } }), 'lacks "db"'],
    'for an audience that only contains ours': [jwt({ claims: { ...claims, aud: ['db.evil'] } }), 'lacks "db"'],
    'for no audience': [jwt({ claims: without(claims, 'aud') }), 'no audience'],
    'for an empty list of audiences': [jwt({ claims: { ...claims, aud: [] } }), 'no audience'],
    'for an empty audience': [jwt({ claims: { ...claims, aud: '' } }), 'no audience'],
    'for a nested audience': [jwt({ claims: { ...claims, aud: [['db']] } }), 'no audience'],
    'that has expired': [jwt({ claims: { ...claims, exp: NOW_S } }), 'expired at 2030-01-01T00:00:00.000Z; our clock says'],
    'without an expiry': [jwt({ claims: without(claims, 'exp') }), 'no expiry'],
    'with an expiry that is text': [jwt({ claims: { ...claims, exp: '9999999999' } }), 'exp is no time'],
    'with an expiry that is null': [jwt({ claims: { ...claims, exp: null } }), 'exp is no time'],
    'with an expiry beyond all numbers': [jwt({ claims: JSON.stringify(claims).replace(/"exp":\d+/, '"exp":1e999') }), 'exp is no time'],
    'that is not valid yet': [jwt({ claims: { ...claims, nbf: NOW_S + 31 } }), 'not valid before'],
    'issued in the future': [jwt({ claims: { ...claims, iat: NOW_S + 31 } }), 'not valid before'],
    'with an nbf that is text': [jwt({ claims: { ...claims, nbf: '1' } }), 'nbf is no time'],
    'without a subject': [jwt({ claims: without(claims, 'sub') }), 'no subject'],
    'whose subject is no SPIFFE ID': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo:sleep' } }), 'not a SPIFFE ID'],
    'whose subject is a trust domain': [jwt({ claims: { ...claims, sub: 'spiffe://cluster.local' } }), 'not a workload'],
    'of a trust domain without keys': [
      jwt({ claims: { ...claims, sub: 'spiffe://other.example/ns/foo/sa/sleep' } }),
      'no keys of trust domain other.example',
    ],
  };
  for (const [name, [token, says]] of Object.entries(refused)) {
    test(`${name} is refused`, () => assert.throws(() => verifySvid(token), refusal('JWT_INVALID', says)));
  }

  test('of one trust domain, signed by a key of another, is refused: keys verify their own members alone', () => {
    const theirs = keyPair();
    const both = new Map([...bundles, ['other.example', jwks(jwk(theirs.publicKey))] as const]);
    assert.throws(() => verifySvid(jwt({ key: theirs.privateKey }), { bundles: both }), refusal('JWT_INVALID', 'signature'));
    const own = jwt({ key: theirs.privateKey, claims: { ...claims, sub: 'spiffe://other.example/ns/foo/sa/sleep' } });
    assert.equal(verifySvid(own, { bundles: both }).id.trustDomain, 'other.example');
  });

  test('is refused for an audience that is empty and a clock that is no number', () => {
    assert.throws(() => verifySvid(jwt(), { audience: '' }), refusal('JWT_INVALID'));
    assert.throws(() => verifySvid(jwt(), { now: Number.NaN }), refusal('JWT_INVALID', 'expired'));
  });

  test('cut at any byte is refused', () => {
    const whole = jwt();
    for (let length = 0; length < whole.length; length++) assert.throws(() => verifySvid(whole.slice(0, length)), refusal('JWT_INVALID'));
  });

  test('can be read before it is verified, for choosing whom to ask', () => assert.equal(readJws(jwt({ key: stranger })).claims.sub, SUB));
});

describe('a key set', () => {
  const rsa = (bits: number) => generateKeyPairSync('rsa', { modulusLength: bits }).publicKey;
  test('leaves out keys of other kinds and keeps the rest', () => {
    const set = jwks(
      { kty: 'OKP', crv: 'Ed25519', x: 'AA', kid: 'a' },
      jwk(publicKey, { kid: 'b', use: 'x509-svid', x5c: ['x'] }),
      jwk(publicKey, { kid: 'c', use: 'enc' }),
      jwk(publicKey, { kid: 'd', alg: 'ECDH-ES' }),
      jwk(publicKey, { kid: 'e', key_ops: ['sign'] }),
      jwk(publicKey, { kid: 'f', use: 'sig', key_ops: ['verify'] }),
      without(jwk(publicKey, { kid: 'g' }), 'use'),
      { kty: 'unheard-of' },
    );
    assert.deepEqual(
      set.keys.map(({ kid }) => kid),
      ['f', 'g'],
    );
    assert.deepEqual(set.keys[0]?.algorithms, ['ES256']);
  });
  test('may be empty, and may carry the members of a SPIFFE bundle', () => {
    assert.equal(parseJwks('{"keys":[],"spiffe_sequence":1,"spiffe_refresh_hint":2}').keys.length, 0);
  });

  const p256 = jwk(publicKey);
  const secret: Part = { ...privateKey.export({ format: 'jwk' }), kid: 'one' };
  const cases: Readonly<Record<string, readonly [text: string, says: string | RegExp]>> = {
    'that is no JSON': ['{', 'key set'],
    'that is a list': ['[]', 'not a JSON object'],
    'without keys': ['{}', '"keys"'],
    'with a key that is text': ['{"keys":["x"]}', 'key 1: not an object'],
    'with a private key': [JSON.stringify({ keys: [secret] }), 'key 1: it carries private key material ("d")'],
    'with a symmetric key': [JSON.stringify({ keys: [{ kty: 'oct', k: 'AA', kid: 'x' }] }), 'private key material ("k")'],
    'with one kid twice': [JSON.stringify({ keys: [p256, jwk(keyPair().publicKey)] }), 'kid "one" stands twice'],
    'with a member twice': ['{"keys":[],"keys":[]}', 'stands twice'],
    'with RSA of 1024 bits': [JSON.stringify({ keys: [jwk(rsa(1024))] }), 'RSA of 1024 bits'],
    'with an RSA exponent of 1': [JSON.stringify({ keys: [{ ...jwk(rsa(2048)), e: 'AQ' }] }), 'key 1'],
    'with a point that is not on the curve': [JSON.stringify({ keys: [{ ...p256, x: 'AA'.repeat(21).concat('A') }] }), 'key 1'],
    'without a coordinate': [JSON.stringify({ keys: [without(p256, 'y')] }), '"y" is missing'],
    'with a padded coordinate': [JSON.stringify({ keys: [{ ...p256, x: `${String(p256.x)}=` }] }), 'base64url'],
    'with a kid that is a number': [JSON.stringify({ keys: [{ ...p256, kid: 7 }] }), 'kid'],
    'with an empty kid': [JSON.stringify({ keys: [{ ...p256, kid: '' }] }), 'kid'],
    'of 101 keys': [JSON.stringify({ keys: Array.from({ length: 101 }, () => ({ kty: 'x' })) }), '101 keys'],
    'of more than 512 KiB': [`{"keys":[],"pad":"${'x'.repeat(600_000)}"}`, 'longer than'],
  };
  for (const [name, [text, says]] of Object.entries(cases)) {
    test(`${name} is refused`, () => assert.throws(() => parseJwks(text), refusal('JWT_INVALID', says)));
  }
});
