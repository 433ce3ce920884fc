// The workload's token, read from a file that somebody else renews (a projected token changes about every 48 minutes).

import { readFile } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { Snapshot } from '../snapshot.ts';

const POLL_MS = 5_000;

/** `value.current` is the last token read. Streams that carry it are opened anew when it changes. */
export class TokenFile {
  readonly value = new Snapshot<string>();
  readonly #path: string;
  #timer: NodeJS.Timeout | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** Throws CONFIG_INVALID when the file cannot be read or holds no token. */
  async start(signal: AbortSignal): Promise<void> {
    this.value.replace(await this.#read());
    this.#timer = setInterval(() => void this.#refresh(), POLL_MS);
    this.#timer.unref();
    signal.addEventListener('abort', () => clearInterval(this.#timer), { once: true });
  }

  async #refresh(): Promise<void> {
    // A file that is gone or empty for a moment keeps the last token: it is being replaced.
    const token = await this.#read().catch(() => undefined);
    if (token !== undefined && token !== this.value.current) this.value.replace(token);
  }

  async #read(): Promise<string> {
    const text = await readFile(this.#path, 'utf8').catch((cause) => {
      throw new HandfastError('CONFIG_INVALID', `token file: ${messageOf(cause)}`, { cause });
    });
    const token = text.trim();
    if (!/^[\x21-\x7e]+$/.test(token)) throw new HandfastError('CONFIG_INVALID', `token file ${this.#path} holds no token`);
    return token;
  }
}
