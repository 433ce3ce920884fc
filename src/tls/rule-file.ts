// The files that a rule names in the sidecar. Whoever may write a rule may name any path: a pipe or a device must not hold a thread of the process.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';

const MAX_BYTES = 1024 * 1024;

/** A regular file's text. Throws CONFIG_INVALID, with rule and path, for anything else, for more than 1 MiB, and when the signal aborts before it is read. */
export async function readRuleFile(path: string, { rule, signal }: { rule: string; signal: AbortSignal }): Promise<string> {
  const tooLate = new Promise<never>((_, reject) => {
    const abort = () => reject(new Error('it was not read in time'));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
  try {
    // A file system that does not answer keeps its own thread, but not the connection that asked.
    return await Promise.race([read(path), tooLate]);
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `${rule}: cannot read ${path} in the sidecar: ${messageOf(cause)}`, { cause });
  }
}

async function read(path: string): Promise<string> {
  // Without O_NONBLOCK the opening of a pipe waits for a writer, in one of the four threads that all files and names are read by.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  try {
    if (!(await file.stat()).isFile()) throw new Error('it is not a regular file');
    return (await readUpTo(file, MAX_BYTES + 1)).toString('utf8');
  } finally {
    await file.close();
  }
}

/** Files of /proc have no size, and others grow while they are read: what is counted is what comes. */
async function readUpTo(file: FileHandle, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(bytes);
  let length = 0;
  for (;;) {
    const { bytesRead } = await file.read(buffer, length, bytes - length, null);
    length += bytesRead;
    if (length === bytes) throw new Error(`it has more than ${MAX_BYTES} bytes`);
    if (bytesRead === 0) return buffer.subarray(0, length);
  }
}
