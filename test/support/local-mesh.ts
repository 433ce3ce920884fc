// A mesh on one machine: pods as network namespaces, real iptables, `handfast up` as the control plane, a `handfast proxy` in each meshed pod.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync } from 'node:fs';
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Pod, PodNetwork } from './namespaces.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const HANDFAST = [process.execPath, join(ROOT, 'src/main.ts')] as const;
const SIDECAR = 1337;
/** What applications run as; neither root nor the sidecar. */
const APPLICATION = 1000;

export type LogRecord = Readonly<Record<string, unknown>>;

/** A pod of the demo: where it is, whom it runs as, and whether a sidecar stands in front of it. */
export interface MeshPod {
  readonly name: string;
  readonly namespace: string;
  readonly pod: Pod;
  readonly meshed: boolean;
  readonly serviceAccount: string;
  readonly tunnels: boolean;
  readonly workers: number;
  readonly http: boolean;
}

export interface PodSpec {
  readonly name: string;
  readonly namespace: string;
  readonly meshed: boolean;
  readonly serviceAccount?: string;
  /** Whether the registry says that its sidecar takes HBONE tunnels; by default it does, as every sidecar of ours can. */
  readonly tunnels?: boolean;
  /** Threads of its sidecar. Default: 1. */
  readonly workers?: number;
  /** Whether its service's port is declared HTTP, so that its sidecar reads requests. Default: it is passed on as TCP. */
  readonly http?: boolean;
}

export class Mesh {
  readonly dir: string;
  readonly pods = new Map<string, MeshPod>();
  readonly #network: PodNetwork;
  readonly #children: ChildProcess[] = [];
  readonly #up: { rotateEvery: string };

  private constructor(dir: string, network: PodNetwork, up: { rotateEvery: string }) {
    this.dir = dir;
    this.#network = network;
    this.#up = up;
  }

  /** `label` names the namespaces; `dir` must be one that everybody may enter. */
  static async create(dir: string, up: { rotateEvery: string; label: string }): Promise<Mesh> {
    await Promise.all(['config', 'logs', 'tokens', 'tmp'].map((name) => mkdir(join(dir, name), { recursive: true })));
    await chmod(join(dir, 'tmp'), 0o777);
    return new Mesh(dir, await PodNetwork.create(up.label), up);
  }

  /** The processes that ever held a workload's key. */
  get pids(): number[] {
    return this.#children.flatMap((child) => (child.pid === undefined ? [] : [child.pid]));
  }

  /** An operator's command on this machine, run to its end. */
  async operator(...args: readonly string[]): Promise<{ code: number; stdout: string }> {
    const [node, ...main] = HANDFAST;
    const ended = await run(node, [...main, ...args, '--run-dir', join(this.dir, 'run')]).then(
      ({ stdout }) => ({ code: 0, stdout }),
      (error: unknown) => error,
    );
    if (typeof ended === 'object' && ended !== null && 'code' in ended && 'stdout' in ended && typeof ended.code === 'number')
      return { code: ended.code, stdout: String(ended.stdout) };
    throw ended;
  }

  get agentAddress(): string {
    return `unix:${join(this.dir, 'run/agent.sock')}`;
  }

  pod(key: string): MeshPod {
    const found = this.pods.get(key);
    if (found === undefined) throw new Error(`there is no pod ${key}`);
    return found;
  }

  async addPod(spec: PodSpec): Promise<MeshPod> {
    const pod = await this.#network.addPod(`${spec.name}-${spec.namespace}`);
    const { name, meshed, serviceAccount = name, tunnels = meshed, workers = 1, http = false } = spec;
    const added = { ...spec, pod, serviceAccount, tunnels, workers, http };
    this.pods.set(`${spec.name}.${spec.namespace}`, added);
    return added;
  }

  /** Writes a file of the configuration directory whole, as an operator's tool should. */
  async configure(name: string, objects: readonly object[]): Promise<void> {
    const path = join(this.dir, 'config', name);
    await writeFile(
      `${path}.new`,
      objects
        .map((object) => JSON.stringify(object, null, 2))
        .join('\n---\n')
        .concat('\n'),
    );
    await rename(`${path}.new`, path);
  }

