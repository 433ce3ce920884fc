// Authorities in a folder of one test file: opened, opened again as after a restart, and all closed at the end.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { Authority } from '../../src/ca/authority.ts';
import type { AuthorityOptions } from '../../src/ca/authority-options.ts';

const HOUR = 3_600_000;

/** Call it once, at the top of a test file. */
export function authorities(now: () => number, common: Partial<AuthorityOptions> = {}) {
  const scratch = mkdtempSync(join(tmpdir(), 'handfast-ca-'));
  const opened = new Map<string, Authority>();
  after(async () => {
    for (const authority of opened.values()) await authority.close();
    rmSync(scratch, { recursive: true, force: true });
  });
  let made = 0;
  const newDir = () => join(scratch, `ca-${++made}`);
  const close = async (dir: string): Promise<void> => {
    await opened.get(dir)?.close();
    opened.delete(dir);
  };
  /** Opening a directory again ends who had it before, as a restart does. */
  const open = async (dir = newDir(), options: Partial<AuthorityOptions> = {}): Promise<Authority> => {
    await close(dir);
    const usual = { dir, trustDomain: 'cluster.local', svidTtlMs: HOUR, now, maintainEveryMs: 0 };
    const authority = await Authority.open({ ...usual, ...common, ...options });
    opened.set(dir, authority);
    return authority;
  };
  return { scratch, newDir, open, close };
}
