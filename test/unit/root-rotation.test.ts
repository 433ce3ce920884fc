// A root rotation, stage by stage: what is published, who signs, what is refused, and that a crash at any step leaves a whole stage.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { Authority, IssuedSvid } from '../../src/ca/authority.ts';
import { RootRotation } from '../../src/ca/root-rotation.ts';
import { diskKeys } from '../../src/ca/signer.ts';
import { parseRevocationList } from '../../src/spiffe/crl.ts';
import { pemBlocks } from '../../src/spiffe/pem.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle } from '../../src/spiffe/trust-bundle.ts';
import { authorities } from '../support/authorities.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const id = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'sleep' });

let now = NOW;
const { scratch, newDir, open, close } = authorities(() => now);

const issue = (authority: Authority, node = 'n') => authority.issue({ id, publicKey: keyPair().publicKey, node });
const roots = (pem: string) => pemBlocks(pem).map(({ text }) => text);
const caFiles = (dir: string) =>
  readdirSync(dir)
    .filter((name) => name.endsWith('.pem'))
    .sort();

/** Whether OpenSSL trusts the certificate with this bundle. */
function trusts(bundle: string, issued: IssuedSvid): boolean {
  const dir = mkdtempSync(join(scratch, 'verify-'));
  const [leaf, intermediates] = issued.chain;
  const path = (name: string, pem: string) => {
    writeFileSync(join(dir, name), pem);
    return join(dir, name);
  };
  const args = ['verify', '-x509_strict', '-attime', String(now / 1000), '-CAfile', path('ca', bundle)];
  return spawnSync('openssl', [...args, '-untrusted', path('mid', intermediates), path('leaf', leaf)]).status === 0;
}

/** Whether a verifier with this bundle takes the CRL that the CA publishes. */
function takesCrl(bundle: string, authority: Authority): boolean {
  try {
    parseRevocationList(authority.trust.current?.crlPem ?? '', parseTrustBundle(bundle, 'cluster.local'));
    return true;
  } catch {
    return false;
  }
}

