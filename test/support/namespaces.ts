// Pods for tests: Linux network namespaces joined by a bridge in a namespace of its own. Nothing outside them is touched.

import { type ChildProcess, execFile, type StdioOptions, spawn, spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Where the tests find `ip`, `iptables-save` and friends, whatever PATH a shell was started with. */
const PATH = `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`;
const PREFIX_IPV4 = '10.244';
const PREFIX_IPV6 = 'fd00:10:244';

/**
 * Why network namespaces cannot be used here, or false when they can: pass it as node:test's `skip`.
 * Under CI=true it throws instead, so that a skipped test is never mistaken for a passed one.
 */
export function requireNamespaces(): string | false {
  const reason = namespacesUnavailable();
  if (reason !== false && process.env.CI === 'true') throw new Error(`CI=true, and the namespace tests cannot run: ${reason}`);
  return reason;
}

function namespacesUnavailable(): string | false {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root (run the tests with sudo)';
  for (const tool of ['ip', 'setpriv', 'iptables-save', 'iptables-restore', 'ip6tables-save', 'ip6tables-restore']) {
    if (spawnSync(tool, ['--version'], { env: { PATH }, stdio: 'ignore' }).error !== undefined) return `'${tool}' is not installed`;
  }
  const probe = `hf-probe-${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', probe], { env: { PATH }, encoding: 'utf8' });
  if (made.status !== 0) return `'ip netns add' fails here: ${made.stderr.trim()}`;
  spawnSync('ip', ['netns', 'del', probe], { env: { PATH } });
  return false;
}

/** How to run a command in a pod. `uid` and `gid` default to root's; supplementary groups are always dropped with them. */
export interface ExecOptions {
  readonly uid?: number;
  readonly gid?: number;
  /** Added to the test's own environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Written to the command's stdin, which is closed either way. */
  readonly input?: string;
  /** Default 10,000; the command is killed then, and the result is an error. */
  readonly timeoutMs?: number;
}

export interface SpawnOptions extends Omit<ExecOptions, 'input' | 'timeoutMs'> {
  /** Default: stdin ignored, stdout and stderr piped. */
  readonly stdio?: StdioOptions;
}

/** What a command that ended by itself said. */
export interface ExecResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** One pod: a network namespace with lo, eth0, an address of each family and default routes through the bridge. */
export class Pod {
  readonly name: string;
  readonly netns: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly #children = new Set<ChildProcess>();

  constructor(identity: { name: string; netns: string; ipv4: string; ipv6: string }) {
    this.name = identity.name;
    this.netns = identity.netns;
    this.ipv4 = identity.ipv4;
    this.ipv6 = identity.ipv6;
  }

  /** Runs a command here to its end. Throws, with its stderr, when it exits non-zero. */
  async exec(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const result = await this.attempt(command, options);
    if (result.code !== 0) {
      throw new Error(`${this.name}: '${command.join(' ')}' exited with ${result.code}: ${result.stderr.trim() || result.stdout.trim()}`);
    }
    return result;
  }

  /** The same, for commands that may fail: any exit code is a result. Throws only when it cannot be run or takes too long. */
  attempt(command: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return execute(this.#inside(command, options), { ...options, label: this.name });
  }

  /** Starts a command here and returns at once; its pid is the command's own. What still runs is killed by `dispose()` of the network. */
  spawn(command: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const [file = 'ip', ...args] = this.#inside(command, options);
    const child = spawn(file, args, {
      stdio: options.stdio ?? ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PATH, ...options.env },
      cwd: options.cwd,
    });
    this.#children.add(child);
    child.once('close', () => this.#children.delete(child));
    child.once('error', () => this.#children.delete(child));
    return child;
  }

  /** Kills what `spawn` started and still runs, and waits until it is gone. */
  async killAll(): Promise<void> {
    await Promise.all(
      [...this.#children].map(
        (child) =>
          new Promise<void>((resolve) => {
            child.once('close', () => resolve());
            child.once('error', () => resolve());
            child.kill('SIGKILL');
          }),
      ),
    );
  }

  #inside(command: readonly string[], { uid, gid }: ExecOptions | SpawnOptions): string[] {
    const enter = ['ip', 'netns', 'exec', this.netns];
    if (uid === undefined && gid === undefined) return [...enter, ...command];
    const drop = ['setpriv', '--reuid', String(uid ?? 0), '--regid', String(gid ?? 0), '--clear-groups', '--', ...command];
    const blocked = closedAncestor(CHECKOUT);
    return blocked === undefined ? [...enter, ...drop] : [...enter, 'sh', '-c', OPEN_CHECKOUT, 'sh', CHECKOUT, blocked, ...drop];
  }
}

/** Where this project stands: its Node and its sources are what runs in pods. */
const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** The topmost folder on the way that other users may not enter (a clone below /root or a `mktemp -d`), or undefined. */
function closedAncestor(path: string): string | undefined {
  const parts = path.split('/').slice(1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`).find((folder) => (statSync(folder).mode & 0o005) !== 0o005);
}

