// Trust bundles: CA certificates and nothing else; an empty one is never taken, because it would trust nobody or, worse, be skipped.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { pemBlocks } from '../../src/spiffe/pem.ts';
import { parseTrustBundle } from '../../src/spiffe/trust-bundle.ts';
import { TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

let ca: TestCa;
let other: TestCa;
let leaf: string;
let key: string;
before(async () => {
  ca = await TestCa.create();
  other = await TestCa.create();
  const svid = await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep');
  leaf = pemBlocks(svid.chain)[0]?.text ?? '';
  key = svid.key;
});

const parse = (pem: string) => parseTrustBundle(pem, 'cluster.local');

describe('taken', () => {
  test('one root', () => {
    const bundle = parse(ca.rootPem);
    assert.equal(bundle.trustDomain, 'cluster.local');
    assert.equal(bundle.authorities.length, 1);
    assert.ok(Object.isFrozen(bundle) && Object.isFrozen(bundle.authorities));
  });

  test('several, in their order', () => {
    const bundle = parse(ca.rootPem + other.rootPem);
    assert.equal(bundle.authorities.length, 2);
    assert.deepEqual(
      pemBlocks(bundle.pem).map(({ text }) => text),
      [ca.rootPem, other.rootPem],
    );
  });

  test('with comments and CRLF; what is handed to TLS is certificates alone', () => {
    const bundle = parse(`# mesh roots\r\n${ca.rootPem.replaceAll('\n', '\r\n')}\r\n# the new one\r\n${other.rootPem}`);
    assert.equal(bundle.authorities.length, 2);
    assert.doesNotMatch(bundle.pem, /#/);
  });

  test('an intermediate as an authority', () => assert.equal(parse(ca.intermediatePem).authorities.length, 1));

  test('100 certificates', () => assert.equal(parse(ca.rootPem.repeat(100)).authorities.length, 100));
});

describe('refused', () => {
  for (const pem of ['', 'no roots here', '-----BEGIN CERTIFICATE-----\n', '-----BEGIN CERTIFICATE-----\n-----END X509 CRL-----\n']) {
    test(`an empty one: ${JSON.stringify(pem.slice(0, 40))}`, () =>
      assert.throws(() => parse(pem), refusal('SECRET_INVALID', 'no PEM certificate')));
  }

  test('a leaf among roots, by its place', () => {
    assert.throws(() => parse(ca.rootPem + leaf), refusal('SECRET_INVALID', 'entry 2 is not a CA certificate'));
    assert.throws(() => parse(leaf), refusal('SECRET_INVALID', 'entry 1 is not a CA certificate'));
  });

  test('a private key among roots, by its place and kind, and without its text', () => {
    assert.throws(
      () => parse(ca.rootPem + key),
      (error: Error) => {
        refusal('SECRET_INVALID', 'entry 2 is a PRIVATE KEY')(error);
        assert.ok(!error.message.includes(key.split('\n')[1] ?? ''));
        return true;
      },
    );
  });

  test('one unreadable certificate refuses the others with it', () => {
    const cut = other.rootPem.replace(/\n[^\n]{20}/, '\n');
    assert.throws(() => parse(ca.rootPem + cut), refusal('SECRET_INVALID', 'entry 2: not a readable certificate'));
    assert.throws(
      () => parse(`${ca.rootPem}-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n`),
      refusal('SECRET_INVALID', 'entry 2'),
    );
  });

  test('101 certificates', () =>
    assert.throws(() => parse(ca.rootPem.repeat(101)), refusal('SECRET_INVALID', '101 certificates, at most 100')));

  test('a megabyte that only begins like PEM, at once', () => {
    assert.throws(() => parse('-----BEGIN CERTIFICATE-----\n'.repeat(2000)), refusal('SECRET_INVALID'));
  });
});
