// A file that is looked at again and again: renames, edits and projected volumes all look the same to a poll.

import { readFile, stat } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';

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
  async read(): Promise<string> {
    const state = await this.#state();
    const text = await readFile(this.path, 'utf8').catch((cause) => this.#unreadable(cause));
    this.#taken = this.#seen = state;
    return text;
  }

  /** The text, once after each change; undefined when there is none, or it is not over yet. Throws CONFIG_INVALID as long as it cannot be read. */
  async changed(): Promise<string | undefined> {
    const state = await this.#state();
    const settled = state === this.#seen;
    this.#seen = state;
    if (!settled || state === this.#taken) return undefined;
    const text = await readFile(this.path, 'utf8').catch((cause) => this.#unreadable(cause));
    // Changed while it was read: the next look will tell.
    if ((await this.#state()) !== state) return undefined;
    this.#taken = state;
    return text;
  }

  async #state(): Promise<string> {
    const { ino, size, mtimeNs } = await stat(this.path, { bigint: true }).catch((cause) => this.#unreadable(cause));
    if (size > this.#maxBytes) throw new HandfastError('CONFIG_INVALID', `${this.path}: larger than ${this.#maxBytes} bytes`);
    return `${ino}:${size}:${mtimeNs}`;
  }

  #unreadable(cause: unknown): never {
    throw new HandfastError('CONFIG_INVALID', messageOf(cause), { cause });
  }
}
