// The ledger: what was issued is in it, once, whatever happens to the process.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { Authority } from '../../src/ca/authority.ts';
import { IssuanceLedger } from '../../src/ca/issuance-ledger.ts';
import { formatEntry, type LedgerEntry } from '../../src/ca/ledger-entry.ts';
import { lockState } from '../../src/ca/state-lock.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { keyPair } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';
import { uncovered } from '../support/uncovered.ts';

const NOW = Date.UTC(2030, 0, 1);
const MINUTE = 60_000;
const DAY = 1440 * MINUTE;
const KEY = 'ab'.repeat(32);

let scratch: string;
before(() => {
  scratch = mkdtempSync(join(tmpdir(), 'handfast-ledger-'));
});
after(() => rmSync(scratch, { recursive: true, force: true }));

let made = 0;
const newDir = () => mkdtempSync(join(scratch, `d${++made}-`));
const pathIn = (dir: string) => join(dir, 'ledger.jsonl');

let serials = 0;
const entry = (more: Partial<LedgerEntry> = {}): LedgerEntry => ({
  serial: (0x400000 + ++serials).toString(16).toUpperCase(),
  spiffeId: 'spiffe://cluster.local/ns/foo/sa/sleep',
  keyId: KEY,
  notBefore: NOW - MINUTE,
  notAfter: NOW + 60 * MINUTE,
  issuerKeyId: KEY,
  rootKeyId: KEY,
  node: 'node-1',
  purpose: 'workload',
  ...more,
});

const open = (dir: string, more: { now?: () => number; maxLive?: number; minLinesToCompact?: number } = {}) =>
  IssuanceLedger.open({ dir, create: true, now: () => NOW, ...more });

async function filled(dir: string, entries: readonly LedgerEntry[], now = NOW): Promise<void> {
  const ledger = await open(dir, { now: () => now });
  await Promise.all(entries.map((each) => ledger.append(each)));
  await ledger.close();
}

async function sizeOf(dir: string): Promise<number> {
  const ledger = await open(dir);
  await ledger.close();
  return ledger.size;
}

describe('what was entered', () => {
  test('is found by serial, SPIFFE ID, key and node, also after a restart, until it expires', async () => {
    const dir = newDir();
    const [one, two] = [entry(), entry({ spiffeId: 'spiffe://cluster.local/ns/foo/sa/dave', keyId: 'cd'.repeat(32), node: 'node-2' })];
    await filled(dir, [one, two]);
    assert.equal(statSync(pathIn(dir)).mode & 0o777, 0o600);
    let now = NOW;
    const ledger = await open(dir, { now: () => now });
    assert.deepEqual(ledger.bySerial(one.serial), one);
    assert.deepEqual(ledger.bySpiffeId(two.spiffeId), [two]);
    assert.deepEqual(ledger.byKeyId(KEY), [one]);
    assert.deepEqual(ledger.byNode('node-2'), [two]);
    assert.equal(ledger.size, 2);
    now = one.notAfter;
    assert.equal(ledger.bySerial(one.serial), undefined);
    assert.deepEqual(ledger.live(), []);
    now += 2 * MINUTE;
    assert.equal(ledger.size, 0);
    await ledger.close();
  });

  test('is on disk before the call returns, and many that come at once are all there', async () => {
    const dir = newDir();
    const ledger = await open(dir);
    const all = Array.from({ length: 300 }, () => entry());
    await Promise.all(
      all.map(async (each) => {
        await ledger.append(each);
        if (each === all[0] || each === all[299]) assert.ok(readFileSync(pathIn(dir), 'utf8').includes(formatEntry(each)));
      }),
    );
    assert.equal(readFileSync(pathIn(dir), 'utf8'), all.map(formatEntry).join(''));
    await ledger.close();
  });

  test('cannot be entered twice, not even while the first is on its way; another serial can', async () => {
    const ledger = await open(newDir());
    const one = entry();
    const [first, second] = await Promise.allSettled([ledger.append(one), ledger.append(one)]);
    assert.deepEqual([first.status, second.status], ['fulfilled', 'rejected']);
    await assert.rejects(ledger.append(one), refusal('STATE_INVALID', one.serial, 'issued before'));
    await ledger.append(entry());
    await ledger.close();
  });

  test('is bounded: one too many is refused, and there is room again when one has expired', async () => {
    let now = NOW;
    const ledger = await open(newDir(), { maxLive: 2, now: () => now });
    await ledger.append(entry({ notAfter: NOW + MINUTE }));
    await ledger.append(entry());
    await assert.rejects(ledger.append(entry()), refusal('RATE_LIMITED', '2 certificates are alive'));
    now = NOW + 2 * MINUTE;
    await ledger.append(entry());
    await ledger.close();
  });

  const odd: Readonly<Record<string, Partial<LedgerEntry>>> = {
    'a serial in lower case': { serial: 'ab' },
    'an odd serial': { serial: 'ABC' },
    'a key that is none': { keyId: 'x' },
    'a SPIFFE ID that is none': { spiffeId: 'sleep' },
    'a time that is no number': { notAfter: Number.NaN },
    'a purpose with a blank': { purpose: 'a b' },
    'a node of 600 characters': { node: 'n'.repeat(600) },
  };
  for (const [name, more] of Object.entries(odd)) {
    test(`with ${name} is refused, and harms nothing`, async () => {
      const dir = newDir();
      const ledger = await open(dir);
      await assert.rejects(ledger.append(entry(more)), refusal('CONFIG_INVALID', 'ledger'));
      await ledger.append(entry({ node: 'a "node"\nof\u2028two lines \ud800' }));
      await ledger.close();
      assert.equal(await sizeOf(dir), 1);
    });
  }

  test('cannot be entered when the disk is full; what is there stays whole', async () => {
    // A file descriptor that is closed stands for a disk that does not take it.
    const dir = newDir();
    const ledger = await open(dir);
    await ledger.append(entry());
    await ledger.close();
    const late = entry();
    await assert.rejects(ledger.append(late), refusal('STATE_INVALID', pathIn(dir)));
    assert.equal(ledger.bySerial(late.serial), undefined);
    assert.equal(await sizeOf(dir), 1);
  });
});

