// A file that is looked at again and again: renames, edits and projected volumes all look the same to a poll. Links are followed (a projected
// volume is made of them), but what they lead to is opened once, without waiting, and read only if it is a regular file of a sane size.

import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';

/** A FIFO without a writer would hold up whoever opens it, and a terminal would become ours. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

export class PolledFile {
  readonly path: string;
  readonly #maxBytes: number;
  /** The state whose text was last handed out. */
  #taken = '';
  /** The state at the look before: only a file that has stopped changing is read. */
  #seen = '';

  constructor(path: string, options: { maxBytes: number }) {
    this.path = path;
    this.#maxBytes = options.maxBytes;
  }

  /** The text as it is now. Throws CONFIG_INVALID when it cannot be read. */
  read(): Promise<string> {
    return this.#opened(async (file) => {
      const state = await this.#state(file);
      const text = await this.#text(file);
      this.#taken = this.#seen = state;
      return text;
    });
  }

  /** The text, once after each change; undefined when there is none, or it is not over yet. Throws CONFIG_INVALID as long as it cannot be read. */
  changed(): Promise<string | undefined> {
    return this.#opened(async (file) => {
      const state = await this.#state(file);
      const settled = state === this.#seen;
      this.#seen = state;
      if (!settled || state === this.#taken) return undefined;
      const text = await this.#text(file);
      // Changed while it was read: the next look will tell.
      if ((await this.#state(file)) !== state) return undefined;
      this.#taken = state;
      return text;
    });
  }

  async #opened<T>(use: (file: FileHandle) => Promise<T>): Promise<T> {
    let file: FileHandle | undefined;
    try {
      file = await open(this.path, FLAGS);
      return await use(file);
    } catch (cause) {
      if (cause instanceof HandfastError) throw cause;
      throw new HandfastError('CONFIG_INVALID', messageOf(cause), { cause });
    } finally {
      await file?.close();
    }
  }

  async #state(file: FileHandle): Promise<string> {
    const found = await file.stat({ bigint: true });
    if (!found.isFile()) throw new HandfastError('CONFIG_INVALID', `${this.path} is no regular file`);
    if (found.size > this.#maxBytes) throw this.#tooLarge();
    return `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}`;
  }

  /** Not by the size that the file has told: it may grow, and some file systems do not know theirs. */
  async #text(file: FileHandle): Promise<string> {
    const buffer = Buffer.alloc(this.#maxBytes + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, length);
      if (bytesRead === 0) return buffer.toString('utf8', 0, length);
      length += bytesRead;
    }
    throw this.#tooLarge();
  }

  #tooLarge(): HandfastError {
    return new HandfastError('CONFIG_INVALID', `${this.path}: larger than ${this.#maxBytes} bytes`);
  }
}
