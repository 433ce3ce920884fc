// The mesh's roots from a file that somebody else keeps (a mounted ConfigMap): read again and again, so that pods are given those that hold now.

import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';

const EVERY_MS = 10_000;
/** An annotation of a pod holds 256 KiB in all. */
const MAX_BYTES = 32 * 1024;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/** Only the certificates of a PEM text. Throws a plain Error for one without any, and for what is none. */
export function readRoots(text: string): string {
  const blocks = text.match(CERTIFICATE) ?? [];
  if (blocks.length === 0) throw new Error('no certificate in it');
  for (const block of blocks) if (!new X509Certificate(block).ca) throw new Error('a certificate in it is no authority');
  const roots = `${blocks.join('\n')}\n`;
  if (roots.length > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes of roots`);
  return roots;
}

export class RootsFile {
  readonly #path: string;
  readonly #log: Log;
  #current: string | undefined;
  #said = '';

  constructor(options: { path: string; log: Log }) {
    this.#path = options.path;
    this.#log = options.log;
  }

  /** The last good ones; undefined before there were any. */
  get current(): string | undefined {
    return this.#current;
  }

  /** Follows the file until the signal aborts. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#read();
    const timer = setInterval(() => void this.#read(), EVERY_MS);
    timer.unref();
    signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  }

  async #read(): Promise<void> {
    try {
      this.#current = readRoots(await readFile(this.#path, 'utf8'));
      this.#said = '';
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#said)
        this.#log.warn({ file: this.#path, reason }, "the mesh's roots cannot be read, the last good ones are used");
      this.#said = reason;
    }
  }
}
