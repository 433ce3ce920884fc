// Every certificate the CA has issued. An entry is on disk before its certificate leaves, and many that come at once share one fsync.

import { join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { formatEntry, type LedgerEntry, parseEntry } from './ledger-entry.ts';
import { LedgerFile } from './ledger-file.ts';
import { LedgerIndex } from './ledger-index.ts';

const DAY = 86_400_000;
/** How long an expired certificate can still be looked up in the file. */
const KEEP_MS = DAY;
const MIN_LINES_TO_COMPACT = 20_000;
const MAX_LIVE = 500_000;

interface LedgerOptions {
  readonly dir: string;
  /** Make the file when it is not there: for a CA that has issued nothing under a ledger yet. */
  readonly create: boolean;
  readonly now: () => number;
  readonly log?: Log;
  readonly maxLive?: number;
  readonly minLinesToCompact?: number;
}

interface Waiting {
  readonly entry: LedgerEntry;
  resolve(): void;
  reject(error: unknown): void;
}

export class IssuanceLedger {
  readonly #options: LedgerOptions;
  readonly #file: LedgerFile;
  readonly #index: LedgerIndex;
  #queue: Waiting[] = [];
  #committing: Promise<void> | undefined;
  #compactAt: number;

  private constructor(options: LedgerOptions, parts: { file: LedgerFile; index: LedgerIndex }) {
    this.#options = options;
    this.#file = parts.file;
    this.#index = parts.index;
    this.#compactAt = this.#nextCompaction();
  }

  /** The caller holds the directory's lock. Throws STATE_INVALID, naming file and line, for damage that no torn write explains. */
  static async open(options: LedgerOptions): Promise<IssuanceLedger> {
    const file = await LedgerFile.open(join(options.dir, 'ledger.jsonl'), { create: options.create });
    try {
      const now = options.now();
      const index = new LedgerIndex();
      const serials = new Set<string>();
      let old = 0;
      const torn = await file.recover((entry) => {
        if (serials.size === serials.add(entry.serial).size) throw new Error(`serial ${entry.serial} was issued before`);
        if (entry.notAfter > now) index.add(entry);
        else if (entry.notAfter + KEEP_MS <= now) old++;
      });
      if (torn > 0) options.log?.warn({ path: file.path, bytes: torn }, 'ledger: a last line that was never finished is cut off');
      if (old > 0) await file.compact((entry) => entry.notAfter + KEEP_MS > now);
      return new IssuanceLedger(options, { file, index });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Enters what is about to be issued: found by every look-up at once, resolved once it is on disk. Until then the certificate must not leave. */
  async append(entry: LedgerEntry): Promise<void> {
    refuseUnreadable(entry);
    this.#index.forgetExpired(this.#options.now());
    if (this.#index.has(entry.serial)) throw new HandfastError('STATE_INVALID', `serial ${entry.serial} was issued before`);
    const max = this.#options.maxLive ?? MAX_LIVE;
    if (this.#index.size >= max) throw new HandfastError('RATE_LIMITED', `${max} certificates are alive, as many as this CA may have`);
    this.#index.add(entry);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#queue.push({ entry, resolve, reject });
        this.#committing ??= this.#commit().finally(() => {
          this.#committing = undefined;
        });
      });
    } catch (error) {
      this.#index.delete(entry);
      throw error;
    }
  }

  get size(): number {
    return this.#alive().size;
  }

  bySerial(serial: string): LedgerEntry | undefined {
    const entry = this.#alive().bySerial(serial);
    return entry !== undefined && this.#lives(entry) ? entry : undefined;
  }

  bySpiffeId(spiffeId: string): readonly LedgerEntry[] {
    return [...this.#alive().bySpiffeId(spiffeId)].filter((entry) => this.#lives(entry));
  }

  byKeyId(keyId: string): readonly LedgerEntry[] {
    return [...this.#alive().byKeyId(keyId)].filter((entry) => this.#lives(entry));
  }

  byNode(node: string): readonly LedgerEntry[] {
    return [...this.#alive().byNode(node)].filter((entry) => this.#lives(entry));
  }

  /** Everything that has not expired. */
  live(): readonly LedgerEntry[] {
    return [...this.#alive().all()].filter((entry) => this.#lives(entry));
  }

  /** Waits for what is being written, then lets go of the file. */
  async close(): Promise<void> {
    await this.#committing;
    await this.#file.close();
  }

  #alive(): LedgerIndex {
    this.#index.forgetExpired(this.#options.now());
    return this.#index;
  }

  #lives(entry: LedgerEntry): boolean {
    return entry.notAfter > this.#options.now();
  }

  /** Group commit: while one batch is being synced, the next one gathers. */
  async #commit(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      try {
        await this.#file.append(batch.map(({ entry }) => entry));
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
      if (this.#file.lines >= this.#compactAt) await this.#compact();
    }
  }

  async #compact(): Promise<void> {
    const now = this.#options.now();
    try {
      await this.#file.compact((entry) => entry.notAfter + KEEP_MS > now);
    } catch (error) {
      this.#options.log?.error({ path: this.#file.path, reason: messageOf(error) }, 'ledger not compacted');
    }
    this.#compactAt = this.#nextCompaction();
  }

  #nextCompaction(): number {
    return Math.max(this.#options.minLinesToCompact ?? MIN_LINES_TO_COMPACT, 2 * this.#file.lines);
  }
}

/** What could not be read back would be damage at the next start. */
function refuseUnreadable(entry: LedgerEntry): void {
  try {
    parseEntry(formatEntry(entry).trimEnd());
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `this cannot be entered in the ledger: ${messageOf(cause)}`, { cause });
  }
}