describe('a damaged file', () => {
  test('that was torn in its last line is cut back at every byte, and goes on', async () => {
    const dir = newDir();
    const [one, two] = [entry(), entry()];
    const [first, second] = [formatEntry(one), formatEntry(two)];
    for (let length = 1; length < second.length; length += 13) {
      writeFileSync(pathIn(dir), first + second.slice(0, length), { mode: 0o600 });
      const ledger = await open(dir);
      assert.deepEqual(ledger.live(), [one]);
      await ledger.append(two);
      await ledger.close();
      assert.equal(readFileSync(pathIn(dir), 'utf8'), first + second);
    }
  });

  const lines = () => [entry(), entry(), entry()].map(formatEntry);
  const damages: Readonly<Record<string, readonly [damage: (lines: string[]) => string, line: number]>> = {
    'a torn line in the middle': [([a = '', b = '', c = '']) => `${a}${b.slice(0, 40)}\n${c}`, 2],
    'an empty line': [([a = '', b = '', c = '']) => `${a}${b}\n${c}`, 3],
    'a line twice': [([a = '', b = '']) => a + b + a, 3],
    'a last line that is whole and wrong': [([a = '']) => `${a}{"serial":"41"}\n`, 2],
    'a member that nobody knows': [([a = '', b = '']) => a + b.replace('{', '{"x":1,'), 2],
    'a member twice': [([a = '']) => a.replace('{', '{"node":"x",'), 1],
    zeros: [([a = '']) => `${a}${'\0'.repeat(50)}\n`, 2],
    'twenty kilobytes without an end': [([a = '']) => a + 'x'.repeat(300_000), 2],
  };
  for (const [name, [damage, line]] of Object.entries(damages)) {
    test(`with ${name} is refused, naming file and line, and left as it is`, async () => {
      const dir = newDir();
      const bad = damage(lines());
      writeFileSync(pathIn(dir), bad, { mode: 0o600 });
      await assert.rejects(open(dir), refusal('STATE_INVALID', `${pathIn(dir)}, line ${line}:`, 'backup'));
      assert.equal(readFileSync(pathIn(dir), 'utf8'), bad);
      writeFileSync(pathIn(dir), lines().join(''));
      await (await open(dir)).close();
    });
  }

  test('that others may read is refused, one that is missing too where there must be one', async () => {
    const dir = newDir();
    await filled(dir, [entry()]);
    chmodSync(pathIn(dir), 0o640);
    await assert.rejects(open(dir), refusal('STATE_INVALID', '640', 'chmod 600'));
    rmSync(pathIn(dir));
    await assert.rejects(
      IssuanceLedger.open({ dir, create: false, now: () => NOW }),
      refusal('STATE_INVALID', pathIn(dir), 'backup', 'install -m 600'),
    );
    assert.equal(existsSync(pathIn(dir)), false);
  });
});

