// An SVID with its key, as SDS delivers it: what is taken, what is refused, and what the refusal tells.

import assert from 'node:assert/strict';
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { createCaCertificate, createSvidCertificate, newSerial } from '../../src/ca/certificate.ts';
import { keySigner } from '../../src/ca/signer.ts';
import { pemBlocks } from '../../src/spiffe/pem.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle } from '../../src/spiffe/trust-bundle.ts';
import { chainsTo, parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import { aroundNow, keyPair, keyPem, type Pem, TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
let ca: TestCa;
let good: Pem;
before(async () => {
  ca = await TestCa.create();
  good = await ca.svid(ID);
});

const blocks = (pem: string) => pemBlocks(pem).map(({ text }) => text);

/** Root -> a -> b -> leaf: each PEM, and the leaf's key. */
async function deepChain(): Promise<{ root: string; a: string; b: string; leaf: string; key: string }> {
  const keys = { root: keyPair(), a: keyPair(), b: keyPair(), leaf: keyPair() };
  const common = { trustDomain: 'cluster.local', validity: aroundNow() };
  const issuer = (name: 'root' | 'a' | 'b') => ({ commonName: name, signer: keySigner(keys[name].privateKey) });
  const authority = (name: 'root' | 'a' | 'b', by: 'root' | 'a' | 'b', pathLength: number) =>
    createCaCertificate({ ...common, commonName: name, publicKey: keys[name].publicKey, issuer: issuer(by), pathLength });
  return {
    root: await authority('root', 'root', 2),
    a: await authority('a', 'root', 1),
    b: await authority('b', 'a', 0),
    leaf: await createSvidCertificate({
      id: parseSpiffeId(ID),
      publicKey: keys.leaf.publicKey,
      issuer: issuer('b'),
      validity: common.validity,
      serial: newSerial(),
    }),
    key: keyPem(keys.leaf.privateKey),
  };
}

describe('taken', () => {
  test('leaf and intermediate with the matching key', () => {
    const svid = parseX509Svid(good);
    const leaf = new X509Certificate(good.chain);
    assert.equal(svid.id.uri, ID);
    assert.equal(svid.certificates.length, 2);
    assert.equal(svid.serial, leaf.serialNumber);
    assert.equal(svid.notBefore, leaf.validFromDate.getTime());
    assert.equal(svid.notAfter, leaf.validToDate.getTime());
    assert.deepEqual(blocks(svid.chainPem).length, 2);
    assert.ok(Object.isFrozen(svid) && Object.isFrozen(svid.certificates));
  });

  test('a leaf alone', () => {
    assert.equal(parseX509Svid({ ...good, chain: blocks(good.chain)[0] ?? '' }).certificates.length, 1);
  });

  test('a chain with the root at its end, as Istio sends it', () => {
    assert.equal(parseX509Svid({ ...good, chain: good.chain + ca.rootPem }).certificates.length, 3);
  });

  test('several intermediates in order', async () => {
    const { leaf, b, a, key } = await deepChain();
    assert.equal(parseX509Svid({ chain: leaf + b + a, key }).certificates.length, 3);
  });

  const spellings: Readonly<Record<string, (pem: string) => string>> = {
    'CRLF line ends': (pem) => pem.replaceAll('\n', '\r\n'),
    'no line end at the end': (pem) => pem.trimEnd(),
    'text before, between and after': (pem) => `subject=\n${pem.replaceAll('-----BEGIN', 'issuer=CN\n-----BEGIN')}\ntrailer\n`,
  };
  for (const [name, spell] of Object.entries(spellings)) {
    test(name, () => assert.equal(parseX509Svid({ chain: spell(good.chain), key: spell(good.key) }).id.uri, ID));
  }

  test('a key in SEC1 form, also after its EC PARAMETERS, as `openssl ecparam -genkey` writes it', () => {
    const sec1 = createPrivateKey(good.key).export({ type: 'sec1', format: 'pem' }).toString();
    const parameters = '-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n';
    for (const key of [sec1, parameters + sec1]) assert.equal(parseX509Svid({ ...good, key }).id.uri, ID);
  });

  test('an expired one: whether it may be used is for whoever has a clock', async () => {
    const old = await ca.svid(ID, { notBefore: Date.now() - 7_200_000, notAfter: Date.now() - 3_600_000 });
    assert.ok(parseX509Svid(old).notAfter < Date.now());
  });
});

describe('refused', () => {
  test('a key of another certificate', async () => {
    const other = await ca.svid(ID);
    assert.throws(
      () => parseX509Svid({ chain: good.chain, key: other.key }),
      refusal('SECRET_INVALID', 'does not belong to the certificate'),
    );
    assert.ok(parseX509Svid(other));
  });

  test('a key of another kind', () => {
    const key = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    assert.throws(() => parseX509Svid({ chain: good.chain, key }), refusal('SECRET_INVALID', 'does not belong'));
  });

  test('a public key in place of the private one', () => {
    const key = new X509Certificate(good.chain).publicKey.export({ type: 'spki', format: 'pem' }).toString();
    assert.throws(() => parseX509Svid({ chain: good.chain, key }), refusal('SECRET_INVALID', 'private key'));
  });

  for (const chain of [
    '',
    'nothing of the kind',
    '-----BEGIN CERTIFICATE-----\n',
    '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n',
  ]) {
    test(`an empty chain: ${JSON.stringify(chain.slice(0, 30))}`, () => {
      assert.throws(() => parseX509Svid({ chain, key: good.key }), refusal('SECRET_INVALID', 'the certificate chain is empty'));
    });
  }

  for (const key of ['', 'nothing', '-----BEGIN PRIVATE KEY-----\n']) {
    test(`a missing key: ${JSON.stringify(key)}`, () => {
      assert.throws(() => parseX509Svid({ chain: good.chain, key }), refusal('SECRET_INVALID', 'the private key is missing'));
    });
  }

  test('a key cut short', () => {
    const [first = '', ...rest] = good.key.split('\n');
    const key = [first, (rest[0] ?? '').slice(0, 40), ...rest.slice(1)].join('\n');
    assert.throws(() => parseX509Svid({ chain: good.chain, key }), refusal('SECRET_INVALID', 'cannot be read'));
  });

  test('a certificate cut short, by its place in the chain', () => {
    const [leaf = '', intermediate = ''] = blocks(good.chain);
    const cut = intermediate.replace(/\n[^\n]{20}/, '\n');
    assert.throws(() => parseX509Svid({ chain: leaf + cut, key: good.key }), refusal('SECRET_INVALID', 'certificate 2 of the chain'));
  });

  const passphrase = 'correct horse';
  test('an encrypted PKCS#8 key, with the way out', () => {
    const key = createPrivateKey(good.key).export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString();
    assert.match(key, /BEGIN ENCRYPTED PRIVATE KEY/);
    assert.throws(() => parseX509Svid({ chain: good.chain, key }), refusal('SECRET_INVALID', 'is encrypted', 'send it unencrypted'));
  });

  test('a key encrypted in the old PEM style, with the way out', () => {
    const key = createPrivateKey(good.key).export({ type: 'sec1', format: 'pem', cipher: 'aes-256-cbc', passphrase }).toString();
    assert.match(key, /Proc-Type: 4,ENCRYPTED/);
    for (const text of [key, key.replaceAll('\n', '\r\n')]) {
      assert.throws(
        () => parseX509Svid({ chain: good.chain, key: text }),
        refusal('SECRET_INVALID', 'is encrypted', 'send it unencrypted'),
      );
    }
  });

  test('nothing of the key stands in any refusal', async () => {
    const other = await ca.svid(ID);
    const secret = good.key.split('\n')[1] ?? '';
    for (const pem of [
      { chain: other.chain, key: good.key },
      { chain: good.key, key: good.key },
      { chain: good.chain, key: good.key.replace('MIG', 'AAA') },
    ]) {
      assert.throws(
        () => parseX509Svid(pem),
        (error: Error) => !`${error.message}${String(error.cause)}`.includes(secret.slice(10, 40)),
      );
    }
  });

  test('a chain out of order, by the places', async () => {
    const { leaf, b, a, root, key } = await deepChain();
    const cases: readonly (readonly [chain: string, says: string])[] = [
      [leaf + a + b, 'certificate 1 of the chain was not issued by certificate 2'],
      [leaf + b + root, 'certificate 2 of the chain was not issued by certificate 3'],
      [leaf + b + b, 'certificate 2 of the chain was not issued by certificate 3'],
      [leaf + leaf, 'certificate 1 of the chain was not issued by certificate 2'],
      [a + b + leaf, 'does not belong to the certificate'],
    ];
    for (const [chain, says] of cases) assert.throws(() => parseX509Svid({ chain, key }), refusal('SECRET_INVALID', says));
    assert.ok(parseX509Svid({ chain: leaf + b + a + root, key }));
  });

  test('an intermediate of the same name and another key', async () => {
    const rival = await TestCa.create();
    const [leaf = ''] = blocks(good.chain);
    assert.throws(
      () => parseX509Svid({ chain: leaf + rival.intermediatePem, key: good.key }),
      refusal('SECRET_INVALID', 'certificate 1 of the chain was not issued by certificate 2'),
    );
  });

  test('a leaf that is no SVID, with the reason', async () => {
    const cases: readonly (readonly [options: Parameters<TestCa['badLeaf']>[0], says: string])[] = [
      [{ uris: [] }, '0 URI SANs'],
      [{ uris: [ID, ID] }, '2 URI SANs'],
      [{ ca: true }, 'CA'],
      [{ keyUsage: 0x20 }, 'digitalSignature'],
    ];
    for (const [options, says] of cases) {
      const bad = await ca.badLeaf(options);
      assert.throws(() => parseX509Svid(bad), refusal('SECRET_INVALID', 'not an X.509-SVID', says));
    }
    assert.ok(parseX509Svid(await ca.badLeaf({})));
  });
});

describe('chainsTo', () => {
  test('the bundle that its CA publishes, with and without the root in the chain', () => {
    const bundle = parseTrustBundle(ca.rootPem, 'cluster.local');
    assert.equal(chainsTo(parseX509Svid(good).certificates, bundle), true);
    assert.equal(chainsTo(parseX509Svid({ ...good, chain: good.chain + ca.rootPem }).certificates, bundle), true);
  });

  test('a bundle of several roots, whichever it is', async () => {
    const other = await TestCa.create();
    for (const pem of [ca.rootPem + other.rootPem, other.rootPem + ca.rootPem]) {
      assert.equal(chainsTo(parseX509Svid(good).certificates, parseTrustBundle(pem, 'cluster.local')), true);
    }
  });

  test("not a rival's, though every name is the same", async () => {
    const rival = parseTrustBundle((await TestCa.create()).rootPem, 'cluster.local');
    assert.equal(chainsTo(parseX509Svid(good).certificates, rival), false);
    assert.equal(chainsTo(parseX509Svid({ ...good, chain: good.chain + ca.rootPem }).certificates, rival), false);
  });

  test('not when the intermediate between is missing', () => {
    const [leaf = ''] = blocks(good.chain);
    assert.equal(chainsTo(parseX509Svid({ ...good, chain: leaf }).certificates, parseTrustBundle(ca.rootPem, 'cluster.local')), false);
  });

  test('several intermediates: to the root of the whole chain, not of a part', async () => {
    const { leaf, b, a, root, key } = await deepChain();
    const bundle = parseTrustBundle(root, 'cluster.local');
    assert.equal(chainsTo(parseX509Svid({ chain: leaf + b + a, key }).certificates, bundle), true);
    assert.equal(chainsTo(parseX509Svid({ chain: leaf + b, key }).certificates, bundle), false);
  });
});