describe('from one root to the next', () => {
  test('everybody who has the published bundle trusts everybody, in every stage', async () => {
    now = NOW;
    const dir = newDir();
    const ca = await open(dir);
    const versions = new Set([ca.trust.current?.bundleVersion]);
    const stable = ca.bundlePem;
    const before = await issue(ca);
    assert.equal(ca.rotation.stage, 'stable');

    await ca.prepareRoot();
    const prepared = ca.bundlePem;
    versions.add(ca.trust.current?.bundleVersion);
    assert.deepEqual([ca.rotation.stage, roots(prepared).length, roots(prepared)[0]], ['prepared', 2, stable]);
    assert.equal(ca.trust.current?.bundlePem, prepared);
    // Nothing is signed below the next root yet: whoever has only the old one still trusts all.
    const during = await issue(ca);
    assert.ok(trusts(stable, during) && trusts(prepared, during) && takesCrl(stable, ca) && takesCrl(prepared, ca));
    assert.equal(during.chain[2], prepared);

    await ca.activateRoot({ behind: [] });
    const active = ca.bundlePem;
    versions.add(ca.trust.current?.bundleVersion);
    assert.deepEqual([ca.rotation.stage, roots(active)], ['active', roots(prepared).reverse()]);
    const next = await issue(ca);
    for (const bundle of [prepared, active]) assert.ok(trusts(bundle, before) && trusts(bundle, next) && takesCrl(bundle, ca));
    assert.ok(!trusts(stable, next) && !takesCrl(stable, ca));

    assert.equal(ca.rotation.liveBelowOld, 2);
    await assert.rejects(ca.retireRoot(), refusal('STAGE_REFUSED', '2 certificates below the old root'));
    now = NOW + HOUR;
    const renewed = await issue(ca);
    await ca.retireRoot();
    versions.add(ca.trust.current?.bundleVersion);
    assert.deepEqual([ca.rotation.stage, ca.bundlePem], ['stable', roots(active)[0]]);
    assert.ok(trusts(ca.bundlePem, renewed) && !trusts(ca.bundlePem, before) && takesCrl(ca.bundlePem, ca));
    assert.equal(versions.size, 4);
    assert.deepEqual(caFiles(dir), ['intermediate-2.pem', 'root-2.pem']);

    // And once more, after a restart.
    const again = await open(dir);
    assert.deepEqual((await issue(again)).chain.slice(1), [renewed.chain[1], again.bundlePem]);
    await again.prepareRoot();
    await again.activateRoot({ behind: [] });
    await again.retireRoot({ force: true });
    assert.deepEqual(caFiles(dir), ['intermediate-3.pem', 'root-3.pem']);
  });

  test('every stage may be asked for twice, and none out of its turn', async () => {
    now = NOW;
    const ca = await open();
    await assert.rejects(ca.activateRoot({ behind: [] }), refusal('STAGE_REFUSED', 'no next root has been prepared'));
    await assert.rejects(ca.retireRoot(), refusal('STAGE_REFUSED', 'no old root'));
    await ca.abortRoot();
    await ca.prepareRoot();
    const prepared = ca.trust.current;
    await ca.prepareRoot();
    assert.equal(ca.trust.current, prepared);
    await assert.rejects(ca.retireRoot(), refusal('STAGE_REFUSED', 'old root still signs'));
    await ca.activateRoot({ behind: [] });
    const active = ca.trust.current;
    await ca.activateRoot({ behind: ['anybody'] });
    assert.equal(ca.trust.current, active);
    await assert.rejects(ca.prepareRoot(), refusal('STAGE_REFUSED', 'under way'));
    await assert.rejects(ca.abortRoot(), refusal('STAGE_REFUSED', 'signs already'));
    await ca.retireRoot();
    await ca.retireRoot();
  });

  test('nodes that are behind hold it up, by number and name, unless it is forced', async () => {
    const ca = await open();
    await ca.prepareRoot();
    await assert.rejects(ca.activateRoot({ behind: ['node-a', 'node-b'] }), refusal('STAGE_REFUSED', '2 live nodes', 'node-a, node-b;'));
    const many = Array.from({ length: 50 }, (_, index) => `n${index}`);
    await assert.rejects(ca.activateRoot({ behind: many }), refusal('STAGE_REFUSED', '50 live nodes', 'n9, ...;'));
    assert.equal(ca.rotation.stage, 'prepared');
    await ca.activateRoot({ behind: many, force: true });
    assert.equal(ca.rotation.stage, 'active');
  });

  test('called off while it is prepared, the next root is gone, and another may be made', async () => {
    const dir = newDir();
    const ca = await open(dir);
    const stable = ca.trust.current;
    await ca.prepareRoot();
    const [, first] = roots(ca.bundlePem);
    await ca.abortRoot();
    assert.deepEqual([ca.bundlePem, ca.trust.current?.bundleVersion], [stable?.bundlePem, stable?.bundleVersion]);
    assert.deepEqual(caFiles(dir), ['intermediate.pem', 'root.pem']);
    await ca.prepareRoot();
    assert.notEqual(roots(ca.bundlePem)[1], first);
  });

  test('revoked certificates below the old root hold nothing up', async () => {
    const ca = await open();
    const { serial } = await issue(ca);
    await ca.prepareRoot();
    await ca.activateRoot({ behind: [] });
    await assert.rejects(ca.retireRoot(), refusal('STAGE_REFUSED', '1 certificates'));
    await ca.revoke({ target: { kind: 'serial', serial }, reason: 'superseded', text: '' });
    await ca.retireRoot();
  });

  test('live nodes are those with a certificate of their own or of a workload, each once', async () => {
    const ca = await open();
    const node = (name: string) =>
      ca.issue({ id, publicKey: keyPair().publicKey, node: name, purpose: 'node', ttlMs: HOUR * 5, maxTtlMs: HOUR * 5 });
    await issue(ca, 'w');
    const { notAfter } = await node('a');
    assert.equal(notAfter, now + 5 * HOUR);
    await node('a');
    const { serial } = await node('b');
    assert.deepEqual([...ca.liveNodes].sort(), ['a', 'b', 'w']);
    await ca.issue({ id, publicKey: keyPair().publicKey, node: 'c' });
    await ca.issue({ id, publicKey: keyPair().publicKey, node: 'somebody', purpose: 'token-alone' });
    assert.deepEqual([...ca.liveNodes].sort(), ['a', 'b', 'c', 'w']);
    await ca.revoke({ target: { kind: 'serial', serial }, reason: 'superseded', text: '' });
    assert.deepEqual([...ca.liveNodes].sort(), ['a', 'c', 'w']);
  });

  test('certificates asked for during every stage are all below a published root', async () => {
    const ca = await open();
    const racing: Promise<IssuedSvid>[] = [];
    const burst = () => {
      for (let i = 0; i < 5; i++) racing.push(issue(ca));
    };
    burst();
    const prepare = ca.prepareRoot();
    burst();
    await prepare;
    burst();
    const activate = ca.activateRoot({ behind: [] });
    burst();
    await activate;
    burst();
    for (const issued of await Promise.all(racing)) {
      assert.ok(trusts(ca.bundlePem, issued));
      assert.ok(ca.ledger.bySerial(issued.serial));
    }
  });
});

