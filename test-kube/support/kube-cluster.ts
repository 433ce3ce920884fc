// A Kubernetes control plane of its own for a test: etcd, kube-apiserver and kube-controller-manager as processes, in the network namespace that the suite runs in.

import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { HttpsKubeApi } from '../../src/kube/api.ts';
import { freePort } from '../../test/support/free-port.ts';

/** Of this network namespace, and no loopback address: an API server gives no loopback endpoint to a Service. */
export const HOST = process.env.HANDFAST_KUBE_HOST ?? '';
const ASSETS = process.env.HANDFAST_KUBE_ASSETS ?? '';
const READY_MS = 60_000;

/** What `kubectl` said. */
export interface KubectlResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class KubeCluster implements AsyncDisposable {
  readonly dir: string;
  readonly #adminToken = randomBytes(16).toString('hex');
  readonly #ports: { readonly etcd: number; readonly etcdPeer: number; readonly api: number };
  #etcd: ChildProcess | undefined;
  #api: ChildProcess | undefined;
  #manager: ChildProcess | undefined;
  #errors = '';

  private constructor(dir: string, ports: { etcd: number; etcdPeer: number; api: number }) {
    this.dir = dir;
    this.#ports = ports;
  }

  /** `https://` of the API server. */
  get server(): string {
    return `https://${HOST}:${this.#ports.api}`;
  }

  /** The API server's certificate with the authority that made it. */
  get caFile(): string {
    return join(this.dir, 'api', 'apiserver.crt');
  }

  /** Of the cluster's administrator. */
  get tokenFile(): string {
    return join(this.dir, 'admin-token');
  }

