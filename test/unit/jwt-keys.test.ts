// The keys that sign JWT-SVIDs: published before they sign and until their last token has expired, and gone at once when withdrawn.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Authority } from '../../src/ca/authority.ts';
import { diskKeys, type KeyStore, type Signer } from '../../src/ca/signer.ts';
import { parseJwks, readJws } from '../../src/spiffe/jwt.ts';
import { verifyJwtSvid } from '../../src/spiffe/jwt-svid.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { authorities } from '../support/authorities.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const NOW = Date.UTC(2030, 0, 1);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const id = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'sleep' });

let now = NOW;
const { newDir, open } = authorities(() => now, { jwtKeys: { lifetimeMs: DAY, publishAheadMs: HOUR } });

const sign = async (authority: Authority, audience: readonly string[] = ['db']) => (await authority.signJwtSvid({ id, audience })).token;
const published = (authority: Authority) => parseJwks(authority.trust.current?.jwks ?? '');
const kids = (authority: Authority) => published(authority).keys.map(({ kid }) => kid ?? '');
const kidOf = (token: string) => readJws(token).kid;
const verify = (authority: Authority, token: string) =>
  verifyJwtSvid(token, { audience: 'db', bundles: new Map([['cluster.local', published(authority)]]), now });
async function at(authority: Authority, time: number): Promise<void> {
  now = time;
  await authority.maintain();
}

describe('a token', () => {
  test('verifies with what is published, for its audiences, until it expires', async () => {
    now = NOW;
    const authority = await open();
    const { token, issuedAt, expiresAt } = await authority.signJwtSvid({ id, audience: ['db', 'cache', 'db'] });
    assert.deepEqual([issuedAt, expiresAt], [NOW / 1000, NOW / 1000 + 300]);
    const { header, claims } = readJws(token);
    assert.deepEqual(header, { alg: 'ES256', kid: kids(authority)[0], typ: 'JWT' });
    assert.deepEqual(claims, { sub: id.uri, aud: ['db', 'cache'], iat: issuedAt, exp: expiresAt });
    assert.equal(verify(authority, token).id.uri, id.uri);
    now = NOW + 5 * MINUTE;
    assert.throws(() => verify(authority, token), refusal('JWT_INVALID', 'expired'));
  });

  test('two hundred of them verify: no signature loses a leading zero', async () => {
    now = NOW;
    const authority = await open();
    for (let i = 0; i < 200; i++) verify(authority, await sign(authority));
  });

  const audiences: Readonly<Record<string, readonly string[]>> = {
    none: [],
    'an empty one': ['db', ''],
    seventeen: Array.from({ length: 17 }, (_, index) => `a${index}`),
    'a very long one': ['x'.repeat(1025)],
  };
  for (const [name, audience] of Object.entries(audiences)) {
    test(`for audiences such as ${name} is not made`, async () => {
      now = NOW;
      await assert.rejects(sign(await open(), audience), refusal('JWT_INVALID', 'audience'));
    });
  }

  test('lives as long as was configured, within bounds', async () => {
    now = NOW;
    const { issuedAt, expiresAt } = await (await open(newDir(), { jwtTtlMs: HOUR })).signJwtSvid({ id, audience: ['x'] });
    assert.equal(expiresAt - issuedAt, 3600);
    for (const jwtTtlMs of [0, HOUR + 1, Number.NaN])
      await assert.rejects(open(newDir(), { jwtTtlMs }), refusal('CONFIG_INVALID', 'JWT-SVID lifetime'));
    await assert.rejects(open(newDir(), { jwtKeys: { lifetimeMs: HOUR, publishAheadMs: HOUR } }), refusal('CONFIG_INVALID', 'JWT key'));
  });
});

