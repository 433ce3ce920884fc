// Another process that connects to a unix socket: the callers of the agent, as the kernel sees them.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { uncovered } from './uncovered.ts';

/** Connects to argv[1], says so, and lives until it is killed. */
const CONNECT = `require('node:net').connect(process.argv[1], () => process.stdout.write('connected')).on('error', (e) => { console.error(e.message); process.exit(2); })`;

/** Hands its connection on to a `sleep` of its own, says that one's pid, and ends: the connection outlives its maker. */
const HAND_ON = `const socket = require('node:net').connect(process.argv[1], () => {
  const holder = require('node:child_process').spawn('sleep', ['60'], { stdio: ['ignore', 'ignore', 'ignore', socket], detached: true });
  require('node:fs').writeSync(1, String(holder.pid));
  process.exit();
})`;

export class UnixPeer implements AsyncDisposable {
  readonly child: ChildProcess;

  constructor(path: string, options: { uid?: number; wrap?: readonly string[] } = {}) {
    const drop =
      options.uid === undefined ? [] : ['setpriv', '--reuid', `${options.uid}`, '--regid', `${options.uid}`, '--clear-groups', '--'];
    const [file = '', ...args] = [...(options.wrap ?? []), ...drop, process.execPath, '-e', CONNECT, path];
    this.child = spawn(file, args, { env: uncovered(), stdio: ['ignore', 'pipe', 'inherit'] });
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const closed = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

/** Connects, hands the connection on, and is gone when this resolves. `release` ends the process that keeps it open. */
export async function connectAndHandOn(path: string): Promise<{ gone: number; release(): void }> {
  const child = spawn(process.execPath, ['-e', HAND_ON, path], { env: uncovered(), stdio: ['ignore', 'pipe', 'inherit'] });
  const said: Buffer[] = [];
  child.stdout.on('data', (chunk) => said.push(chunk));
  await once(child, 'close');
  const holder = Number(Buffer.concat(said).toString());
  return { gone: child.pid ?? -1, release: () => process.kill(holder, 'SIGKILL') };
}
