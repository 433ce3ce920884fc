// Revocation at the CA: what was issued, what would be issued, what is published of it, and what survives a restart.

import assert from 'node:assert/strict';
import { type KeyObject, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Authority } from '../../src/ca/authority.ts';
import type { AuthorityOptions } from '../../src/ca/authority-options.ts';
import { keyIdOf } from '../../src/ca/ledger-entry.ts';
import { keyTarget, type RevocationTarget, serialTarget, spiffeIdTarget } from '../../src/ca/revocation-target.ts';
import { parseRevocationList, type RevocationList } from '../../src/spiffe/crl.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle } from '../../src/spiffe/trust-bundle.ts';
import { authorities } from '../support/authorities.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const id = (serviceAccount: string) => workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount });
const [sleep, dave] = [id('sleep'), id('dave')];

let now = NOW;
const { newDir, open, close } = authorities(() => now);
const fresh = async (options?: Partial<AuthorityOptions>) => {
  now = NOW;
  return open(newDir(), options);
};

const issue = (authority: Authority, of = sleep, publicKey: KeyObject = keyPair().publicKey) => authority.issue({ id: of, publicKey });
const revoke = (authority: Authority, target: RevocationTarget, more: { forceExpiresAt?: number; text?: string } = {}) =>
  authority.revoke({ target, reason: 'keyCompromise', text: 'lost', ...more });
const block = spiffeIdTarget(sleep.uri, 'cluster.local');

/** What a verifier makes of what the CA publishes. */
function published(authority: Authority): RevocationList {
  const { crlPem = '', bundlePem = '' } = authority.trust.current ?? {};
  return parseRevocationList(crlPem, parseTrustBundle(bundlePem, 'cluster.local'));
}

describe('a serial', () => {
  test('is revoked, published with the next CRL, and its twin is not', async () => {
    const authority = await fresh();
    const [bad, good] = [await issue(authority), await issue(authority)];
    const before = published(authority);
    const effect = await revoke(authority, serialTarget(bad.serial));
    assert.deepEqual([effect.serials, effect.blockedIds, effect.blockedKeyIds], [[bad.serial], [], []]);
    assert.equal(effect.certificates[0]?.spiffeId, sleep.uri);
    const list = published(authority);
    assert.ok(list.serials.has(bad.serial) && !list.serials.has(good.serial));
    assert.ok(BigInt(list.number) > BigInt(before.number));
    // Its owner may have another one: only the certificate was revoked.
    await issue(authority);
  });

  test('is understood as every tool prints it', async () => {
    const authority = await fresh();
    const { serial } = await issue(authority);
    const colons = serial.toLowerCase().match(/../g)?.join(':') ?? '';
    for (const text of [serial, colons, `0x${serial}`, ` 00${serial}\n`]) assert.deepEqual(serialTarget(text), { kind: 'serial', serial });
    assert.deepEqual(serialTarget('f'), { kind: 'serial', serial: '0F' });
    for (const text of ['', 'xyz', 'AB-CD', '41'.repeat(21)])
      assert.throws(() => serialTarget(text), refusal('CONFIG_INVALID', 'hexadecimal'));
    assert.deepEqual((await revoke(authority, serialTarget(colons))).serials, [serial]);
  });

  test('that the ledger does not know is refused, unless its expiry is given', async () => {
    const authority = await fresh();
    const target = serialTarget('4142');
    await assert.rejects(revoke(authority, target), refusal('CONFIG_INVALID', '4142', '--expires-in'));
    for (const forceExpiresAt of [NOW, NOW - 1, NOW + 12 * 365 * 24 * HOUR, Number.NaN]) {
      await assert.rejects(revoke(authority, target, { forceExpiresAt }), refusal('CONFIG_INVALID', 'expiry'));
    }
    assert.deepEqual((await revoke(authority, target, { forceExpiresAt: NOW + HOUR })).serials, ['4142']);
    assert.ok(published(authority).serials.has('4142'));
  });

  test('revoked again changes nothing, and cannot be lifted', async () => {
    const authority = await fresh();
    const target = serialTarget((await issue(authority)).serial);
    await revoke(authority, target);
    const trust = authority.trust.current;
    now += 1000;
    assert.deepEqual((await revoke(authority, target, { text: 'again' })).serials, []);
    assert.equal([...authority.revocations.certificates.values()][0]?.text, 'lost');
    assert.equal(authority.trust.current, trust);
    await assert.rejects(authority.lift(target), refusal('CONFIG_INVALID', 'stays revoked'));
  });
});

