// A watched directory: only whole, good sets come into force, and a bad edit is told once. The poll is driven by hand, so nothing waits.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Writable } from 'node:stream';
import { afterEach, describe, mock, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { pino } from 'pino';
import { DirectorySource } from '../../src/control/objects/directory-source.ts';
import { refusal } from '../support/refusal.ts';

const POLL_MS = 300;
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

const pod = (name: string, ip: string) => `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\nstatus: {podIP: ${ip}}\n`;
const bad = 'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus:\n  podIPP: 10.0.0.1\n';

interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly problems?: readonly string[];
}

interface Rig {
  readonly dir: string;
  readonly source: DirectorySource;
  /** Everything logged so far. */
  readonly lines: readonly LogLine[];
  readonly refusals: () => readonly LogLine[];
  write(name: string, text: string): void;
  names(): string[];
  /** Lets polls happen until the condition holds. */
  until(holds: () => boolean, what: string): Promise<void>;
  /** Lets a number of polls happen whole. */
  polls(count: number): Promise<void>;
}

/** A directory with the given files and a source on it, whose interval only passes when a test says so. */
async function rig(files: Readonly<Record<string, string>>, options: { start?: boolean } = {}): Promise<Rig> {
  const parent = mkdtempSync(join(tmpdir(), 'handfast-source-'));
  const dir = join(parent, 'config');
  cleanups.push(() => rmSync(parent, { recursive: true, force: true }));
  mock.timers.enable({ apis: ['setInterval'] });
  cleanups.push(() => mock.timers.reset());
  const lines: LogLine[] = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  const source = new DirectorySource({ dir, log: pino({}, sink) });
  const write = (name: string, text: string) => {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  };
  mkdirSync(dir);
  for (const [name, text] of Object.entries(files)) write(name, text);
  const watching = new AbortController();
  cleanups.push(() => watching.abort());
  if (options.start !== false) await source.start(watching.signal);
  const poll = async () => {
    mock.timers.tick(POLL_MS);
    // A poll is a handful of file operations one after the other; as many of ours, begun after it, end after it.
    for (let i = 0; i < 12; i++) {
      await readdir(parent);
      await turn();
    }
  };
  return {
    dir,
    source,
    lines,
    refusals: () => lines.filter(({ level }) => level >= 50),
    write,
    names: () => (source.objects.current?.pods ?? []).map(({ metadata }) => metadata.name).sort(),
    until: async (holds, what) => {
      for (let i = 0; i < 200; i++) {
        if (holds()) return;
        await poll();
      }
      assert.fail(`not after 200 polls: ${what}; log: ${JSON.stringify(lines)}`);
    },
    polls: async (count) => {
      for (let i = 0; i < count; i++) await poll();
    },
  };
}

test('a change of one file leaves the objects of the others as they are', async () => {
  const { source, write, names, until } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
  const [before] = source.objects.current?.pods ?? [];
  write('b.yaml', pod('b', '10.0.0.2'));
  await until(() => names().length === 2, 'b is taken');
  assert.ok(before !== undefined && source.objects.current?.pods[0] === before);
});

describe('the first load', () => {
  test('takes YAML and JSON from the directory and its subfolders', async () => {
    const json = JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'j' }, status: { podIP: '10.0.0.3' } });
    const { names } = await rig({ 'a.yaml': pod('a', '10.0.0.1'), 'foo/bar/b.yml': pod('b', '10.0.0.2'), 'c.json': json });
    assert.deepEqual(names(), ['a', 'b', 'j']);
  });

  test('leaves dotfiles, dot folders and other extensions alone, whatever is in them', async () => {
    const { names } = await rig({
      'a.yaml': pod('a', '10.0.0.1'),
      '.a.yaml.swp': 'x',
      '.hidden.yaml': 'not: [yaml',
      '.git/config.yaml': 'x',
      '..data_tmp/x.yaml': 'x',
      'a.yaml~': 'x',
      'a.yaml.bak': 'x',
      'a.yaml.rpmsave': 'x',
      '#a.yaml#': 'x',
      'README.md': '# hello',
      yaml: 'x',
    });
    assert.deepEqual(names(), ['a']);
  });

  test('throws with file and line for a bad file, and publishes nothing', async () => {
    const { source } = await rig({ 'sub/a.yaml': bad }, { start: false });
    await assert.rejects(
      source.start(new AbortController().signal),
      refusal('OBJECT_INVALID', 'sub/a.yaml:5: unknown field status.podIPP'),
    );
    assert.equal(source.objects.current, undefined);
  });

  test('throws for a directory that is not there, by its path', async () => {
    const { source, dir } = await rig({}, { start: false });
    rmSync(dir, { recursive: true });
    await assert.rejects(source.start(new AbortController().signal), refusal('CONFIG_INVALID', dir));
  });

  test('throws for a file too large to be meant, by its path', async () => {
    const { source, dir } = await rig({ 'a.yaml': `#${'x'.repeat(4 * 1024 * 1024)}` }, { start: false });
    await assert.rejects(source.start(new AbortController().signal), refusal('CONFIG_INVALID', join(dir, 'a.yaml'), 'larger than'));
  });

  test('throws for a dangling symlink rather than losing the objects it stood for', async () => {
    const { source, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') }, { start: false });
    symlinkSync(join(dir, 'gone'), join(dir, 'b.yaml'));
    await assert.rejects(source.start(new AbortController().signal), refusal('CONFIG_INVALID', 'b.yaml'));
    rmSync(join(dir, 'b.yaml'));
    const stop = new AbortController();
    await source.start(stop.signal);
    stop.abort();
  });
});

