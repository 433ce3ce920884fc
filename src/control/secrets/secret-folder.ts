// Secrets from a folder of one machine, which must be closed to everybody else: polled, since a secret is to be everywhere within a second.

import { constants } from 'node:fs';
import { lstat, open, readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { HandfastError, messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import type { WorkloadSecret } from '../../policy/workload-secret.ts';
import { Snapshot } from '../../snapshot.ts';
import { parseSecretFile } from './parse-secret-file.ts';
import { type SecretEntry, secretEntryName } from './secret-kinds.ts';
import { type SecretSource, type SecretWorld, secretWorld } from './secret-world.ts';
import { UnchangingVersions } from './unchanging-versions.ts';

const POLL_MS = 100;
/** Of one secret at its largest, in base64 and with some YAML around it. */
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_DEPTH = 5;

interface Found {
  readonly path: string;
  readonly state: string;
}

export class SecretFolder implements SecretSource {
  readonly world = new Snapshot<SecretWorld>();
  readonly isInTouch = true;
  readonly #options: { readonly dir: string; readonly trustDomain: string; readonly log: Log };
  readonly #versions = new UnchangingVersions();
  /** The state of the files that was last taken or refused for what stands in them; and the one at the poll before: only files that have stopped changing are read. */
  #judged = '';
  #seen = '';
  #refused = '';

  constructor(options: { dir: string; trustDomain: string; log: Log }) {
    this.#options = options;
  }

  /** Throws CONFIG_INVALID or OBJECT_INVALID when the folder cannot be used to begin with. */
  async start(signal: AbortSignal): Promise<void> {
    const files = await listFiles(this.#options.dir);
    this.#judged = this.#seen = signatureOf(files);
    this.#takeInForce(await this.#read(files));
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

  async #poll(): Promise<void> {
    const { dir, log } = this.#options;
    try {
      const files = await listFiles(dir);
      const signature = signatureOf(files);
      const settled = signature === this.#seen;
      this.#seen = signature;
      if (signature === this.#judged) this.#refused = '';
      if (!settled || signature === this.#judged) return;
      const world = await this.#readOrRefuse(files, signature);
      // Changed while it was read: the next polls look again.
      if (signatureOf(await listFiles(dir)) !== signature) return;
      this.#judged = signature;
      this.#takeInForce(world);
      this.#refused = '';
      log.info({ directory: dir, files: files.length }, 'secrets in force');
    } catch (error) {
      const message = messageOf(error);
      // Once for each state of the files, not at every poll.
      const refusal = `${this.#seen}\n${message}`;
      if (refusal === this.#refused) return;
      this.#refused = refusal;
      log.error({ directory: dir, problems: message.split('\n') }, 'secrets refused, the last good ones stay in force');
    }
  }

  /** What stands there is refused once; a file that could not be read is tried again. */
  async #readOrRefuse(files: readonly Found[], signature: string): Promise<SecretWorld> {
    try {
      return await this.#read(files);
    } catch (error) {
      if (error instanceof HandfastError && error.code === 'OBJECT_INVALID') this.#judged = signature;
      throw error;
    }
  }

  /** What a version holds is what it held when it came into force: not what was read and never used. */
  #takeInForce(world: SecretWorld): void {
    for (const secret of world.secrets.values()) this.#versions.learn(secret);
    this.world.replace(world);
  }

  /** Throws OBJECT_INVALID with one line for each problem. */
  async #read(files: readonly Found[]): Promise<SecretWorld> {
    const { dir, trustDomain } = this.#options;
    const problems: string[] = [];
    const entries: SecretEntry[] = [];
    for (const { path } of files)
      entries.push(...parseSecretFile({ name: relative(dir, path), text: await readPrivate(path) }, { trustDomain, problems }));
    const names = new Set<string>();
    for (const name of entries.map(secretEntryName)) {
      if (names.has(name)) problems.push(`${name} stands there twice`);
      names.add(name);
    }
    const secrets = entries.flatMap((entry) => (entry.kind === 'WorkloadSecret' ? [entry.object] : []));
    for (const secret of secrets) {
      const objection = this.#versions.objection(secret);
      if (objection !== undefined) problems.push(`WorkloadSecret ${secret.key}: ${objection}`);
    }
    if (problems.length > 0) throw new HandfastError('OBJECT_INVALID', problems.join('\n'));
    const before = this.world.current?.secrets;
    return secretWorld({
      secrets: secrets.map((secret) => kept(secret, before?.get(secret.key))),
      policies: entries.flatMap((entry) => (entry.kind === 'SecretPolicy' ? [entry.object] : [])),
    });
  }
}

/** The one before, where nothing of it has changed. */
function kept(secret: WorkloadSecret, before: WorkloadSecret | undefined): WorkloadSecret {
  const same =
    before !== undefined &&
    before.current === secret.current &&
    before.versions.size === secret.versions.size &&
    [...secret.versions.keys()].every((version) => before.versions.has(version));
  // By names alone: that the contents of a name have changed was objected to before.
  return same ? before : secret;
}

async function listFiles(root: string): Promise<Found[]> {
  const found: Found[] = [];
  const walk = async (dir: string, depth: number): Promise<void> => {
    await checkPrivate(dir, { wanted: 'directory' });
    for (const name of (await readdir(dir)).sort()) {
      // Editors' own files.
      if (name.startsWith('.')) continue;
      const path = join(dir, name);
      const info = await lstat(path);
      if (info.isDirectory() && depth === MAX_DEPTH) throw invalid(`${path}: more than ${MAX_DEPTH} folders deep`);
      if (info.isDirectory()) await walk(path, depth + 1);
      else if (/\.(ya?ml|json)$/.test(name)) {
        checkStat(path, info, { wanted: 'file' });
        if (info.size > MAX_FILE_BYTES) throw invalid(`${path}: larger than ${MAX_FILE_BYTES} bytes`);
        // The time of change, too: whoever writes may put the other back.
        found.push({ path, state: `${info.ino}:${info.size}:${info.mtimeMs}:${info.ctimeMs}:${info.mode}` });
      }
    }
  };
  try {
    await walk(root, 0);
  } catch (cause) {
    throw cause instanceof HandfastError ? cause : invalid(`cannot read ${root}: ${messageOf(cause)}`, cause);
  }
  return found;
}

/** Looked at once more behind the descriptor that is read: between a look and an open the path may have become another file. */
async function readPrivate(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    checkStat(path, await file.stat(), { wanted: 'file' });
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

async function checkPrivate(path: string, of: { wanted: 'file' | 'directory' }): Promise<void> {
  checkStat(path, await lstat(path), of);
}

interface Stat {
  readonly uid: number;
  readonly mode: number;
  isFile(): boolean;
  isDirectory(): boolean;
}

function checkStat(path: string, stat: Stat, { wanted }: { wanted: 'file' | 'directory' }): void {
  if (!(wanted === 'file' ? stat.isFile() : stat.isDirectory())) throw invalid(`${path} is no ${wanted} (links are not followed)`);
  if (stat.uid !== 0 && stat.uid !== process.geteuid?.()) throw invalid(`${path} belongs to uid ${stat.uid}: chown root ${path}`);
  if ((stat.mode & 0o077) !== 0) {
    const mode = (stat.mode & 0o777).toString(8);
    throw invalid(`${path} may be opened by others (mode ${mode}): chmod ${wanted === 'file' ? 600 : 700} ${path}`);
  }
}

function invalid(message: string, cause?: unknown): HandfastError {
  return new HandfastError('CONFIG_INVALID', message, { cause });
}

function signatureOf(files: readonly Found[]): string {
  return files.map(({ path, state }) => `${path}=${state}`).join('\n');
}