describe('a SPIFFE ID', () => {
  test('that is blocked gets nothing any more, and what it has is revoked; another one goes on', async () => {
    const authority = await fresh();
    const had = [await issue(authority), await issue(authority)].map(({ serial }) => serial);
    const other = await issue(authority, dave);
    const effect = await revoke(authority, block);
    assert.deepEqual([[...effect.serials].sort(), effect.blockedIds], [had.sort(), [sleep.uri]]);
    await assert.rejects(issue(authority), refusal('IDENTITY_BLOCKED', sleep.uri));
    await assert.rejects(authority.signJwtSvid({ id: sleep, audience: ['x'] }), refusal('IDENTITY_BLOCKED', sleep.uri));
    await issue(authority, dave);
    await authority.signJwtSvid({ id: dave, audience: ['x'] });
    const list = published(authority);
    assert.deepEqual([[...list.serials].sort(), [...list.blockedIds]], [had.sort(), [sleep.uri]]);
    assert.ok(!list.serials.has(other.serial));
  });

  test('that is let in again has new certificates; the old ones stay revoked until they expire', async () => {
    const authority = await fresh();
    const old = await issue(authority);
    await revoke(authority, block);
    assert.equal(await authority.lift(block), true);
    assert.equal(await authority.lift(block), false);
    const next = await issue(authority);
    const list = published(authority);
    assert.ok(list.serials.has(old.serial) && !list.serials.has(next.serial));
    assert.equal(list.blockedIds.size, 0);
  });

  test('blocked while a certificate for it is being made: either none leaves, or one that is revoked', async () => {
    const authority = await fresh();
    const { publicKey } = keyPair();
    const racing = Array.from({ length: 20 }, () => issue(authority, sleep, publicKey));
    const blocking = revoke(authority, block);
    racing.push(...Array.from({ length: 20 }, () => issue(authority, sleep, publicKey)));
    const results = await Promise.allSettled(racing);
    await blocking;
    const { serials } = published(authority);
    for (const result of results) {
      if (result.status === 'fulfilled') assert.ok(serials.has(result.value.serial));
      else refusal('IDENTITY_BLOCKED')(result.reason);
    }
  });

  test('of another trust domain, a whole one, and what is no ID at all are refused', () => {
    for (const uri of ['spiffe://other.example/ns/a/sa/b', 'spiffe://cluster.local', 'sleep'])
      assert.throws(() => spiffeIdTarget(uri, 'cluster.local'), refusal('CONFIG_INVALID'));
  });
});

describe('a key', () => {
  test('is refused in CSRs, and every certificate with it is revoked; another key of the same workload is taken', async () => {
    const authority = await fresh();
    const { publicKey } = keyPair();
    const had = [await issue(authority, sleep, publicKey), await issue(authority, dave, publicKey)].map(({ serial }) => serial);
    const effect = await revoke(authority, { kind: 'key', keyId: keyIdOf(publicKey) });
    assert.deepEqual([[...effect.serials].sort(), effect.blockedKeyIds], [had.sort(), [keyIdOf(publicKey)]]);
    await assert.rejects(issue(authority, sleep, publicKey), refusal('CSR_REFUSED', keyIdOf(publicKey)));
    await issue(authority);
    assert.equal(await authority.lift({ kind: 'key', keyId: keyIdOf(publicKey) }), true);
    await issue(authority, sleep, publicKey);
  });

  test('is named by its hash, by its PEM or by a certificate; a private key and two of them are refused', async () => {
    const { publicKey, privateKey } = keyPair();
    const target = { kind: 'key', keyId: keyIdOf(publicKey) };
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const [leaf] = (await issue(await fresh(), sleep, publicKey)).chain;
    for (const text of [target.keyId, target.keyId.toUpperCase(), pem, leaf]) assert.deepEqual(keyTarget(text), target);
    const secret = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    for (const text of [secret, pem + pem, 'ab', '', pem.replace(/A/g, 'B')])
      assert.throws(() => keyTarget(text), refusal('CONFIG_INVALID', 'key'));
  });
});

