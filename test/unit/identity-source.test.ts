// SDS secrets into one identity: published whole or not at all, in whichever order the parts come.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { IdentitySource } from '../../src/discovery/identity-source.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { clientContext } from '../../src/tls/context.ts';
import type { DataSource } from '../../src/wire/gen/envoy/config/core/v3/base.ts';
import type { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { type Pem, TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
const bytes = (text: string): DataSource => ({ specifier: { $case: 'inlineBytes', value: Buffer.from(text) } });
const svidSecret = (pem: Pem, fields: object = {}): Secret => ({
  name: 'default',
  type: {
    $case: 'tlsCertificate',
    value: { certificateChain: bytes(pem.chain), privateKey: bytes(pem.key), password: undefined, ...fields },
  },
});
const bundleSecret = (pem: string | DataSource | undefined, name = 'ROOTCA'): Secret => ({
  name,
  type: {
    $case: 'validationContext',
    value: { trustedCa: typeof pem === 'string' ? bytes(pem) : pem, crl: undefined, customValidatorConfig: undefined },
  },
});

let ca: TestCa;
let other: TestCa;
let first: Pem;
let second: Pem;
before(async () => {
  [ca, other] = [await TestCa.create(), await TestCa.create()];
  [first, second] = [await ca.svid(ID), await ca.svid(ID)];
});

function rig(now = Date.now): { source: IdentitySource; identity: Snapshot<Identity>; published: Identity[]; warnings: string[] } {
  const identity = new Snapshot<Identity>();
  const [published, warnings]: [Identity[], string[]] = [[], []];
  identity.subscribe((next) => published.push(next));
  const log = { info: () => undefined, warn: (_fields: object, message: string) => warnings.push(message) };
  return { source: new IdentitySource({ identity, prove: clientContext, log, now }), identity, published, warnings };
}

describe('published', () => {
  const orders: Readonly<Record<string, () => Secret[][]>> = {
    'both in one response': () => [[svidSecret(first), bundleSecret(ca.rootPem)]],
    'the SVID first': () => [[svidSecret(first)], [bundleSecret(ca.rootPem)]],
    'the bundle first': () => [[bundleSecret(ca.rootPem)], [svidSecret(first)]],
  };
  for (const [name, responses] of Object.entries(orders)) {
    test(`${name}: once, when the pair is whole`, () => {
      const { source, published } = rig();
      const all = responses();
      for (const [index, response] of all.entries()) {
        assert.equal(published.length, 0, `before response ${index + 1}`);
        source.accept(response);
      }
      assert.equal(published.length, 1);
      assert.equal(published[0]?.svid.id.uri, ID);
      assert.equal(published[0]?.bundles.own.trustDomain, 'cluster.local');
      assert.ok(Object.isFrozen(published[0]));
    });
  }

  test('again for a new SVID, and for a new bundle, and not for the same pair', () => {
    const { source, published } = rig();
    source.accept([svidSecret(first), bundleSecret(ca.rootPem)]);
    source.accept([svidSecret(first)]);
    source.accept([bundleSecret(ca.rootPem)]);
    source.accept([]);
    assert.equal(published.length, 1);
    source.accept([svidSecret(second)]);
    assert.equal(published.length, 2);
    source.accept([bundleSecret(ca.rootPem + other.rootPem)]);
    assert.equal(published.length, 3);
    assert.equal(published[2]?.bundles.own.authorities.length, 2);
  });

  test('as inline text too', () => {
    const { source, published } = rig();
    source.accept([svidSecret(first), bundleSecret({ specifier: { $case: 'inlineString', value: ca.rootPem } })]);
    assert.equal(published.length, 1);
  });

  test('while a root is replaced, SVID and bundle that do not match wait for each other, and the last good pair stays', async () => {
    const { source, identity, published, warnings } = rig();
    source.accept([svidSecret(first), bundleSecret(ca.rootPem)]);
    const good = identity.current;
    source.accept([bundleSecret(other.rootPem)]);
    assert.equal(identity.current, good);
    assert.equal(warnings.length, 1);
    source.accept([svidSecret(await other.svid(ID))]);
    assert.equal(published.length, 2);
    assert.equal(identity.current?.bundles.own.pem, other.rootPem);
  });
});

describe('refused, leaving everything as it was', () => {
  const source = (specifier: DataSource['specifier']): DataSource => ({ specifier });
  const cases: Readonly<Record<string, readonly [secret: () => Secret, says: string]>> = {
    'a secret that was not asked for': [() => bundleSecret(ca.rootPem, 'ALL'), '"ALL" was not asked for'],
    'a bundle under the name of the SVID': [() => bundleSecret(ca.rootPem, 'default'), 'must be a tls_certificate, not validationContext'],
    'an SVID under the name of the bundle': [() => ({ ...svidSecret(second), name: 'ROOTCA' }), 'must be a validation_context'],
    'a secret without a type': [() => ({ name: 'default', type: undefined }), 'not empty'],
    'a key by file name: a peer may not read our files': [
      () => svidSecret(second, { privateKey: source({ $case: 'filename', value: '/etc/shadow' }) }),
      'private_key must be inline',
    ],
    'a bundle by variable: nor our environment': [
      () => bundleSecret(source({ $case: 'environmentVariable', value: 'PATH' })),
      'trusted_ca must be inline',
    ],
    'a certificate without a key': [() => svidSecret(second, { privateKey: undefined }), 'private_key is missing'],
    'a bundle without a source': [() => bundleSecret(undefined), 'trusted_ca is missing'],
    'a bundle with an empty source': [() => bundleSecret(source(undefined)), 'trusted_ca is missing'],
    'an encrypted key': [() => svidSecret(second, { password: bytes('x') }), 'send it unencrypted'],
    "another SVID's key": [() => svidSecret({ chain: second.chain, key: first.key }), 'does not belong'],
    'an empty bundle': [() => bundleSecret(''), 'no PEM certificate'],
    'a bundle with a leaf in it': [() => bundleSecret(first.chain), 'is not a CA'],
  };
  for (const [name, [make, says]] of Object.entries(cases)) {
    test(name, () => {
      const { source: sut, identity, published } = rig();
      sut.accept([svidSecret(first), bundleSecret(ca.rootPem)]);
      const good = identity.current;
      assert.throws(() => sut.accept([make()]), refusal('SECRET_INVALID', says));
      // Nor may a good part of a bad response come into force, now or with the next one.
      assert.throws(() => sut.accept([bundleSecret(ca.rootPem + other.rootPem), make()]), refusal('SECRET_INVALID', says));
      sut.accept([]);
      assert.equal(identity.current, good);
      assert.equal(published.length, 1);
      sut.accept([svidSecret(second)]);
      assert.equal(published.length, 2);
      assert.equal(identity.current?.bundles.own.authorities.length, 1);
    });
  }

  test('an SVID that has expired, by the clock that was given; a moment earlier it is taken', async () => {
    const end = Date.UTC(2030, 0, 2);
    const pem = await ca.svid(ID, { notBefore: Date.UTC(2030, 0, 1), notAfter: end });
    const late = rig(() => end);
    assert.throws(
      () => late.source.accept([svidSecret(pem), bundleSecret(ca.rootPem)]),
      refusal('SECRET_INVALID', 'expired at 2030-01-02'),
    );
    assert.equal(late.identity.current, undefined);
    const early = rig(() => end - 1);
    early.source.accept([svidSecret(pem), bundleSecret(ca.rootPem)]);
    assert.equal(early.published.length, 1);
  });

  test('a bad bundle is refused before there is an SVID to hold against it', () => {
    assert.throws(() => rig().source.accept([bundleSecret('nothing')]), refusal('SECRET_INVALID'));
  });
});
