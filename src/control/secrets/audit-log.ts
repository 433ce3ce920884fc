// The file of audit records: JSON lines, appended and never changed, on disk within a second. Whoever rotates it may rename it or truncate it: it is opened anew when the path is another file.

import { closeSync, constants, fdatasync, fstatSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import { HandfastError, messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import { type MonotonicClock, TokenBucket } from '../../rate-limit.ts';

const LOOK_EVERY_MS = 1_000;

export class AuditLog {
  readonly #path: string;
  readonly #log: Log;
  readonly #clock: MonotonicClock;
  readonly #complaints = new TokenBucket({ burst: 1, perSecond: 0.1 });
  #fd: number;
  #lost = 0;
  /** The last record is there in part, and could not be taken back. */
  #torn = false;
  #lookedAt = 0;
  #syncing: NodeJS.Timeout | undefined;

  /** Throws CONFIG_INVALID where the file cannot be had, or others may read it. */
  constructor(path: string, { log, clock = () => performance.now() }: { log: Log; clock?: MonotonicClock }) {
    this.#path = path;
    this.#log = log;
    this.#clock = clock;
    this.#fd = openPrivate(path);
  }

  /** Never throws: a disk that is full must not keep a secret from being taken back. What was lost is said in the log, and in the next record. */
  write(record: object): void {
    try {
      this.#reopenIfMoved();
      this.#append(`${JSON.stringify(this.#lost === 0 ? record : { ...record, lostBefore: this.#lost })}\n`);
      this.#lost = 0;
      this.#syncing ??= setTimeout(() => this.#sync(), LOOK_EVERY_MS).unref();
    } catch (error) {
      this.#lost++;
      if (this.#complaints.take() === 0)
        this.#log.error({ file: this.#path, lost: this.#lost, reason: messageOf(error) }, 'audit records could not be written');
    }
  }

  /** All of it or nothing: a disk that is nearly full takes a part without a word, and the next record would be unreadable behind it. */
  #append(line: string): void {
    const bytes = Buffer.from(this.#torn ? `\n${line}` : line);
    const written = writeSync(this.#fd, bytes);
    if (written === bytes.length) {
      this.#torn = false;
      return;
    }
    try {
      ftruncateSync(this.#fd, Math.max(0, fstatSync(this.#fd).size - written));
    } catch {
      this.#torn = true;
    }
    throw new Error(`only ${written} of ${bytes.length} bytes could be written`);
  }

  close(): void {
    clearTimeout(this.#syncing);
    closeSync(this.#fd);
  }

  #sync(): void {
    this.#syncing = undefined;
    fdatasync(this.#fd, (error) => {
      if (error !== null && this.#complaints.take() === 0)
        this.#log.error({ file: this.#path, reason: messageOf(error) }, 'audit records could not be written');
    });
  }

  #reopenIfMoved(): void {
    const now = this.#clock();
    if (now - this.#lookedAt < LOOK_EVERY_MS) return;
    this.#lookedAt = now;
    const [open, there] = [fstatSync(this.#fd), statSync(this.#path, { throwIfNoEntry: false })];
    if (there?.ino === open.ino && there.dev === open.dev) return;
    const next = openPrivate(this.#path);
    closeSync(this.#fd);
    this.#fd = next;
    this.#torn = false;
  }
}

function openPrivate(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `--audit-log ${path}: ${messageOf(cause)}`, { cause });
  }
  const stat = fstatSync(fd);
  const { mode, uid } = stat;
  const isOurs = uid === 0 || uid === process.geteuid?.();
  if (stat.isFile() && isOurs && (mode & 0o077) === 0) return fd;
  closeSync(fd);
  if (!stat.isFile()) throw new HandfastError('CONFIG_INVALID', `--audit-log ${path} is no file`);
  if (!isOurs) throw new HandfastError('CONFIG_INVALID', `--audit-log ${path} belongs to uid ${uid}: chown root it`);
  throw new HandfastError(
    'CONFIG_INVALID',
    `--audit-log ${path} may be opened by others (mode ${(mode & 0o777).toString(8)}): chmod 600 it`,
  );
}
