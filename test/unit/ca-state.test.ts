// What the CA keeps on disk beside its ledger: files that are written whole or not at all, and join tokens that are good once.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Authority } from '../../src/ca/authority.ts';
import { JoinTokens } from '../../src/ca/join-tokens.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { readOrCreate, replacePrivate, sweepTemporaries } from '../../src/store/state-file.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-state-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true });
});

const LEFT_OVER = '.0123456789abcdef.tmp';

describe('a state file', () => {
  it('that-cannot-be-written-leaves-no-secret-behind', async () => {
    // A directory is in the way, as a full disk would be.
    await mkdir(join(dir, 'key.pem'));
    await assert.rejects(replacePrivate(join(dir, 'key.pem'), 'a secret'));
    assert.deepEqual(await readdir(dir), ['key.pem']);
    await replacePrivate(join(dir, 'other.pem'), 'a secret');
    assert.equal(await readOrCreate(join(dir, 'new.pem'), async () => 'made'), 'made');
    assert.deepEqual((await readdir(dir)).sort(), ['key.pem', 'new.pem', 'other.pem']);
  });

  it('that-a-killed-process-left-half-written-is-swept-and-nothing-else', async () => {
    const others = ['.hidden.tmp', 'a.tmp', '.0123456789abcdef.lock', 'root.pem'];
    for (const name of [LEFT_OVER, ...others]) await writeFile(join(dir, name), 'x');
    await sweepTemporaries(dir);
    assert.deepEqual((await readdir(dir)).sort(), others.sort());
  });

  it('is-swept-by-the-ca-that-has-the-lock-and-by-no-other', async () => {
    await writeFile(join(dir, LEFT_OVER), 'x');
    const options = { dir, trustDomain: 'cluster.local', svidTtlMs: 60_000, now: Date.now, maintainEveryMs: 0 };
    const authority = await Authority.open(options);
    assert.ok(!(await readdir(dir)).includes(LEFT_OVER));
    await writeFile(join(dir, LEFT_OVER), 'x');
    await assert.rejects(Authority.open(options), { code: 'STATE_INVALID' });
    assert.ok((await readdir(dir)).includes(LEFT_OVER), 'it is the other one that may be writing it');
    await authority.close();
  });
});

describe('a join token', () => {
  const id = parseSpiffeId('spiffe://cluster.local/handfast/agent/node-1');
  let now = 0;
  const open = () => JoinTokens.open({ dir, now: () => now });

  it('waits-until-it-is-used-or-over', async () => {
    const tokens = await open();
    assert.equal(tokens.waiting, 0);
    const { token } = await tokens.create({ id, ttlMs: 10_000 });
    await tokens.create({ id, ttlMs: 20_000 });
    assert.equal(tokens.waiting, 2);
    assert.equal(await tokens.redeem(token, async ({ uri }) => uri), id.uri);
    assert.equal(tokens.waiting, 1);
    now += 20_000;
    assert.equal(tokens.waiting, 0);
  });

  it('of-two-who-come-with-it-at-once-one-is-served', async () => {
    const tokens = await open();
    const { token } = await tokens.create({ id, ttlMs: 10_000 });
    const outcomes = await Promise.allSettled([1, 2, 3].map((n) => tokens.redeem(token, async () => n)));
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  });

  it('that-brought-nothing-is-good-again-also-after-a-restart-and-meanwhile-it-is-spent', async () => {
    const tokens = await open();
    const { token } = await tokens.create({ id, ttlMs: 10_000 });
    const failing = tokens.redeem(token, async () => {
      assert.doesNotMatch(await readFile(join(dir, 'join-tokens.json'), 'utf8'), /digest/, 'on disk it is spent first');
      await assert.rejects(
        tokens.redeem(token, async () => 1),
        { code: 'JOIN_TOKEN_REFUSED' },
      );
      throw new Error('the disk is full');
    });
    await assert.rejects(failing, /the disk is full/);
    const restarted = await open();
    assert.equal(await restarted.redeem(token, async () => 'in'), 'in');
    await assert.rejects(
      restarted.redeem(token, async () => 'again'),
      { code: 'JOIN_TOKEN_REFUSED' },
    );
  });
});
