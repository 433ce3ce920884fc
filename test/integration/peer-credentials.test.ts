// Who is at the other end of a unix socket, asked of the kernel about real processes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cgroupOf, type PeerCredentials, peerCredentials } from '../../src/net/peer-credentials.ts';
import { linuxPeerKernel, type PeerKernel } from '../../src/net/peer-kernel.ts';
import { uncovered } from '../support/uncovered.ts';
import { connectAndHandOn, UnixPeer } from '../support/unix-peer.ts';

const asRoot = process.getuid?.() === 0 ? false : 'needs root';
const kernel = linuxPeerKernel();
/** Linux before 6.5. */
const oldKernel: PeerKernel = { ...kernel, peerPidfd: () => 'unsupported' };

let dir: string;
let server: Server;
const path = () => join(dir, 's');

before(async () => {
  dir = await mkdtemp('/tmp/hf-peer-');
  // A connection whose other end is gone stays open until the test closes it.
  server = createServer({ allowHalfOpen: true }).listen(path());
  await once(server, 'listening');
  // So that other users reach it.
  await Promise.all([dir, path()].map((each) => chmod(each, 0o777)));
});

after(async () => {
  server.close();
  await rm(dir, { recursive: true });
});

async function accepted(): Promise<Socket> {
  const [socket] = (await once(server, 'connection')) as [Socket];
  socket.on('error', () => undefined);
  socket.resume();
  return socket;
}

async function close(socket: Socket): Promise<void> {
  if (socket.closed) return;
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;
}

