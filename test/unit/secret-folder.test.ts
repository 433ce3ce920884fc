// The folder of secrets: closed to everybody else or refused with the way out, the last good state kept, and what is removed gone.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { SecretFolder } from '../../src/control/secrets/secret-folder.ts';
import { UnchangingVersions } from '../../src/control/secrets/unchanging-versions.ts';
import { SecretsDir, secretYaml } from '../support/secrets.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const UID = process.getuid?.() ?? 0;
let root: string;
let dir: SecretsDir;
let records: RecordingLog;
let stopping: AbortController;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'hf-folder-'));
  dir = await SecretsDir.create(join(root, 'secrets'));
  records = new RecordingLog();
  stopping = new AbortController();
});
afterEach(async () => {
  stopping.abort();
  await rm(root, { recursive: true });
});

async function start(): Promise<SecretFolder> {
  const folder = new SecretFolder({ dir: dir.path, trustDomain: 'cluster.local', log: records.log });
  await folder.start(stopping.signal);
  return folder;
}
const refused = (how: RegExp) => assert.rejects(start(), { code: 'CONFIG_INVALID', message: how });
const changed = (folder: SecretFolder) => new Promise<void>((resolve) => folder.world.subscribe(() => resolve()));
const db = (versions: Record<string, Record<string, string>>, current: string) => dir.secret('db', { versions, current });

describe('who may open it', () => {
  it('its-owner-alone-and-it-may-be-empty', async () => {
    assert.equal((await start()).world.current?.secrets.size, 0);
    await db({ 7: { key: 'sesame' } }, '7');
    assert.deepEqual([...((await start()).world.current?.secrets.keys() ?? [])], ['foo/db']);
  });

  it('not-a-group-or-others', async () => {
    await chmod(dir.path, 0o750);
    await refused(/secrets may be opened by others \(mode 750\): chmod 700 /);
    await chmod(dir.path, 0o700);
    await db({ 7: { key: 'sesame' } }, '7');
    await chmod(join(dir.path, 'foo-db.yaml'), 0o640);
    await refused(/foo-db\.yaml may be opened by others \(mode 640\): chmod 600 /);
    await chmod(join(dir.path, 'foo-db.yaml'), 0o600);
    await mkdir(join(dir.path, 'more'), { mode: 0o755 });
    await refused(/more may be opened by others \(mode 755\): chmod 700 /);
    await chmod(join(dir.path, 'more'), 0o700);
    await start();
  });

  it('not-another-user', { skip: UID === 0 ? false : 'needs root' }, async () => {
    await db({ 7: { key: 'sesame' } }, '7');
    await chown(join(dir.path, 'foo-db.yaml'), 4711, 4711);
    await refused(/belongs to uid 4711: chown root /);
  });

  it('not-by-a-link', async () => {
    await db({ 7: { key: 'sesame' } }, '7');
    await symlink(join(dir.path, 'foo-db.yaml'), join(dir.path, 'link.yaml'));
    await refused(/link\.yaml is no file \(links are not followed\)/);
    await rm(join(dir.path, 'link.yaml'));
    await symlink(dir.path, join(root, 'elsewhere'));
    const folder = new SecretFolder({ dir: join(root, 'elsewhere'), trustDomain: 'cluster.local', log: records.log });
    await assert.rejects(folder.start(stopping.signal), /elsewhere is no directory/);
    await start();
  });

  it('not-one-that-is-not-there', () =>
    assert.rejects(new SecretFolder({ dir: join(root, 'no'), trustDomain: 'a', log: records.log }).start(stopping.signal), /ENOENT/));
});

