// Objects from a directory of YAML, polled: edits, renames, ConfigMap swaps and network file systems all look the same to a poll.

import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { HandfastError, messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import { Snapshot } from '../../snapshot.ts';
import type { MeshObjects, ObjectSource } from './mesh-objects.ts';
import { type ObjectFile, ObjectParser } from './parse-objects.ts';

const POLL_MS = 300;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_DEPTH = 5;

export class DirectorySource implements ObjectSource {
  readonly objects = new Snapshot<MeshObjects>();
  readonly #dir: string;
  readonly #log: Log;
  readonly #parser = new ObjectParser();
  /** The state of the files that was last taken or refused. */
  #judged = '';
  /** The state seen at the poll before: only files that have stopped changing are read. */
  #seen = '';
  #refused = '';

  constructor(options: { dir: string; log: Log }) {
    this.#dir = options.dir;
    this.#log = options.log;
  }

  /** Loads the directory, throwing OBJECT_INVALID or CONFIG_INVALID when it cannot be used, and then watches it until the signal aborts. */
  async start(signal: AbortSignal): Promise<void> {
    const files = await listFiles(this.#dir);
    this.#judged = this.#seen = signatureOf(files);
    this.objects.replace(this.#parser.parse(await readFiles(this.#dir, files)));
    let busy = false;
    const timer = setInterval(() => {
      if (busy) return;
      busy = true;
      void this.#poll().finally(() => {
        busy = false;
      });
    }, POLL_MS);
    timer.unref();
    signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  }

  /** A directory is refused as a whole. */
  get refused(): number {
    return this.#refused === '' ? 0 : 1;
  }

  async #poll(): Promise<void> {
    try {
      const files = await listFiles(this.#dir);
      const signature = signatureOf(files);
      const settled = signature === this.#seen;
      this.#seen = signature;
      if (signature === this.#judged) this.#refused = '';
      if (!settled || signature === this.#judged) return;
      const read = await readFiles(this.#dir, files);
      // Changed while it was read: the next poll looks again.
      if (signatureOf(await listFiles(this.#dir)) !== signature) return;
      this.#judged = signature;
      this.objects.replace(this.#parser.parse(read));
      this.#refused = '';
      this.#log.info({ directory: this.#dir, files: files.length }, 'configuration in force');
    } catch (error) {
      const message = messageOf(error);
      // Once for each state of the files, not at every poll.
      const refusal = `${this.#judged}\n${message}`;
      if (refusal === this.#refused) return;
      this.#refused = refusal;
      this.#log.error({ directory: this.#dir, problems: message.split('\n') }, 'configuration refused, the last good one stays in force');
    }
  }
}

interface FileState {
  readonly path: string;
  readonly state: string;
}

async function listFiles(root: string): Promise<FileState[]> {
  const found: FileState[] = [];
  const walk = async (dir: string, depth: number): Promise<void> => {
    for (const name of (await readdir(dir)).sort()) {
      // Editors' and ConfigMaps' own files.
      if (name.startsWith('.')) continue;
      const path = join(dir, name);
      const info = await stat(path);
      if (info.isDirectory() && depth === MAX_DEPTH)
        throw new HandfastError('CONFIG_INVALID', `${path}: more than ${MAX_DEPTH} folders deep`);
      if (info.isDirectory()) await walk(path, depth + 1);
      else if (info.isFile() && /\.(ya?ml|json)$/.test(name)) {
        if (info.size > MAX_FILE_BYTES) throw new HandfastError('CONFIG_INVALID', `${path}: larger than ${MAX_FILE_BYTES} bytes`);
        found.push({ path, state: `${info.ino}:${info.size}:${info.mtimeMs}` });
      }
    }
  };
  await walk(root, 0).catch((cause) => {
    throw cause instanceof HandfastError
      ? cause
      : new HandfastError('CONFIG_INVALID', `cannot read ${root}: ${messageOf(cause)}`, { cause });
  });
  // A failed mount looks like this, and taking it at its word would empty the mesh.
  if (found.length === 0)
    throw new HandfastError('CONFIG_INVALID', `${root}: no .yaml, .yml or .json file in it; an empty mesh is a MeshConfig alone`);
  return found;
}

function readFiles(root: string, files: readonly FileState[]): Promise<ObjectFile[]> {
  return Promise.all(files.map(async ({ path }) => ({ name: relative(root, path), text: await readFile(path, 'utf8') })));
}

function signatureOf(files: readonly FileState[]): string {
  return files.map(({ path, state }) => `${path}=${state}`).join('\n');
}
