// The CA: what it keeps on disk, what it signs, and what OpenSSL says of that.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { type KeyObject, X509Certificate } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Authority, type IssuedSvid } from '../../src/ca/authority.ts';
import { svidTtlBounds } from '../../src/ca/authority-options.ts';
import { keyIdOf } from '../../src/ca/ledger-entry.ts';
import { openLocalTokenKey, readLocalTokenKey } from '../../src/ca/local-token.ts';
import { readLeaf } from '../../src/spiffe/leaf.ts';
import { pemBlocks } from '../../src/spiffe/pem.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;
// A fixed clock (2030-01-01), so that nothing here depends on when it runs.
const NOW = Date.UTC(2030, 0, 1);
const YEAR = 365 * DAY;

const id = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'sleep' });
let scratch: string;
before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'handfast-authority-'));
});
after(async () => {
  for (const authority of opened.values()) await authority.close();
  rmSync(scratch, { recursive: true, force: true });
});

let made = 0;
const newDir = () => join(scratch, `ca-${++made}`, 'state');

const opened = new Map<string, Authority>();

/** Opening a directory again ends who had it before, as a restart does. */
async function open(options: { dir?: string; trustDomain?: string; svidTtlMs?: number; now?: () => number } = {}): Promise<Authority> {
  const dir = options.dir ?? newDir();
  await opened.get(dir)?.close();
  opened.delete(dir);
  const made = await Authority.open({ trustDomain: 'cluster.local', svidTtlMs: HOUR, now: () => NOW, maintainEveryMs: 0, ...options, dir });
  opened.set(dir, made);
  return made;
}

/** What a CA at rest has in its directory; the lock's number rises with every start. */
const files = (dir: string) =>
  readdirSync(dir)
    .filter((name) => !/^lock-\d+$/.test(name))
    .sort();
const STATE = ['intermediate.pem', 'jwt-keys.json', 'ledger.jsonl', 'revocations.json', 'root.pem', 'rotation.json'];

function issue(authority: Authority, options: { ttlMs?: number; publicKey?: KeyObject } = {}): Promise<IssuedSvid> {
  return authority.issue({ id, publicKey: keyPair().publicKey, ...options });
}

const leafOf = (issued: IssuedSvid) => new X509Certificate(issued.chain[0]);
const intermediateOf = (issued: IssuedSvid) => new X509Certificate(issued.chain[1]);

function openssl(args: readonly string[]): { code: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
  return { code: status, output: stdout + stderr };
}

/** The chain's parts as files, and how OpenSSL judges them at the given time. */
function opensslVerify(issued: IssuedSvid, options: { purpose: string; at?: number }): { code: number | null; output: string } {
  const dir = mkdtempSync(join(scratch, 'verify-'));
  const paths = ['leaf', 'intermediate', 'root'].map((name) => join(dir, `${name}.pem`));
  issued.chain.forEach((pem, index) => {
    writeFileSync(paths[index] ?? '', pem);
  });
  const [leaf = '', intermediate = '', root = ''] = paths;
  const at = String(Math.floor((options.at ?? NOW) / SECOND));
  return openssl(['verify', '-x509_strict', '-attime', at, '-purpose', options.purpose, '-CAfile', root, '-untrusted', intermediate, leaf]);
}