describe('what changes', () => {
  it('comes-and-goes-with-its-files-and-what-is-the-same-stays-the-same', async () => {
    await db({ 7: { key: 'sesame' } }, '7');
    const folder = await start();
    const before = folder.world.current?.secrets.get('foo/db');
    let next = changed(folder);
    await dir.secret('other', { versions: { 1: { key: 'x' } }, current: '1' });
    await next;
    assert.equal(folder.world.current?.secrets.get('foo/db'), before);
    assert.equal(folder.world.current?.secrets.size, 2);
    next = changed(folder);
    await dir.remove('foo-db.yaml');
    await next;
    assert.deepEqual([...(folder.world.current?.secrets.keys() ?? [])], ['foo/other']);
    next = changed(folder);
    await dir.remove('foo-other.yaml');
    await next;
    assert.equal(folder.world.current?.secrets.size, 0);
  });

  it('is-refused-as-a-whole-without-its-contents-and-the-last-good-state-stays', async () => {
    await db({ 7: { key: 'sesame' } }, '7');
    const folder = await start();
    const before = folder.world.current;
    await dir.write('bad.yaml', 'kind: WorkloadSecret\nspec: {sesame-two: "open\n');
    const { problems } = await records.find(({ msg }) => msg === 'secrets refused, the last good ones stay in force');
    assert.match(String(problems), /bad\.yaml:\d+: not plain YAML/);
    assert.ok(!JSON.stringify(records.records).includes('sesame'));
    assert.equal(folder.world.current, before);
    await writeFile(join(dir.path, 'open.txt'), 'sesame');
    await chmod(join(dir.path, 'open.txt'), 0o644);
    const next = changed(folder);
    await dir.remove('bad.yaml');
    await dir.secret('other', { versions: { 1: { key: 'x' } }, current: '1' });
    await next;
    assert.equal(folder.world.current?.secrets.size, 2);
  });

  it('a-version-that-was-never-in-force-may-still-be-mended', async () => {
    await db({ 7: { key: 'sesame' } }, '7');
    const folder = await start();
    await dir.write('bad.yaml', 'kind: no\n');
    await db({ 7: { key: 'sesame' }, 8: { key: 'mistaken' } }, '8');
    await records.find(({ msg }) => msg === 'secrets refused, the last good ones stay in force');
    const next = changed(folder);
    await db({ 7: { key: 'sesame' }, 8: { key: 'mended' } }, '8');
    await dir.remove('bad.yaml');
    await next;
    assert.equal(folder.world.current?.secrets.get('foo/db')?.versions.get('8')?.get('key')?.toString(), 'mended');
  });

  it('a-file-that-could-not-be-read-is-read-when-it-can-be', async (context) => {
    await db({ 7: { key: 'sesame' } }, '7');
    const folder = await start();
    // Once, for a reason that passes: what stands there is not what is wrong.
    const read = context.mock.method(UnchangingVersions.prototype, 'objection', () => {
      read.mock.restore();
      throw Object.assign(new Error('too many open files'), { code: 'EMFILE' });
    });
    const next = changed(folder);
    await db({ 8: { key: 'next' } }, '8');
    await records.find(({ msg }) => msg === 'secrets refused, the last good ones stay in force');
    await next;
    assert.equal(folder.world.current?.secrets.get('foo/db')?.current, '8');
  });

  it('is-seen-though-its-size-and-time-stay-what-they-were', async () => {
    const path = join(dir.path, 'foo-db.yaml');
    await db({ 7: { key: 'sesame' } }, '7');
    const { atime, mtime } = await stat(path);
    await utimes(path, atime, mtime);
    const folder = await start();
    const next = changed(folder);
    await writeFile(path, secretYaml('db', { versions: { 8: { key: 'sesame' } }, current: '8' }));
    await utimes(path, atime, mtime);
    await next;
    assert.equal(folder.world.current?.secrets.get('foo/db')?.current, '8');
  });

  it('a-version-that-was-read-and-did-not-come-into-force-may-still-be-mended', async (context) => {
    await db({ 7: { key: 'sesame' } }, '7');
    const folder = await start();
    const read = Promise.withResolvers<void>();
    // Changed while it was read, so that it does not come into force.
    const objection = context.mock.method(UnchangingVersions.prototype, 'objection', () => {
      objection.mock.restore();
      writeFileSync(join(dir.path, 'foo-db.yaml'), secretYaml('db', { versions: { 8: { key: 'mended' } }, current: '8' }));
      read.resolve();
      return undefined;
    });
    const next = changed(folder);
    await db({ 8: { key: 'mistaken' } }, '8');
    await read.promise;
    await next;
    assert.equal(folder.world.current?.secrets.get('foo/db')?.versions.get('8')?.get('key')?.toString(), 'mended');
  });

  it('a-version-that-was-taken-back-does-not-come-again-as-something-else', async () => {
    await db({ 7: { key: 'sesame' }, 8: { key: 'next' } }, '8');
    const folder = await start();
    const next = changed(folder);
    await db({ 8: { key: 'next' } }, '8');
    await next;
    await db({ 7: { key: 'forged' }, 8: { key: 'next' } }, '8');
    const { problems } = await records.find(({ msg }) => msg === 'secrets refused, the last good ones stay in force');
    assert.match(String(problems), /the contents of version 7 have changed/);
    const again = changed(folder);
    await db({ 7: { key: 'sesame' }, 8: { key: 'next' } }, '8');
    await again;
    assert.deepEqual([...(folder.world.current?.secrets.get('foo/db')?.versions.keys() ?? [])], ['7', '8']);
  });

  it('one-name-stands-there-once', async () => {
    await db({ 7: { key: 'sesame' } }, '7');
    await dir.secret('db', { versions: { 7: { key: 'sesame' } }, current: '7' });
    await dir.write(
      'again.yaml',
      (await import('../support/secrets.ts')).secretYaml('db', { versions: { 7: { key: 'sesame' } }, current: '7' }),
    );
    await assert.rejects(start(), { code: 'OBJECT_INVALID', message: /WorkloadSecret foo\/db stands there twice/ });
  });
});
