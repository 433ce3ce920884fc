// Small secrets and small state on disk: written whole or not at all, readable by their owner alone.

import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';
import { parseStrictObject } from '../spiffe/strict-json.ts';

const TEMPORARY = /^\.[0-9a-f]{16}\.tmp$/;

/** Reads the file, or makes it by `create` when it is not there. Of two racing creators one wins and both read the winner's. */
export async function readOrCreate(path: string, create: () => Promise<string>): Promise<string> {
  const existing = await readPrivate(path);
  if (existing !== undefined) return existing;
  const content = await create();
  return (await writePrivate(path, { content, replace: false })) ? content : ((await readPrivate(path)) ?? content);
}

/** Replaces the file whole: a crash leaves the old content or the new, never a mixture. */
export async function replacePrivate(path: string, content: string): Promise<void> {
  await writePrivate(path, { content, replace: true });
}

/** Undefined when there is no such file. Throws STATE_INVALID when others may read it. */
export async function readPrivate(path: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(path);
    if ((mode & 0o077) !== 0) {
      throw new HandfastError(
        'STATE_INVALID',
        `${path} may be read by others (mode ${(mode & 0o777).toString(8)}); chmod 600 it, or replace the key`,
      );
    }
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    if (error instanceof HandfastError) throw error;
    throw new HandfastError('STATE_INVALID', `cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** Removes the file, for good: the directory is synced. One that is not there is no error. */
export async function removePrivate(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return;
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** A state file of JSON, by the one parser that knows it. Undefined when there is none. Throws STATE_INVALID, naming the file. */
export async function readStateJson<T>(path: string, parse: (fields: Readonly<Record<string, unknown>>) => T): Promise<T | undefined> {
  const text = await readPrivate(path);
  if (text === undefined) return undefined;
  try {
    return parse(parseStrictObject(text));
  } catch (cause) {
    throw new HandfastError('STATE_INVALID', `${path}: ${messageOf(cause)}; restore it from a backup`, { cause });
  }
}

/** What a process that was killed has left of files half written, which may hold keys. Only for whoever has the directory to itself. */
export async function sweepTemporaries(directory: string): Promise<void> {
  const left = (await readdir(directory)).filter((name) => TEMPORARY.test(name));
  for (const name of left) await removePrivate(join(directory, name));
}

/** False when the file was there already and `replace` is off. */
async function writePrivate(path: string, options: { content: string; replace: boolean }): Promise<boolean> {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const temporary = join(directory, `.${randomBytes(8).toString('hex')}.tmp`);
  try {
    await writeNew(temporary, options.content);
    if (options.replace) await rename(temporary, path);
    else await link(temporary, path);
  } catch (error) {
    if (!options.replace && isErrno(error, 'EEXIST')) return false;
    throw error;
  } finally {
    // After a rename there is none; after anything else it holds a secret that nobody would find again.
    await unlink(temporary).catch(() => undefined);
  }
  await syncDirectory(directory);
  return true;
}

async function writeNew(path: string, content: string): Promise<void> {
  const file = await open(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** A rename, a link or an unlink is on disk only when its directory is. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