describe('what is published', () => {
  test('is a SPIFFE JWT bundle whose kids are RFC 7638 thumbprints, without a private part', async () => {
    now = NOW;
    const authority = await open();
    const bundle: unknown = JSON.parse(authority.trust.current?.jwks ?? '');
    assert.ok(typeof bundle === 'object' && bundle !== null && 'keys' in bundle && Array.isArray(bundle.keys));
    assert.deepEqual(Object.keys(bundle), ['keys', 'spiffe_sequence', 'spiffe_refresh_hint', 'handfast']);
    const [key] = bundle.keys;
    assert.deepEqual(Object.keys(key).sort(), ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']);
    assert.equal(key.use, 'jwt-svid');
    const canonical = `{"crv":"${key.crv}","kty":"EC","x":"${key.x}","y":"${key.y}"}`;
    assert.equal(key.kid, createHash('sha256').update(canonical).digest('base64url'));
  });
});

describe('rotation', () => {
  test('the next key is published an hour before it signs, the old one until its last token has expired', async () => {
    const dir = newDir();
    now = NOW;
    let authority = await open(dir);
    const [first = ''] = kids(authority);
    await at(authority, NOW + DAY - HOUR - 1000);
    assert.deepEqual(kids(authority), [first]);
    await at(authority, NOW + DAY - HOUR);
    const [, second = ''] = kids(authority);
    assert.deepEqual(kids(authority), [first, second]);
    assert.equal(kidOf(await sign(authority)), first);
    // A restart keeps it all.
    authority = await open(dir);
    assert.deepEqual(kids(authority), [first, second]);
    await at(authority, NOW + DAY - 1000);
    const last = await sign(authority);
    assert.equal(kidOf(last), first);
    await at(authority, NOW + DAY);
    assert.equal(kidOf(await sign(authority)), second);
    assert.ok(verify(authority, last));
    await at(authority, NOW + DAY + HOUR);
    assert.deepEqual(kids(authority), [first, second]);
    await at(authority, NOW + DAY + HOUR + MINUTE);
    assert.deepEqual(kids(authority), [second]);
  });

  test('a CA that was away for a month publishes a new key before it signs with it', async () => {
    const dir = newDir();
    now = NOW;
    const [first = ''] = kids(await open(dir));
    now = NOW + 30 * DAY;
    const authority = await open(dir);
    assert.equal(kids(authority).length, 2);
    assert.equal(kidOf(await sign(authority)), first);
    await at(authority, now + HOUR);
    assert.notEqual(kidOf(await sign(authority)), first);
  });

  test('a clock that was set back still signs', async () => {
    const dir = newDir();
    now = NOW;
    await open(dir);
    now = NOW - DAY;
    const authority = await open(dir);
    assert.ok(verify(authority, await sign(authority)));
  });

  test('the sequence rises with every change', async () => {
    now = NOW;
    const dir = newDir();
    let authority = await open(dir);
    const sequences: number[] = [];
    const note = () => sequences.push(Number(/"spiffe_sequence":(\d+)/.exec(authority.trust.current?.jwks ?? '')?.[1]));
    note();
    await authority.withdrawJwtKey(kids(authority)[0] ?? '');
    note();
    await at(authority, NOW + DAY);
    note();
    authority = await open(dir);
    assert.deepEqual(
      sequences,
      [...sequences].sort((a, b) => a - b),
    );
    assert.equal(new Set(sequences).size, 3);
  });
});

describe('a withdrawn key', () => {
  test('verifies nothing any more, at once; the waiting one takes over', async () => {
    now = NOW;
    const dir = newDir();
    const authority = await open(dir);
    await at(authority, NOW + DAY - HOUR / 2);
    const [first = '', second = ''] = kids(authority);
    const token = await sign(authority);
    assert.ok(verify(authority, token));
    await authority.withdrawJwtKey(first);
    assert.throws(() => verify(authority, token), refusal('JWT_INVALID', first));
    const next = await sign(authority);
    assert.equal(kidOf(next), second);
    assert.ok(verify(authority, next));
    assert.deepEqual(kids(await open(dir)), [second]);
  });

  test('that was the only one is followed by a new one; one that does not sign goes quietly', async () => {
    now = NOW;
    const authority = await open();
    const [first = ''] = kids(authority);
    await authority.withdrawJwtKey(first);
    assert.ok(verify(authority, await sign(authority)) && !kids(authority).includes(first));
    await at(authority, NOW + DAY - MINUTE);
    const [second, third = ''] = kids(authority);
    await authority.withdrawJwtKey(third);
    assert.deepEqual([kids(authority), kidOf(await sign(authority))], [[second], second]);
  });

  test('that is unknown is refused with those that are known', async () => {
    now = NOW;
    const authority = await open();
    await assert.rejects(authority.withdrawJwtKey('x'), refusal('CONFIG_INVALID', '"x"', kids(authority)[0] ?? '?'));
  });
});

describe('on disk', () => {
  const damages: Readonly<Record<string, (text: string) => string>> = {
    'is cut': (text) => text.slice(0, -20),
    "has another key's kid": (text) => text.replace(/"kid": "...../, '"kid": "AAAAA'),
    'has a key that is none': (text) => text.replace('PRIVATE KEY-----\\nM', 'PRIVATE KEY-----\\nN'),
    'has a key out of order': (text) =>
      text.replace('"keys": [', `"keys": [{"kid": "${'A'.repeat(43)}", "pem": "x", "signsFrom": 9999999999999},`),
  };
  for (const [name, damage] of Object.entries(damages)) {
    test(`a file that ${name} is refused by its name; mended it is taken`, async () => {
      now = NOW;
      const dir = newDir();
      await (await open(dir)).close();
      const path = join(dir, 'jwt-keys.json');
      assert.equal(statSync(path).mode & 0o777, 0o600);
      const good = readFileSync(path, 'utf8');
      assert.notEqual(damage(good), good);
      writeFileSync(path, damage(good));
      await assert.rejects(open(dir), refusal('STATE_INVALID', path));
      writeFileSync(path, good);
      await open(dir);
    });
  }
});

describe('a key store of another kind', () => {
  /** Keys that never leave: state files hold references. */
  function vault(): KeyStore & { readonly signatures: () => number } {
    const kept = new Map<string, Signer>();
    let signatures = 0;
    return {
      signatures: () => signatures,
      create: async () => {
        const { signer } = await diskKeys.create();
        const pem = `-----BEGIN VAULT REFERENCE-----\n${Buffer.from(`slot ${kept.size}`).toString('base64')}\n-----END VAULT REFERENCE-----\n`;
        const counting: Signer = {
          publicKey: signer.publicKey,
          sign: (bytes) => {
            signatures++;
            return signer.sign(bytes);
          },
        };
        kept.set(pem, counting);
        return { signer: counting, pem };
      },
      open: async (pem) => {
        const signer = kept.get(pem);
        if (signer === undefined) throw new Error('the vault has no such key');
        return signer;
      },
    };
  }

  test('signs certificates, CRLs and tokens, and no private key is in the state directory', async () => {
    now = NOW;
    const [dir, keys] = [newDir(), vault()];
    await open(dir, { keys });
    const authority = await open(dir, { keys });
    const before = keys.signatures();
    await authority.issue({ id, publicKey: keyPair().publicKey });
    await authority.revoke({
      target: { kind: 'spiffeId', spiffeId: 'spiffe://cluster.local/ns/foo/sa/dave' },
      reason: 'unspecified',
      text: '',
    });
    assert.ok(verify(authority, await sign(authority)));
    await authority.prepareRoot();
    await authority.activateRoot({ behind: [] });
    assert.ok(keys.signatures() >= before + 6);
    for (const name of ['root.pem', 'root-2.pem', 'intermediate.pem', 'intermediate-2.pem', 'jwt-keys.json'])
      assert.doesNotMatch(readFileSync(join(dir, name), 'utf8'), /PRIVATE KEY/, name);
    await assert.rejects(open(dir, { keys: vault() }), refusal('STATE_INVALID', 'the vault has no such key'));
  });
});
