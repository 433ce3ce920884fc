// Revocation lists: what our CA writes, what OpenSSL says of it, and what a verifier takes. Every list that is turned away has a twin that is not.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createCaCertificate, createCertificate, type Issuer, newSerial, signed } from '../../src/ca/certificate.ts';
import { createCrl } from '../../src/ca/crl-writer.ts';
import { keySigner } from '../../src/ca/signer.ts';
import { noRevocations, parseRevocationList, type RevocationList, revocationOf } from '../../src/spiffe/crl.ts';
import { OID_BLOCKED_IDS } from '../../src/spiffe/crl-reader.ts';
import { derChildren, readDer } from '../../src/spiffe/der.ts';
import {
  type Asn1,
  bitString,
  boolean,
  explicit,
  extension,
  fromOwnDer,
  implicit,
  oid,
  pemOf,
  sequence,
  set,
  time,
  toDer,
  unsignedInteger,
  utf8String,
} from '../../src/spiffe/der-builder.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle, type TrustBundle } from '../../src/spiffe/trust-bundle.ts';
import { keyPair, TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const HOUR = 3_600_000;
const NOW = Math.floor(Date.now() / 1000) * 1000;
const TD = 'cluster.local';
const SLEEP = parseSpiffeId(`spiffe://${TD}/ns/foo/sa/sleep`);

let scratch: string;
let root: Issuer & { pem: string };
let middle: Issuer & { pem: string };
let bundle: TrustBundle;
let plain: string;

const validity = { notBefore: NOW - HOUR, notAfter: NOW + 24 * HOUR };

async function authority(commonName: string, by?: Issuer): Promise<Issuer & { pem: string }> {
  const { publicKey, privateKey } = keyPair();
  const own = { commonName, signer: keySigner(privateKey) };
  const pem = await createCaCertificate({
    ...own,
    trustDomain: TD,
    publicKey,
    pathLength: by === undefined ? 1 : 0,
    issuer: by ?? own,
    validity,
  });
  return { ...own, pem };
}

type CrlOptions = Partial<Parameters<typeof createCrl>[0]>;
const crl = (options: CrlOptions = {}) =>
  createCrl({ issuer: middle, number: 7, thisUpdate: NOW, nextUpdate: NOW + HOUR, revoked: [], blockedIds: [], ...options });
const parse = (pem: string, of: TrustBundle = bundle): RevocationList => parseRevocationList(pem, of);

before(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'handfast-crl-'));
  root = await authority('root');
  middle = await authority('middle', root);
  bundle = parseTrustBundle(root.pem, TD);
  plain = middle.pem + (await crl());
});
after(() => rmSync(scratch, { recursive: true, force: true }));

function openssl(...args: string[]): { code: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('openssl', args, { encoding: 'utf8', cwd: scratch });
  return { code: status, output: stdout + stderr };
}

function file(name: string, content: string): string {
  const path = join(scratch, name);
  writeFileSync(path, content);
  return path;
}

const revoked = [
  { serial: 'AB01', at: NOW - HOUR, reason: 'keyCompromise' },
  { serial: '41'.repeat(16), at: NOW, reason: 'unspecified' },
  { serial: '80', at: Date.UTC(2051, 0, 1), reason: 'superseded' },
] as const;

