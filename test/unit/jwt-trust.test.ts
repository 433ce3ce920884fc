// What sidecars verify JWT-SVIDs with, from the CA's word to their verdict: rotation with overlap, withdrawal, revocation and its lift.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { Authority } from '../../src/ca/authority.ts';
import { secretNames } from '../../src/discovery/identity-source.ts';
import { bundleSecret, crlSecret, genericSecret } from '../../src/discovery/secret-writer.ts';
import { publishedKeys } from '../../src/identity-api/published-keys.ts';
import { verdictOn } from '../../src/identity-api/verdict.ts';
import { jwtTrustOf } from '../../src/node/node-trust.ts';
import { NodeTrustSource } from '../../src/node/node-trust-source.ts';
import { parseRevocationList } from '../../src/spiffe/crl.ts';
import { parseJwks, readJws } from '../../src/spiffe/jwt.ts';
import { formatJwtTrust, type JwtTrust, parseJwtTrust } from '../../src/spiffe/jwt-trust.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { authorities } from '../support/authorities.ts';
import { refusal } from '../support/refusal.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const NOW = Date.UTC(2030, 0, 1);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const id = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'a' });
const other = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'b' });

let now = NOW;
const { newDir, open } = authorities(() => now, { jwtKeys: { lifetimeMs: DAY, publishAheadMs: HOUR } });
const sign = async (authority: Authority, of = id) => (await authority.signJwtSvid({ id: of, audience: ['b'] })).token;

/** As an agent reads the CA's word, and its sidecar the agent's. */
function followed({ trust }: Authority): JwtTrust {
  assert.ok(trust.current !== undefined);
  const { bundlePem, crlPem, jwks } = trust.current;
  const own = parseTrustBundle(bundlePem, 'cluster.local');
  const jwtTrust = jwtTrustOf({
    bundles: trustBundles(own),
    crl: parseRevocationList(crlPem, own),
    crlPem,
    jwks: new Map([['cluster.local', jwks]]),
  });
  const read = parseJwtTrust(formatJwtTrust(jwtTrust));
  assert.deepEqual(formatJwtTrust(read), formatJwtTrust(jwtTrust));
  return read;
}

const reasonOf = (authority: Authority, token: string) => {
  const verdict = verdictOn(token, { audience: 'b', trust: followed(authority), now });
  return verdict.valid ? 'valid' : verdict.reason;
};
async function at(authority: Authority, time: number): Promise<void> {
  now = time;
  await authority.maintain();
}
const kids = (authority: Authority) => parseJwks(JSON.stringify(publishedKeys(followed(authority)))).keys.map(({ kid }) => kid);

describe('a key', () => {
  test('is published before it signs, and verifies until its last token has ended', async () => {
    now = NOW;
    const authority = await open();
    const [first] = kids(authority);
    await at(authority, NOW + DAY - 30 * MINUTE);
    assert.equal(kids(authority).length, 2, 'the next one is there');
    const last = await sign(authority);
    assert.equal(readJws(last).kid, first);
    await at(authority, now + HOUR);
    const next = await sign(authority);
    assert.notEqual(readJws(next).kid, first);
    assert.equal(reasonOf(authority, next), 'valid');
    assert.equal(kids(authority).length, 2, 'the former one still verifies');
    now -= HOUR - MINUTE;
    assert.equal(reasonOf(authority, last), 'valid');
    now += HOUR - MINUTE;
    assert.equal(reasonOf(authority, last), 'EXPIRED');
    await at(authority, now + 2 * HOUR);
    assert.equal(kids(authority).length, 1, 'nothing alive was signed by it');
    assert.equal(reasonOf(authority, last), 'KEY_UNKNOWN');
  });

  test('that was withdrawn verifies nothing at once, and the next one does', async () => {
    now = NOW;
    const authority = await open();
    const token = await sign(authority);
    assert.equal(reasonOf(authority, token), 'valid');
    await authority.withdrawJwtKey(readJws(token).kid ?? '');
    assert.equal(reasonOf(authority, token), 'KEY_UNKNOWN');
    assert.equal(reasonOf(authority, await sign(authority)), 'valid');
  });
});