  static async start(): Promise<KubeCluster> {
    if (HOST === '' || ASSETS === '') throw new Error('run this suite with `make test-kube`');
    const dir = await mkdtemp(join(tmpdir(), 'handfast-kube-'));
    const cluster = new KubeCluster(dir, { etcd: await freePort(), etcdPeer: await freePort(), api: await freePort() });
    try {
      await cluster.#prepare();
      cluster.#startEtcd();
      await cluster.startApiServer();
      cluster.#manager = cluster.#spawn('kube-controller-manager', [
        `--kubeconfig=${join(dir, 'kubeconfig')}`,
        `--service-account-private-key-file=${join(dir, 'sa.key')}`,
        `--root-ca-file=${cluster.caFile}`,
        '--leader-elect=false',
        '--secure-port=0',
      ]);
      await cluster.#until(
        'the default service account',
        async () => (await cluster.kubectl(['get', 'serviceaccount', 'default'])).code === 0,
      );
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** As the cluster's administrator, or whose token it is. */
  api(tokenFile: string = this.tokenFile): HttpsKubeApi {
    return new HttpsKubeApi({ server: this.server, caFile: this.caFile, tokenFile });
  }

  /** `as`: a user, or `system:serviceaccount:ns:name`. */
  async kubectl(args: readonly string[], { input, as }: { input?: string; as?: string } = {}): Promise<KubectlResult> {
    const child = spawn(
      join(ASSETS, 'kubectl'),
      [`--kubeconfig=${join(this.dir, 'kubeconfig')}`, ...(as === undefined ? [] : [`--as=${as}`]), ...args],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, HOME: this.dir },
      },
    );
    const out: string[] = [];
    const err: string[] = [];
    child.stdout.on('data', (chunk) => out.push(String(chunk)));
    child.stderr.on('data', (chunk) => err.push(String(chunk)));
    child.stdin.end(input ?? '');
    const [code] = await once(child, 'close');
    return { code, stdout: out.join(''), stderr: err.join('') };
  }

  /** Throws with kubectl's words if it fails. */
  async apply(manifest: string): Promise<void> {
    const { code, stderr } = await this.kubectl(['apply', '-f', '-'], { input: manifest });
    if (code !== 0) throw new Error(`kubectl apply: ${stderr}`);
  }

  async startApiServer(): Promise<void> {
    this.#api = this.#spawn('kube-apiserver', [
      `--etcd-servers=http://127.0.0.1:${this.#ports.etcd}`,
      `--bind-address=${HOST}`,
      `--advertise-address=${HOST}`,
      `--secure-port=${this.#ports.api}`,
      `--cert-dir=${join(this.dir, 'api')}`,
      '--service-cluster-ip-range=10.96.0.0/16',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-signing-key-file=${join(this.dir, 'sa.key')}`,
      `--service-account-key-file=${join(this.dir, 'sa.key')}`,
      '--authorization-mode=Node,RBAC',
      `--token-auth-file=${join(this.dir, 'tokens.csv')}`,
      // There is no kube-proxy: Services of webhooks are dialled by their endpoints.
      '--enable-aggregator-routing=true',
      '--allow-privileged=true',
    ]);
    await this.#until('the API server', async () => {
      const { code } = await this.kubectl(['get', '--raw', '/readyz']);
      return code === 0;
    });
  }

  /** It answers nobody, and says nothing on watches, until `resumeApiServer`; connections stay. */
  stallApiServer(): void {
    this.#api?.kill('SIGSTOP');
  }

  resumeApiServer(): void {
    this.#api?.kill('SIGCONT');
  }

  async stopApiServer(): Promise<void> {
    await end(this.#api);
  }

  /** Forgets all history: whoever watches from before has to list anew (410). */
  async compact(): Promise<void> {
    const etcd = `http://127.0.0.1:${this.#ports.etcd}`;
    const status: unknown = await (await fetch(`${etcd}/v3/maintenance/status`, { method: 'POST', body: '{}' })).json();
    const revision = (status as { header?: { revision?: string } }).header?.revision;
    await fetch(`${etcd}/v3/kv/compaction`, { method: 'POST', body: JSON.stringify({ revision, physical: true }) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await end(this.#manager);
    await end(this.#api);
    await end(this.#etcd);
    await rm(this.dir, { recursive: true, force: true });
  }

  async #prepare(): Promise<void> {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    await writeFile(join(this.dir, 'sa.key'), privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 });
    await writeFile(join(this.dir, 'tokens.csv'), `${this.#adminToken},admin,admin,"system:masters"\n`, { mode: 0o600 });
    await writeFile(this.tokenFile, this.#adminToken, { mode: 0o600 });
    await writeFile(
      join(this.dir, 'kubeconfig'),
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'test', cluster: { server: this.server, 'certificate-authority': this.caFile } }],
        users: [{ name: 'admin', user: { token: this.#adminToken } }],
        contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
        'current-context': 'test',
      }),
      { mode: 0o600 },
    );
  }

  #startEtcd(): void {
    const [client, peer] = [`http://127.0.0.1:${this.#ports.etcd}`, `http://127.0.0.1:${this.#ports.etcdPeer}`];
    this.#etcd = this.#spawn('etcd', [
      `--data-dir=${join(this.dir, 'etcd')}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
      // Nothing here outlives the test.
      '--unsafe-no-fsync',
    ]);
  }

  #spawn(program: string, args: readonly string[]): ChildProcess {
    const child = spawn(join(ASSETS, program), args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH, HOME: this.dir },
    });
    child.stderr?.on('data', (chunk) => {
      this.#errors = `${this.#errors}${program}: ${String(chunk)}`.slice(-8_000);
    });
    return child;
  }

  async #until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const deadline = performance.now() + READY_MS;
    while (!(await holds())) {
      const ended = [this.#etcd, this.#api, this.#manager].find((child) => child !== undefined && child.exitCode !== null);
      if (ended !== undefined) throw new Error(`${what}: ${ended.spawnfile} has ended\n${this.#errors}`);
      if (performance.now() > deadline) throw new Error(`${what} was not there within ${READY_MS} ms\n${this.#errors}`);
      await delay(200);
    }
  }
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await closed;
  clearTimeout(timer);
}
