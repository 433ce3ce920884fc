// The X.509-SVID rules on a leaf (https://spiffe.io/docs/latest/spiffe-specs/x509-svid/, sections 4 and 5.2).

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import { bitString, boolean, extension, sequence } from '../../src/spiffe/der-builder.ts';
import { readLeaf, uriSans } from '../../src/spiffe/leaf.ts';
import { TestCa } from '../support/pki.ts';
import {
  basicConstraints,
  dns,
  email,
  ip,
  keyUsage,
  rawCertificate,
  rawExtension,
  subjectAltName,
  uri,
  usage,
} from '../support/raw-certificate.ts';
import { refusal } from '../support/refusal.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
const noCa = basicConstraints(false);
const signs = keyUsage(usage.digitalSignature);
const san = subjectAltName(uri(ID));

describe('accepted', () => {
  const accepted: Readonly<Record<string, Parameters<typeof rawCertificate>>> = {
    'one URI SAN and digitalSignature': [noCa, signs, san],
    'a DNS name beside the URI': [noCa, signs, subjectAltName(dns('sleep.foo'), uri(ID))],
    'DNS, e-mail and IP names around the URI': [noCa, signs, subjectAltName(dns('a'), uri(ID), email('a@b'), ip(10, 0, 0, 1))],
    'a DNS name that contains a SPIFFE ID': [noCa, signs, subjectAltName(dns('URI:spiffe://evil/x'), uri(ID))],
    'no basic constraints': [signs, san],
    'CA:FALSE spelt out': [extension('2.5.29.19', { critical: true, value: sequence(boolean(false)) }), signs, san],
    'keyEncipherment and keyAgreement beside digitalSignature': [
      noCa,
      keyUsage(usage.digitalSignature | usage.keyEncipherment | usage.keyAgreement),
      san,
    ],
    'an extension that we do not know': [noCa, signs, san, rawExtension('1.3.6.1.4.1.99999.1', Buffer.from('anything'))],
  };
  for (const [name, extensions] of Object.entries(accepted)) {
    test(name, async () => assert.equal(readLeaf(await rawCertificate(...extensions)).uri, ID));
  }

  test('an SVID as our CA makes it', async () => {
    const ca = await TestCa.create();
    assert.equal(readLeaf(new X509Certificate((await ca.svid(ID)).chain)).uri, ID);
  });
});

describe('refused as no SPIFFE ID', () => {
  const cases: Readonly<Record<string, readonly [san: Parameters<typeof rawCertificate>, says: string | RegExp]>> = {
    'no SAN': [[], '0 URI SANs'],
    'a SAN without a URI': [[subjectAltName(dns('sleep.foo.svc'))], '0 URI SANs'],
    'an empty SAN': [[subjectAltName()], '0 URI SANs'],
    'two URI SANs': [[subjectAltName(uri(ID), uri('spiffe://cluster.local/ns/bar/sa/admin'))], '2 URI SANs'],
    'the same URI SAN twice': [[subjectAltName(uri(ID), uri(ID))], '2 URI SANs'],
    'a URI SAN that is no SPIFFE ID beside one that is': [[subjectAltName(uri('https://a'), uri(ID))], '2 URI SANs'],
    'a URI SAN of another scheme': [[subjectAltName(uri('https://cluster.local/ns/foo/sa/sleep'))], 'not a SPIFFE ID'],
    'a SPIFFE ID as a DNS name': [[subjectAltName(dns(ID))], '0 URI SANs'],
    'a trust domain without a path': [[subjectAltName(uri('spiffe://cluster.local'))], 'names a trust domain, not a workload'],
    'a comma and a second ID in one name': [[subjectAltName(uri(`${ID}, URI:spiffe://cluster.local/ns/bar/sa/admin`))], 'not a SPIFFE ID'],
    'a quote': [[subjectAltName(uri(`"${ID}"`))], 'not a SPIFFE ID'],
    'a NUL': [[subjectAltName(uri(`${ID}\0.evil`))], 'not a SPIFFE ID'],
    'a NUL at the end': [[subjectAltName(uri(`${ID}\0`))], 'not a SPIFFE ID'],
    'a line break': [[subjectAltName(uri(`${ID}\n`))], 'not a SPIFFE ID'],
    'bytes above ASCII': [[subjectAltName(uri(`${ID}\xff`))], 'not a SPIFFE ID'],
    'an empty URI': [[subjectAltName(uri(''))], 'not a SPIFFE ID'],
  };
  for (const [name, [extensions, says]] of Object.entries(cases)) {
    test(name, async () => {
      const certificate = await rawCertificate(noCa, signs, ...extensions);
      assert.throws(() => readLeaf(certificate), refusal('SPIFFE_ID_INVALID', says));
    });
  }
});