describe('a dry run', () => {
  test('gives exactly what the revocation then adds, and changes nothing', async () => {
    const authority = await fresh();
    const { publicKey } = keyPair();
    const { serial } = await issue(authority, sleep, publicKey);
    await issue(authority);
    for (const target of [serialTarget(serial), { kind: 'key', keyId: keyIdOf(publicKey) } as const, block]) {
      const state = authority.revocations;
      const preview = authority.preview({ target });
      assert.equal(authority.revocations, state);
      assert.deepEqual(await revoke(authority, target), preview);
      const again = authority.preview({ target });
      assert.deepEqual([again.serials, again.blockedIds, again.blockedKeyIds], [[], [], []]);
    }
    assert.throws(() => authority.preview({ target: serialTarget('99') }), refusal('CONFIG_INVALID', '--expires-in'));
  });
});

describe('on disk', () => {
  test('everything holds after a restart, and CRL numbers only rise', async () => {
    now = NOW;
    const dir = newDir();
    const first = await open(dir);
    const { serial } = await issue(first);
    await revoke(first, block);
    const numbers = [published(first).number];
    for (let round = 0; round < 3; round++) {
      // The clock stands still, or goes back.
      now -= round * 10 * HOUR;
      const again = await open(dir);
      await assert.rejects(issue(again), refusal('IDENTITY_BLOCKED'));
      assert.ok(published(again).serials.has(serial));
      numbers.push(published(again).number);
    }
    assert.deepEqual(numbers, [...numbers].sort());
    assert.equal(new Set(numbers).size, 4);
    assert.equal(statSync(join(dir, 'revocations.json')).mode & 0o777, 0o600);
    now = NOW;
  });

  const damages: Readonly<Record<string, (text: string) => string>> = {
    'is cut': (text) => text.slice(0, -10),
    'has a member that nobody knows': (text) => text.replace('"ids"', '"more": [], "ids"'),
    'has an ID that is none': (text) => text.replace(sleep.uri, 'sleep'),
    'has a reason that nobody knows': (text) => text.replaceAll('keyCompromise', 'whim'),
    'is of another version': (text) => text.replace('"version": 1', '"version": 2'),
    'lacks a list': (text) => text.replace('"keys"', '"kezs"'),
    'has a list twice': (text) => text.replace('"ids"', '"ids": [], "ids"'),
  };
  for (const [name, damage] of Object.entries(damages)) {
    test(`a file that ${name} is refused by its name; mended it is taken`, async () => {
      now = NOW;
      const dir = newDir();
      await revoke(await open(dir), block);
      await close(dir);
      const path = join(dir, 'revocations.json');
      const good = readFileSync(path, 'utf8');
      writeFileSync(path, damage(good));
      await assert.rejects(open(dir), refusal('STATE_INVALID', path));
      writeFileSync(path, good);
      await assert.rejects(issue(await open(dir)), refusal('IDENTITY_BLOCKED'));
    });
  }

  test('a file that is gone is not an empty one: it would clear everything', async () => {
    now = NOW;
    const dir = newDir();
    await revoke(await open(dir), block);
    const path = join(dir, 'revocations.json');
    rmSync(path);
    const error: unknown = await open(dir).catch((thrown: unknown) => thrown);
    refusal('STATE_INVALID', path, 'restore it')(error);
    // The way out that the message names works.
    const wayOut = /write (\{.*\}) into it/.exec(String(error))?.[1] ?? '';
    writeFileSync(path, wayOut, { mode: 0o600 });
    await issue(await open(dir));
  });

  test('what cannot be written down is taken back', async () => {
    const dir = newDir();
    const authority = await open(dir);
    const path = join(dir, 'revocations.json');
    // No file can take the place of a directory, not even for root.
    rmSync(path);
    mkdirSync(path);
    await assert.rejects(revoke(authority, block), { code: 'EISDIR' });
    await issue(authority);
    rmdirSync(path);
    await revoke(authority, block);
    await assert.rejects(issue(authority), refusal('IDENTITY_BLOCKED'));
  });
});

