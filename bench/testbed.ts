// Where everything runs: pods (network namespaces), one core for the proxies and the others for the load, a scratch directory; removed at the end.

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Pod, PodNetwork } from '../test/support/namespaces.ts';
import { tree } from './cpu.ts';
import { raisingFileLimit } from './file-limit.ts';

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
  /** Ends it and what it started, and resolves when it is gone. */
  stop(): Promise<void>;
}

/** What a process may run on: the proxies' core, the others, or (workers) all of them. */
export type Where = 'proxy' | 'load' | 'all';

export interface Conversation {
  readonly first: string;
  readonly second: Promise<string>;
  stop(): Promise<void>;
}

interface StartOptions {
  /** Names the log file. */
  readonly name: string;
  readonly on: Where;
  readonly uid?: number;
  readonly env?: Readonly<Record<string, string>>;
}

/** How a bench may end before its time. */
const endings = ['SIGINT', 'SIGTERM'] as const;

export class Testbed implements AsyncDisposable {
  readonly cores: Cores;
  /** Readable by all, for the sidecars have a uid of their own. */
  readonly directory: string;
  readonly #network: PodNetwork;
  readonly #removeSync = () => rmSync(this.directory, { recursive: true, force: true, maxRetries: 3 });

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

  async addPod(name: string): Promise<Pod> {
    const pod = await this.#network.addPod(name);
    // A connection a request leaves thousands in TIME_WAIT: nobody is to run out of ports.
    const sysctls = 'echo 16000 65535 >/proc/sys/net/ipv4/ip_local_port_range; echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse';
    await pod.exec(['sh', '-e', '-c', sysctls]);
    return pod;
  }

  /** Starts a long-running process; it ends with the testbed. */
  start(pod: Pod, command: readonly string[], { name, on, uid, env = {} }: StartOptions): Running {
    const log = join(this.directory, `${name}.log`);
    const output = openSync(log, 'a', 0o644);
    const identity = uid === undefined ? {} : { uid, gid: uid };
    const child = pod.spawn(this.#pinned(command, on), { ...identity, env, stdio: ['ignore', output, output], cwd: checkout });
    closeSync(output);
    if (child.pid === undefined) throw new Error(`${name} could not be started`);
    let died: string | undefined;
    const end = (how: string) => {
      died = `${name} ${how}: ${tail(log)}`;
    };
    child.once('error', (error) => end(`could not be started (${error.message})`));
    child.once('exit', (code, signal) => end(`ended with ${signal ?? code}`));
    return { pid: child.pid, died: () => died, stop: () => stop(child) };
  }

  /** Starts a command on the load's cores that answers with lines. Resolves with the first one, `second` with the next; rejects when `late` does. */
  async converse(pod: Pod, command: readonly string[], late?: Promise<never>): Promise<Conversation> {
    const child = pod.spawn(this.#pinned(command, 'load'), { stdio: ['ignore', 'pipe', 'inherit'], cwd: checkout });
    if (child.stdout === null) throw new Error('no stdout');
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const next = async () => {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`${command.at(1)} ended without an answer`);
      return String(value);
    };
    let first: string;
    try {
      first = await (late === undefined ? next() : Promise.race([next(), late]));
    } catch (error) {
      await stop(child);
      throw error;
    }
    const second = next();
    second.catch(() => undefined);
    return { first, second, stop: () => stop(child) };
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

  #pinned(command: readonly string[], on: Where): string[] {
    const { proxy, load } = this.cores;
    const list = { proxy: [proxy], load, all: [...new Set([...load, proxy])] }[on];
    return ['taskset', '-c', list.join(','), ...raisingFileLimit, ...command];
  }
}

/** SIGTERM lets a master end its workers; what is left after a second is killed. */
async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const pids = tree([child.pid]);
  const gone = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 1_000);
  await gone;
  clearTimeout(timer);
  for (const pid of pids.slice(1)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended with its master.
    }
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

function tail(log: string): string {
  try {
    return readFileSync(log, 'utf8').trim().split('\n').slice(-5).join('\n') || 'it said nothing';
  } catch {
    return `${log} cannot be read`;
  }
}