describe('refused as no leaf', () => {
  const cases: Readonly<Record<string, readonly [extensions: Parameters<typeof rawCertificate>, says: string | RegExp]>> = {
    'CA:TRUE': [[basicConstraints(true), signs, san], 'a CA certificate may not be used as a leaf'],
    'CA:TRUE with keyCertSign, a whole CA': [[basicConstraints(true), keyUsage(usage.digitalSignature | usage.keyCertSign), san], 'CA'],
    keyCertSign: [[noCa, keyUsage(usage.digitalSignature | usage.keyCertSign), san], 'keyCertSign or cRLSign'],
    cRLSign: [[noCa, keyUsage(usage.digitalSignature | usage.cRLSign), san], 'keyCertSign or cRLSign'],
    'no key usage': [[noCa, san], 'lacks digitalSignature'],
    'key usage without digitalSignature': [[noCa, keyUsage(usage.keyEncipherment), san], 'lacks digitalSignature'],
    'key usage without a bit': [
      [noCa, extension('2.5.29.15', { critical: true, value: bitString(Buffer.alloc(0)) }), san],
      /key usage|DER/,
    ],
    'two subjectAltNames': [[noCa, signs, san, subjectAltName(uri('spiffe://cluster.local/ns/bar/sa/admin'))], '2.5.29.17 stands twice'],
    'two key usages, the first of them harmless': [[noCa, signs, keyUsage(usage.keyCertSign), san], '2.5.29.15 stands twice'],
    'two basic constraints': [[noCa, basicConstraints(true), signs, san], '2.5.29.19 stands twice'],
    'an unknown extension twice': [
      [noCa, signs, san, rawExtension('1.3.6.1.4.1.99999.1', Buffer.of(1)), rawExtension('1.3.6.1.4.1.99999.1', Buffer.of(2))],
      'stands twice',
    ],
    'a SAN that is not DER': [[noCa, signs, rawExtension('2.5.29.17', Buffer.from('308086'.concat('00'), 'hex'))], 'not well-formed DER'],
    'a SAN with bytes after it': [
      [
        noCa,
        signs,
        rawExtension('2.5.29.17', Buffer.concat([Buffer.of(0x30, ID.length + 2, 0x86, ID.length), Buffer.from(ID), Buffer.of(0)])),
      ],
      'not well-formed DER',
    ],
    'a key usage that is not DER': [[noCa, rawExtension('2.5.29.15', Buffer.from('ff', 'hex')), san], 'not well-formed DER'],
    'a key usage of another type': [[noCa, rawExtension('2.5.29.15', Buffer.from('04020080', 'hex')), san], 'not well-formed DER'],
    'basic constraints that are not DER': [[rawExtension('2.5.29.19', Buffer.from('3003', 'hex')), signs, san], /CA|DER/],
  };
  for (const [name, [extensions, says]] of Object.entries(cases)) {
    test(name, async () => {
      const certificate = await rawCertificate(...extensions);
      assert.throws(() => readLeaf(certificate), refusal('LEAF_INVALID', says));
    });
  }

  test('a leaf that chains to the mesh CA is judged by the same rules', async () => {
    const ca = await TestCa.create();
    const leaf = async (options: Parameters<TestCa['badLeaf']>[0]) => new X509Certificate((await ca.badLeaf(options)).chain);
    assert.equal(readLeaf(await leaf({})).uri, ID);
    assert.throws(() => readLeaf(new X509Certificate(ca.intermediatePem)), refusal('SPIFFE_ID_INVALID', 'names a trust domain'));
    const ofCa = await leaf({ ca: true });
    assert.throws(() => readLeaf(ofCa), refusal('LEAF_INVALID'));
  });
});

describe('URI SANs of bytes', () => {
  test('none where there is no extension', () => assert.deepEqual(uriSans(undefined), []));
  test('a constructed name with the URI tag number is not a URI', () => {
    // a6 is context 6, constructed: not what RFC 5280 means, and not to be read as an ID.
    const inner = Buffer.from(ID);
    const bytes = Buffer.concat([Buffer.of(0x30, inner.length + 2, 0xa6, inner.length), inner]);
    assert.deepEqual(uriSans(bytes), []);
  });
});
