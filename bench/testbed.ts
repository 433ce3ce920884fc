// Where everything runs: pods (network namespaces), one core for the proxies and the others for the load, a scratch directory; removed at the end.

import { type ChildProcess, execFileSync } from 'node:child_process';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Pod, PodNetwork } from '../test/support/namespaces.ts';

export const checkout = fileURLToPath(new URL('..', import.meta.url));

/** The measured proxies' core, and everybody else's; the same one where there is but one. */
export interface Cores {
  readonly proxy: number;
  readonly load: readonly number[];
}

/** A process in a pod. `died` says why when it ended by itself. */
export interface Running {
  readonly pid: number;
  died(): string | undefined;
}

interface StartOptions {
  /** Names the log file. */
  readonly name: string;
  readonly on: 'proxy' | 'load';
  readonly uid?: number;
}

/** How a bench may end before its time. */
const endings = ['SIGINT', 'SIGTERM'] as const;

export class Testbed implements AsyncDisposable {
  readonly cores: Cores;
  /** Readable by all, for the sidecars have a uid of their own. */
  readonly directory: string;
  readonly #network: PodNetwork;
  /** Handfast, compiled: what `handfast` is in production. Inside the checkout, so that node_modules is found. */
  readonly #build = join(checkout, 'dist', `bench-${process.pid}`);
  readonly #removeSync = () => {
    for (const path of [this.directory, this.#build]) rmSync(path, { recursive: true, force: true, maxRetries: 3 });
  };

  private constructor(parts: { cores: Cores; directory: string; network: PodNetwork }) {
    this.cores = parts.cores;
    this.directory = parts.directory;
    this.#network = parts.network;
    // Before PodNetwork's own listeners, which end the namespaces and then us by the same signal.
    process.prependOnceListener('exit', this.#removeSync);
    for (const signal of endings) process.prependOnceListener(signal, this.#removeSync);
  }

  static async create(): Promise<Testbed> {
    const network = await PodNetwork.create('bench');
    const directory = mkdtempSync(join(tmpdir(), 'hf-bench-'));
    chmodSync(directory, 0o755);
    return new Testbed({ cores: readCores(), directory, network });
  }

  /** The path of Handfast's main.js, compiled from the working tree. */
  compile(): string {
    try {
      execFileSync(join(checkout, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.build.json', '--outDir', this.#build], {
        cwd: checkout,
        encoding: 'utf8',
      });
    } catch (error) {
      const said = error instanceof Error && 'stdout' in error ? String(error.stdout) : '';
      throw new Error(`the working tree does not compile:\n${said}`, { cause: error });
    }
    return join(this.#build, 'main.js');
  }

  async addPod(name: string): Promise<Pod> {
    const pod = await this.#network.addPod(name);
    // A connection a request leaves thousands in TIME_WAIT: nobody is to run out of ports.
    const sysctls = 'echo 16000 65535 >/proc/sys/net/ipv4/ip_local_port_range; echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse';
    await pod.exec(['sh', '-e', '-c', sysctls]);
    return pod;
  }

  /** Starts a long-running process; it ends with the testbed. */
  start(pod: Pod, command: readonly string[], { name, on, uid }: StartOptions): Running {
    const log = join(this.directory, `${name}.log`);
    const output = openSync(log, 'a', 0o644);
    const identity = uid === undefined ? {} : { uid, gid: uid };
    const child = pod.spawn(this.#pinned(command, on), { ...identity, stdio: ['ignore', output, output], cwd: checkout });
    closeSync(output);
    let died: string | undefined;
    const end = (how: string) => {
      died = `${name} ${how}: ${tail(log)}`;
    };
    child.once('error', (error) => end(`could not be started (${error.message})`));
    child.once('exit', (code, signal) => end(`ended with ${signal ?? code}`));
    return { pid: pidOf(child, name), died: () => died };
  }

  /** Runs a command on the load's cores to its end and returns its standard output. Throws when it fails or takes longer. */
  async run(pod: Pod, command: readonly string[], timeoutMs: number): Promise<string> {
    return (await pod.exec(this.#pinned(command, 'load'), { timeoutMs, cwd: checkout })).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#network.dispose();
    } finally {
      this.#removeSync();
      process.off('exit', this.#removeSync);
      for (const signal of endings) process.off(signal, this.#removeSync);
    }
  }

  #pinned(command: readonly string[], on: 'proxy' | 'load'): string[] {
    return ['taskset', '-c', on === 'proxy' ? String(this.cores.proxy) : this.cores.load.join(','), ...command];
  }
}

/** The command line of one of this folder's scripts. */
export function script(file: string, options: object): string[] {
  return [process.execPath, join(checkout, 'bench', file), JSON.stringify(options)];
}

/** Polls until `probe` gives something. Throws its last error, or at once when a process has died. */
export async function until<T>(probe: () => Promise<T>, options: { timeoutMs: number; running: readonly Running[] }): Promise<T> {
  const deadline = Date.now() + options.timeoutMs;
  for (;;) {
    try {
      return await probe();
    } catch (error) {
      const dead = options.running.map((process) => process.died()).find((reason) => reason !== undefined);
      if (dead !== undefined) throw new Error(dead, { cause: error });
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** The last core that we may use is the proxies'. */
function readCores(): Cores {
  const [, list = '0'] = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  const all = list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
  const proxy = all.at(-1) ?? 0;
  const load = all.filter((core) => core !== proxy);
  return { proxy, load: load.length === 0 ? [proxy] : load };
}

function pidOf(child: ChildProcess, name: string): number {
  if (child.pid === undefined) throw new Error(`${name} could not be started`);
  return child.pid;
}

function tail(log: string): string {
  try {
    return readFileSync(log, 'utf8').trim().split('\n').slice(-5).join('\n') || 'it said nothing';
  } catch {
    return `${log} cannot be read`;
  }
}