describe('a revoked identity', () => {
  const revocation = { target: { kind: 'spiffeId', spiffeId: id.uri }, reason: 'keyCompromise', text: '' } as const;

  test('has no valid token while it is blocked, nor one from before when it is not any more', async () => {
    now = NOW;
    const dir = newDir();
    let authority = await open(dir);
    const [before, neighbour] = [await sign(authority), await sign(authority, other)];
    now += 2_500;
    await authority.revoke(revocation);
    assert.deepEqual([reasonOf(authority, before), reasonOf(authority, neighbour)], ['IDENTITY_BLOCKED', 'valid']);
    now += 2_500;
    await authority.lift(revocation.target);
    now += 1_000;
    const after = await sign(authority);
    assert.deepEqual([reasonOf(authority, before), reasonOf(authority, after)], ['BEFORE_REVOCATION', 'valid']);
    await authority.close();
    assert.match(readFileSync(join(dir, 'revocations.json'), 'utf8'), /"lifted"/);
    authority = await open(dir);
    assert.deepEqual([reasonOf(authority, before), reasonOf(authority, after)], ['BEFORE_REVOCATION', 'valid']);
  });

  test('whichever of lists and keys comes first when it is lifted, no token of before is good', async () => {
    for (const order of [
      ['crl', 'jwks'],
      ['jwks', 'crl'],
    ] as const) {
      now = NOW;
      const authority = await open();
      const node = new NodeTrustSource({ trustDomain: 'cluster.local', caKind: 'handfast', log: new RecordingLog().log });
      const hear = (what: 'bundle' | 'crl' | 'jwks') => {
        assert.ok(authority.trust.current !== undefined);
        const { bundlePem, crlPem, jwks } = authority.trust.current;
        if (what === 'bundle') node.acceptTrust([bundleSecret(secretNames.bundle, bundlePem)]);
        else if (what === 'jwks') node.acceptTrust([genericSecret(secretNames.jwks, jwks)]);
        else node.acceptRevocations([crlSecret(crlPem)]);
      };
      const reason = (token: string) => {
        assert.ok(node.trust.current !== undefined);
        const verdict = verdictOn(token, { audience: 'b', trust: jwtTrustOf(node.trust.current), now });
        return verdict.valid ? 'valid' : verdict.reason;
      };
      for (const what of ['bundle', 'jwks', 'crl'] as const) hear(what);
      const token = await sign(authority);
      assert.equal(reason(token), 'valid');
      now += MINUTE;
      await authority.revoke(revocation);
      for (const what of order) hear(what);
      now += MINUTE;
      await authority.lift(revocation.target);
      const said: string[] = [];
      for (const what of order) {
        hear(what);
        said.push(reason(token));
      }
      assert.deepEqual(said, [order[0] === 'crl' ? 'BEFORE_REVOCATION' : 'IDENTITY_BLOCKED', 'BEFORE_REVOCATION']);
    }
  });

  test('lifted by a clock that was wrong when it was blocked: old tokens stay refused, new ones are good', async () => {
    for (const error of [6 * HOUR, -2 * MINUTE]) {
      now = NOW + 10 * DAY;
      const authority = await open();
      const before = await sign(authority);
      now += error;
      await authority.revoke(revocation);
      now += MINUTE - error;
      await authority.lift(revocation.target);
      now += 1_000;
      assert.deepEqual([reasonOf(authority, before), reasonOf(authority, await sign(authority))], ['BEFORE_REVOCATION', 'valid']);
    }
  });

  test('a token of the very second of its revocation is from before', async () => {
    now = NOW;
    const authority = await open();
    const token = await sign(authority);
    now += 999;
    await authority.revoke(revocation);
    await authority.lift(revocation.target);
    assert.equal(reasonOf(authority, token), 'BEFORE_REVOCATION');
    now += 1;
    assert.equal(reasonOf(authority, await sign(authority)), 'valid');
  });

  test('more of them than can travel with the keys are not lifted at a time', async () => {
    now = NOW;
    const authority = await open();
    const target = (index: number) => ({ kind: 'spiffeId', spiffeId: `spiffe://cluster.local/${`${index}`.padEnd(2_000, 'a')}` }) as const;
    for (let index = 0; index < 140; index++) await authority.revoke({ ...revocation, target: target(index) });
    let lifted = 0;
    const liftAll = async () => {
      for (; lifted < 140; lifted++) await authority.lift(target(lifted));
    };
    await assert.rejects(liftAll(), refusal('CONFIG_INVALID', 'wait an hour'));
    assert.ok(lifted > 100);
    assert.equal(followed(authority).notBefore.size, lifted);
    now += HOUR + 2 * MINUTE;
    await liftAll();
  });

  test('that is remembered as long as one of its tokens may live, and no longer', async () => {
    now = NOW;
    const dir = newDir();
    const authority = await open(dir);
    await authority.revoke(revocation);
    await authority.lift(revocation.target);
    assert.equal(followed(authority).notBefore.size, 1);
    await at(authority, NOW + HOUR);
    assert.equal(followed(authority).notBefore.size, 1);
    await at(authority, NOW + HOUR + 2 * MINUTE);
    assert.equal(followed(authority).notBefore.size, 0);
    await at(authority, NOW + 13 * HOUR);
    assert.doesNotMatch(readFileSync(join(dir, 'revocations.json'), 'utf8'), /"lifted"/);
  });
});

