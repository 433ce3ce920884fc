// Which local process may be which workload, as the registrations file and the token files say now. What is wrong in them is logged, and the
// last good state stays.

import { messageOf } from '../errors.ts';
import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import { PolledFile } from './polled-file.ts';
import { parseRegistrations, type RegistrationSpec } from './registration-file.ts';
import { matches } from './selectors.ts';

/** `token.current` is undefined as long as its file has held none; the last one stays when the file goes away. */
export interface Registration extends RegistrationSpec {
  readonly token: Snapshot<string>;
}

type Polled = Pick<PolledFile, 'path' | 'read' | 'changed'>;

interface Entry {
  readonly registration: Registration;
  readonly file: Polled;
  /** What was last said of its token file. */
  complaint: string;
  /** A look at it is under way. */
  looking: boolean;
}

const POLL_MS = 300;
/** So long a file may hold up the others (some file systems hang); its look goes on, and it is left alone until that has ended. */
const PATIENCE_MS = 100;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_TOKEN_BYTES = 64 * 1024;

export class WorkloadRegistrations {
  /** Replaced when the file has changed; a registration that stayed the same stays the same object. */
  readonly registrations = new Snapshot<readonly Registration[]>();
  readonly #file: Polled;
  readonly #fileAt: (path: string, options: { maxBytes: number }) => Polled;
  readonly #log: Log;
  #entries = new Map<string, Entry>();
  #complaint = '';

  constructor(options: { file: string; log: Log; fileAt?: (path: string, options: { maxBytes: number }) => Polled }) {
    this.#fileAt = options.fileAt ?? ((path, bounds) => new PolledFile(path, bounds));
    this.#file = this.#fileAt(options.file, { maxBytes: MAX_FILE_BYTES });
    this.#log = options.log;
  }

  /** Throws CONFIG_INVALID when the file cannot be used, and then watches it until the signal aborts. A token may still be missing. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#take(await this.#file.read());
    const [pollFile, pollTokens] = [oneAtATime(() => this.#poll()), oneAtATime(() => this.#pollTokens(this.#entries.values()))];
    const timer = setInterval(() => {
      pollFile();
      pollTokens();
    }, POLL_MS);
    timer.unref();
    signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  }

  /** In the order of the file. */
  match(peer: PeerCredentials): Registration[] {
    return (this.registrations.current ?? []).filter(({ selectors }) => matches(selectors, peer));
  }

  async #poll(): Promise<void> {
    try {
      const text = await this.#file.changed();
      if (text !== undefined) {
        await this.#take(text);
        this.#log.info({ file: this.#file.path, workloads: this.#entries.size }, 'workload registrations in force');
      }
      this.#complaint = '';
    } catch (error) {
      const message = messageOf(error);
      if (message !== this.#complaint) {
        this.#log.error(
          { file: this.#file.path, problems: message.split('\n') },
          'workload registrations refused, the last good ones stay in force',
        );
      }
      this.#complaint = message;
    }
  }

  async #take(text: string): Promise<void> {
    const entries = new Map<string, Entry>();
    for (const spec of parseRegistrations(text, this.#file.path)) {
      const key = JSON.stringify([spec.spiffeId.uri, spec.tokenFile, spec.selectors]);
      entries.set(key, this.#entries.get(key) ?? this.#newEntry(spec));
    }
    await this.#pollTokens([...entries].filter(([key]) => !this.#entries.has(key)).map(([, entry]) => entry));
    this.#entries = entries;
    this.registrations.replace(Object.freeze([...entries.values()].map(({ registration }) => registration)));
  }

  async #pollTokens(entries: Iterable<Entry>): Promise<void> {
    for (const entry of entries) {
      if (entry.looking) continue;
      entry.looking = true;
      const look = this.#look(entry).finally(() => {
        entry.looking = false;
      });
      await atMost(PATIENCE_MS, look);
    }
  }

  async #look(entry: Entry): Promise<void> {
    const { registration, file } = entry;
    try {
      const text = await (registration.token.current === undefined ? file.read() : file.changed());
      if (text !== undefined) takeToken(registration, text.trim());
      entry.complaint = '';
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== entry.complaint) {
        const state = registration.token.current === undefined ? 'nothing is served for the workload' : 'the last token stays in use';
        this.#log.error({ spiffeId: registration.spiffeId.uri, tokenFile: file.path, reason }, `token not readable, ${state}`);
      }
      entry.complaint = reason;
    }
  }

  #newEntry(spec: RegistrationSpec): Entry {
    const registration = Object.freeze({ ...spec, token: new Snapshot<string>() });
    return { registration, file: this.#fileAt(spec.tokenFile, { maxBytes: MAX_TOKEN_BYTES }), complaint: '', looking: false };
  }
}

function takeToken({ token }: Registration, text: string): void {
  if (!/^[\x21-\x7e]+$/.test(text)) throw new Error('it holds no token');
  if (text !== token.current) token.replace(text);
}

/** Begins the work unless it is under way. */
function oneAtATime(work: () => Promise<void>): () => void {
  let busy = false;
  return () => {
    if (busy) return;
    busy = true;
    void work().finally(() => {
      busy = false;
    });
  };
}

async function atMost(ms: number, work: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([work, promise]);
  clearTimeout(timer);
}
