// The SPIFFE Workload API as its clients meet it: certificates and bundles, now and as they change.

import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { HandfastError } from '../../src/errors.ts';
import type { NodeTrust } from '../../src/node/node-trust.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { JwtKey, nodeTrust } from '../support/jwt.ts';
import { TestCa } from '../support/pki.ts';
import {
  client,
  fetchJwt,
  header,
  ID,
  idsOf,
  reading,
  register,
  SECOND,
  serve,
  UID,
  unlimited,
  useWorkloadApi,
  world,
} from '../support/workload-api.ts';

useWorkloadApi();

describe('FetchX509SVID', () => {
  it('certificate-key-and-bundle-as-der', async () => {
    const crl = Buffer.from('a crl');
    const foreign = await TestCa.create('other.example');
    world.trust.replace(nodeTrust([world.ca, foreign], [world.key], [], [crl]));
    await register({ id: ID });
    await serve();
    const response = await reading(client().fetchX509Svid({}, header())).next();
    const [svid, ...more] = response.svids;
    assert.ok(svid);
    assert.equal(more.length, 0);
    assert.deepEqual([svid.spiffeId, svid.hint], [ID, '']);
    const leaf = new X509Certificate(svid.x509Svid);
    const intermediate = new X509Certificate(world.ca.intermediatePem);
    assert.deepEqual(svid.x509Svid, Buffer.concat([leaf.raw, intermediate.raw]));
    assert.ok(leaf.checkPrivateKey(createPrivateKey({ key: svid.x509SvidKey, format: 'der', type: 'pkcs8' })));
    assert.deepEqual(svid.bundle, new X509Certificate(world.ca.rootPem).raw);
    assert.deepEqual(response.crl, [crl]);
    assert.deepEqual(response.federatedBundles, { 'spiffe://other.example': new X509Certificate(foreign.rootPem).raw });
  });

  it('each-change-of-svid-bundle-or-crl-is-pushed-and-nothing-else', async () => {
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    const first = await stream.next();
    await world.identities.rotate(ID);
    const second = await stream.next();
    assert.notDeepEqual(second.svids[0]?.x509Svid, first.svids[0]?.x509Svid);
    world.trust.replace(nodeTrust([world.ca, await TestCa.create('other.example')], [world.key]));
    assert.deepEqual(Object.keys((await stream.next()).federatedBundles), ['spiffe://other.example']);
    // The same again says nothing; only what differs comes next.
    world.trust.replace(nodeTrust(world.ca, [world.key]));
    await stream.next();
    world.trust.replace(nodeTrust(world.ca, [world.key]));
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    world.trust.replace(nodeTrust(world.ca, [world.key], [], [Buffer.from('crl')]));
    assert.deepEqual((await stream.next()).crl, [Buffer.from('crl')]);
  });

  it('several-registrations-are-several-svids-in-the-order-of-the-file', async () => {
    await register({ id: SECOND }, { id: ID });
    await serve();
    assert.deepEqual(idsOf(await reading(client().fetchX509Svid({}, header())).next()), [SECOND, ID]);
  });

  it('a-process-that-matches-nothing-is-refused', async () => {
    await register({ id: ID, selectors: `{ uid: ${UID + 1} }` });
    await serve();
    assert.equal((await reading(client().fetchX509Svid({}, header())).refused()).code, status.PERMISSION_DENIED);
    assert.equal(world.identities.open.size, 0, 'the CA was not even asked');
  });

  it('a-registration-that-comes-is-added-and-one-that-goes-ends-the-stream', async () => {
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    assert.deepEqual(idsOf(await stream.next()), [ID]);
    await register({ id: ID }, { id: SECOND });
    assert.deepEqual(idsOf(await stream.next()), [ID, SECOND]);
    await register({ id: SECOND });
    assert.deepEqual(idsOf(await stream.next()), [SECOND]);
    await register();
    assert.equal((await stream.refused()).code, status.PERMISSION_DENIED);
    assert.equal(world.identities.released, 2);
  });

  it('a-token-that-proves-another-id-than-its-registration-serves-neither', async () => {
    await register({ id: ID, token: SECOND });
    await serve();
    assert.equal((await reading(client().fetchX509Svid({}, header())).refused()).code, status.PERMISSION_DENIED);
    const { registered, proven } = await world.log.find(({ msg }) => msg?.startsWith('registration refused') === true);
    assert.deepEqual([registered, proven], [ID, SECOND]);
  });

  it('a-token-that-comes-to-prove-another-id-takes-the-svid-away', async () => {
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    await stream.next();
    await writeFile(join(world.dir, `${ID.replaceAll(/\W/g, '-')}.token`), SECOND);
    assert.equal((await stream.refused()).code, status.PERMISSION_DENIED);
  });

  it('a-new-token-that-the-ca-does-not-answer-for-leaves-the-old-session-in-use', async () => {
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    await stream.next();
    world.identities.failing.set(SECOND, 'UNAVAILABLE');
    await writeFile(join(world.dir, `${ID.replaceAll(/\W/g, '-')}.token`), SECOND);
    await world.log.find(({ msg }) => msg === 'no certificate for a registered workload');
    await world.identities.rotate(ID);
    assert.deepEqual(idsOf(await stream.next()), [ID]);
  });

  for (const [failure, code] of [
    ['TOKEN_REFUSED', status.PERMISSION_DENIED],
    ['IDENTITY_BLOCKED', status.PERMISSION_DENIED],
    ['UNAVAILABLE', status.UNAVAILABLE],
  ] as const) {
    it(`a-ca-that-says-${failure} is ${status[code]} without its reason`, async () => {
      world.identities.failing.set(ID, failure);
      await register({ id: ID });
      await serve();
      const error = await reading(client().fetchX509Svid({}, header())).refused();
      assert.equal(error.code, code);
      assert.doesNotMatch(error.details, /refused by the test/);
    });
  }

  it('a-ca-that-does-not-answer-for-the-default-identity-makes-no-other-one-the-default', async () => {
    world.identities.failing.set(ID, 'UNAVAILABLE');
    await register({ id: ID }, { id: SECOND });
    await serve();
    assert.equal((await reading(client().fetchX509Svid({}, header())).refused()).code, status.UNAVAILABLE);
    world.identities.failing.set(ID, 'TOKEN_REFUSED');
    assert.deepEqual(idsOf(await reading(client().fetchX509Svid({}, header())).next()), [SECOND]);
  });

  it('a-blocked-identity-is-taken-away-and-the-other-one-stays', async () => {
    await register({ id: ID }, { id: SECOND });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    assert.deepEqual(idsOf(await stream.next()), [ID, SECOND]);
    world.trust.replace(nodeTrust(world.ca, [world.key], [ID]));
    assert.deepEqual(idsOf(await stream.next()), [SECOND]);
    assert.deepEqual(
      (await fetchJwt(['them'])).svids.map(({ spiffeId }) => spiffeId),
      [SECOND],
    );
    await assert.rejects(fetchJwt(['them'], ID), { code: status.PERMISSION_DENIED });
    world.trust.replace(nodeTrust(world.ca, [world.key], [ID, SECOND]));
    assert.equal((await stream.refused()).code, status.PERMISSION_DENIED);
  });

  it('one-that-is-not-the-default-comes-later-when-the-ca-answers-again', async () => {
    world.identities.failing.set(SECOND, 'UNAVAILABLE');
    await register({ id: ID }, { id: SECOND });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    assert.deepEqual(idsOf(await stream.next()), [ID]);
    world.identities.failing.delete(SECOND);
    assert.deepEqual(idsOf(await stream.next()), [ID, SECOND]);
  });

  it('a-token-file-that-is-not-there-is-a-refusal-until-it-is', async () => {
    await register({ id: ID });
    const tokenFile = join(world.dir, `${ID.replaceAll(/\W/g, '-')}.token`);
    await rm(tokenFile);
    await serve({ limits: unlimited });
    assert.equal((await reading(client().fetchX509Svid({}, header())).refused()).code, status.PERMISSION_DENIED);
    await assert.rejects(fetchJwt(['them']), { code: status.PERMISSION_DENIED });
    await reading(client().fetchX509Bundles({}, header())).next();
    await writeFile(tokenFile, ID);
    while (
      await fetchJwt(['them']).then(
        () => false,
        () => true,
      )
    );
    assert.deepEqual(idsOf(await reading(client().fetchX509Svid({}, header())).next()), [ID]);
  });

  it('an-agent-that-holds-too-many-sessions-is-unavailable', async () => {
    await register({ id: ID });
    const acquire = () => {
      throw new HandfastError('UNAVAILABLE', 'more than 10000 workloads on one agent');
    };
    await serve({ identities: { acquire } });
    assert.equal((await reading(client().fetchX509Svid({}, header())).refused()).code, status.UNAVAILABLE);
  });

  it('an-svid-without-a-bundle-of-its-trust-domain-is-held-back', async () => {
    world.trust.replace(nodeTrust(await TestCa.create('other.example'), [world.key]));
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    const first = stream.next();
    await world.log.find(({ msg }) => msg?.startsWith('an SVID is held back') === true);
    world.trust.replace(nodeTrust(world.ca, [world.key]));
    assert.deepEqual(idsOf(await first), [ID]);
  });

  it('an-expired-certificate-is-not-served', async () => {
    await register({ id: ID });
    world.now = () => Date.now() + 24 * 3_600_000;
    await serve();
    assert.equal((await reading(client().fetchX509Svid({}, header())).refused()).code, status.UNAVAILABLE);
  });

  it('nothing-is-said-before-the-trust-is-known', async () => {
    world.trust = new Snapshot<NodeTrust>();
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Svid({}, header()));
    const first = stream.next();
    while (!world.identities.open.has(ID)) await new Promise((resolve) => setImmediate(resolve));
    world.trust.replace(nodeTrust(world.ca, [world.key]));
    assert.deepEqual(idsOf(await first), [ID]);
  });

  it('what-a-stream-held-is-let-go-when-its-client-goes', async () => {
    await register({ id: ID });
    await serve();
    const api = client();
    const stream = api.fetchX509Svid({}, header());
    stream.on('error', () => undefined);
    await once(stream, 'data');
    stream.cancel();
    while (world.identities.released === 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(world.identities.released, 1);
  });
});