describe('what the CA writes', () => {
  test('OpenSSL verifies, shows and enforces', async () => {
    const [trust, list] = [file('ca.pem', middle.pem + root.pem), file('list.pem', await crl({ revoked, blockedIds: [SLEEP.uri] }))];
    const verified = openssl('crl', '-verify', '-CAfile', trust, '-in', list, '-noout');
    assert.equal(verified.code, 0, verified.output);
    assert.match(verified.output, /verify OK/);
    const { output } = openssl('crl', '-in', list, '-noout', '-text');
    assert.match(output, /Version 2/);
    assert.match(output, /CRL Number:\s+7\b/);
    assert.match(output, /Authority Key Identifier/);
    assert.match(output, /Serial Number: AB01[\s\S]+Key Compromise/);
    const other = file('other.pem', (await authority('middle')).pem);
    assert.doesNotMatch(openssl('crl', '-verify', '-CAfile', other, '-in', list, '-noout').output, /verify OK/);
  });

  test('a leaf that is in it is revoked for OpenSSL too, its twin is not', async () => {
    const leaf = async (serial: Buffer) => {
      const { publicKey } = keyPair();
      return createCertificate({
        subject: sequence(),
        publicKey,
        issuer: middle,
        validity,
        serial,
        extensions: [extension('2.5.29.17', { critical: true, value: sequence(implicit(6, Buffer.from(SLEEP.uri))) })],
      });
    };
    const [bad, good] = [newSerial(), newSerial()];
    const list = await crl({ revoked: [{ serial: bad.toString('hex').toUpperCase(), at: NOW, reason: 'keyCompromise' }] });
    const rootList = await crl({ issuer: root });
    const args = ['verify', '-crl_check', '-CAfile', file('v-ca.pem', root.pem), '-untrusted', file('v-mid.pem', middle.pem)];
    const crls = ['-CRLfile', file('v-crl.pem', list + rootList)];
    assert.match(openssl(...args, ...crls, file('v-bad.pem', await leaf(bad))).output, /certificate revoked/);
    const twin = openssl(...args, ...crls, file('v-good.pem', await leaf(good)));
    assert.equal(twin.code, 0, twin.output);
  });

  test('is read back: serials as OpenSSL prints them, blocked IDs, number and times', async () => {
    const list = parse(middle.pem + (await crl({ revoked, blockedIds: [SLEEP.uri] })));
    assert.deepEqual(
      [...list.serials],
      revoked.map(({ serial }) => serial),
    );
    assert.deepEqual([...list.blockedIds], [SLEEP.uri]);
    assert.deepEqual([list.number, list.thisUpdate, list.nextUpdate, list.der.length], ['7', NOW, NOW + HOUR, 1]);
    assert.ok(Object.isFrozen(list));
    const dave = parseSpiffeId(`spiffe://${TD}/ns/foo/sa/dave`);
    assert.match(revocationOf({ id: dave, serial: 'AB01' }, list) ?? '', /AB01 has been revoked/);
    assert.match(revocationOf({ id: SLEEP, serial: '01' }, list) ?? '', /sleep has been blocked/);
    assert.equal(revocationOf({ id: dave, serial: '01' }, list), undefined);
  });

  test('twenty thousand entries are written and read', async () => {
    const many = Array.from({ length: 20_000 }, () => ({
      serial: newSerial().toString('hex').toUpperCase(),
      at: NOW,
      reason: 'keyCompromise' as const,
    }));
    assert.equal(parse(middle.pem + (await crl({ revoked: many }))).serials.size, 20_000);
  });
});

describe('nothing is revoked', () => {
  test('by an empty text, by white space, and by a CRL without entries', () => {
    for (const text of ['', ' \n\t\n']) assert.equal(parse(text), noRevocations);
    const list = parse(plain);
    assert.equal(list.serials.size + list.blockedIds.size, 0);
    assert.equal(list.number, '7');
  });
});