/**
 * `ip netns exec` gives its command mounts of its own: there the closed folder is hidden by an open one that holds nothing but the checkout,
 * under its own path, so that a process without root's rights can read it. Nothing of it is visible outside, or left behind.
 */
const OPEN_CHECKOUT = `set -e; umask 022; checkout=$1; closed=$2; shift 2
  hold=$(mktemp -d); mount --bind "$checkout" "$hold"
  mount -t tmpfs -o mode=755 tmpfs "$closed"; mkdir -p "$checkout"
  mount --bind "$hold" "$checkout"; umount "$hold"; rmdir "$hold"; chmod 755 "$closed"; cd "$checkout"; exec "$@"`;

let networkCount = 0;
const alive = new Set<PodNetwork>();

/**
 * A network of pods on one bridge. Several may live at once, in one process or in many: each has its own namespaces
 * and the same addresses, 10.244.0.0/16 and fd00:10:244::/64. Every other address ends in the bridge namespace, which
 * takes it for its own and, as nothing listens there, refuses at once: a service address is captured or ECONNREFUSED.
 */
export class PodNetwork implements AsyncDisposable {
  /** The bridge's namespace, should a test want to look at the traffic or play a router. */
  readonly netns: string;
  readonly gatewayIpv4 = `${PREFIX_IPV4}.0.1`;
  readonly gatewayIpv6 = `${PREFIX_IPV6}::1`;
  readonly #prefix: string;
  readonly #pods: Pod[] = [];
  /** Every namespace there is, noted as soon as it is made, so that a failure half way leaves none behind. */
  readonly #namespaces = new Set<string>();

  private constructor(prefix: string) {
    this.#prefix = prefix;
    this.netns = `${prefix}-br`;
  }

  /** @param label - part of the namespaces' names (hf-<label>-<pid>-<n>-…), so that a stray one can be told by its test. */
  static async create(label = 'test'): Promise<PodNetwork> {
    networkCount += 1;
    const network = new PodNetwork(`hf-${label}-${process.pid}-${networkCount}`);
    if (alive.size === 0) installExitHandlers();
    alive.add(network);
    try {
      await network.#addNamespace(network.netns);
      await network.#shell(
        network.netns,
        `${SYSCTLS}
        echo 1 >/proc/sys/net/ipv4/ip_forward
        echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
        ip addr add ${network.gatewayIpv4}/16 dev br0
        ip addr add ${network.gatewayIpv6}/64 dev br0 nodad
        ip link set br0 up
        ip route add local 0.0.0.0/0 dev lo table main
        ip -6 route add local ::/0 dev lo table main`,
      );
    } catch (error) {
      await network.dispose();
      throw error;
    }
    return network;
  }

  /** Lets pods call an address of the namespace that the test itself is in. Gone with the network; one network of a namespace at a time. */
  async connectTo(address: string): Promise<void> {
    const [near, far] = ['169.254.100.1', '169.254.100.2'];
    const made = await execute([
      'sh',
      '-e',
      '-c',
      `ip link add hf-up type veth peer name hf-up netns ${this.netns}
      ip address add ${near}/30 dev hf-up
      ip link set hf-up up
      ip route add ${PREFIX_IPV4}.0.0/16 via ${far} onlink dev hf-up`,
    ]);
    if (made.code !== 0) throw new Error(`cannot connect the pods to ${address}: ${made.stderr.trim()}`);
    await this.#shell(
      this.netns,
      `ip address add ${far}/30 dev hf-up
      ip link set hf-up up
      ip route add ${address} via ${near}`,
    );
  }

  /** Adds a pod, ready for traffic when this returns. Names are unique within a network. */
  async addPod(name: string): Promise<Pod> {
    const index = this.#pods.length + 2;
    const octets = `${Math.floor(index / 256)}.${index % 256}`;
    const pod = new Pod({
      name,
      netns: `${this.#prefix}-${name}`,
      ipv4: `${PREFIX_IPV4}.${octets}`,
      ipv6: `${PREFIX_IPV6}::${index.toString(16)}`,
    });
    if (this.#namespaces.has(pod.netns)) throw new Error(`there is already a pod '${name}'`);
    this.#pods.push(pod);
    await this.#addNamespace(pod.netns);
    await this.#shell(
      this.netns,
      `ip link add pod${index} type veth peer name eth0 netns ${pod.netns}
      ip link set pod${index} master br0 up`,
    );
    await this.#shell(
      pod.netns,
      `${SYSCTLS}
      ip addr add ${pod.ipv4}/16 dev eth0
      ip addr add ${pod.ipv6}/64 dev eth0 nodad
      ip link set eth0 up
      ip route add default via ${this.gatewayIpv4}
      ip -6 route add default via ${this.gatewayIpv6}`,
    );
    return pod;
  }

  /** Kills what runs in the pods and deletes every namespace. Safe to call twice. */
  async dispose(): Promise<void> {
    await Promise.all(this.#pods.map((pod) => pod.killAll()));
    const failures: unknown[] = [];
    for (const netns of this.#namespaces) {
      try {
        await killStragglers(netns);
        await execute(['ip', 'netns', 'del', netns]);
        this.#namespaces.delete(netns);
      } catch (error) {
        failures.push(error);
      }
    }
    alive.delete(this);
    if (alive.size === 0) removeExitHandlers();
    if (failures.length > 0) throw new AggregateError(failures, `namespaces left behind: ${[...this.#namespaces].join(', ')}`);
  }

  /** The last resort when the test process itself is ending: the same, but synchronous and deaf to errors. */
  disposeSync(): void {
    for (const netns of this.#namespaces) {
      const pids = spawnSync('ip', ['netns', 'pids', netns], { env: { PATH }, encoding: 'utf8' }).stdout ?? '';
      for (const pid of pids.split('\n').filter(Boolean)) kill(Number(pid));
      spawnSync('ip', ['netns', 'del', netns], { env: { PATH }, stdio: 'ignore' });
    }
    alive.delete(this);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  async #addNamespace(netns: string): Promise<void> {
    const result = await execute(['ip', 'netns', 'add', netns]);
    if (result.code !== 0) throw new Error(`cannot add the network namespace ${netns}: ${result.stderr.trim()}`);
    this.#namespaces.add(netns);
  }

  async #shell(netns: string, script: string): Promise<void> {
    const result = await execute(['ip', 'netns', 'exec', netns, 'sh', '-e', '-c', script]);
    if (result.code !== 0) throw new Error(`cannot set up the network namespace ${netns}: ${result.stderr.trim()}`);
  }
}