test('the issuer is in tokens and beside the keys, and may be taken away again', async () => {
  now = NOW;
  const dir = newDir();
  const authority = await open(dir, { jwtIssuer: 'https://identity.example' });
  const token = await sign(authority);
  assert.equal(readJws(token).claims.iss, 'https://identity.example');
  assert.equal(followed(authority).issuer, 'https://identity.example');
  assert.equal(reasonOf(authority, token), 'valid');
  await authority.close();
  const without = await open(dir);
  assert.equal(followed(without).issuer, undefined);
  assert.deepEqual([readJws(await sign(without)).claims.iss, reasonOf(without, token)], [undefined, 'valid']);
});

test('trust lasts as long as the revocation list and the keys, whichever were to be replaced first', async () => {
  now = NOW;
  const authority = await open();
  const node = new NodeTrustSource({ trustDomain: 'cluster.local', caKind: 'handfast', log: new RecordingLog().log });
  const hear = (...what: readonly ('jwks' | 'crl')[]) => {
    assert.ok(authority.trust.current !== undefined);
    const { bundlePem, crlPem, jwks } = authority.trust.current;
    node.acceptTrust([bundleSecret(secretNames.bundle, bundlePem)]);
    if (what.includes('jwks')) node.acceptTrust([genericSecret(secretNames.jwks, jwks)]);
    if (what.includes('crl')) node.acceptRevocations([crlSecret(crlPem)]);
    assert.ok(node.trust.current !== undefined);
    return jwtTrustOf(node.trust.current).validUntil;
  };
  assert.equal(hear('jwks', 'crl'), NOW + DAY);
  await at(authority, NOW + 13 * HOUR);
  assert.equal(hear('crl'), NOW + DAY, 'the keys are those of before, one of which may have been withdrawn');
  assert.equal(hear('jwks'), NOW + 37 * HOUR);
});

test('trust lasts as long as the revocation list', async () => {
  now = NOW;
  const authority = await open();
  assert.equal(followed(authority).validUntil, NOW + DAY);
  await at(authority, NOW + 13 * HOUR);
  assert.equal(followed(authority).validUntil, NOW + 37 * HOUR);
});

describe('what an agent cannot have sent', () => {
  const good = {
    trustDomain: 'cluster.local',
    keySets: { 'cluster.local': '{"keys":[]}' },
    blockedIds: [id.uri],
    notBefore: { [id.uri]: 1 },
    validUntil: 1,
  };
  test('its twin is taken', () => assert.equal(parseJwtTrust(JSON.stringify(good)).blockedIds.size, 1));
  const bad: Readonly<Record<string, unknown>> = {
    'no JSON': '{',
    'no trust domain': { ...good, trustDomain: undefined },
    'a trust domain that is none': { ...good, trustDomain: 'A B' },
    'an issuer that is no text': { ...good, issuer: 1 },
    'no key sets': { ...good, keySets: undefined },
    'a key set that is an object': { ...good, keySets: { 'cluster.local': { keys: [] } } },
    'a key set that is none': { ...good, keySets: { 'cluster.local': '[]' } },
    'a private key': { ...good, keySets: { 'cluster.local': '{"keys":[{"kty":"oct","k":"AA","kid":"x"}]}' } },
    'no blocked IDs': { ...good, blockedIds: undefined },
    'a blocked ID that is none': { ...good, blockedIds: ['x'] },
    'a time that is text': { ...good, notBefore: { [id.uri]: '1' } },
    'a time of nobody': { ...good, notBefore: { x: 1 } },
    'no end': { ...good, validUntil: undefined },
  };
  for (const [name, value] of Object.entries(bad))
    test(`${name} is refused`, () =>
      assert.throws(
        () => parseJwtTrust(typeof value === 'string' ? value : JSON.stringify(value)),
        refusal('SECRET_INVALID', 'trust for JWT-SVIDs'),
      ));
});
