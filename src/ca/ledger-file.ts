// The ledger's file: lines that are only ever appended, each batch on disk before anybody is told, and rewritten whole to drop what is old.

import { constants } from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';
import { syncDirectory } from '../store/state-file.ts';
import { formatEntry, type LedgerEntry, parseEntry } from './ledger-entry.ts';

const CHUNK = 256 * 1024;
const MAX_LINE = 16_384;
const { O_APPEND, O_CREAT, O_RDWR, O_TRUNC, O_WRONLY } = constants;

/** What reading found. `end` is where the last whole line ends; `torn` how many bytes stand after it. */
interface ReadResult {
  readonly lines: number;
  readonly end: number;
  readonly torn: number;
}

export class LedgerFile {
  readonly path: string;
  #handle: FileHandle;
  #size = 0;
  #lines = 0;
  #broken: Error | undefined;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /** `create` makes it when it is not there. Throws STATE_INVALID when it is missing, or open to others. */
  static async open(path: string, options: { create: boolean }): Promise<LedgerFile> {
    let handle: FileHandle;
    try {
      handle = await open(path, O_RDWR | O_APPEND | (options.create ? O_CREAT : 0), 0o600);
    } catch (cause) {
      const wayOut =
        'restore it from a backup; or make it anew with `install -m 600 /dev/null`, and certificates issued before can only be revoked by serial, with --expires-in';
      throw new HandfastError('STATE_INVALID', `cannot open ${path}: ${messageOf(cause)}; ${wayOut}`, { cause });
    }
    const { mode } = await handle.stat();
    if ((mode & 0o077) !== 0) {
      await handle.close();
      throw new HandfastError('STATE_INVALID', `${path} may be read by others (mode ${(mode & 0o777).toString(8)}); chmod 600 it`);
    }
    if (options.create) await syncDirectory(dirname(path));
    return new LedgerFile(path, handle);
  }

  get lines(): number {
    return this.#lines;
  }

  /** Every entry in order. A last line without its end was never acknowledged to anybody: it is cut off, and its length returned. */
  async recover(onEntry: (entry: LedgerEntry, line: number) => void): Promise<number> {
    const { lines, end, torn } = await this.#read(onEntry);
    if (torn > 0) {
      await this.#handle.truncate(end);
      await this.#handle.sync();
    }
    this.#size = end;
    this.#lines = lines;
    return torn;
  }

  /** Resolves when the lines are on disk. After a failed write the file is cut back; when not even that is sure, nothing is written any more. */
  async append(entries: readonly LedgerEntry[]): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    const bytes = Buffer.from(entries.map(formatEntry).join(''));
    try {
      await this.#handle.appendFile(bytes);
    } catch (cause) {
      await this.#handle.truncate(this.#size).catch((error: unknown) => this.#break(error));
      throw new HandfastError('STATE_INVALID', `cannot write ${this.path}: ${messageOf(cause)}; nothing is issued until it can be`, {
        cause,
      });
    }
    // A failed fsync may have dropped the pages that it could not write: what is on disk can only be learned by reading it again.
    await this.#handle.datasync().catch((error: unknown) => {
      throw this.#break(error);
    });
    this.#size += bytes.length;
    this.#lines += entries.length;
  }

  /** Rewrites the file with the entries to `keep`. A crash leaves the old file or the new. */
  async compact(keep: (entry: LedgerEntry) => boolean): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    const temporary = `${this.path}.tmp`;
    const next = await open(temporary, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0o600);
    let [lines, size] = [0, 0];
    try {
      let pending: string[] = [];
      const flush = async () => {
        const bytes = Buffer.from(pending.join(''));
        pending = [];
        await next.appendFile(bytes);
        size += bytes.length;
      };
      await this.#read(
        (entry) => {
          if (!keep(entry)) return;
          pending.push(formatEntry(entry));
          lines++;
        },
        () => (pending.length > 0 ? flush() : Promise.resolve()),
      );
      await next.sync();
    } finally {
      await next.close();
    }
    const handle = await open(temporary, O_RDWR | O_APPEND);
    await rename(temporary, this.path).catch(async (error: unknown) => {
      await handle.close();
      throw error;
    });
    const old = this.#handle;
    [this.#handle, this.#lines, this.#size] = [handle, lines, size];
    await old.close();
    // Before this, a power cut could bring the old file back, without what is appended to the new one.
    await syncDirectory(dirname(this.path)).catch((error: unknown) => {
      throw this.#break(error);
    });
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  #break(cause: unknown): Error {
    this.#broken = new HandfastError(
      'STATE_INVALID',
      `${this.path}: ${messageOf(cause)}; what is on disk is not known any more: see to the disk, then start again`,
      { cause },
    );
    return this.#broken;
  }

  async #read(
    onEntry: (entry: LedgerEntry, line: number) => void,
    afterChunk: () => Promise<void> = async () => undefined,
  ): Promise<ReadResult> {
    const chunk = Buffer.alloc(CHUNK);
    let rest = Buffer.alloc(0);
    let [lines, end] = [0, 0];
    for (;;) {
      const { bytesRead } = await this.#handle.read(chunk, 0, CHUNK, end + rest.length);
      if (bytesRead === 0) break;
      rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
      let start = 0;
      for (let newline = rest.indexOf(10); newline >= 0; newline = rest.indexOf(10, start)) {
        lines++;
        try {
          onEntry(parseEntry(rest.toString('utf8', start, newline)), lines);
        } catch (cause) {
          throw this.#damaged(lines, cause);
        }
        start = newline + 1;
      }
      rest = rest.subarray(start);
      end += start;
      if (rest.length > MAX_LINE) throw this.#damaged(lines + 1, new Error('the line has no end'));
      await afterChunk();
    }
    return { lines, end, torn: rest.length };
  }

  #damaged(line: number, cause: unknown): HandfastError {
    return new HandfastError('STATE_INVALID', `${this.path}, line ${line}: ${messageOf(cause)}; restore the file from a backup`, { cause });
  }
}