/** No duplicate address detection and no router advertisements: addresses work at once and are only the ones given. */
const SYSCTLS = `
  for scope in all default lo; do
    echo 0 >/proc/sys/net/ipv6/conf/$scope/disable_ipv6
    echo 0 >/proc/sys/net/ipv6/conf/$scope/accept_dad
    echo 0 >/proc/sys/net/ipv6/conf/$scope/accept_ra
    echo 0 >/proc/sys/net/ipv4/conf/$scope/rp_filter
  done
  ip link set lo up`;

function execute(command: readonly string[], options: ExecOptions & { label?: string } = {}): Promise<ExecResult> {
  const [file = '', ...args] = command;
  const timeoutMs = options.timeoutMs ?? 10_000;
  return new Promise((resolve, reject) => {
    const child = execFile(
      file,
      args,
      {
        env: { ...process.env, PATH, ...options.env },
        cwd: options.cwd,
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: 16 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        if (error === null) resolve({ code: 0, stdout, stderr });
        else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr });
        else {
          const why = error.killed === true ? `was killed after ${timeoutMs} ms` : error.message;
          reject(new Error(`${options.label ?? file}: '${command.join(' ')}' ${why}\n${stdout}${stderr}`, { cause: error }));
        }
      },
    );
    // A command that ends without reading its stdin is no error of ours.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input ?? '');
  });
}

/** Grandchildren that no ChildProcess of ours stands for: `spawn` of a shell that spawned. They live in our namespace, so they are ours. */
async function killStragglers(netns: string): Promise<void> {
  const { stdout } = await execute(['ip', 'netns', 'pids', netns]);
  for (const pid of stdout.split('\n').filter(Boolean)) kill(Number(pid));
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended on its own in the meantime.
  }
}

// A test file that crashes, times out or is interrupted still leaves no namespaces behind.
function disposeAllSync(): void {
  for (const network of alive) network.disposeSync();
}

function onSignal(signal: NodeJS.Signals): void {
  disposeAllSync();
  removeExitHandlers();
  process.kill(process.pid, signal);
}

function installExitHandlers(): void {
  process.on('exit', disposeAllSync);
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
}

function removeExitHandlers(): void {
  process.off('exit', disposeAllSync);
  process.off('SIGINT', onSignal);
  process.off('SIGTERM', onSignal);
}
