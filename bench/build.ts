// Handfast, compiled from the working tree: what `handfast` is in production. Once a bench, so that an edit under way changes nothing half way.

import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { checkout } from './testbed.ts';

export class Build implements Disposable {
  /** Inside the checkout, so that node_modules is found. */
  readonly #directory = join(checkout, 'dist', `bench-${process.pid}`);
  readonly #remove = () => rmSync(this.#directory, { recursive: true, force: true, maxRetries: 3 });
  readonly main = join(this.#directory, 'main.js');

  constructor() {
    process.prependOnceListener('exit', this.#remove);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.prependOnceListener(signal, this.#remove);
    try {
      execFileSync(join(checkout, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.build.json', '--outDir', this.#directory], {
        cwd: checkout,
        encoding: 'utf8',
      });
    } catch (error) {
      const said = error instanceof Error && 'stdout' in error ? String(error.stdout) : '';
      throw new Error(`the working tree does not compile:\n${said}`, { cause: error });
    }
  }

  /** Whether a role of it knows a flag. */
  knows(role: string, flag: string): boolean {
    return execFileSync(process.execPath, [this.main, role, '--help'], { encoding: 'utf8' }).includes(`--${flag} `);
  }

  [Symbol.dispose](): void {
    this.#remove();
    process.off('exit', this.#remove);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, this.#remove);
  }
}
