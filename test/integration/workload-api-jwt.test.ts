// The SPIFFE Workload API as its clients meet it: JWT-SVIDs, fetched and judged.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { JwtKey, nodeTrust } from '../support/jwt.ts';
import { fetchJwt, ID, register, SECOND, serve, token, useWorkloadApi, validate, world } from '../support/workload-api.ts';

useWorkloadApi();

describe('FetchJWTSVID', () => {
  it('a-token-for-the-audiences-which-the-bundle-verifies', async () => {
    await register({ id: ID });
    await serve();
    const { svids } = await fetchJwt(['them', 'others']);
    assert.deepEqual(
      svids.map(({ spiffeId, hint }) => [spiffeId, hint]),
      [[ID, '']],
    );
    assert.deepEqual(world.signed, [{ token: ID, audience: ['them', 'others'] }]);
    assert.equal((await validate(svids[0]?.svid ?? '')).spiffeId, ID);
  });

  it('the-ca-signs-once-for-the-same-question', async () => {
    await register({ id: ID });
    await serve();
    assert.deepEqual(await fetchJwt(['them']), await fetchJwt(['them']));
    assert.equal(world.signed.length, 1);
  });

  it('one-of-several-by-its-id-or-all', async () => {
    await register({ id: ID }, { id: SECOND });
    await serve();
    assert.deepEqual(
      (await fetchJwt(['them'])).svids.map(({ spiffeId }) => spiffeId),
      [ID, SECOND],
    );
    assert.deepEqual(
      (await fetchJwt(['them'], SECOND)).svids.map(({ spiffeId }) => spiffeId),
      [SECOND],
    );
  });

  it('a-token-that-proves-another-id-than-its-registration-gets-nothing', async () => {
    await register({ id: ID, token: SECOND });
    await serve();
    await assert.rejects(fetchJwt(['them']), { code: status.PERMISSION_DENIED });
    await world.log.find(({ reason }) => String(reason).includes(SECOND) && String(reason).includes(ID));
  });

  it('a-ca-that-is-away-is-unavailable-and-one-that-refuses-is-denied', async () => {
    await register({ id: ID });
    await serve();
    world.signerFails = 'UNAVAILABLE';
    await assert.rejects(fetchJwt(['them']), { code: status.UNAVAILABLE });
    world.signerFails = 'IDENTITY_BLOCKED';
    await assert.rejects(fetchJwt(['them']), { code: status.PERMISSION_DENIED });
    world.signerFails = undefined;
    await fetchJwt(['them']);
  });

  const bad: readonly [string, string[], string, status][] = [
    ['no-audience', [], '', status.INVALID_ARGUMENT],
    ['an-empty-audience', ['them', ''], '', status.INVALID_ARGUMENT],
    ['too-many-audiences', Array.from({ length: 33 }, (_, i) => `a${i}`), '', status.INVALID_ARGUMENT],
    ['an-endless-audience', ['a'.repeat(1025)], '', status.INVALID_ARGUMENT],
    ['no-spiffe-id', ['them'], 'httpbin', status.INVALID_ARGUMENT],
    ['anothers-spiffe-id', ['them'], 'spiffe://cluster.local/ns/foo/sa/admin', status.PERMISSION_DENIED],
    ['an-oversized-request', ['a'.repeat(70_000)], '', status.RESOURCE_EXHAUSTED],
  ];
  for (const [name, audience, spiffeId, code] of bad) {
    it(`refused: ${name}`, async () => {
      await register({ id: ID });
      await serve();
      await assert.rejects(fetchJwt(audience, spiffeId), { code });
      assert.deepEqual(world.signed, []);
    });
  }
});

describe('ValidateJWTSVID', () => {
  it('a-good-one-comes-back-with-its-claims', async () => {
    await register({ id: ID });
    await serve();
    const { spiffeId, claims } = await validate(token({ aud: 'them', nested: { list: [1, 'two', null, true] } }));
    assert.equal(spiffeId, ID);
    assert.deepEqual([claims?.sub, claims?.aud, claims?.nested], [ID, ['them'], { list: [1, 'two', null, true] }]);
  });

  it('one-of-a-blocked-identity-is-refused', async () => {
    world.trust.replace(nodeTrust(world.ca, [world.key], [ID]));
    await register({ id: ID });
    await serve();
    await assert.rejects(validate(token()), { code: status.INVALID_ARGUMENT, details: `${ID} has been blocked` });
    assert.equal((await validate(token({ sub: SECOND }))).spiffeId, SECOND);
  });

  const bad: readonly [string, () => string, string, RegExp][] = [
    ['nothing', () => '', 'them', /send the JWT-SVID/],
    ['garbage', () => 'garbage', 'them', /three parts/],
    ['no-audience', () => token(), '', /must not be empty/],
    ['another-audience', () => token(), 'us', /lacks "us"/],
    ['expired', () => token({ exp: 1_000 }), 'them', /expired/],
    ['without-expiry', () => token({ exp: undefined }), 'them', /no expiry/],
    ['another-trust-domain', () => token({ sub: 'spiffe://other.example/x' }), 'them', /no keys of trust domain other\.example/],
    ['an-unknown-key', () => token({}, new JwtKey('k2')), 'them', /"k2" is not among/],
    ['the-same-kid-and-another-key', () => token({}, new JwtKey('k1')), 'them', /signature/],
    ['a-subject-that-is-no-spiffe-id', () => token({ sub: 'me' }), 'them', /not a SPIFFE ID/],
    ['an-oversized-token', () => token({ pad: 'a'.repeat(20_000) }), 'them', /longer than/],
  ];
  for (const [name, make, audience, details] of bad) {
    it(`refused: ${name}`, async () => {
      await register({ id: ID });
      await serve();
      await assert.rejects(validate(make(), audience), { code: status.INVALID_ARGUMENT, details });
    });
  }
});