describe('a crash at any step', () => {
  class Crash extends Error {}
  type Stage = (rotation: RootRotation) => Promise<void>;
  const prepare: Stage = (rotation) => rotation.prepare();
  const activate: Stage = (rotation) => rotation.activate({ behind: [] });
  const retire: Stage = (rotation) => rotation.retire({ liveBelowOld: 0 });
  const abort: Stage = (rotation) => rotation.abort();
  const openRotation = (dir: string, beforeStep: (step: string) => void = () => undefined) =>
    RootRotation.open({ dir, trustDomain: 'cluster.local', keys: diskKeys, now: () => NOW, beforeStep });

  const stages: Readonly<Record<string, readonly [earlier: readonly Stage[], stage: Stage, files: readonly string[]]>> = {
    prepare: [[], prepare, ['intermediate.pem', 'root-2.pem', 'root.pem']],
    activate: [[prepare], activate, ['intermediate-2.pem', 'intermediate.pem', 'root-2.pem', 'root.pem']],
    retire: [[prepare, activate], retire, ['intermediate-2.pem', 'root-2.pem']],
    abort: [[prepare], abort, ['intermediate.pem', 'root.pem']],
    'prepare after an abort': [[prepare, abort], prepare, ['intermediate.pem', 'root-2.pem', 'root.pem']],
  };
  for (const [name, [earlier, stage, files]] of Object.entries(stages)) {
    test(`of ${name} leaves the stage before or after, whole, and it can be done again`, async () => {
      const origin = newDir();
      cpSync(newState(), origin, { recursive: true });
      const rotation = await openRotation(origin);
      for (const each of earlier) await each(rotation);
      const before = describeOf(rotation);
      const steps: string[] = [];
      const whole = newDir();
      cpSync(origin, whole, { recursive: true });
      await stage(await openRotation(whole, (step) => steps.push(step)));
      const settled = describeOf(await openRotation(whole));
      assert.ok(steps.length >= 2, String(steps));
      for (let cut = 0; cut < steps.length; cut++) {
        const dir = newDir();
        cpSync(origin, dir, { recursive: true });
        let left = cut;
        const crashing = await openRotation(dir, () => {
          if (left-- === 0) throw new Crash();
        });
        await assert.rejects(stage(crashing), Crash);
        const reopened = await openRotation(dir);
        const found = describeOf(reopened);
        assert.ok([before.stage, settled.stage].includes(found.stage), `${found.stage} after ${String(steps.slice(0, cut))}`);
        if (found.stage === before.stage) assert.deepEqual(found, before);
        else assert.deepEqual([found.published, found.isIssued], [settled.published, true]);
        await stage(reopened);
        assert.deepEqual(describeOf(await openRotation(dir)).stage, settled.stage);
        assert.deepEqual(caFiles(dir), files);
      }
    });
  }

  let made: string | undefined;
  /** A stable CA, made once. */
  function newState(): string {
    assert.ok(made !== undefined);
    return made;
  }
  before(async () => {
    made = mkdtempSync(join(scratch, 'origin-'));
    await openRotation(made);
  });

  function describeOf(rotation: RootRotation): { stage: string; published: number; issuing: string; isIssued: boolean } {
    const { root, intermediate } = rotation.issuing;
    return {
      stage: rotation.stage,
      published: rotation.roots.length,
      issuing: intermediate.keyId,
      isIssued: intermediate.certificate.checkIssued(root.certificate) && intermediate.certificate.verify(root.certificate.publicKey),
    };
  }

  test('of the very first start leaves a directory that a start completes', async () => {
    const dir = mkdtempSync(join(scratch, 'first-'));
    await assert.rejects(
      openRotation(dir, () => {
        throw new Crash();
      }),
      Crash,
    );
    const root = readFileSync(join(dir, 'root.pem'), 'utf8');
    await openRotation(dir);
    assert.equal(readFileSync(join(dir, 'root.pem'), 'utf8'), root);
  });
});

