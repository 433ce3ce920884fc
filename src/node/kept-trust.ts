// What a node elsewhere trusted last, kept beside its key: after a change of root the file it began with would not know the CA any more, and
// a process that starts while the CA is away must not forget who is revoked.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { readPrivate, replacePrivate } from '../store/state-file.ts';
import type { NodeTrust } from './node-trust.ts';

/** PEM texts; undefined for what was never kept. */
export interface KeptTrust {
  readonly bundlePem: string | undefined;
  readonly crlPem: string | undefined;
}

/** What was kept after `beginning`, the file to begin with, was written: an operator who gives a newer one means it. */
export async function readKeptTrust(stateDir: string, beginning: string): Promise<KeptTrust> {
  const path = join(stateDir, 'bundle.pem');
  const later = (await writtenAt(path)) >= (await writtenAt(beginning));
  return {
    bundlePem: later ? await readPrivate(path) : undefined,
    crlPem: await readPrivate(join(stateDir, 'revocations.pem')),
  };
}

/** 0 for a file that is not there. */
async function writtenAt(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.mtimeMs ?? 0;
}

/** Writes what changed, one after the other. */
export class TrustKeeper {
  readonly #stateDir: string;
  readonly #log: Log;
  #kept: KeptTrust;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: { stateDir: string; kept: KeptTrust; log: Log }) {
    this.#stateDir = options.stateDir;
    this.#kept = options.kept;
    this.#log = options.log;
  }

  keep({ bundles, crlPem }: NodeTrust): void {
    this.#writing = this.#writing.then(async () => {
      try {
        if (bundles.own.pem !== this.#kept.bundlePem) await replacePrivate(join(this.#stateDir, 'bundle.pem'), bundles.own.pem);
        if (crlPem !== undefined && crlPem !== this.#kept.crlPem) await replacePrivate(join(this.#stateDir, 'revocations.pem'), crlPem);
        this.#kept = { bundlePem: bundles.own.pem, crlPem: crlPem ?? this.#kept.crlPem };
      } catch (error) {
        this.#log.error({ stateDir: this.#stateDir, reason: messageOf(error) }, 'trust bundle or revocation list not kept on disk');
      }
    });
  }

  /** Resolves when everything is written. */
  get settled(): Promise<void> {
    return this.#writing;
  }
}
