// One process at a time on a state directory. The lock is a listening unix socket in it: that ends with its process, however it ends.
//
// A file name is taken by link(2) alone, and always one higher than the highest there. So nobody has to remove a dead lock in order to take
// it, which two could do at once, each removing the other's. Whoever finds a higher number after linking has lost.

import { randomBytes } from 'node:crypto';
import { type FileHandle, link, mkdir, open, readdir, unlink } from 'node:fs/promises';
import { createConnection, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';

const NAME = /^lock-(\d{1,15})$/;
const MAX_ATTEMPTS = 20;
const CONNECT_TIMEOUT_MS = 2000;

export interface StateLock {
  release(): Promise<void>;
}

/** Throws STATE_INVALID when another process has the directory. */
export async function lockState(dir: string): Promise<StateLock> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const handle = await open(dir, 'r');
    try {
      return await take(dir, handle);
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof HandfastError) throw error;
    throw new HandfastError('STATE_INVALID', `cannot lock ${dir}: ${messageOf(error)}`, { cause: error });
  }
}

async function take(dir: string, handle: FileHandle): Promise<StateLock> {
  // A unix socket's path may have 107 bytes; the directory's own may be longer.
  const short = `/proc/self/fd/${handle.fd}`;
  const temporary = `.${randomBytes(8).toString('hex')}.lock`;
  const server = await listen(join(short, temporary));
  try {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
      const [highest = 0] = await held(dir);
      if (highest > 0 && (await isAlive(join(short, `lock-${highest}`)))) break;
      const own = highest + 1;
      if (!(await linked(join(dir, temporary), join(dir, `lock-${own}`)))) continue;
      const [now = own, ...dead] = await held(dir);
      if (now === own) {
        await unlink(join(dir, temporary));
        await Promise.all(dead.map((number) => unlink(join(dir, `lock-${number}`)).catch(ignoreAbsent)));
        // The file stays, dead: the numbers must never begin again.
        return { release: () => closed(server) };
      }
      await unlink(join(dir, `lock-${own}`)).catch(ignoreAbsent);
    }
  } catch (error) {
    await closed(server);
    throw error;
  }
  await closed(server);
  throw new HandfastError(
    'STATE_INVALID',
    `${dir} is in use by another handfast process: stop that one first (fuser ${dir}/lock-* names it), or give this one another --state directory`,
  );
}

/** The numbers there are, highest first. */
async function held(dir: string): Promise<number[]> {
  const numbers = (await readdir(dir)).flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  return numbers.sort((a, b) => b - a);
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** A socket that nobody listens on refuses; whatever else happens is taken for a sign of life. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    const settle = (alive: boolean) => {
      socket.destroy();
      resolve(alive);
    };
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => settle(true));
    socket.on('connect', () => settle(true));
    socket.on('error', (error: NodeJS.ErrnoException) => settle(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
  });
}

function listen(path: string): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  // The lock is no reason for a process to stay.
  server.unref();
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path, backlog: 64 }, () => resolve(server));
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}

function ignoreAbsent(error: unknown): void {
  if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
}