describe('who may sign', () => {
  test('the root itself, an intermediate beside it, and each of two roots', async () => {
    const [other, more] = [await authority('root'), [{ serial: '02', at: NOW, reason: 'unspecified' as const }]];
    const both = parseTrustBundle(root.pem + other.pem, TD);
    assert.ok(parse(await crl({ issuer: root })));
    assert.ok(parse(root.pem + plain));
    const lists = middle.pem + (await crl({ revoked })) + (await crl({ issuer: other, revoked: more, number: 9 }));
    assert.deepEqual([...parse(lists, both).serials].length, 4);
    assert.equal(parse(lists, both).number, '9');
    assert.throws(() => parse(lists), refusal('CRL_INVALID', 'CRL 2'));
  });

  test('a chain of two intermediates, in any order', async () => {
    const wide = { ...root, ...(await authority('wide', root)) };
    const low = await authority('low', wide);
    const list = await crl({ issuer: low });
    assert.ok(parse(list + low.pem + wide.pem));
    assert.ok(parse(wide.pem + list + low.pem));
    assert.throws(() => parse(low.pem + list), refusal('CRL_INVALID', `does not chain to the bundle of ${TD}`));
  });

  test('nobody whose certificate is missing, and nobody below another root of the same names', async () => {
    assert.throws(() => parse(plain.slice(middle.pem.length)), refusal('CRL_INVALID', 'no certificate of its issuer'));
    const rogue = await authority('root');
    const rogueMiddle = await authority('middle', rogue);
    const list = await crl({ issuer: rogueMiddle });
    assert.throws(() => parse(rogueMiddle.pem + list), refusal('CRL_INVALID', 'does not chain'));
    assert.throws(() => parse(rogueMiddle.pem + rogue.pem + list), refusal('CRL_INVALID', 'does not chain'));
    assert.ok(parse(rogueMiddle.pem + list, parseTrustBundle(rogue.pem, TD)));
    // With our own intermediate's certificate the name fits and the key does not.
    assert.throws(() => parse(middle.pem + list), refusal('CRL_INVALID', 'signature does not verify'));
  });

  test('no leaf, and no CA without cRLSign', async () => {
    const make = async (usage: number, ca: boolean) => {
      const { publicKey, privateKey } = keyPair();
      const own = { commonName: 'signer', signer: keySigner(privateKey) };
      const pem = await createCertificate({
        subject: sequence(set(sequence(oid('2.5.4.3'), utf8String('signer')))),
        publicKey,
        issuer: root,
        validity,
        serial: newSerial(),
        extensions: [
          extension('2.5.29.19', { critical: true, value: ca ? sequence(boolean(true)) : sequence() }),
          extension('2.5.29.15', { critical: true, value: bitString(Buffer.of(usage), 1) }),
        ],
      });
      return pem + (await crl({ issuer: own }));
    };
    assert.ok(parse(await make(0x06, true)));
    const withoutSign = await make(0x04, true);
    assert.throws(() => parse(withoutSign), refusal('CRL_INVALID', 'no cRLSign'));
    const leaf = await make(0x82, false);
    assert.throws(() => parse(leaf), refusal('CRL_INVALID', 'no CA'));
  });

  test('many CAs that have signed one another cost no more than a moment', async () => {
    const shared = keyPair();
    const issuer = { commonName: 'loop', signer: keySigner(shared.privateKey) };
    const loops = await Promise.all(
      Array.from({ length: 30 }, () =>
        createCaCertificate({ ...issuer, trustDomain: TD, publicKey: shared.publicKey, pathLength: 5, issuer, validity }),
      ),
    );
    const list = await crl({ issuer });
    assert.throws(() => parse(loops.join('') + list), refusal('CRL_INVALID', 'does not chain'));
  });

  test('an RSA or P-384 authority of another make, with every SHA-2; not with SHA-1', () => {
    const algorithms = { rsa: ['-newkey', 'rsa:2048'], ec: ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'] };
    for (const [name, newkey] of Object.entries(algorithms)) {
      const made = openssl(
        'req',
        '-x509',
        ...newkey,
        '-nodes',
        '-keyout',
        `${name}.key`,
        '-out',
        `${name}.crt`,
        '-subj',
        '/C=CH/O=Foreign/CN=root',
        '-days',
        '2',
        '-addext',
        'keyUsage=critical,keyCertSign,cRLSign',
      );
      assert.equal(made.code, 0, made.output);
      const foreign = parseTrustBundle(readFileSync(join(scratch, `${name}.crt`), 'utf8'), 'foreign.example');
      file(`${name}.txt`, `R\t491231235959Z\t260101000000Z,keyCompromise\t0A0B\tunknown\t/CN=x\n`);
      file(`${name}.num`, '1000\n');
      file(
        `${name}.cnf`,
        `[ca]\ndefault_ca=d\n[d]\ndatabase=${name}.txt\ncrlnumber=${name}.num\ndefault_md=sha256\ndefault_crl_days=2\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n`,
      );
      for (const md of ['sha256', 'sha384', 'sha512', 'sha1']) {
        const listed = openssl(
          'ca',
          '-gencrl',
          '-config',
          `${name}.cnf`,
          '-keyfile',
          `${name}.key`,
          '-cert',
          `${name}.crt`,
          '-md',
          md,
          '-out',
          `${name}.crl`,
        );
        assert.equal(listed.code, 0, listed.output);
        const pem = readFileSync(join(scratch, `${name}.crl`), 'utf8');
        if (md === 'sha1') assert.throws(() => parse(pem, foreign), refusal('CRL_INVALID', 'signature algorithm'));
        else assert.deepEqual([...parse(pem, foreign).serials], ['0A0B']);
      }
    }
  });
});

describe('what is turned away', () => {
  const critical = (id: string, value: Asn1 = sequence()) => extension(id, { critical: true, value });
  const ordinary = (id: string, value: Asn1 = sequence()) => extension(id, { critical: false, value });
  const AKI = () => ordinary('2.5.29.35', sequence(implicit(0, Buffer.alloc(20))));
  const number = () => ordinary('2.5.29.20', unsignedInteger(Buffer.of(1)));
  const entry = (...extensions: Asn1[]) =>
    sequence(unsignedInteger(Buffer.of(5)), time(NOW), ...(extensions.length === 0 ? [] : [sequence(...extensions)]));
  const algorithm = () => sequence(oid('1.2.840.10045.4.3.2'));
  const name = () => sequence(set(sequence(oid('2.5.4.3'), utf8String('middle'))));

  /** A CRL of any content, rightly signed by the intermediate. */
  async function forged(of: {
    extensions?: Asn1[];
    entries?: Asn1[];
    version?: Asn1[];
    times?: Asn1[];
    inner?: Asn1;
    tail?: Asn1[];
  }): Promise<string> {
    const tbs = sequence(
      ...(of.version ?? [unsignedInteger(Buffer.of(1))]),
      of.inner ?? algorithm(),
      name(),
      ...(of.times ?? [time(NOW), time(NOW + HOUR)]),
      ...(of.entries === undefined ? [] : [sequence(...of.entries)]),
      ...(of.tail ?? [explicit(0, sequence(...(of.extensions ?? [AKI(), number()])))]),
    );
    return middle.pem + pemOf('X509 CRL', toDer(await signed(tbs, middle)));
  }

  test('the valid twin of all below is taken', async () => {
    assert.deepEqual([...parse(await forged({ entries: [entry(), entry(ordinary('2.5.29.24', time(NOW)))] })).serials], ['05']);
    assert.ok(parse(await forged({ extensions: [AKI(), number(), ordinary('1.2.3.4')] })));
  });

  const cases: Readonly<Record<string, readonly [make: () => Promise<string>, says: string | RegExp]>> = {
    'a delta CRL': [() => forged({ extensions: [number(), critical('2.5.29.27', unsignedInteger(Buffer.of(1)))] }), 'delta'],
    'a delta CRL that plays it down': [() => forged({ extensions: [ordinary('2.5.29.27', unsignedInteger(Buffer.of(1)))] }), 'delta'],
    'an indirect CRL': [() => forged({ extensions: [critical('2.5.29.28')] }), 'critical extension 2.5.29.28'],
    'a critical extension that nobody knows': [() => forged({ extensions: [critical('1.2.3.4')] }), 'critical extension 1.2.3.4'],
    'an extension that stands twice': [() => forged({ extensions: [number(), number()] }), 'stands twice'],
    "an entry of another CA's": [() => forged({ entries: [entry(critical('2.5.29.29'))] }), 'critical extension 2.5.29.29'],
    'an entry that is removed': [
      () => forged({ entries: [entry(ordinary('2.5.29.21', fromOwnDer(Buffer.from('0a0108', 'hex'))))] }),
      'removed',
    ],
    'an entry without a date': [() => forged({ entries: [sequence(unsignedInteger(Buffer.of(5)))] }), 'entry is malformed'],
    'a negative serial': [() => forged({ entries: [sequence(fromOwnDer(Buffer.from('0201ff', 'hex')), time(NOW))] }), 'negative'],
    'version 1': [() => forged({ version: [] }), 'version 2'],
    'version 3': [() => forged({ version: [unsignedInteger(Buffer.of(2))] }), 'version 2'],
    'no nextUpdate': [() => forged({ times: [time(NOW)] }), /CRL 1/],
    'a time on the 31st of June': [
      () => forged({ times: [time(NOW), fromOwnDer(Buffer.from('170d3330303633313030303030305a', 'hex'))] }),
      'is no time',
    ],
    'a time with a zone': [
      () => forged({ times: [time(NOW), fromOwnDer(Buffer.concat([Buffer.of(0x17, 0x11), Buffer.from('300630000000+0100')]))] }),
      'malformed',
    ],
    'a nextUpdate before thisUpdate': [() => forged({ times: [time(NOW), time(NOW - 1000)] }), 'not after'],
    'no extensions': [() => forged({ tail: [] }), 'extensions'],
    'two algorithms': [() => forged({ inner: sequence(oid('1.2.840.10045.4.3.3')) }), 'algorithms differ'],
    "a thisUpdate before its issuer's time": [() => forged({ times: [time(NOW - 2 * HOUR), time(NOW)] }), "outside its issuer's validity"],
    'a blocked ID of another trust domain': [
      async () => middle.pem + (await crl({ blockedIds: ['spiffe://other.example/ns/a/sa/b'] })),
      'no workload of cluster.local',
    ],
    'a whole trust domain blocked': [async () => middle.pem + (await crl({ blockedIds: [`spiffe://${TD}`] })), 'no workload'],
    'a blocked ID that is none': [async () => middle.pem + (await crl({ blockedIds: ['sleep'] })), 'not a SPIFFE ID'],
    'a blocked name of another kind': [
      () => forged({ extensions: [ordinary(OID_BLOCKED_IDS, sequence(implicit(2, Buffer.from('a.example'))))] }),
      'tag 0x82',
    ],
    'text before it': [async () => `hello\n${plain}`, 'something else than PEM at character 1'],
    'text after it': [async () => `${plain}hello`, 'something else'],
    'certificates without a CRL': [async () => middle.pem, 'no CRL'],
    'a private key beside it': [
      async () => plain + keyPair().privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      'PRIVATE KEY',
    ],
    'a certificate that is none': [
      async () => plain.replace(/BEGIN CERTIFICATE-----\n...../, 'BEGIN CERTIFICATE-----\nAAAAA'),
      'certificate 1',
    ],
    'a stray character in the base64': [async () => plain.replace(/(BEGIN X509 CRL-----\n....)./, '$1*'), 'not base64'],
    'eight megabytes and more': [async () => ' '.repeat(8 * 1024 * 1024 + 1), 'longer than'],
    'forty-one blocks': [async () => middle.pem.repeat(41), 'more than 40 PEM blocks'],
    'a million armour lines': [async () => '-----BEGIN X509 CRL-----\n'.repeat(300_000), 'no end'],
  };
  for (const [what, [make, says]] of Object.entries(cases)) {
    test(`${what} is refused`, async () => {
      const text = await make();
      assert.throws(() => parse(text), refusal('CRL_INVALID', says));
    });
  }

  test('one cut at any character is refused: half a list must not pass for an empty one', () => {
    const list = plain.slice(middle.pem.length).trimEnd();
    for (let length = 1; length < list.length; length += 7)
      assert.throws(() => parse(middle.pem + list.slice(0, length)), refusal('CRL_INVALID'));
    assert.ok(parse(middle.pem + list));
  });

  test('one with a byte changed anywhere is refused', async () => {
    const pem = (await crl({ revoked })).replace(/-----[^-]+-----|\s/g, '');
    const der = Buffer.from(pem, 'base64');
    const [tbs] = derChildren(readDer(der));
    assert.ok(tbs !== undefined);
    for (let at = 0; at < der.length; at++) {
      const mutated = Buffer.from(der);
      mutated[at] = (mutated[at] ?? 0) ^ 0x01;
      assert.throws(() => parse(middle.pem + pemOf('X509 CRL', mutated)), refusal('CRL_INVALID'), `byte ${at}`);
    }
    assert.ok(parse(middle.pem + pemOf('X509 CRL', der)));
  });

  test("the list of another trust domain's authority, though it verifies there", async () => {
    const theirs = await TestCa.create('other.example');
    assert.throws(
      () => parse(plain, parseTrustBundle(theirs.rootPem, 'other.example')),
      refusal('CRL_INVALID', 'does not chain to the bundle of other.example'),
    );
  });
});