describe('bundles', () => {
  it('x509-bundles-by-trust-domain-and-again-when-they-change', async () => {
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchX509Bundles({}, header()));
    assert.deepEqual((await stream.next()).bundles, { 'spiffe://cluster.local': new X509Certificate(world.ca.rootPem).raw });
    world.trust.replace(nodeTrust([world.ca, await TestCa.create('other.example')], [world.key], [], [Buffer.from('crl')]));
    const next = await stream.next();
    assert.deepEqual([Object.keys(next.bundles), next.crl], [['spiffe://cluster.local', 'spiffe://other.example'], [Buffer.from('crl')]]);
  });

  it('jwt-bundles-by-trust-domain-and-again-when-they-change', async () => {
    await register({ id: ID });
    await serve();
    const stream = reading(client().fetchJwtBundles({}, header()));
    const kids = ({ bundles }: { bundles: { [name: string]: Buffer } }) =>
      JSON.parse(String(bundles['spiffe://cluster.local'])).keys.map(({ kid }: { kid: string }) => kid);
    assert.deepEqual(kids(await stream.next()), ['k1']);
    world.trust.replace(nodeTrust(world.ca, [world.key, new JwtKey('k2')]));
    assert.deepEqual(kids(await stream.next()), ['k1', 'k2']);
  });
});
