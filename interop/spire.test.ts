// Real SPIRE on both sides of us: its server and agent feed our sidecars with certificates, and its tools read our Workload API.
// `make interop` builds it (Go modules); without it the tests are skipped with a word, and fail with CI=true.

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { unixTarget } from '../src/wire/grpc-target.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { freePort } from '../test/support/free-port.ts';
import { type MeshedPair, startMeshedPair } from '../test/support/meshed-pair.ts';
import { RecordingLog, type RunningSidecar } from '../test/support/sidecar-harness.ts';

const execute = promisify(execFile);
/** Nothing that is asked here takes long; what hangs is asked again. */
const run = (file: string, args: readonly string[]) => execute(file, args, { timeout: 10_000 });
const binary = (name: string) => fileURLToPath(new URL(`../.interop/go/${name}`, import.meta.url));
const [SERVER, AGENT, HELPER] = [binary('spire-server'), binary('spire-agent'), binary('spiffe-helper')];

const absent = [SERVER, AGENT, HELPER].find((path) => !existsSync(path));
const missing = absent === undefined ? false : `there is no ${absent}: run make interop`;
if (missing !== false && process.env.CI === 'true') throw new Error(missing);

const idOf = (name: string) => `spiffe://cluster.local/ns/foo/sa/${name}`;

async function eventually(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what}: not within 60 s`);
    await delay(100);
  }
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

/** A process that neither outlives this one nor keeps it. */
function start(file: string, args: readonly string[]): ChildProcess {
  const child = spawn(file, args, { stdio: 'ignore' });
  child.unref();
  process.once('exit', () => child.kill('SIGKILL'));
  return child;
}

/** SPIRE's server and agent, with certificates that live for seconds. */
class Spire implements AsyncDisposable {
  readonly dir: string;
  server: ChildProcess | undefined;
  agent: ChildProcess | undefined;

  constructor(dir: string) {
    this.dir = dir;
  }

  get agentSocket(): string {
    return join(this.dir, 'agent.sock');
  }

  async start(names: readonly string[]): Promise<void> {
    const port = await freePort();
    const api = join(this.dir, 'server.sock');
    await writeFile(
      join(this.dir, 'server.conf'),
      `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${api}"
  trust_domain = "cluster.local"
  data_dir = "${this.dir}"
  log_level = "ERROR"
  default_x509_svid_ttl = "6s"
  ca_ttl = "1h"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${join(this.dir, 'store.sqlite3')}" } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
`,
    );
    await writeFile(
      join(this.dir, 'agent.conf'),
      `agent {
  data_dir = "${join(this.dir, 'agent')}"
  log_level = "ERROR"
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = "${this.agentSocket}"
  trust_domain = "cluster.local"
  insecure_bootstrap = true
  experimental { sync_interval = "1s" }
}
plugins {
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`,
    );
    this.server = start(SERVER, ['run', '-config', join(this.dir, 'server.conf')]);
    const ask = (...args: string[]) => run(SERVER, [...args, '-socketPath', api]);
    await eventually('SPIRE server', async () => (await ask('healthcheck').catch(() => undefined)) !== undefined);
    const { stdout } = await ask('token', 'generate', '-spiffeID', 'spiffe://cluster.local/node');
    const token = /Token: (\S+)/.exec(stdout)?.[1] ?? '';
    for (const name of names) {
      const selector = ['-selector', `unix:uid:${process.getuid?.()}`];
      await ask('entry', 'create', '-parentID', 'spiffe://cluster.local/node', '-spiffeID', idOf(name), ...selector);
    }
    this.agent = start(AGENT, ['run', '-config', join(this.dir, 'agent.conf'), '-joinToken', token]);
    await eventually('SPIRE agent', () => existsSync(this.agentSocket));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await end(this.agent);
    await end(this.server);
  }
}

describe('SPIRE feeds our sidecars', { skip: missing }, () => {
  const rec = new RecordingLog();
  let dir: string;
  let plane: ControlPlane;
  let spire: Spire;
  let pair: MeshedPair;
  let client: RunningSidecar;
  let server: RunningSidecar;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'hf-spire-'));
    spire = new Spire(dir);
    await spire.start(['sleep', 'httpbin']);
    plane = await ControlPlane.create(rec.log);
    await plane.start();
    const common = { target: unixTarget(`unix:${spire.agentSocket}`), crl: undefined };
    pair = await startMeshedPair(plane, {
      client: { ...common, names: { svid: idOf('sleep'), bundle: 'ROOTCA' } },
      server: { ...common, names: { svid: idOf('httpbin'), bundle: 'ALL' } },
    });
    ({ client, server } = pair);
  });

  after(async () => {
    await pair[Symbol.asyncDispose]();
    await plane[Symbol.asyncDispose]();
    await spire[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  const ask = async () => (await pair.ask()).text;
  const rotations = (sidecar: RunningSidecar) => sidecar.records.records.filter((record) => record.msg === 'identity in force').length;

  it('rotation-every-few-seconds-without-a-failed-request', async () => {
    assert.equal(client.identity.current?.svid.id.uri, idOf('sleep'));
    const enough = [rotations(client) + 5, rotations(server) + 5];
    let requests = 0;
    await eventually('five rotations of both', async () => {
      for (let i = 0; i < 20; i++, requests++) assert.equal(await ask(), 'hello');
      return rotations(client) >= (enough[0] ?? 0) && rotations(server) >= (enough[1] ?? 0);
    });
    assert.deepEqual(
      [client, server].flatMap(({ records }) => records.records).filter((record) => String(record.msg).includes('NACK')),
      [],
    );
    console.log(`# ${requests} requests through ${rotations(client)} certificates of SPIRE, 0 failed`);
  });

  it('spires-agent-away-changes-nothing-while-the-certificate-lives', async () => {
    await end(spire.agent);
    assert.equal(await ask(), 'hello');
  });
});

