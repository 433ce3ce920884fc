// Our verdict on a peer's certificate. That the chain holds is OpenSSL's part; these are the parts that it does not look at.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { parseTrustBundle, type TrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { verifyPeer } from '../../src/spiffe/verify-peer.ts';
import { type LeafOptions, TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
const [BEGIN, END] = [Date.UTC(2030, 0, 1), Date.UTC(2030, 0, 2)];
const NOON = Date.UTC(2030, 0, 1, 12);
const validity = { notBefore: BEGIN, notAfter: END };

let ca: TestCa;
let bundle: TrustBundle;
let certificate: X509Certificate;
before(async () => {
  ca = await TestCa.create();
  bundle = parseTrustBundle(ca.rootPem, 'cluster.local');
  certificate = new X509Certificate((await ca.svid(ID, validity)).chain);
});

const verify = (peer: X509Certificate | undefined, of: { bundle: TrustBundle; now: number }) =>
  verifyPeer({ leaf: peer, intermediates: () => [] }, { bundles: trustBundles(of.bundle), revocations: noRevocations, now: of.now });

const leaf = async (options: LeafOptions) => new X509Certificate((await ca.badLeaf({ validity, ...options })).chain);

test('a good certificate names its holder, serial and end', () => {
  const peer = verify(certificate, { bundle, now: NOON });
  assert.equal(peer.id.uri, ID);
  assert.equal(peer.serial, certificate.serialNumber);
  assert.equal(peer.notAfter, END);
  assert.ok(Object.isFrozen(peer));
});

test('no certificate is nobody, whatever TLS said of it', () => {
  assert.throws(() => verify(undefined, { bundle, now: NOON }), refusal('NO_CLIENT_CERTIFICATE'));
});

test('connections of one peer share what it sent: its certificates are not kept once for each', async () => {
  const { chain } = await ca.svid(ID, validity);
  const [first, second] = [new X509Certificate(chain), new X509Certificate(chain)];
  const peers = [first, second, certificate].map((peer) => verify(peer, { bundle, now: NOON }).certificates());
  assert.deepEqual([peers[0]?.[0] === first, peers[1]?.[0] === first, peers[2]?.[0] === first], [true, true, false]);
});

test('where several trust domains are trusted, the chain that was sent is the one that was verified', async () => {
  const other = parseTrustBundle((await TestCa.create('other.example')).rootPem, 'other.example');
  const svid = new X509Certificate((await ca.svid(ID, validity)).chain);
  const intermediate = new X509Certificate(ca.intermediatePem);
  const trust = { bundles: trustBundles(bundle, [other]), revocations: noRevocations, now: NOON };
  assert.throws(() => verifyPeer({ leaf: svid, intermediates: () => [] }, trust), refusal('CHAIN_UNTRUSTED'));
  const good = verifyPeer({ leaf: svid, intermediates: () => [intermediate] }, trust);
  assert.equal(good.certificates().length, 2);
  // What another connection has sent proves nothing for this one.
  assert.throws(() => verifyPeer({ leaf: svid, intermediates: () => [] }, trust), refusal('CHAIN_UNTRUSTED'));
});

describe('validity, to the millisecond', () => {
  const times: readonly (readonly [name: string, now: number, code?: 'CERTIFICATE_EXPIRED' | 'CERTIFICATE_NOT_YET_VALID'])[] = [
    ['at its first moment', BEGIN],
    ['just before it', BEGIN - 1, 'CERTIFICATE_NOT_YET_VALID'],
    ['at its last moment', END],
    ['just after it', END + 1, 'CERTIFICATE_EXPIRED'],
    ['long after it', END + 1e12, 'CERTIFICATE_EXPIRED'],
    ['before all time', 0, 'CERTIFICATE_NOT_YET_VALID'],
  ];
  for (const [name, now, code] of times) {
    test(name, () => {
      if (code === undefined) assert.equal(verify(certificate, { bundle, now }).id.uri, ID);
      else assert.throws(() => verify(certificate, { bundle, now }), refusal(code, ID, '2030-01-0'));
    });
  }

  test('a clock that is no number accepts nobody', () => {
    assert.throws(() => verify(certificate, { bundle, now: Number.NaN }));
  });
});

describe('trust domains', () => {
  for (const uri of [
    'spiffe://evil.example/ns/foo/sa/sleep',
    'spiffe://cluster.local.evil/x',
    'spiffe://cluster.loca/x',
    'spiffe://evil-cluster.local/x',
  ]) {
    test(`${uri} is not of cluster.local, though our CA signed it`, async () => {
      const foreign = await leaf({ uris: [uri] });
      assert.throws(() => verify(foreign, { bundle, now: NOON }), refusal('TRUST_DOMAIN_UNKNOWN', uri, 'cluster.local'));
    });
  }

  test('our own name under a bundle of another domain is refused too', () => {
    const foreign = parseTrustBundle(ca.rootPem, 'other.example');
    assert.throws(() => verify(certificate, { bundle: foreign, now: NOON }), refusal('TRUST_DOMAIN_UNKNOWN'));
  });
});

describe('the leaf', () => {
  test('of the right shape is taken', async () => assert.equal(verify(await leaf({}), { bundle, now: NOON }).id.uri, ID));

  const cases: Readonly<Record<string, readonly [LeafOptions, 'SPIFFE_ID_INVALID' | 'LEAF_INVALID']>> = {
    'without a URI SAN': [{ uris: [] }, 'SPIFFE_ID_INVALID'],
    'with two': [{ uris: [ID, 'spiffe://cluster.local/ns/bar/sa/admin'] }, 'SPIFFE_ID_INVALID'],
    'with the trust domain alone': [{ uris: ['spiffe://cluster.local'] }, 'SPIFFE_ID_INVALID'],
    'that is a CA': [{ ca: true }, 'LEAF_INVALID'],
    'that may sign certificates': [{ keyUsage: 0x84 }, 'LEAF_INVALID'],
    'that may not sign handshakes': [{ keyUsage: 0x20 }, 'LEAF_INVALID'],
  };
  for (const [name, [options, code]] of Object.entries(cases)) {
    test(`${name} is refused, before anything is said about its dates`, async () => {
      const bad = await leaf(options);
      assert.throws(() => verify(bad, { bundle, now: END + 1e9 }), refusal(code));
    });
  }
});

test('a CA certificate as the peer is refused', () => {
  for (const pem of [ca.rootPem, ca.intermediatePem]) {
    assert.throws(() => verify(new X509Certificate(pem), { bundle, now: Date.now() }), refusal('SPIFFE_ID_INVALID'));
  }
});
