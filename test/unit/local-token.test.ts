// Tokens of one machine: what the CA takes as proof of who a workload is. Each forgery stands beside the valid twin that it was made from.

import assert from 'node:assert/strict';
import { createHmac, createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createLocalToken, DEFAULT_AUDIENCE, LocalTokenProver, openLocalTokenKey } from '../../src/ca/local-token.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const NOW = Date.UTC(2030, 0, 1);
const NOW_S = NOW / 1000;
const { privateKey: key, publicKey } = keyPair();
const stranger = keyPair().privateKey;

const prover = (options: { now?: number; key?: KeyObject; audience?: string } = {}) =>
  new LocalTokenProver({ key: options.key ?? key, audience: options.audience ?? DEFAULT_AUDIENCE, now: () => options.now ?? NOW });
const token = (options: Partial<Parameters<typeof createLocalToken>[0]> = {}) =>
  createLocalToken({ namespace: 'foo', serviceAccount: 'sleep', audience: DEFAULT_AUDIENCE, ttlS: 3600, key, now: NOW, ...options });

type Part = Readonly<Record<string, unknown>>;
const encode = (part: unknown) => Buffer.from(JSON.stringify(part)).toString('base64url');
const header: Part = { alg: 'ES256', typ: 'JWT' };
const claims: Part = {
  iss: 'handfast/local',
  sub: 'system:serviceaccount:foo:sleep',
  aud: [DEFAULT_AUDIENCE],
  iat: NOW_S,
  nbf: NOW_S,
  exp: NOW_S + 3600,
};
const signed = (text: string, by: KeyObject = key) =>
  `${text}.${sign('sha256', Buffer.from(text), { key: by, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
/** Any header over any claims, rightly signed. */
const jwt = (of: { header?: unknown; claims?: unknown; key?: KeyObject } = {}) =>
  signed(`${encode(of.header ?? header)}.${encode(of.claims ?? claims)}`, of.key);
const without = (part: Part, ...names: string[]) => Object.fromEntries(Object.entries(part).filter(([name]) => !names.includes(name)));

describe('accepted', () => {
  test('a token of our own making proves its namespace and service account', async () => {
    assert.deepEqual(await prover().prove(token()), { namespace: 'foo', serviceAccount: 'sleep' });
  });

  test('the hand-made twin of the forgeries below', async () => {
    assert.deepEqual(await prover().prove(jwt()), { namespace: 'foo', serviceAccount: 'sleep' });
  });

  const accepted: Readonly<Record<string, string>> = {
    'several audiences, ours among them': jwt({ claims: { ...claims, aud: ['other', DEFAULT_AUDIENCE] } }),
    'claims that we do not know': jwt({ claims: { ...claims, 'kubernetes.io': { pod: 'x' } } }),
    'a service account with dots': jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo:a.b-c.d' } }),
    'a namespace of 63 characters': jwt({ claims: { ...claims, sub: `system:serviceaccount:${'n'.repeat(63)}:sleep` } }),
    'one expired less than the leeway ago': jwt({ claims: { ...claims, exp: NOW_S - 30 } }),
    'one from a clock ahead by less than the leeway': jwt({ claims: { ...claims, nbf: NOW_S + 30 } }),
  };
  for (const [name, text] of Object.entries(accepted)) test(name, async () => assert.ok(await prover().prove(text)));

  test('up to its last second', async () => {
    assert.ok(await prover({ now: NOW + 3600_000 }).prove(token()));
    await assert.rejects(prover({ now: NOW + 3631_000 }).prove(token()), refusal('TOKEN_REFUSED', 'expired'));
  });
});

describe('refused', () => {
  const [validHeader = '', validPayload = '', validSignature = ''] = jwt().split('.');
  const publicPem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const hs256 = `${encode({ alg: 'HS256', typ: 'JWT' })}.${validPayload}`;
  const hmac = (secret: string | Buffer) => `${hs256}.${createHmac('sha256', secret).update(hs256).digest('base64url')}`;
  const derSigned = () => {
    const text = `${validHeader}.${validPayload}`;
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
  };
  // A public key of the attacker's own, offered in the header.
  const jwk = createPublicKey(stranger).export({ format: 'jwk' });

  const cases: Readonly<Record<string, readonly [token: string, says?: string | RegExp]>> = {
    'another audience': [token({ audience: 'someone-else' }), 'audience'],
    'an empty list of audiences': [jwt({ claims: { ...claims, aud: [] } }), 'audience'],
    'an audience that only contains ours': [jwt({ claims: { ...claims, aud: [`${DEFAULT_AUDIENCE}.evil`] } }), 'audience'],
    'an audience that is a string: ours are always lists': [jwt({ claims: { ...claims, aud: DEFAULT_AUDIENCE } }), 'audience'],
    'a nested audience': [jwt({ claims: { ...claims, aud: [[DEFAULT_AUDIENCE]] } }), 'audience'],
    'no audience': [jwt({ claims: without(claims, 'aud') }), 'audience'],
    expired: [jwt({ claims: { ...claims, exp: NOW_S - 31 } }), 'expired'],
    'no expiry': [jwt({ claims: without(claims, 'exp') }), 'expired'],
    'an expiry that is text': [jwt({ claims: { ...claims, exp: '9999999999' } }), 'expired'],
    'an expiry that is null': [jwt({ claims: { ...claims, exp: null } }), 'expired'],
    'an expiry beyond all numbers': [
      signed(`${validHeader}.${Buffer.from(JSON.stringify(claims).replace(/"exp":\d+/, '"exp":1e999')).toString('base64url')}`),
    ],
    'not valid yet': [jwt({ claims: { ...claims, nbf: NOW_S + 31 } }), 'not valid yet'],
    'no nbf': [jwt({ claims: without(claims, 'nbf') }), 'not valid yet'],
    'another issuer': [jwt({ claims: { ...claims, iss: 'kubernetes/serviceaccount' } }), 'issuer'],
    'no issuer': [jwt({ claims: without(claims, 'iss') }), 'issuer'],
    "another key's signature": [token({ key: stranger }), 'signature'],
    'alg: none, unsigned': [`${encode({ alg: 'none', typ: 'JWT' })}.${validPayload}.`, 'header'],
    'alg: none, with a signature': [jwt({ header: { alg: 'none', typ: 'JWT' } }), 'header'],
    'alg: None': [`${encode({ alg: 'None' })}.${validPayload}.`, 'header'],
    'HS256 with the public key in PEM as the secret': [hmac(publicPem), 'header'],
    'HS256 with the public key in DER as the secret': [hmac(publicKey.export({ type: 'spki', format: 'der' })), 'header'],
    'a header with a kid': [jwt({ header: { ...header, kid: 'x' } }), 'header'],
    'a header with a key of its own, signed by it': [jwt({ header: { ...header, jwk }, key: stranger }), 'header'],
    'a header with jku': [jwt({ header: { ...header, jku: 'http://127.0.0.1/keys' } }), 'header'],
    'a header with crit': [jwt({ header: { ...header, crit: ['x'] } }), 'header'],
    'a header in another order': [jwt({ header: { typ: 'JWT', alg: 'ES256' } }), 'header'],
    'a header that is padded': [signed(`${validHeader}=.${validPayload}`), 'header'],
    'a payload that was changed': [
      `${validHeader}.${encode({ ...claims, sub: 'system:serviceaccount:foo:admin' })}.${validSignature}`,
      'signature',
    ],
    'a payload with one more claim': [`${validHeader}.${encode({ ...claims, exp: NOW_S + 9e6 })}.${validSignature}`, 'signature'],
    'no signature': [`${validHeader}.${validPayload}.`, 'signature'],
    'half a signature': [`${validHeader}.${validPayload}.${validSignature.slice(0, 43)}`, 'signature'],
    'a signature of zeros (CVE-2022-21449)': [`${validHeader}.${validPayload}.${Buffer.alloc(64).toString('base64url')}`, 'signature'],
    'a signature in DER': [derSigned(), 'signature'],
    'a signature with characters that are no base64url (RFC 7515, 5.2)': [
      `${validHeader}.${validPayload}.${validSignature}!*`,
      'signature',
    ],
    'a signature followed by padding': [`${validHeader}.${validPayload}.${validSignature}==`, 'signature'],
    'claims that are a list': [jwt({ claims: [claims] }), 'not an object'],
    'claims that are null': [signed(`${validHeader}.${Buffer.from('null').toString('base64url')}`), 'not an object'],
    'claims that are not JSON': [signed(`${validHeader}.${Buffer.from('{"sub"').toString('base64url')}`), 'not JSON'],
    'a subject of a user': [jwt({ claims: { ...claims, sub: 'system:admin' } }), 'subject'],
    'a subject of another kind': [jwt({ claims: { ...claims, sub: 'system:node:foo:sleep' } }), 'subject'],
    'a subject with a part too many': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo:sleep:admin' } }), 'subject'],
    'a subject with a part too few': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo' } }), 'subject'],
    'a subject with an empty part': [jwt({ claims: { ...claims, sub: 'system:serviceaccount::sleep' } }), 'subject'],
    'a subject with a slash, which would add to the SPIFFE path': [
      jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo/sa/admin:sleep' } }),
      'subject',
    ],
    'a subject that climbs': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo:..' } }), 'subject'],
    'a subject in upper case': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:Foo:sleep' } }), 'subject'],
    'a subject with a line break': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo:sleep\n' } }), 'subject'],
    'a subject with a NUL': [jwt({ claims: { ...claims, sub: 'system:serviceaccount:foo:sleep\u0000' } }), 'subject'],
    'a subject with a namespace of 64 characters': [
      jwt({ claims: { ...claims, sub: `system:serviceaccount:${'n'.repeat(64)}:sleep` } }),
      'subject',
    ],
    'a subject with an account of 254 characters': [
      jwt({ claims: { ...claims, sub: `system:serviceaccount:foo:${'s'.repeat(254)}` } }),
      'subject',
    ],
    'a subject that is an object': [jwt({ claims: { ...claims, sub: { namespace: 'foo' } } }), 'subject'],
    'no subject': [jwt({ claims: without(claims, 'sub') }), 'subject'],
    'an empty token': ['', 'not a compact JWT'],
    'two parts': [`${validHeader}.${validPayload}`, 'not a compact JWT'],
    'four parts': [`${jwt()}.x`, 'not a compact JWT'],
    'five parts, as an encrypted token has': ['a.b.c.d.e', 'not a compact JWT'],
    'a token of more than 8 KiB': [jwt({ claims: { ...claims, pad: 'x'.repeat(9000) } }), 'not a compact JWT'],
    'ten million dots': ['.'.repeat(10_000_000), 'not a compact JWT'],
  };
  for (const [name, [text, says]] of Object.entries(cases)) {
    test(name, () => assert.rejects(prover().prove(text), refusal('TOKEN_REFUSED', ...(says === undefined ? [] : [says]))));
  }

  test('a token cut at any byte', async () => {
    const whole = token();
    for (let length = 0; length < whole.length; length++)
      await assert.rejects(prover().prove(whole.slice(0, length)), refusal('TOKEN_REFUSED'));
    assert.ok(await prover().prove(whole));
  });

  test('a prover of another audience or key refuses what this one takes', async () => {
    await assert.rejects(prover({ audience: 'other' }).prove(token()), refusal('TOKEN_REFUSED', 'audience'));
    await assert.rejects(prover({ key: stranger }).prove(token()), refusal('TOKEN_REFUSED', 'signature'));
    assert.ok(await prover().prove(token()));
  });
});

describe('making one', () => {
  const names: readonly (readonly [namespace: string, serviceAccount: string])[] = [
    ['', 'sleep'],
    ['Foo', 'sleep'],
    ['foo.bar', 'sleep'],
    ['foo:bar', 'sleep'],
    ['foo', ''],
    ['foo', 'a/b'],
    ['foo', '..'],
    ['foo', 'a..b'],
    ['foo', '-a'],
    ['-foo', 'a'],
    ['foo\n', 'a'],
  ];
  for (const [namespace, serviceAccount] of names) {
    test(`for ${JSON.stringify(namespace)}/${JSON.stringify(serviceAccount)} is refused`, () => {
      assert.throws(() => token({ namespace, serviceAccount }), refusal('CONFIG_INVALID', /^(namespace|service account) "/));
    });
  }
  test('for names as Kubernetes has them is done', () => assert.ok(token({ namespace: 'a-1', serviceAccount: 'x.y-z' })));

  test('two tokens of one moment differ', () => assert.notEqual(token(), token()));
});

describe('the key beside the CA', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'handfast-token-key-'));
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('is made for its owner alone, and is the same when read again, also by many at once', async () => {
    const keys = await Promise.all(Array.from({ length: 4 }, () => openLocalTokenKey(dir)));
    const path = join(dir, 'token-signing.pem');
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const [first] = keys;
    for (const other of [...keys, await openLocalTokenKey(dir)]) assert.ok(first?.equals(other));
    assert.ok(await prover({ key: await openLocalTokenKey(dir) }).prove(token({ key: await openLocalTokenKey(dir) })));
  });

  test('is refused, by its path, when others may read it or when it is no key', async () => {
    const path = join(dir, 'token-signing.pem');
    await openLocalTokenKey(dir);
    const good = readFileSync(path, 'utf8');
    chmodSync(path, 0o644);
    await assert.rejects(openLocalTokenKey(dir), refusal('STATE_INVALID', path, '644'));
    chmodSync(path, 0o600);
    for (const bad of ['', 'x', good.slice(0, 80)]) {
      writeFileSync(path, bad);
      await assert.rejects(openLocalTokenKey(dir), refusal('STATE_INVALID', path));
    }
    writeFileSync(path, good);
    await openLocalTokenKey(dir);
  });

  test('is refused when it is no P-256 key: the header says ES256, whatever signs', async () => {
    const path = join(dir, 'token-signing.pem');
    await openLocalTokenKey(dir);
    const good = readFileSync(path, 'utf8');
    const others = [generateKeyPairSync('ed25519').privateKey, generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey];
    for (const other of others) {
      writeFileSync(path, other.export({ type: 'pkcs8', format: 'pem' }));
      await assert.rejects(openLocalTokenKey(dir), refusal('STATE_INVALID', path));
    }
    writeFileSync(path, good);
    await openLocalTokenKey(dir);
  });
});
