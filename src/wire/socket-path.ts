// A unix socket's place in the file system: taken by rename, so that one process follows another without a moment of nobody there.

import { randomBytes } from 'node:crypto';
import { lstatSync, unlinkSync } from 'node:fs';
import { chmod, lstat, mkdir, rename, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';

/** A full queue turns clients away; Node's default of 511 is small for an agent that a whole node starts with. */
export const BACKLOG = 4096;
/** What fits into sockaddr_un with its closing zero. */
const MAX_PATH_BYTES = 107;
const PROBE_TIMEOUT_MS = 2_000;

/** Whose socket a path is, as long as the socket listens: its inode cannot be given away before. */
export interface HeldPath {
  /** Removes the path if it is still ours. */
  release(): void;
}

/**
 * Makes `listener` listen on `path` with `mode`. A stale socket is replaced; with `takeOver` a live one too, otherwise that is
 * CONFIG_INVALID, as is anything there that is no socket.
 */
export async function holdPath(listener: Server, options: { path: string; mode: number; takeOver: boolean }): Promise<HeldPath> {
  const { path, mode, takeOver } = options;
  const temporary = join(dirname(path), `.${randomBytes(6).toString('hex')}`);
  const longest = Math.max(Buffer.byteLength(path), Buffer.byteLength(temporary));
  if (longest > MAX_PATH_BYTES) throw new HandfastError('CONFIG_INVALID', `${path}: too long for a unix socket, ${MAX_PATH_BYTES} bytes`);
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await refuseOccupied(path, takeOver);
  try {
    await listen(listener, temporary);
    // Before it can be found: under its temporary name nobody looks for it.
    await chmod(temporary, mode);
    const { dev, ino } = await lstat(temporary);
    await rename(temporary, path);
    return { release: () => removeIfStill(path, { dev, ino }) };
  } catch (cause) {
    listener.close();
    await unlink(temporary).catch(() => undefined);
    throw new HandfastError('UNAVAILABLE', `cannot listen on ${path}: ${messageOf(cause)}`, { cause });
  }
}

function listen(listener: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ path, backlog: BACKLOG }, () => {
      listener.removeListener('error', reject);
      resolve();
    });
  });
}

async function refuseOccupied(path: string, takeOver: boolean): Promise<void> {
  const existing = await lstat(path).catch(() => undefined);
  if (existing === undefined) return;
  if (!existing.isSocket()) throw new HandfastError('CONFIG_INVALID', `${path} exists and is no socket: give another path`);
  if (!takeOver && (await answers(path))) {
    throw new HandfastError('CONFIG_INVALID', `${path} is served by another process: stop that one, or give another path`);
  }
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    const end = (answer: boolean) => {
      probe.destroy();
      resolve(answer);
    };
    // One whose queue is full does not answer at once, but it is there.
    probe.setTimeout(PROBE_TIMEOUT_MS, () => end(true));
    probe.once('connect', () => end(true));
    probe.once('error', (error) => end('code' in error && error.code === 'EAGAIN'));
  });
}

/** Both steps in one go: what is between them is microseconds, and the file system offers no way to do it in one. */
function removeIfStill(path: string, ours: { dev: number; ino: number }): void {
  try {
    const found = lstatSync(path);
    if (found.dev === ours.dev && found.ino === ours.ino) unlinkSync(path);
  } catch {
    // It is gone already.
  }
}