describe('a change', () => {
  test('a good edit comes into force, published once', async () => {
    const { write, names, until, polls, source } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    let published = 0;
    source.objects.subscribe(() => published++);
    write('a.yaml', pod('a2', '10.0.0.1'));
    await until(() => names()[0] === 'a2', 'the edit in force');
    await polls(5);
    assert.equal(published, 1);
  });

  test('an edit of the same size comes into force', async () => {
    const { write, names, until } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('a.yaml', pod('b', '10.0.0.1'));
    await until(() => names()[0] === 'b', 'the edit in force');
  });

  test('nothing changes, nothing is published or logged', async () => {
    const { source, polls, lines } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    const before = source.objects.current;
    await polls(5);
    assert.equal(source.objects.current, before);
    assert.deepEqual(lines, []);
  });

  test('a new file, also in a new subfolder, adds its objects; a removed one takes them away', async () => {
    const { write, names, until, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('sub/b.yaml', pod('b', '10.0.0.2'));
    await until(() => names().length === 2, 'the second pod');
    assert.deepEqual(names(), ['a', 'b']);
    rmSync(join(dir, 'sub/b.yaml'));
    await until(() => names().length === 1, 'one pod again');
    assert.deepEqual(names(), ['a']);
  });

  test('an atomic replacement (write beside, rename over) comes into force', async () => {
    const { write, names, until, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('.a.tmp', pod('b', '10.0.0.1'));
    renameSync(join(dir, '.a.tmp'), join(dir, 'a.yaml'));
    await until(() => names()[0] === 'b', 'the replacement in force');
  });

  test('a ConfigMap swap: every file changes in one step, through one symlink', async () => {
    const { dir, source, until, names, refusals } = await rig({}, { start: false });
    const fill = (revision: string, files: Readonly<Record<string, string>>) => {
      mkdirSync(join(dir, revision));
      for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, revision, name), text);
      symlinkSync(revision, join(dir, '..data_tmp'));
      renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
    };
    fill('..2030_01_01', { 'a.yaml': pod('a', '10.0.0.1'), 'b.yaml': pod('b', '10.0.0.2') });
    for (const name of ['a.yaml', 'b.yaml']) symlinkSync(join('..data', name), join(dir, name));
    const watching = new AbortController();
    cleanups.push(() => watching.abort());
    await source.start(watching.signal);
    assert.deepEqual(names(), ['a', 'b']);
    const seen: string[][] = [];
    source.objects.subscribe(() => seen.push(names()));
    // Either file alone with the other's old text would claim one address twice.
    fill('..2030_01_02', { 'a.yaml': pod('a2', '10.0.0.2'), 'b.yaml': pod('b2', '10.0.0.1') });
    rmSync(join(dir, '..2030_01_01'), { recursive: true });
    await until(() => seen.length > 0, 'the new revision');
    assert.deepEqual(seen, [['a2', 'b2']]);
    assert.deepEqual(refusals(), []);
  });

  test('a torn write is not read until it has stopped changing', async () => {
    const { write, names, until, polls, refusals, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    const whole = `${pod('b', '10.0.0.2')}---\n${pod('c', '10.0.0.3')}`;
    // Each part is good YAML of one pod or none; taken at its word the mesh would lose the others for a moment.
    for (const end of [20, 60, pod('b', '10.0.0.2').length, whole.length]) {
      write('a.yaml', whole.slice(0, end));
      const at = new Date(Date.now() + end * 1000);
      utimesSync(join(dir, 'a.yaml'), at, at);
      await polls(1);
    }
    await until(() => names().length === 2, 'the whole file');
    assert.deepEqual(names(), ['b', 'c']);
    assert.deepEqual(refusals(), []);
  });

  test('after the signal aborts nothing is polled any more', async () => {
    const parent = await rig({ 'a.yaml': pod('a', '10.0.0.1') }, { start: false });
    const watching = new AbortController();
    await parent.source.start(watching.signal);
    watching.abort();
    parent.write('a.yaml', pod('b', '10.0.0.1'));
    await parent.polls(6);
    assert.deepEqual(parent.names(), ['a']);
  });
});

describe('a bad change', () => {
  test('keeps the last good objects and is logged with file and line once, not at every poll', async () => {
    const { write, names, until, polls, refusals, source } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    const before = source.objects.current;
    write('a.yaml', bad);
    await until(() => refusals().length > 0, 'the refusal');
    assert.match(refusals()[0]?.problems?.join('\n') ?? '', /^a\.yaml:5: unknown field status\.podIPP; accepted: podIP, /);
    await polls(6);
    assert.equal(refusals().length, 1);
    assert.equal(source.objects.current, before);
    write('a.yaml', pod('good', '10.0.0.1'));
    await until(() => names()[0] === 'good', 'the mended file');
    assert.equal(refusals().length, 1);
  });

  test('every problem is a line of its own in the log', async () => {
    const { write, until, refusals } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('a.yaml', bad);
    write('b.yaml', 'kind: Deployment\n');
    await until(() => refusals().length > 0, 'the refusal');
    assert.deepEqual(
      refusals()
        .at(-1)
        ?.problems?.map((line) => line.split(' ', 1)[0]),
      ['a.yaml:5:', 'b.yaml:1:'],
    );
  });

  test('another bad edit is logged again, also when the problem is the same', async () => {
    const { write, until, refusals } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('a.yaml', bad);
    await until(() => refusals().length === 1, 'the first refusal');
    write('a.yaml', `${bad}# still trying\n`);
    await until(() => refusals().length === 2, 'the second refusal');
  });

  test('a bad file that was taken back and put there again, times and all, is logged again', async () => {
    const { write, until, refusals, dir, lines } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('.bad', bad);
    const swap = (from: string, to: string) => {
      renameSync(join(dir, 'a.yaml'), join(dir, to));
      renameSync(join(dir, from), join(dir, 'a.yaml'));
    };
    swap('.bad', '.good');
    await until(() => refusals().length === 1, 'the first refusal');
    swap('.good', '.bad');
    await until(() => lines.some(({ msg }) => msg === 'configuration in force'), 'the good file again');
    swap('.bad', '.good');
    await until(() => refusals().length === 2, 'the second refusal');
  });

  test('a bad file does not keep good ones from being judged with it: all or nothing', async () => {
    const { write, names, until, refusals, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('b.yaml', bad);
    write('c.yaml', pod('c', '10.0.0.3'));
    await until(() => refusals().length > 0, 'the refusal');
    assert.deepEqual(names(), ['a']);
    rmSync(join(dir, 'b.yaml'));
    await until(() => names().length === 2, 'the good file without the bad one');
    assert.deepEqual(names(), ['a', 'c']);
  });

  for (const [name, text] of Object.entries({
    emptied: '',
    'cut to comments': '# nothing\n',
    'cut to half an object': pod('a', '10.0.0.1').slice(0, 30),
  })) {
    test(`a file ${name} is refused: the switches in it do not fall back to the default`, async () => {
      const { write, names, until, refusals } = await rig({ 'a.yaml': pod('a', '10.0.0.1'), 'b.yaml': pod('b', '10.0.0.2') });
      write('b.yaml', text);
      await until(() => refusals().length > 0, 'the refusal');
      assert.match(refusals()[0]?.problems?.[0] ?? '', /^b\.yaml:\d+: /);
      assert.deepEqual(names(), ['a', 'b']);
    });
  }

  test('a file grown beyond the limit is refused and the last good one stays', async () => {
    const { write, names, until, polls, refusals } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    write('a.yaml', `${pod('b', '10.0.0.1')}#${'x'.repeat(4 * 1024 * 1024)}`);
    await until(() => refusals().length > 0, 'the refusal');
    await polls(5);
    assert.equal(refusals().length, 1);
    assert.deepEqual(names(), ['a']);
  });

  test('a directory that vanishes keeps the last good objects, is logged once, and is taken up again when it is back', async () => {
    const { write, names, until, polls, refusals, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    rmSync(dir, { recursive: true });
    await until(() => refusals().length > 0, 'the refusal');
    assert.match(refusals()[0]?.problems?.[0] ?? '', new RegExp(dir));
    await polls(5);
    assert.equal(refusals().length, 1);
    assert.deepEqual(names(), ['a']);
    write('a.yaml', pod('b', '10.0.0.2'));
    await until(() => names()[0] === 'b', 'the directory back');
  });

  test('a directory that vanishes a second time is logged a second time', async () => {
    const { until, polls, refusals, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1') });
    const aside = `${dir}.aside`;
    renameSync(dir, aside);
    await until(() => refusals().length === 1, 'the first refusal');
    renameSync(aside, dir);
    await polls(4);
    renameSync(dir, aside);
    await until(() => refusals().length === 2, 'the second refusal');
  });

  test('a file moved to a name that is not read is gone, and nothing else', async () => {
    const { names, until, dir } = await rig({ 'a.yaml': pod('a', '10.0.0.1'), 'b.yaml': pod('b', '10.0.0.2') });
    renameSync(join(dir, 'b.yaml'), join(dir, 'b.yaml.off'));
    await until(() => names().length === 1, 'one pod less');
    assert.deepEqual(readdirSync(dir).sort(), ['a.yaml', 'b.yaml.off']);
    assert.ok(statSync(join(dir, 'b.yaml.off')).isFile());
  });
});
