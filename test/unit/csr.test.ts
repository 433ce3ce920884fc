// PKCS#10 requests: ours satisfy OpenSSL; of others' only a P-256 key with proof of possession is taken.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createCsr, readCsr } from '../../src/spiffe/csr.ts';
import { derChildren, readDer } from '../../src/spiffe/der.ts';
import {
  type Asn1,
  bitString,
  explicit,
  extension,
  fromOwnDer,
  oid,
  pemOf,
  sequence,
  set,
  toDer,
  unsignedInteger,
} from '../../src/spiffe/der-builder.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { keyPair, keyPem } from '../support/pki.ts';
import { dns, subjectAltName, uri } from '../support/raw-certificate.ts';
import { refusal } from '../support/refusal.ts';

const ID = parseSpiffeId('spiffe://cluster.local/ns/foo/sa/sleep');
const ECDSA_SHA256 = '1.2.840.10045.4.3.2';
const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';

function openssl(args: readonly string[], input: string): { code: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('openssl', args, { input, encoding: 'utf8' });
  return { code: status, output: stdout + stderr };
}

/** A request by OpenSSL for this key. */
function opensslCsr(key: KeyObject, ...options: string[]): string {
  const dir = mkdtempSync(join(tmpdir(), 'handfast-csr-'));
  try {
    writeFileSync(join(dir, 'key.pem'), keyPem(key), { mode: 0o600 });
    const { code, output } = openssl(['req', '-new', '-key', join(dir, 'key.pem'), '-subj', '/O=x/CN=y', ...options], '');
    assert.equal(code, 0, output);
    return output;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** A request of any content, rightly signed unless told otherwise. */
function csr(
  options: {
    keys?: { publicKey: KeyObject; privateKey: KeyObject };
    attributes?: Asn1[];
    signedBy?: KeyObject;
    algorithm?: string;
    hash?: string;
  } = {},
): string {
  const keys = options.keys ?? keyPair();
  const info = sequence(
    unsignedInteger(Buffer.of(0)),
    sequence(),
    fromOwnDer(keys.publicKey.export({ type: 'spki', format: 'der' })),
    explicit(0, ...(options.attributes ?? [])),
  );
  const signature = sign(options.hash ?? 'sha256', toDer(info), options.signedBy ?? keys.privateKey);
  return pemOf('CERTIFICATE REQUEST', toDer(sequence(info, sequence(oid(options.algorithm ?? ECDSA_SHA256)), bitString(signature))));
}

const asks = (...extensions: Asn1[]) => sequence(oid(EXTENSION_REQUEST), set(sequence(...extensions)));
const derOf = (pem: string) => Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64');

describe('ours', () => {
  for (const [name, id] of [
    ['with an ID', ID],
    ['without one', undefined],
  ] as const) {
    test(`${name}: OpenSSL verifies its signature, and we read it back`, () => {
      const keys = keyPair();
      const pem = createCsr(keys, id);
      const { code, output } = openssl(['req', '-verify', '-noout'], pem);
      assert.equal(code, 0, output);
      assert.match(output, /verify OK/i);
      const content = readCsr(pem);
      assert.deepEqual(content.uris, id === undefined ? [] : [ID.uri]);
      assert.ok(content.publicKey.equals(keys.publicKey));
    });
  }

  test('OpenSSL shows the URI as the only name', () => {
    const { output } = openssl(['req', '-noout', '-text'], createCsr(keyPair(), ID));
    assert.match(output, new RegExp(`X509v3 Subject Alternative Name: critical\\s+URI:${ID.uri}\\n`));
    assert.match(output, /Subject:\s*\n/);
  });
});

describe("others' are taken", () => {
  test("OpenSSL's own, with a subject and a SAN", () => {
    const pem = opensslCsr(keyPair().privateKey, '-addext', `subjectAltName=URI:${ID.uri},DNS:a.b`);
    assert.deepEqual(readCsr(pem).uris, [ID.uri]);
  });

  test("RSA, as Istio's agents make it by default", () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
    assert.equal(readCsr(opensslCsr(rsa.privateKey)).publicKey.asymmetricKeyType, 'rsa');
  });

  test('with the older label NEW CERTIFICATE REQUEST', () => {
    assert.deepEqual(readCsr(createCsr(keyPair(), ID).replaceAll('CERTIFICATE REQUEST', 'NEW CERTIFICATE REQUEST')).uris, [ID.uri]);
  });

  test('with CRLF, and with text around the block', () => {
    assert.ok(readCsr(createCsr(keyPair()).replaceAll('\n', '\r\n')));
    assert.ok(readCsr(`Certificate Request:\n${createCsr(keyPair())}\n`));
  });

  const names: Readonly<Record<string, readonly [attributes: Asn1[], uris: string[]]>> = {
    'no attribute': [[], []],
    'one URI': [[asks(subjectAltName(uri(ID.uri)))], [ID.uri]],
    'several URIs in one SAN, every one of them told': [
      [asks(subjectAltName(uri(ID.uri), uri('spiffe://evil/x')))],
      [ID.uri, 'spiffe://evil/x'],
    ],
    'URIs in two extension requests, every one of them told': [
      [asks(subjectAltName(uri(ID.uri))), asks(subjectAltName(uri('spiffe://evil/x')))],
      [ID.uri, 'spiffe://evil/x'],
    ],
    'DNS names, which are nobody to us': [[asks(subjectAltName(dns('a.b'), uri(ID.uri)))], [ID.uri]],
    'another attribute': [[sequence(oid('1.2.840.113549.1.9.7'), set(unsignedInteger(Buffer.of(1))))], []],
    'a URI with a NUL, told as it stands': [[asks(subjectAltName(uri(`${ID.uri}\0x`)))], [`${ID.uri}\0x`]],
  };
  for (const [name, [attributes, uris]] of Object.entries(names)) {
    test(`with ${name}`, () => assert.deepEqual(readCsr(csr({ attributes })).uris, uris));
  }
});

describe("others' are refused", () => {
  test('RSA that claims to be ECDSA, or is too short', () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
    assert.throws(() => readCsr(csr({ keys: rsa })), refusal('CSR_REFUSED', "of the key's kind"));
    const short = generateKeyPairSync('rsa', { modulusLength: 1024 });
    assert.throws(() => readCsr(opensslCsr(short.privateKey)), refusal('CSR_REFUSED', '2048'));
  });

  for (const namedCurve of ['P-384', 'P-521', 'secp256k1']) {
    test(`a key on ${namedCurve}`, () => {
      assert.throws(() => readCsr(csr({ keys: generateKeyPairSync('ec', { namedCurve }) })), refusal('CSR_REFUSED', 'P-256'));
    });
  }

  test('another hash, told so or not', () => {
    assert.throws(() => readCsr(csr({ algorithm: '1.2.840.10045.4.3.3', hash: 'sha384' })), refusal('CSR_REFUSED', 'SHA-256'));
    assert.throws(() => readCsr(csr({ hash: 'sha384' })), refusal('CSR_REFUSED', 'signature'));
    assert.ok(readCsr(csr()));
  });

  test("another key's signature: no proof of possession", () => {
    const victim = keyPair();
    assert.throws(() => readCsr(csr({ keys: victim, signedBy: keyPair().privateKey })), refusal('CSR_REFUSED', 'does not verify'));
    assert.ok(readCsr(csr({ keys: victim })));
  });

  test('a name changed after signing', () => {
    const der = derOf(createCsr(keyPair(), ID));
    const at = der.indexOf('sleep');
    der.write('admin', at);
    assert.throws(() => readCsr(pemOf('CERTIFICATE REQUEST', der)), refusal('CSR_REFUSED', 'does not verify'));
  });

  const flip = (der: Buffer, at: number) => {
    const flipped = Buffer.from(der);
    flipped[at] = (flipped[at] ?? 0) ^ 0x01;
    return pemOf('CERTIFICATE REQUEST', flipped);
  };

  test('any byte changed in what is signed, and in the signature itself', () => {
    const der = derOf(createCsr(keyPair(), ID));
    const [info, algorithm, signature] = derChildren(readDer(der));
    assert.ok(info !== undefined && algorithm !== undefined && signature !== undefined);
    const infoStart = der.length - signature.raw.length - algorithm.raw.length - info.raw.length;
    const signatureStart = der.length - signature.content.length + 1;
    for (let at = infoStart; at < infoStart + info.raw.length; at++)
      assert.throws(() => readCsr(flip(der, at)), refusal('CSR_REFUSED'), `byte ${at}`);
    for (let at = signatureStart; at < der.length; at++) assert.throws(() => readCsr(flip(der, at)), refusal('CSR_REFUSED'), `byte ${at}`);
  });

  test('the unsigned frame changed: a SET for a SEQUENCE, unused bits in the signature', () => {
    const der = derOf(createCsr(keyPair(), ID));
    const [, algorithm, signature] = derChildren(readDer(der));
    assert.ok(algorithm !== undefined && signature !== undefined);
    const frame = [0, der.length - signature.raw.length - algorithm.raw.length, der.length - signature.content.length];
    for (const at of frame) assert.throws(() => readCsr(flip(der, at)), refusal('CSR_REFUSED'), `byte ${at}`);
  });

  test('cut at any byte, or with a byte after it', () => {
    const der = derOf(createCsr(keyPair(), ID));
    for (let length = 0; length < der.length; length++) {
      assert.throws(() => readCsr(pemOf('CERTIFICATE REQUEST', der.subarray(0, length))), refusal('CSR_REFUSED'), `at ${length}`);
    }
    assert.throws(() => readCsr(pemOf('CERTIFICATE REQUEST', Buffer.concat([der, Buffer.of(0)]))), refusal('CSR_REFUSED'));
  });

  const garbage: Readonly<Record<string, () => string>> = {
    nothing: () => '',
    garbage: () => 'please sign this',
    'two requests': () => createCsr(keyPair(), ID) + createCsr(keyPair()),
    'a request and a key': () => createCsr(keyPair()) + keyPem(keyPair().privateKey),
    'a key': () => keyPem(keyPair().privateKey),
    'a request labelled as a certificate': () => createCsr(keyPair()).replaceAll('CERTIFICATE REQUEST', 'CERTIFICATE'),
    'an open block': () => createCsr(keyPair()).replace(/-----END[\s\S]*/, ''),
    'mismatched labels': () => createCsr(keyPair()).replace('END CERTIFICATE REQUEST', 'END NEW CERTIFICATE REQUEST'),
    'an empty block': () => '-----BEGIN CERTIFICATE REQUEST-----\n\n-----END CERTIFICATE REQUEST-----\n',
    'base64 of garbage': () => pemOf('CERTIFICATE REQUEST', Buffer.alloc(300, 'x')),
    'an empty sequence': () => pemOf('CERTIFICATE REQUEST', Buffer.from('3000', 'hex')),
    'more than 16 KiB': () => csr({ attributes: [asks(subjectAltName(...Array.from({ length: 500 }, () => uri(ID.uri))))] }),
    'ten megabytes': () => 'A'.repeat(10_000_000),
    'ten thousand beginnings': () => '-----BEGIN CERTIFICATE REQUEST-----\n'.repeat(400),
    'a SAN that stands twice in one request': () =>
      csr({ attributes: [asks(subjectAltName(uri(ID.uri)), subjectAltName(uri('spiffe://evil/x')))] }),
    'a SAN that is not DER': () =>
      csr({ attributes: [asks(extension('2.5.29.17', { critical: true, value: unsignedInteger(Buffer.of(1)) }))] }),
  };
  for (const [name, make] of Object.entries(garbage)) {
    test(name, () => {
      const pem = make();
      assert.throws(() => readCsr(pem), refusal('CSR_REFUSED'));
    });
  }
});