  /** The registry of all pods, and a service with an address of its own for each. */
  async configureRegistry(): Promise<void> {
    const pods = [...this.pods.values()].map(({ name, namespace, pod, meshed, serviceAccount, tunnels }) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name,
        namespace,
        labels: {
          app: name,
          ...(meshed ? { 'security.istio.io/tlsMode': 'istio' } : {}),
          ...(tunnels ? { 'networking.istio.io/tunnel': 'http' } : {}),
        },
      },
      spec: { serviceAccountName: serviceAccount },
      status: { podIP: pod.ipv4, podIPs: [{ ip: pod.ipv4 }, { ip: pod.ipv6 }] },
    }));
    const services = [...this.pods.values()].map(({ name, namespace, http }, index) => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace },
      spec: { clusterIP: `10.96.0.${index + 10}`, selector: { app: name }, ports: [{ name: http ? 'http' : 'tcp', port: 8000 }] },
    }));
    await this.configure('registry.yaml', [...pods, ...services]);
  }

  /** What a name resolves to: the service's address for a pod that has a sidecar to understand it, the pod's own for one that has not. */
  addressOf(target: string, from: MeshPod): string {
    const index = [...this.pods.keys()].indexOf(target);
    return from.meshed ? `10.96.0.${index + 10}` : this.pod(target).pod.ipv4;
  }

  async startControlPlane(): Promise<void> {
    const args = [
      'up',
      '--config',
      join(this.dir, 'config'),
      '--state',
      join(this.dir, 'ca'),
      '--run-dir',
      join(this.dir, 'run'),
      '--rotate-every',
      this.#up.rotateEvery,
    ];
    const child = spawn(HANDFAST[0], [HANDFAST[1], ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: this.#env() });
    this.#keep(child, 'up');
    await eventually('the agent to listen', () => {
      if (child.exitCode !== null) throw new Error(`handfast up ended with ${child.exitCode}; see ${this.#log('up')}`);
      return existsSync(join(this.dir, 'run/agent.sock'));
    });
  }

  async token(namespace: string, serviceAccount: string): Promise<string> {
    const { stdout } = await run(HANDFAST[0], [
      HANDFAST[1],
      'token',
      'create',
      '--namespace',
      namespace,
      '--service-account',
      serviceAccount,
      '--state',
      join(this.dir, 'ca'),
    ]);
    const path = join(this.dir, 'tokens', `${serviceAccount}.${namespace}`);
    await writeFile(path, stdout, { mode: 0o644 });
    return path;
  }

  async startSidecar({ name, namespace, pod, serviceAccount, workers }: MeshPod, flags: readonly string[] = []): Promise<ChildProcess> {
    const tokenFile = await this.token(namespace, serviceAccount);
    await pod.exec([...HANDFAST, 'iptables', 'apply']);
    const whose = ['--token-file', tokenFile, '--pod-name', name, '--pod-namespace', namespace];
    const args = ['proxy', '--agent', this.agentAddress, ...whose, '--workers', String(workers), ...flags];
    const child = pod.spawn([...HANDFAST, ...args], { uid: SIDECAR, gid: SIDECAR, env: this.#env() });
    this.#keep(child, `${name}.${namespace}`);
    return child;
  }

  async awaitReady({ name, namespace, pod }: MeshPod): Promise<void> {
    await eventually(`the sidecar of ${name}.${namespace} to be ready`, async () => {
      const { stdout } = await pod.attempt([
        'curl',
        '-s',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        '-m',
        '2',
        'http://127.0.0.1:15021/healthz/ready',
      ]);
      return stdout === '200';
    });
  }

  /** Starts a script of the demo in a pod as an ordinary user, and waits for its first line, which is returned. */
  async startApplication({ name, namespace, pod }: MeshPod, script: string, args: readonly string[]): Promise<string> {
    const child = pod.spawn([process.execPath, join(ROOT, 'demo', script), ...args], {
      uid: APPLICATION,
      gid: APPLICATION,
      env: this.#env(),
    });
    if (child.stdout === null) throw new Error('no stdout');
    const first = once(createInterface(child.stdout), 'line');
    const ended = once(child, 'close').then(() => Promise.reject(new Error(`${script} in ${name}.${namespace} ended before it was ready`)));
    ended.catch(() => undefined);
    this.#children.push(child);
    const [line] = await Promise.race([first, ended]);
    return String(line);
  }

  /** HTTP status of a request from one pod to another's service, 0 when it was refused. */
  async request(from: MeshPod, target: string, header = 'x-demo: 1'): Promise<number> {
    const resolve = `${target}:8000:${this.addressOf(target, from)}`;
    return this.get(from, `http://${target}:8000/get`, '-H', header, '--resolve', resolve);
  }

  /** The same for any URL, asked as an ordinary user. */
  async get(from: MeshPod, url: string, ...more: string[]): Promise<number> {
    const { stdout } = await from.pod.attempt(['curl', '-g', '-s', '-o', '/dev/null', '-w', '%{http_code}', '-m', '5', ...more, url], {
      uid: APPLICATION,
      gid: APPLICATION,
    });
    return Number(stdout);
  }

  /** A request to the demo's httpbin: the status, and the header fields that the application heard. */
  async ask(from: MeshPod, target: string, path: string, ...more: string[]): Promise<{ status: number; headers: Record<string, string> }> {
    const resolve = `${target}:8000:${this.addressOf(target, from)}`;
    const curl = ['curl', '-g', '-s', '--path-as-is', '-w', '\n%{http_code}', '-m', '5', '--resolve', resolve, ...more];
    const { stdout } = await from.pod.attempt([...curl, `http://${target}:8000${path}`], { uid: APPLICATION, gid: APPLICATION });
    const end = stdout.lastIndexOf('\n');
    const body = stdout.slice(0, end);
    return { status: Number(stdout.slice(end + 1)), headers: body.startsWith('{') ? JSON.parse(body).headers : {} };
  }

  /** The log records of a sidecar so far. */
  async records(key: string): Promise<LogRecord[]> {
    const text = await readFile(this.#log(key), 'utf8').catch(() => '');
    return text.split('\n').flatMap((line) => (line.startsWith('{') && line.endsWith('}') ? [JSON.parse(line) as LogRecord] : []));
  }

  /** The first record that matches, now or within 20 s. */
  async record(key: string, matches: (record: LogRecord) => boolean): Promise<LogRecord> {
    let found: LogRecord | undefined;
    await eventually(`a record of ${key}`, async () => {
      found = (await this.records(key)).find(matches);
      return found !== undefined;
    });
    return found ?? {};
  }

  async dispose(): Promise<void> {
    await this.#network.dispose();
    const running = this.#children.filter((child) => child.exitCode === null && child.signalCode === null);
    await Promise.all(
      running.map(async (child) => {
        child.kill('SIGTERM');
        await once(child, 'exit');
      }),
    );
  }

  /** The same at once, for when the process is ending. */
  disposeSync(): void {
    for (const child of this.#children) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    this.#network.disposeSync();
  }

  #keep(child: ChildProcess, name: string): void {
    this.#children.push(child);
    const log = createWriteStream(this.#log(name), { flags: 'a' });
    child.stdout?.pipe(log);
    child.stderr?.pipe(log, { end: false });
  }

  #log(name: string): string {
    return join(this.dir, 'logs', `${name}.log`);
  }

  /** Whatever a process puts into a temporary folder lands where the search for keys looks. */
  #env(): Readonly<Record<string, string>> {
    return { PATH: process.env.PATH ?? '', TMPDIR: join(this.dir, 'tmp'), HOME: join(this.dir, 'tmp') };
  }
}

/** Tries until it is so; rejects after 20 s. Resolves with the milliseconds it took. */
export async function eventually(what: string, check: () => boolean | Promise<boolean>): Promise<number> {
  const startedAt = Date.now();
  while (!(await check())) {
    if (Date.now() - startedAt > 20_000) throw new Error(`waited 20 s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return Date.now() - startedAt;
}
