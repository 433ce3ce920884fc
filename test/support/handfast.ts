// `handfast` as a process: started, its log read as it comes, ended by its pid.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs to its end. */
export async function handfast(...args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk) => out.push(chunk));
  child.stderr.on('data', (chunk) => err.push(chunk));
  const [code] = await once(child, 'close');
  return { code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
}

/** Runs until `stop`. */
export class Role implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly #records: Readonly<Record<string, unknown>>[] = [];
  readonly #waiting = new Set<() => void>();
  #errors = '';
  #output = '';

  constructor(...args: readonly string[]) {
    this.child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    if (this.child.stdout !== null) {
      createInterface(this.child.stdout).on('line', (line) => {
        this.#output += `${line}\n`;
        this.#records.push(JSON.parse(line));
        for (const wake of [...this.#waiting]) wake();
      });
    }
    this.child.stderr?.on('data', (chunk) => {
      this.#errors += String(chunk);
    });
  }

  /** The first log record with this message. Rejects after 20 s, or when the process ends without it. */
  said(message: string): Promise<Readonly<Record<string, unknown>>> {
    return new Promise((resolve, reject) => {
      const give = (error: Error) => {
        clearTimeout(timer);
        reject(error);
      };
      const timer = setTimeout(() => reject(new Error(`'${message}' was not logged within 20 s\n${this.#errors}`)), 20_000);
      this.child.once('close', () => give(new Error(`ended before it logged '${message}'\n${this.#errors}`)));
      const look = () => {
        const found = this.#records.find((record) => record.msg === message);
        if (found === undefined) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }

  /** All that it has logged. */
  get output(): string {
    return this.#output + this.#errors;
  }

  /** Sends SIGTERM and resolves with the exit code. */
  async stop(): Promise<number | null> {
    if (this.child.exitCode !== null) return this.child.exitCode;
    const exit = once(this.child, 'close');
    this.child.kill('SIGTERM');
    const [code] = await exit;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