describe('compaction', () => {
  test('at the start drops what expired more than a day ago, and no more', async () => {
    const dir = newDir();
    const [old, recent, live] = [entry({ notAfter: NOW }), entry({ notAfter: NOW + DAY / 2 }), entry({ notAfter: NOW + 2 * DAY })];
    await filled(dir, [old, recent, live], NOW - MINUTE);
    const later = NOW + DAY + 1;
    const ledger = await open(dir, { now: () => later });
    assert.equal(readFileSync(pathIn(dir), 'utf8'), formatEntry(recent) + formatEntry(live));
    assert.deepEqual(ledger.live(), [live]);
    const next = entry({ notAfter: later + DAY });
    await ledger.append(next);
    await ledger.close();
    assert.equal(readFileSync(pathIn(dir), 'utf8'), [recent, live, next].map(formatEntry).join(''));
    assert.deepEqual(readdirSync(dir), ['ledger.jsonl']);
  });

  test('happens while many are issued, loses none, and the file stops growing', async () => {
    const dir = newDir();
    let now = NOW;
    const ledger = await open(dir, { now: () => now, minLinesToCompact: 50 });
    const last: LedgerEntry[] = [];
    for (let day = 0; day < 12; day++) {
      last.length = 0;
      for (let i = 0; i < 20; i++) last.push(entry({ notAfter: now + MINUTE }));
      await Promise.all(last.map((each) => ledger.append(each)));
      now += DAY;
    }
    await ledger.close();
    const text = readFileSync(pathIn(dir), 'utf8');
    assert.ok(text.split('\n').length < 130, `${text.split('\n').length} lines`);
    for (const each of last) assert.ok(text.includes(formatEntry(each)));
  });

  test('cut short by a crash leaves the old file', async () => {
    const dir = newDir();
    await filled(dir, [entry()]);
    writeFileSync(`${pathIn(dir)}.tmp`, 'half of', { mode: 0o600 });
    assert.equal(await sizeOf(dir), 1);
    await filled(dir, [entry({ notAfter: NOW - 3 * DAY })], NOW - 4 * DAY);
    assert.equal(await sizeOf(dir), 1);
    assert.equal(existsSync(`${pathIn(dir)}.tmp`), false);
  });
});

describe('kill -9', () => {
  test('every certificate that was given away is in the ledger, none twice; the next process has the directory at once', async () => {
    const dir = join(newDir(), 'a-directory-whose-path-is-longer-than-a-unix-socket-may-have'.repeat(2));
    const seen: string[] = [];
    for (let round = 0; round < 3; round++) {
      const child = spawn(process.execPath, [join(import.meta.dirname, '../support/issue-for-ever.ts'), dir, '8'], {
        env: uncovered(),
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      let count = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        seen.push(line);
        if (++count === 60 + round * 17) {
          if (round === 0) {
            const second = Authority.open({ dir, trustDomain: 'cluster.local', svidTtlMs: 60 * MINUTE, now: Date.now });
            await assert.rejects(second, refusal('STATE_INVALID', 'another handfast process'));
          }
          child.kill('SIGKILL');
        }
      }
      assert.deepEqual((await exited)[1], 'SIGKILL');
    }
    const authority = await Authority.open({ dir, trustDomain: 'cluster.local', svidTtlMs: 60 * MINUTE, now: Date.now });
    for (const serial of seen) assert.ok(authority.ledger.bySerial(serial), serial);
    assert.equal(new Set(seen).size, seen.length);
    const id = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'sleep' });
    const issued = await authority.issue({ id, publicKey: keyPair().publicKey });
    assert.ok(authority.ledger.bySerial(issued.serial));
    await authority.close();
  });
});

describe('the lock', () => {
  test('is held by one; when it lets go the next has it; files of the dead do not pile up', async () => {
    const dir = newDir();
    for (let round = 0; round < 3; round++) {
      const lock = await lockState(dir);
      await assert.rejects(lockState(dir), refusal('STATE_INVALID', dir, 'stop that one first'));
      await lock.release();
    }
    assert.deepEqual(readdirSync(dir), ['lock-3']);
  });

  test('of ten who want it at once exactly one has it', async () => {
    const dir = newDir();
    for (let round = 0; round < 5; round++) {
      const results = await Promise.allSettled(Array.from({ length: 10 }, () => lockState(dir)));
      const held = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
      assert.equal(held.length, 1);
      await held[0]?.release();
    }
  });

  test('that cannot be had names the directory', async () => {
    const file = join(newDir(), 'file');
    writeFileSync(file, '');
    await assert.rejects(lockState(join(file, 'x')), refusal('STATE_INVALID', file));
  });
});
