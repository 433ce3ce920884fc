// Signed once, used again: for the same workload and the same audiences, in the first half of its life, as long as its key is trusted.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type JwtSvid, JwtSvidCache, type JwtSvidRequest } from '../../src/agent/jwt-svid-cache.ts';
import { jwtTrustOf, type NodeTrust } from '../../src/node/node-trust.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { JwtKey, nodeTrust } from '../support/jwt.ts';
import { TestCa } from '../support/pki.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';

async function setUp(options: { maxEntries?: number; maxBytes?: number } = {}) {
  const key = new JwtKey('first');
  const ca = await TestCa.create();
  const trust = new Snapshot<NodeTrust>(nodeTrust(ca, [key]));
  const clock = { now: 1_000_000_000 };
  const asked: JwtSvidRequest[] = [];
  const gate: { before?: Promise<void> } = {};
  const signer = {
    signJwtSvid: async (request: JwtSvidRequest): Promise<JwtSvid> => {
      asked.push(request);
      await gate.before;
      const issuedAt = clock.now / 1000;
      const expiresAt = issuedAt + 300;
      return {
        spiffeId: ID,
        token: key.sign({ sub: ID, aud: request.audience, iat: issuedAt, exp: expiresAt, jti: `${asked.length}` }),
        issuedAt,
        expiresAt,
      };
    },
  };
  const cache = new JwtSvidCache({
    signer,
    trust: () => (trust.current === undefined ? undefined : jwtTrustOf(trust.current)),
    now: () => clock.now,
    ...options,
  });
  return { cache, asked, clock, trust, ca, key, gate };
}

describe('used again', () => {
  it('for-the-same-audiences-in-whatever-order', async () => {
    const { cache, asked } = await setUp();
    const first = await cache.signJwtSvid({ token: 't', audience: ['a', 'b'] });
    assert.equal(await cache.signJwtSvid({ token: 't', audience: ['b', 'a', 'b'] }), first);
    assert.equal(asked.length, 1);
  });

  it('not-for-another-audience-nor-another-workload', async () => {
    const { cache, asked } = await setUp();
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    await cache.signJwtSvid({ token: 't', audience: ['a', 'b'] });
    await cache.signJwtSvid({ token: 't', audience: ['a,b'] });
    await cache.signJwtSvid({ token: 'other', audience: ['a'] });
    assert.equal(asked.length, 4);
  });

  it('not-once-the-token-has-ended-that-proved-the-workload', async () => {
    const { cache, asked, clock, key } = await setUp();
    const token = key.sign({ sub: 'x', exp: clock.now / 1000 + 60 });
    await cache.signJwtSvid({ token, audience: ['a'] });
    clock.now += 59_000;
    await cache.signJwtSvid({ token, audience: ['a'] });
    assert.equal(asked.length, 1);
    clock.now += 1_000;
    await cache.signJwtSvid({ token, audience: ['a'] });
    assert.equal(asked.length, 2, 'the CA says what becomes of that');
  });

  it('not-with-another-issuer-than-the-one-of-now', async () => {
    const { cache, asked, trust, ca, key } = await setUp();
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    const next = nodeTrust(ca, [key]);
    const [jwks = ''] = next.jwks.values();
    const issuer = { handfast: { issuer: 'https://two.example' } };
    trust.replace({ ...next, jwks: new Map([['cluster.local', JSON.stringify({ ...JSON.parse(jwks), ...issuer })]]) });
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 2);
  });

  it('as-far-as-there-is-room-for-their-bytes-and-dropped-when-they-are-of-no-use', async () => {
    const { cache, clock } = await setUp({ maxBytes: 2_000 });
    for (let i = 0; i < 20; i++) await cache.signJwtSvid({ token: 't', audience: [`a${i}`] });
    assert.ok(cache.size >= 3 && cache.size < 10, String(cache.size));
    clock.now += 150_000;
    await cache.signJwtSvid({ token: 't', audience: ['next'] });
    assert.equal(cache.size, 1);
  });

  it('until-half-of-its-life-is-gone', async () => {
    const { cache, asked, clock } = await setUp();
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    clock.now += 149_000;
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 1);
    clock.now += 1_000;
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 2);
  });

  it('not-once-its-key-was-withdrawn', async () => {
    const { cache, asked, trust, ca, key } = await setUp();
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    trust.replace(nodeTrust(ca, [key, new JwtKey('second')]));
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 1, 'another key beside it changes nothing');
    trust.replace(nodeTrust(ca, [new JwtKey('second')]));
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 2);
  });

  it('not-once-its-id-was-blocked', async () => {
    const { cache, asked, trust, ca, key } = await setUp();
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    trust.replace(nodeTrust(ca, [key], ['spiffe://cluster.local/ns/foo/sa/other']));
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 1);
    trust.replace(nodeTrust(ca, [key], [ID]));
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 2);
  });
});

describe('the CA', () => {
  it('is-asked-once-by-callers-that-come-together', async () => {
    const { cache, asked, gate } = await setUp();
    const { promise, resolve } = Promise.withResolvers<void>();
    gate.before = promise;
    const all = [1, 2, 3].map(() => cache.signJwtSvid({ token: 't', audience: ['a'] }));
    resolve();
    assert.equal(new Set(await Promise.all(all)).size, 1);
    assert.equal(asked.length, 1);
  });

  it('is-asked-again-after-a-failure-which-all-who-waited-are-told', async () => {
    const { cache, asked, gate } = await setUp();
    gate.before = Promise.reject(new Error('away'));
    const results = await Promise.allSettled([1, 2].map(() => cache.signJwtSvid({ token: 't', audience: ['a'] })));
    assert.deepEqual(
      results.map((result) => result.status),
      ['rejected', 'rejected'],
    );
    delete gate.before;
    await cache.signJwtSvid({ token: 't', audience: ['a'] });
    assert.equal(asked.length, 2);
  });

  it('whose-token-is-expired-by-our-clock-is-not-believed', async () => {
    const { trust, clock } = await setUp();
    const signer = { signJwtSvid: async () => ({ spiffeId: ID, token: 'x', issuedAt: 1, expiresAt: 2 }) };
    const cache = new JwtSvidCache({
      signer,
      trust: () => (trust.current === undefined ? undefined : jwtTrustOf(trust.current)),
      now: () => clock.now,
    });
    await assert.rejects(cache.signJwtSvid({ token: 't', audience: ['a'] }), { code: 'JWT_INVALID' });
    assert.equal(cache.size, 0);
  });
});

describe('memory', () => {
  it('is-bounded-and-the-longest-unused-goes-first', async () => {
    const { cache, asked } = await setUp({ maxEntries: 2 });
    for (const audience of ['a', 'b', 'a', 'c', 'a', 'b']) await cache.signJwtSvid({ token: 't', audience: [audience] });
    assert.equal(cache.size, 2);
    assert.deepEqual(
      asked.map(({ audience }) => audience[0]),
      ['a', 'b', 'c', 'b'],
    );
  });
});
