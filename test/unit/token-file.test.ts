// The workload's token from a file that is renewed under us: the last good one stays until a good one comes. The poll is driven by hand.

import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, mock, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { TokenFile } from '../../src/discovery/token-file.ts';
import { refusal } from '../support/refusal.ts';

const POLL_MS = 5000;
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

function tokenPath(content?: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'handfast-token-'));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, 'token');
  if (content !== undefined) writeFileSync(path, content);
  return path;
}

async function started(path: string): Promise<{ file: TokenFile; values: string[]; poll(): Promise<void>; stop(): void }> {
  mock.timers.enable({ apis: ['setInterval'] });
  cleanups.push(() => mock.timers.reset());
  const stopping = new AbortController();
  cleanups.push(() => stopping.abort());
  const file = new TokenFile(path);
  await file.start(stopping.signal);
  const values: string[] = [file.value.current ?? ''];
  file.value.subscribe((next) => values.push(next));
  return {
    file,
    values,
    poll: async () => {
      mock.timers.tick(POLL_MS);
      // A poll is one read: several of ours, begun after it, end after it.
      for (let i = 0; i < 5; i++) {
        await readFile(path).catch(() => undefined);
        await turn();
      }
    },
    stop: () => stopping.abort(),
  };
}

describe('at the start', () => {
  for (const text of ['abc.def.ghi', 'abc.def.ghi\n', '  abc.def.ghi\r\n']) {
    test(`${JSON.stringify(text)} is a token`, async () =>
      assert.equal((await started(tokenPath(text))).file.value.current, 'abc.def.ghi'));
  }

  for (const text of ['', '\n', 'two words', 'a\nb', 'caf\u00e9', 'a\0b']) {
    test(`${JSON.stringify(text)} is none, and the path is named`, async () => {
      const path = tokenPath(text);
      await assert.rejects(new TokenFile(path).start(new AbortController().signal), refusal('CONFIG_INVALID', path));
    });
  }

  test('a file that is not there is refused by its path', async () => {
    const path = tokenPath();
    await assert.rejects(new TokenFile(path).start(new AbortController().signal), refusal('CONFIG_INVALID', path));
  });
});

describe('later', () => {
  test('a renewed token is taken, once', async () => {
    const path = tokenPath('first');
    const { values, poll } = await started(path);
    writeFileSync(path, 'second\n');
    await poll();
    await poll();
    await poll();
    assert.deepEqual(values, ['first', 'second']);
  });

  test('a projected token is swapped by a symlink', async () => {
    const dir = join(tokenPath('x'), '..');
    writeFileSync(join(dir, 'one'), 'first');
    writeFileSync(join(dir, 'two'), 'second');
    symlinkSync('one', join(dir, 'projected'));
    const { values, poll } = await started(join(dir, 'projected'));
    symlinkSync('two', join(dir, 'next'));
    renameSync(join(dir, 'next'), join(dir, 'projected'));
    await poll();
    assert.deepEqual(values, ['first', 'second']);
  });

  test('gone, emptied or half-written it keeps the last one; mended it is taken', async () => {
    const path = tokenPath('first');
    const { values, poll } = await started(path);
    rmSync(path);
    await poll();
    for (const bad of ['', 'not a token', '\n']) {
      writeFileSync(path, bad);
      await poll();
    }
    assert.deepEqual(values, ['first']);
    writeFileSync(path, 'second');
    await poll();
    assert.deepEqual(values, ['first', 'second']);
  });

  test('the same token written again is no change: streams are not opened anew for it', async () => {
    const path = tokenPath('first');
    const { values, poll } = await started(path);
    writeFileSync(path, 'first\n');
    await poll();
    assert.deepEqual(values, ['first']);
  });

  test('after the signal aborts it is not read any more', async () => {
    const path = tokenPath('first');
    const { values, poll, stop } = await started(path);
    stop();
    writeFileSync(path, 'second');
    await poll();
    assert.deepEqual(values, ['first']);
  });
});