describe('a directory that does not fit together', () => {
  test('without rotation.json, but with a second root, is refused: who signs cannot be known', async () => {
    const dir = newDir();
    const ca = await open(dir);
    await ca.prepareRoot();
    await ca.close();
    const path = join(dir, 'rotation.json');
    const text = readFileSync(path, 'utf8');
    rmSync(path);
    await assert.rejects(open(dir), refusal('STATE_INVALID', path, 'root-2.pem'));
    writeFileSync(path, text, { mode: 0o600 });
    assert.equal((await open(dir)).rotation.stage, 'prepared');
  });

  test('without its root is refused: a new one would silently be another mesh', async () => {
    const dir = newDir();
    await (await open(dir)).close();
    rmSync(join(dir, 'root.pem'));
    await assert.rejects(open(dir), refusal('STATE_INVALID', join(dir, 'root.pem'), 'missing'));
    assert.equal(existsSync(join(dir, 'root.pem')), false);
  });

  test('without its ledger is refused', async () => {
    const dir = newDir();
    await (await open(dir)).close();
    rmSync(join(dir, 'ledger.jsonl'));
    await assert.rejects(open(dir), refusal('STATE_INVALID', 'ledger.jsonl'));
    writeFileSync(join(dir, 'ledger.jsonl'), '', { mode: 0o600 });
    await open(dir);
  });

  const damages: Readonly<Record<string, (text: string) => string>> = {
    'another stage': (text) => text.replace('stable', 'retired'),
    'generation 0': (text) => text.replace('"generation": 1', '"generation": 0'),
    'generation 1, active': (text) => text.replace('stable', 'active'),
    'a file to discard elsewhere': (text) => text.replace('"discard": []', '"discard": [{"file": "../x"}]'),
    'its own root to discard': (text) => text.replace('"discard": []', '"discard": [{"file": "root.pem"}]'),
    'half of itself': (text) => text.slice(0, text.length / 2),
  };
  for (const [name, damage] of Object.entries(damages)) {
    test(`whose rotation.json has ${name} is refused by its name`, async () => {
      const dir = newDir();
      await (await open(dir)).close();
      const path = join(dir, 'rotation.json');
      const good = readFileSync(path, 'utf8');
      assert.notEqual(damage(good), good);
      writeFileSync(path, damage(good));
      await assert.rejects(open(dir), refusal('STATE_INVALID', path));
      writeFileSync(path, good);
      await open(dir);
    });
  }

  test('of before there were rotations is taken as it is: same root, same intermediate', async () => {
    const dir = newDir();
    const { chain } = await issue(await open(dir));
    await close(dir);
    for (const name of readdirSync(dir)) if (!['root.pem', 'intermediate.pem'].includes(name)) rmSync(join(dir, name));
    assert.deepEqual((await issue(await open(dir))).chain.slice(1), chain.slice(1));
    assert.ok(new X509Certificate(chain[1]).ca);
  });
});
