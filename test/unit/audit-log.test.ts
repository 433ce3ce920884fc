// The file of audit records: appended, its owner's alone, and found again by whoever rotates it.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { chmod, mkdtemp, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { AuditLog } from '../../src/control/secrets/audit-log.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

let dir: string;
let path: string;
let records: RecordingLog;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-audit-'));
  path = join(dir, 'audit.jsonl');
  records = new RecordingLog();
});
afterEach(() => rm(dir, { recursive: true }));

const lines = async (file = path) =>
  (await readFile(file, 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

it('is-appended-to-and-its-owners-alone', async () => {
  await writeFile(path, '{"n":0}\n', { mode: 0o600 });
  const audit = new AuditLog(path, { log: records.log });
  audit.write({ n: 1, text: 'two\nlines \u2028' });
  audit.close();
  assert.deepEqual(await lines(), [{ n: 0 }, { n: 1, text: 'two\nlines \u2028' }]);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
});

it('is-refused-where-others-may-open-it-or-it-is-a-link', async () => {
  await writeFile(path, '');
  await chmod(path, 0o644);
  assert.throws(() => new AuditLog(path, { log: records.log }), { code: 'CONFIG_INVALID', message: /mode 644\): chmod 600 it/ });
  await chmod(path, 0o600);
  await symlink(path, join(dir, 'link'));
  assert.throws(() => new AuditLog(join(dir, 'link'), { log: records.log }), { code: 'CONFIG_INVALID' });
  assert.throws(() => new AuditLog(dir, { log: records.log }), { code: 'CONFIG_INVALID' });
  // A pipe without a reader must not keep us waiting.
  execFileSync('mkfifo', ['-m', '600', join(dir, 'pipe')]);
  assert.throws(() => new AuditLog(join(dir, 'pipe'), { log: records.log }), { code: 'CONFIG_INVALID' });
  new AuditLog(path, { log: records.log }).close();
});

it('follows-a-rename-and-a-truncation', async () => {
  let at = 10_000;
  const audit = new AuditLog(path, { log: records.log, clock: () => at });
  audit.write({ n: 1 });
  await rename(path, `${path}.1`);
  at += 1_000;
  audit.write({ n: 2 });
  await truncate(path);
  audit.write({ n: 3 });
  audit.close();
  assert.deepEqual([await lines(`${path}.1`), await lines()], [[{ n: 1 }], [{ n: 3 }]]);
});

for (const canTakeBack of [true, false])
  it(`a-record-that-was-written-in-part-spoils-no-other${canTakeBack ? '' : '-though-it-stays'}`, async (context) => {
    const audit = new AuditLog(path, { log: records.log });
    audit.write({ n: 1 });
    const whole = fs.writeSync;
    const write = context.mock.method(fs, 'writeSync', (fd: number, bytes: Buffer) => whole(fd, bytes.subarray(0, 5)));
    const truncate = context.mock.method(fs, 'ftruncateSync', () => {
      throw new Error('not now');
    });
    if (canTakeBack) truncate.mock.restore();
    syncBuiltinESMExports();
    audit.write({ n: 2 });
    write.mock.restore();
    truncate.mock.restore();
    syncBuiltinESMExports();
    audit.write({ n: 3 });
    audit.write({ n: 4 });
    audit.close();
    const torn = canTakeBack ? '' : '{"n":\n';
    assert.equal(await readFile(path, 'utf8'), `{"n":1}\n${torn}{"n":3,"lostBefore":1}\n{"n":4}\n`);
  });

it('what-could-not-be-written-is-said-and-counted', async () => {
  let at = 10_000;
  const audit = new AuditLog(path, { log: records.log, clock: () => at });
  await rename(path, `${path}.1`);
  await writeFile(path, '', { mode: 0o644 });
  await chmod(path, 0o644);
  at += 1_000;
  audit.write({ n: 1 });
  await records.find(({ msg }) => msg === 'audit records could not be written');
  await chmod(path, 0o600);
  at += 1_000;
  audit.write({ n: 2 });
  audit.close();
  assert.deepEqual(await lines(), [{ n: 2, lostBefore: 1 }]);
});