describe('the CRL', () => {
  test('is signed anew at half of its time, not before, with a higher number', async () => {
    const authority = await fresh({ crlTtlMs: 2 * HOUR });
    const first = published(authority);
    assert.equal(first.nextUpdate, NOW + 2 * HOUR);
    now = NOW + HOUR - 1000;
    await authority.maintain();
    assert.equal(published(authority).number, first.number);
    now = NOW + HOUR;
    await authority.maintain();
    const second = published(authority);
    assert.equal(second.nextUpdate, NOW + 3 * HOUR);
    assert.ok(BigInt(second.number) > BigInt(first.number));
  });

  test('loses an entry once the certificate has expired, and a week more has passed', async () => {
    const authority = await fresh({ crlTtlMs: HOUR / 2 });
    const { serial } = await issue(authority);
    await revoke(authority, serialTarget(serial));
    for (const [at, there] of [
      [HOUR, true],
      [2 * HOUR, true],
      [169 * HOUR - 1000, true],
      [169 * HOUR + 1000, false],
    ] as const) {
      now = NOW + at + (there ? 0 : HOUR);
      await authority.maintain();
      assert.equal(published(authority).serials.has(serial), there, String(at));
    }
  });

  test('is signed by the intermediate whose certificate comes with it', async () => {
    const authority = await fresh();
    const certificate = new X509Certificate(authority.trust.current?.crlPem ?? '');
    assert.match(certificate.subject, /intermediate/);
  });

  const odd: Readonly<Record<string, { reason?: string; text?: string }>> = {
    'a reason that nobody knows': { reason: 'whim' },
    'a reason that every object has': { reason: 'toString' },
    'a text of two lines': { text: 'a\nb' },
    'a text that is too long': { text: 'x'.repeat(501) },
  };
  for (const [name, more] of Object.entries(odd)) {
    test(`${name} is refused`, async () => {
      const authority = await fresh();
      const request: unknown = { target: block, reason: 'keyCompromise', text: 'x', ...more };
      await assert.rejects(Reflect.apply(authority.revoke, authority, [request]), refusal('CONFIG_INVALID'));
      await issue(authority);
    });
  }
});

describe('limits', () => {
  test('an identity on a node has its share, another identity or node has its own', async () => {
    let clock = 0;
    const authority = await fresh({ limit: { burst: 2, perMinute: 60, now: () => clock } });
    const { publicKey } = keyPair();
    const from = (node: string, of = sleep) => authority.issue({ id: of, publicKey, node });
    await from('a');
    await from('a');
    await assert.rejects(from('a'), refusal('RATE_LIMITED', sleep.uri, 'node a', 'try again in 1 s'));
    await from('b');
    await from('a', dave);
    clock = 1000;
    await from('a');
    await assert.rejects(from('a'), refusal('RATE_LIMITED'));
  });

  test('JWT-SVIDs have a share of their own', async () => {
    const authority = await fresh({ limit: { burst: 1, perMinute: 60, now: () => 0 } });
    await issue(authority);
    await authority.signJwtSvid({ id: sleep, audience: ['x'] });
    await assert.rejects(authority.signJwtSvid({ id: sleep, audience: ['x'] }), refusal('RATE_LIMITED', 'JWT-SVIDs'));
  });
});