describe('on disk', () => {
  test('files are made for the owner alone, in a directory for the owner alone, and nothing else is left', async () => {
    const dir = newDir();
    await open({ dir });
    assert.equal(statSync(dir).mode & 0o777, 0o700);
    assert.deepEqual(files(dir), STATE);
    for (const name of files(dir)) assert.equal(statSync(join(dir, name)).mode & 0o777, 0o600, name);
  });

  test('opened again it is the same root and the same intermediate', async () => {
    const dir = newDir();
    const first = await issue(await open({ dir }));
    const second = await issue(await open({ dir }));
    assert.deepEqual(first.chain.slice(1), second.chain.slice(1));
    assert.notEqual(first.serial, second.serial);
  });

  test('of several at once in an empty directory one has it, and the others are told who to stop', async () => {
    const dir = newDir();
    const results = await Promise.allSettled(
      Array.from({ length: 4 }, () =>
        Authority.open({ dir, trustDomain: 'cluster.local', svidTtlMs: HOUR, now: () => NOW, maintainEveryMs: 0 }),
      ),
    );
    const winners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    assert.equal(winners.length, 1);
    for (const result of results) {
      if (result.status === 'rejected') refusal('STATE_INVALID', dir, 'another handfast process', '--state')(result.reason);
    }
    assert.deepEqual(files(dir), STATE);
    await winners[0]?.close();
    await open({ dir });
  });

  for (const mode of [0o640, 0o604, 0o620, 0o666]) {
    test(`a key with mode ${mode.toString(8)} is refused, with the way out; with 600 and 400 it is taken`, async () => {
      for (const name of ['root.pem', 'intermediate.pem']) {
        const dir = newDir();
        await open({ dir });
        chmodSync(join(dir, name), mode);
        await assert.rejects(open({ dir }), refusal('STATE_INVALID', join(dir, name), mode.toString(8), 'chmod 600'));
        chmodSync(join(dir, name), 0o400);
        await open({ dir });
        chmodSync(join(dir, name), 0o600);
        await open({ dir });
      }
    });
  }

  const damages: Readonly<Record<string, (pem: string) => string>> = {
    empty: () => '',
    garbage: () => 'not a key\n',
    'half of it': (pem) => pem.slice(0, pem.length / 2),
    'the key alone': (pem) => pemBlocks(pem)[0]?.text ?? '',
    'the certificate alone': (pem) => pemBlocks(pem)[1]?.text ?? '',
    "another CA's key": (pem) => {
      const key = keyPair().privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
      return key + (pemBlocks(pem)[1]?.text ?? '');
    },
  };
  for (const [name, damage] of Object.entries(damages)) {
    for (const file of ['root.pem', 'intermediate.pem']) {
      test(`${file} with ${name} is refused by its path, and left as it is`, async () => {
        const dir = newDir();
        await open({ dir });
        const path = join(dir, file);
        const good = readFileSync(path, 'utf8');
        const bad = damage(good);
        writeFileSync(path, bad);
        await assert.rejects(open({ dir }), refusal('STATE_INVALID', path, 'restore it from a backup'));
        assert.equal(readFileSync(path, 'utf8'), bad);
        writeFileSync(path, good);
        await open({ dir });
      });
    }
  }

  test('a leaf in place of the root is refused', async () => {
    const dir = newDir();
    const { publicKey, privateKey } = keyPair();
    const issued = await issue(await open({ dir }), { publicKey });
    writeFileSync(join(dir, 'root.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() + issued.chain[0]);
    await assert.rejects(open({ dir }), refusal('STATE_INVALID', join(dir, 'root.pem')));
  });

  test('an intermediate in place of the root is refused: it is not self-signed', async () => {
    const dir = newDir();
    await open({ dir });
    writeFileSync(join(dir, 'root.pem'), readFileSync(join(dir, 'intermediate.pem')));
    await assert.rejects(open({ dir }), refusal('STATE_INVALID', join(dir, 'root.pem'), 'self-signed'));
  });

  test('an intermediate of another root of the same name is refused, with the way out; removed, a new one is made', async () => {
    const [dir, other] = [newDir(), newDir()];
    await open({ dir });
    await open({ dir: other });
    const path = join(dir, 'intermediate.pem');
    writeFileSync(path, readFileSync(join(other, 'intermediate.pem')));
    await assert.rejects(open({ dir }), refusal('STATE_INVALID', path, 'root.pem', 'remove it'));
    rmSync(path);
    assert.equal(opensslVerify(await issue(await open({ dir })), { purpose: 'sslserver' }).code, 0);
  });

  test("another trust domain's directory is refused by name; its own is taken", async () => {
    const dir = newDir();
    await open({ dir, trustDomain: 'one.example' });
    await assert.rejects(
      open({ dir, trustDomain: 'two.example' }),
      refusal('STATE_INVALID', join(dir, 'root.pem'), 'one.example', 'two.example', '--trust-domain'),
    );
    // A prefix or suffix of the name is another name.
    await assert.rejects(open({ dir, trustDomain: 'one.exampl' }), refusal('STATE_INVALID'));
    await open({ dir, trustDomain: 'one.example' });
  });

  test('a root whose key is RSA is refused: leaves signed with it would verify nowhere', async () => {
    const dir = newDir();
    await open({ dir });
    const [key, certificate] = [join(scratch, 'rsa.key'), join(scratch, 'rsa.crt')];
    const subject = ['-subj', '/CN=rsa root', '-addext', 'subjectAltName=URI:spiffe://cluster.local', '-days', '9999'];
    const { code, output } = openssl(['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', certificate, ...subject]);
    assert.equal(code, 0, output);
    writeFileSync(join(dir, 'root.pem'), readFileSync(key, 'utf8') + readFileSync(certificate, 'utf8'));
    rmSync(join(dir, 'intermediate.pem'));
    await assert.rejects(open({ dir }), refusal('STATE_INVALID', /^\S*root\.pem\b.*P-256/));
    assert.ok(!files(dir).includes('intermediate.pem'));
  });

  test('a directory that cannot be made is refused as what it is, not as a missing key', async () => {
    const file = join(scratch, 'file');
    writeFileSync(file, '');
    await assert.rejects(open({ dir: join(file, 'state') }), refusal('STATE_INVALID', file));
  });
});

describe('while it is open', () => {
  test('`handfast token create` reads its key in the same directory', async () => {
    const dir = newDir();
    await open({ dir });
    const key = await openLocalTokenKey(dir);
    assert.ok((await readLocalTokenKey(dir)).equals(key));
    assert.deepEqual(files(dir), [...STATE, 'token-signing.pem'].sort());
    await open({ dir });
  });

  test('what it has issued is in its ledger, with who asked, for what, and who signed', async () => {
    const authority = await open();
    const { publicKey } = keyPair();
    const issued = await authority.issue({ id, publicKey, node: 'node-1', purpose: 'node' });
    const entry = authority.ledger.bySerial(issued.serial);
    assert.ok(entry !== undefined);
    assert.deepEqual([entry.spiffeId, entry.node, entry.purpose, entry.keyId], [id.uri, 'node-1', 'node', keyIdOf(publicKey)]);
    assert.deepEqual([entry.issuerKeyId, entry.rootKeyId], [keyIdOf(intermediateOf(issued).publicKey), authority.rotation.rootKeyIds[0]]);
    assert.deepEqual([entry.notBefore, entry.notAfter], [leafOf(issued).validFromDate.getTime(), leafOf(issued).validToDate.getTime()]);
  });

  test('it issues nothing for another trust domain, nor what could not be entered', async () => {
    const authority = await open();
    const { publicKey } = keyPair();
    const foreign = workloadSpiffeId({ trustDomain: 'other.example', namespace: 'foo', serviceAccount: 'sleep' });
    await assert.rejects(authority.issue({ id: foreign, publicKey }), refusal('IDENTITY_MISMATCH', 'cluster.local'));
    await assert.rejects(authority.issue({ id, publicKey, node: 'n'.repeat(600) }), refusal('CONFIG_INVALID', 'ledger'));
    await issue(authority);
  });

  test('once closed it issues nothing: the certificate would be in no ledger', async () => {
    const dir = newDir();
    const authority = await open({ dir });
    await authority.close();
    opened.delete(dir);
    await assert.rejects(issue(authority), refusal('STATE_INVALID', 'ledger.jsonl'));
  });
});

describe('what it signs', () => {
  test('OpenSSL verifies leaf, intermediate and root, strictly, as a server and as a client, and refuses it as a CA', async () => {
    const issued = await issue(await open());
    for (const purpose of ['sslserver', 'sslclient']) {
      const { code, output } = opensslVerify(issued, { purpose });
      assert.equal(code, 0, output);
    }
    assert.notEqual(opensslVerify(issued, { purpose: 'smimesign' }).code, 0);
  });

  test('a chain of another root is refused by OpenSSL', async () => {
    const [ours, theirs] = [await issue(await open()), await issue(await open())];
    assert.notEqual(opensslVerify({ ...ours, chain: [ours.chain[0], ours.chain[1], theirs.chain[2]] }, { purpose: 'sslserver' }).code, 0);
  });

  test('OpenSSL finds it expired a second after notAfter, and not yet valid before it was backdated to', async () => {
    const issued = await issue(await open());
    assert.equal(opensslVerify(issued, { purpose: 'sslserver', at: issued.notAfter - SECOND }).code, 0);
    assert.match(opensslVerify(issued, { purpose: 'sslserver', at: issued.notAfter + 2 * SECOND }).output, /expired/);
    assert.match(opensslVerify(issued, { purpose: 'sslserver', at: NOW - 61 * SECOND }).output, /not yet valid/);
  });

  test('a leaf: one URI SAN and no other name, digitalSignature alone, both extended usages, no CA', async () => {
    const { publicKey } = keyPair();
    const issued = await issue(await open(), { publicKey });
    const leaf = leafOf(issued);
    assert.equal(leaf.subjectAltName, `URI:${id.uri}`);
    assert.equal(readLeaf(leaf).uri, id.uri);
    assert.equal(leaf.subject ?? '', '');
    assert.equal(leaf.ca, false);
    assert.deepEqual([...(leaf.keyUsage ?? [])].sort(), ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    assert.deepEqual(leaf.publicKey.export({ type: 'spki', format: 'der' }), publicKey.export({ type: 'spki', format: 'der' }));
    const path = join(scratch, 'leaf-text.pem');
    writeFileSync(path, issued.chain[0]);
    const { output } = openssl(['x509', '-in', path, '-noout', '-text']);
    assert.match(output, /X509v3 Key Usage: critical\s+Digital Signature\n/);
    assert.match(output, /X509v3 Subject Alternative Name: critical\s+URI:spiffe:/);
    assert.match(output, /X509v3 Basic Constraints: critical\s+CA:FALSE/);
    assert.match(output, /X509v3 Extended Key Usage:\s+TLS Web Server Authentication, TLS Web Client Authentication\n/);
    assert.match(output, /Version: 3/);
  });

  test("each certificate's authority key ID is its issuer's subject key ID", async () => {
    const issued = await issue(await open());
    const ids = issued.chain.map((pem) => {
      const path = join(scratch, 'key-id.pem');
      writeFileSync(path, pem);
      const { output } = openssl(['x509', '-in', path, '-noout', '-ext', 'subjectKeyIdentifier,authorityKeyIdentifier']);
      const [subject, issuer] = ['Subject', 'Authority'].map(
        (which) => new RegExp(`X509v3 ${which} Key Identifier:\\s+(?:keyid:)?([0-9A-F:]{59})`).exec(output)?.[1],
      );
      assert.ok(subject !== undefined && issuer !== undefined, output);
      return { subject, issuer };
    });
    assert.equal(ids[0]?.issuer, ids[1]?.subject);
    assert.equal(ids[1]?.issuer, ids[2]?.subject);
    assert.equal(ids[2]?.issuer, ids[2]?.subject);
  });

  test('the intermediate may sign no further CA, and root and intermediate name the trust domain without a path', async () => {
    const issued = await issue(await open());
    const path = join(scratch, 'middle.pem');
    writeFileSync(path, issued.chain[1]);
    assert.match(openssl(['x509', '-in', path, '-noout', '-text']).output, /CA:TRUE, pathlen:0/);
    for (const pem of issued.chain.slice(1)) assert.equal(new X509Certificate(pem).subjectAltName, 'URI:spiffe://cluster.local');
  });

  test('it is valid from a minute ago, for clocks that are behind', async () => {
    assert.equal(leafOf(await issue(await open())).validFromDate.getTime(), NOW - 60 * SECOND);
  });

  test('the serial it reports is the one in the certificate, positive and never the same', async () => {
    const authority = await open();
    const all = await Promise.all(Array.from({ length: 8 }, () => issue(authority)));
    for (const issued of all) {
      assert.equal(leafOf(issued).serialNumber, issued.serial);
      assert.equal(issued.serial.length, 32);
    }
    assert.equal(new Set(all.map(({ serial }) => serial)).size, all.length);
  });

  test('a trust domain longer than a common name may be still gets certificates that verify', async () => {
    const trustDomain = `${'a'.repeat(100)}.example`;
    const authority = await open({ trustDomain });
    const issued = await authority.issue({
      id: workloadSpiffeId({ trustDomain, namespace: 'foo', serviceAccount: 'sleep' }),
      publicKey: keyPair().publicKey,
    });
    const { code, output } = opensslVerify(issued, { purpose: 'sslserver' });
    assert.equal(code, 0, output);
  });
});

describe('lifetimes', () => {
  for (const svidTtlMs of [svidTtlBounds.min, HOUR, svidTtlBounds.max]) {
    test(`${svidTtlMs / SECOND} s is accepted and given`, async () => {
      const issued = await issue(await open({ svidTtlMs }));
      assert.equal(leafOf(issued).validToDate.getTime(), NOW + svidTtlMs);
      assert.equal(issued.notAfter, NOW + svidTtlMs);
    });
  }
  for (const svidTtlMs of [0, -1, svidTtlBounds.min - 1, svidTtlBounds.max + 1, Number.NaN, Number.POSITIVE_INFINITY]) {
    test(`${svidTtlMs} ms is refused, and nothing is made`, async () => {
      const dir = newDir();
      await assert.rejects(open({ dir, svidTtlMs }), refusal('CONFIG_INVALID', 'from 10 s to 24 h'));
      assert.throws(() => statSync(dir), { code: 'ENOENT' });
    });
  }

  const asked: readonly (readonly [name: string, ttlMs: number, given: number])[] = [
    ['a shorter one is given', 20 * SECOND, 20 * SECOND],
    ['a longer one is not', 2 * HOUR, HOUR],
    ['an absurdly long one is not', Number.MAX_SAFE_INTEGER, HOUR],
    ['too short a one becomes the least', 1, svidTtlBounds.min],
    ['zero means the default', 0, HOUR],
    ['a negative one means the default', -5 * SECOND, HOUR],
    ['no number means the default', Number.NaN, HOUR],
  ];
  for (const [name, ttlMs, given] of asked) {
    test(`of what a workload asks: ${name}`, async () => {
      assert.equal(leafOf(await issue(await open(), { ttlMs })).validToDate.getTime(), NOW + given);
    });
  }

  test('the intermediate is renewed when a third of its life is left, not before, and its file with it', async () => {
    const dir = newDir();
    let now = NOW;
    const authority = await open({ dir, now: () => now });
    const first = await issue(authority);
    now = NOW + (YEAR * 2) / 3 - DAY;
    const before = await issue(authority);
    assert.equal(before.chain[1], first.chain[1]);
    now = NOW + (YEAR * 2) / 3 + DAY;
    const renewed = await issue(authority);
    assert.notEqual(renewed.chain[1], first.chain[1]);
    assert.equal(renewed.chain[2], first.chain[2]);
    assert.equal(intermediateOf(renewed).validToDate.getTime(), now + YEAR);
    assert.equal(opensslVerify(renewed, { purpose: 'sslclient', at: now }).code, 0);
    // The leaf of the old intermediate is still good: nobody has to be told.
    assert.equal(opensslVerify(before, { purpose: 'sslclient', at: NOW + (YEAR * 2) / 3 - DAY }).code, 0);
    assert.equal(statSync(join(dir, 'intermediate.pem')).mode & 0o777, 0o600);
    const reopened = await issue(await open({ dir, now: () => now }));
    assert.equal(reopened.chain[1], renewed.chain[1]);
    assert.deepEqual(files(dir), STATE);
  });

  test('many asked for at once while the intermediate is renewed all verify', async () => {
    const dir = newDir();
    let now = NOW;
    const authority = await open({ dir, now: () => now });
    now = NOW + YEAR - DAY;
    const all = await Promise.all(Array.from({ length: 5 }, () => issue(authority)));
    for (const issued of all) assert.equal(opensslVerify(issued, { purpose: 'sslserver', at: now }).code, 0);
  });

  test('a CA that slept past the end of its intermediate makes a new one before it signs', async () => {
    const dir = newDir();
    await open({ dir });
    const now = NOW + YEAR + 10 * DAY;
    const issued = await issue(await open({ dir, now: () => now }));
    assert.equal(leafOf(issued).validToDate.getTime(), now + HOUR);
    assert.equal(opensslVerify(issued, { purpose: 'sslserver', at: now }).code, 0);
  });

  test('a leaf never outlives its intermediate, nor an intermediate the root', async () => {
    const dir = newDir();
    await open({ dir });
    const rootEnd = new X509Certificate(readFileSync(join(dir, 'root.pem'))).validToDate.getTime();
    const now = rootEnd - HOUR / 2;
    const issued = await issue(await open({ dir, now: () => now, svidTtlMs: DAY }));
    assert.equal(intermediateOf(issued).validToDate.getTime(), rootEnd);
    assert.equal(leafOf(issued).validToDate.getTime(), rootEnd);
    assert.equal(issued.notAfter, rootEnd);
  });

  test('in the last months of the root one new intermediate is enough, not one for every leaf', async () => {
    const dir = newDir();
    await open({ dir });
    const rootEnd = new X509Certificate(readFileSync(join(dir, 'root.pem'))).validToDate.getTime();
    const authority = await open({ dir, now: () => rootEnd - 60 * DAY });
    const [first, second] = [await issue(authority), await issue(authority)];
    assert.equal(first.chain[1], second.chain[1]);
  });

  test('a root that has expired signs nothing: an error says so, instead of a certificate that is dead on arrival', async () => {
    const dir = newDir();
    await open({ dir });
    const rootEnd = new X509Certificate(readFileSync(join(dir, 'root.pem'))).validToDate.getTime();
    await assert.rejects(
      open({ dir, now: () => rootEnd + DAY }).then((authority) => issue(authority)),
      refusal('STATE_INVALID', /expired/),
    );
  });
});