/** The pidfds that are open here. Other descriptors come and go with the children's pipes. */
async function pidfds(): Promise<number> {
  const links = await Promise.all((await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')));
  return links.filter((link) => link.includes('pidfd')).length;
}

describe('the process that connected', () => {
  for (const [name, look] of [
    ['by-its-pidfd', kernel],
    ['by-its-pid-before-linux-6.5', oldKernel],
  ] as const) {
    it(`is-known: ${name}`, async () => {
      const connection = accepted();
      await using peer = new UnixPeer(path());
      const socket = await connection;
      const seen = peerCredentials(socket, look);
      assert.deepEqual([seen.pid, seen.uid, seen.gid], [peer.pid, process.getuid?.(), process.getgid?.()]);
      assert.equal(seen.networkNamespace, (await stat('/proc/self/ns/net')).ino);
      assert.equal(seen.cgroup, cgroupOf(await readFile(`/proc/${peer.pid}/cgroup`, 'utf8')));
      assert.equal(seen.alive(), true);
      await close(socket);
    });
  }

  it('its-user-is-the-one-it-runs-as', { skip: asRoot }, async () => {
    const connection = accepted();
    await using peer = new UnixPeer(path(), { uid: 12_345 });
    const socket = await connection;
    const seen = peerCredentials(socket);
    assert.deepEqual([seen.pid, seen.uid, seen.gid], [peer.pid, 12_345, 12_345]);
    await close(socket);
  });

  it('is-not-alive-once-it-has-ended-and-before-its-parent-waited-for-it', async () => {
    const connection = accepted();
    // The shell execs nothing and waits for nobody: its child stays a zombie until the shell goes.
    const parent = spawn('sh', ['-c', '"$0" -e "$1" "$2" & echo $!; read -r _', process.execPath, ZOMBIE, path()], {
      env: uncovered(),
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      const socket = await connection;
      const seen = peerCredentials(socket);
      assert.equal(seen.alive(), true);
      socket.write('end');
      await ended(seen);
      assert.equal(socket.closed, false, 'it is not the connection that tells');
      assert.match(await readFile(`/proc/${seen.pid}/stat`, 'utf8'), /\) Z /, 'it still has its pid');
      await close(socket);
    } finally {
      parent.kill('SIGKILL');
      await once(parent, 'exit');
    }
  });

  it('is-not-alive-for-a-connection-that-is-closed', async () => {
    const connection = accepted();
    await using _peer = new UnixPeer(path());
    const socket = await connection;
    const seen = peerCredentials(socket);
    await close(socket);
    assert.equal(seen.alive(), false, 'its pidfd is closed, and the number may be another file by now');
  });
});

const ZOMBIE = `const s = require('node:net').connect(process.argv[1]).on('data', () => { s.end(); process.exit(); })`;

async function ended(peer: PeerCredentials): Promise<void> {
  while (peer.alive()) await new Promise((resolve) => setImmediate(resolve));
}

describe('a pid that was given away', () => {
  for (const [name, look] of [
    ['by-its-pidfd', kernel],
    ['by-its-pid-before-linux-6.5', oldKernel],
  ] as const) {
    it(`the-process-has-ended-and-the-connection-lives-on-in-another: refused ${name}`, async () => {
      const connection = accepted();
      const handed = await connectAndHandOn(path());
      const socket = await connection;
      assert.equal(kernel.credentials(fdOf(socket)).pid, handed.gone, 'the kernel still says the old number');
      const before = await pidfds();
      assert.throws(() => peerCredentials(socket, look), { code: 'WORKLOAD_UNKNOWN' });
      assert.equal(await pidfds(), before);
      handed.release();
      await close(socket);
    });
  }

  it('another-process-has-the-pid-now: refused', { skip: asRoot }, async () => {
    // Some other process of the machine may be faster to take a pid: then the next one is tried.
    for (let attempt = 1; ; attempt++) {
      const connection = accepted();
      const handed = await connectAndHandOn(path());
      const socket = await connection;
      const usurper = await spawnWithPid(handed.gone);
      if (usurper !== undefined) {
        assert.equal(kernel.credentials(fdOf(socket)).pid, usurper.pid);
        assert.throws(() => peerCredentials(socket), { code: 'WORKLOAD_UNKNOWN' });
        // An older kernel cannot tell the two processes apart, but it can tell their users.
        assert.throws(() => peerCredentials(socket, oldKernel), { code: 'WORKLOAD_UNKNOWN', message: /is not the one that connected/ });
        const exited = once(usurper, 'exit');
        usurper.kill('SIGKILL');
        await exited;
      }
      handed.release();
      await close(socket);
      if (usurper !== undefined) return;
      assert.ok(attempt < 20, 'no pid was to be had in 20 attempts');
    }
  });

  it('it-ends-while-it-is-looked-at: refused', async () => {
    const connection = accepted();
    await using _peer = new UnixPeer(path());
    const socket = await connection;
    const before = await pidfds();
    assert.throws(() => peerCredentials(socket, { ...kernel, hasExited: () => true }), { code: 'WORKLOAD_UNKNOWN' });
    assert.equal(await pidfds(), before);
    assert.equal(peerCredentials(socket).alive(), true, 'and one that does not is known');
    await close(socket);
  });

  it('a-process-outside-our-pid-namespace: refused', async () => {
    const connection = accepted();
    await using _peer = new UnixPeer(path());
    const socket = await connection;
    const blind: PeerKernel = { ...kernel, credentials: () => ({ pid: 0, uid: 0, gid: 0 }) };
    assert.throws(() => peerCredentials(socket, blind), { code: 'WORKLOAD_UNKNOWN', message: /pid namespace/ });
    await close(socket);
  });
});

describe('descriptors', () => {
  it('none-is-left-when-connections-end', async () => {
    const before = await pidfds();
    for (let i = 0; i < 5; i++) {
      const connection = accepted();
      await using _other = new UnixPeer(path());
      const socket = await connection;
      const open = await pidfds();
      peerCredentials(socket);
      assert.equal(await pidfds(), open + 1);
      await close(socket);
    }
    assert.equal(await pidfds(), before);
  });

  it('a-tcp-connection-has-no-credentials', async () => {
    const tcp = createServer().listen(0, '127.0.0.1');
    await once(tcp, 'listening');
    const address = tcp.address();
    const client = connect(typeof address === 'object' && address !== null ? address.port : 0, '127.0.0.1');
    const [socket] = (await once(tcp, 'connection')) as [Socket];
    assert.throws(() => peerCredentials(socket), { code: 'WORKLOAD_UNKNOWN' });
    client.destroy();
    await close(socket);
    tcp.close();
  });
});

describe('the platform', () => {
  it('another-one-is-refused-when-it-is-asked-not-when-it-is-loaded', async () => {
    const script = `
      const { linuxPeerKernel } = await import('./src/net/peer-kernel.ts');
      Object.defineProperty(process, 'platform', { value: 'darwin' });
      try { linuxPeerKernel(); } catch (error) { process.stdout.write(error.code); }`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      env: uncovered(),
      cwd: new URL('../..', import.meta.url),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    assert.equal(String((await once(child.stdout, 'data'))[0]), 'PLATFORM_UNSUPPORTED');
    await once(child, 'exit');
  });
});

describe('the cgroup', () => {
  it('is-the-path-of-version-2-among-those-of-version-1', () => {
    assert.equal(cgroupOf('4:memory:/a\n1:cpu:/b\n0::/system.slice/httpbin.service\n'), '/system.slice/httpbin.service');
    assert.equal(cgroupOf('4:memory:/a\n1:cpu:/0::/b\n'), undefined);
  });
});

function fdOf(socket: Socket): number {
  return Number(Reflect.get(Object(Reflect.get(socket, '_handle')), 'fd'));
}

/** The kernel counts pids upwards; it lets root say where it stands. Undefined when somebody else was faster every time. */
async function spawnWithPid(pid: number) {
  for (let attempt = 0; attempt < 5; attempt++) {
    await writeFile('/proc/sys/kernel/ns_last_pid', String(pid - 1));
    const child = spawn('setpriv', ['--reuid', '54321', '--clear-groups', 'sleep', '60'], { stdio: 'ignore' });
    if (child.pid === pid) {
      await dropped(pid);
      return child;
    }
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  return undefined;
}

/** setpriv becomes the other user a moment after it was started. */
async function dropped(pid: number): Promise<void> {
  while (!/^Uid:\s+54321/m.test(await readFile(`/proc/${pid}/status`, 'utf8')));
}
