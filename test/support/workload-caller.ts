// A workload in a process of its own that calls the Workload API: what its socket says of it is the kernel's word, not the test's.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { uncovered } from './uncovered.ts';

/**
 * Opens FetchX509Bundles at argv[1] and says `data <bytes>` for each message and `status <code> <details>` at the end. With argv[2] it hands its connection
 * on after the first message, to a `sleep` that keeps it open, and ends.
 */
const SCRIPT = `
const connection = require('node:net').connect(process.argv[1]);
const session = require('node:http2').connect('http://localhost', { createConnection: () => connection });
session.on('error', (error) => { console.log('error ' + error.message); });
const stream = session.request({ ':method': 'POST', ':path': '/SpiffeWorkloadAPI/FetchX509Bundles', 'content-type': 'application/grpc', te: 'trailers', 'workload.spiffe.io': 'true' });
const ended = (headers) => { if (headers['grpc-status'] !== undefined) { console.log('status ' + headers['grpc-status'] + ' ' + (headers['grpc-message'] ?? '')); session.close(); } };
stream.on('response', ended).on('trailers', ended).on('error', () => undefined);
stream.on('data', (chunk) => {
  console.log('data ' + chunk.length);
  if (process.argv[2] === undefined) return;
  const holder = require('node:child_process').spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', connection], detached: true });
  require('node:fs').writeSync(1, 'holder ' + holder.pid + '\\n');
  process.exit();
});
stream.end(Buffer.alloc(5));`;

export const workloadCallerCommand = (path: string, ...more: string[]): readonly string[] => [
  process.execPath,
  '-e',
  SCRIPT,
  path,
  ...more,
];

export class WorkloadCaller implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #exited: Promise<unknown>;

  constructor(child: ChildProcess) {
    if (child.stdout === null) throw new Error('its output must be a pipe');
    this.child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    this.#exited = new Promise((resolve) => child.once('exit', resolve));
  }

  static spawn(path: string, options: { uid?: number; handOn?: boolean } = {}): WorkloadCaller {
    const drop = options.uid === undefined ? [] : ['setpriv', '--reuid', `${options.uid}`, '--clear-groups', '--'];
    const [file = '', ...args] = [...drop, ...workloadCallerCommand(path, ...(options.handOn === true ? ['hand-on'] : []))];
    return new WorkloadCaller(spawn(file, args, { env: uncovered(), stdio: ['ignore', 'pipe', 'inherit'] }));
  }

  /** What it says next. */
  async line(): Promise<string> {
    return (await this.#lines.next()).value ?? 'nothing more';
  }

  async exited(): Promise<void> {
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#exited;
  }
}