describe("SPIRE's tools read our Workload API", { skip: missing }, () => {
  const rec = new RecordingLog();
  let plane: ControlPlane;

  before(async () => {
    plane = await ControlPlane.create(rec.log);
    await plane.startControl();
    await plane.startCa();
    const tokenFile = join(plane.dir, 'token');
    await writeFile(tokenFile, await plane.token('httpbin'));
    const workloadsFile = join(plane.dir, 'workloads.yaml');
    const uid = process.getuid?.();
    await writeFile(
      workloadsFile,
      `workloads:\n  - spiffeId: ${idOf('httpbin')}\n    tokenFile: ${tokenFile}\n    selectors: { uid: ${uid} }\n`,
    );
    await plane.startAgent({ workloadsFile, rotateEveryMs: 1_000 });
  });

  after(async () => {
    await plane[Symbol.asyncDispose]();
  });

  const api = async (...args: string[]) => (await run(AGENT, ['api', ...args, '-socketPath', plane.socket('workload')])).stdout;

  it('api-fetch-x509', async () => {
    const out = join(plane.dir, 'x509');
    await mkdir(out);
    const text = await api('fetch', 'x509', '-write', out);
    assert.match(text, /Received 1 svid/);
    assert.match(text, new RegExp(idOf('httpbin')));
    const verified = await run('openssl', [
      'verify',
      '-CAfile',
      join(out, 'bundle.0.pem'),
      '-untrusted',
      join(out, 'svid.0.pem'),
      join(out, 'svid.0.pem'),
    ]);
    assert.match(verified.stdout, /OK/);
  });

  it('api-fetch-and-validate-jwt', async () => {
    const text = await api('fetch', 'jwt', '-audience', 'billing');
    assert.match(text, new RegExp(idOf('httpbin')));
    const token = /^\s+(ey\S+)$/m.exec(text)?.[1] ?? '';
    assert.match(await api('validate', 'jwt', '-audience', 'billing', '-svid', token), /SVID is valid/);
    await assert.rejects(api('validate', 'jwt', '-audience', 'somebody-else', '-svid', token), /audience/i);
    const [header = '', payload = '', signature = ''] = token.split('.');
    const tampered = `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    await assert.rejects(api('validate', 'jwt', '-audience', 'billing', '-svid', tampered), /signature|invalid/i);
  });

  it('spiffe-helper-writes-our-certificates-and-follows-their-rotation', async () => {
    const out = join(plane.dir, 'helper');
    await mkdir(out);
    const config = join(plane.dir, 'helper.conf');
    await writeFile(
      config,
      `agent_address = "${plane.socket('workload')}"
cert_dir = "${out}"
svid_file_name = "svid.pem"
svid_key_file_name = "key.pem"
svid_bundle_file_name = "bundle.pem"
jwt_bundle_file_name = "jwks.json"
jwt_svids = [{jwt_audience = "billing", jwt_svid_file_name = "jwt"}]
`,
    );
    const helper = spawn(HELPER, ['-config', config], { stdio: 'ignore' });
    try {
      const read = (name: string) => readFile(join(out, name), 'utf8').catch(() => '');
      await eventually('all of its files', async () => {
        const files = await Promise.all(['svid.pem', 'key.pem', 'bundle.pem', 'jwks.json', 'jwt'].map(read));
        return files.every((text) => text.length > 10);
      });
      const first = await read('svid.pem');
      await eventually('the next certificate', async () => (await read('svid.pem')) !== first);
      const verified = await run('openssl', [
        'verify',
        '-CAfile',
        join(out, 'bundle.pem'),
        '-untrusted',
        join(out, 'svid.pem'),
        join(out, 'svid.pem'),
      ]);
      assert.match(verified.stdout, /OK/);
    } finally {
      await end(helper);
    }
  });
});
