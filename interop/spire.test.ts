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
import { openIdentityPort } from '../src/commands/identity-port.ts';
import { verdictOn } from '../src/identity-api/verdict.ts';
import { Snapshot } from '../src/snapshot.ts';
import { parseJwks, readJws } from '../src/spiffe/jwt.ts';
import { unixTarget } from '../src/wire/grpc-target.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { freePort } from '../test/support/free-port.ts';
import { askIdentity, issue, validate } from '../test/support/identity-api.ts';
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

  get agentSocket(): string {
    return join(this.dir, 'agent.sock');
  }

  readonly #federated: { id: string; file: string } | undefined;

  /** With `federated` its workloads are told the keys of another trust domain, too: a SPIFFE bundle in a file. */
  constructor(dir: string, federated?: { id: string; file: string }) {
    this.dir = dir;
    this.#federated = federated;
  }

  get api(): string {
    return join(this.dir, 'server.sock');
  }

  async start(names: readonly string[]): Promise<void> {
    const port = await freePort();
    const { api } = this;
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
    const federated = this.#federated;
    if (federated !== undefined) await ask('bundle', 'set', '-id', federated.id, '-format', 'spiffe', '-path', federated.file);
    const federatesWith = federated === undefined ? [] : ['-federatesWith', federated.id];
    for (const name of names) {
      const selector = ['-selector', `unix:uid:${process.getuid?.()}`];
      await ask('entry', 'create', '-parentID', 'spiffe://cluster.local/node', '-spiffeID', idOf(name), ...selector, ...federatesWith);
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

  // Where `before` has failed some of them are not there, and what is must not keep the process.
  after(async () => {
    await pair?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
    await spire?.[Symbol.asyncDispose]();
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
    await plane.startCa({ jwtIssuer: 'https://identity.example' });
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
    await plane?.[Symbol.asyncDispose]();
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

describe("JWT-SVIDs of ours at SPIRE, and SPIRE's at ours, as far as each is trusted", { skip: missing }, () => {
  const OURS = 'mesh.example';
  const rec = new RecordingLog();
  const opened: { close(): Promise<void> }[] = [];
  let dir: string;
  let plane: ControlPlane;
  let spire: Spire;
  let port: number;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'hf-spire-jwt-'));
    plane = await ControlPlane.create(rec.log);
    const trustDomain = OURS;
    await plane.start({ ca: { trustDomain, jwtIssuer: 'https://identity.example' }, control: { trustDomain }, agent: { trustDomain } });
    const identity = await openIdentityPort({
      port: await freePort(),
      target: unixTarget(plane.address('agent')),
      nodeId: 'a',
      token: new Snapshot(await plane.token('a')),
      log: rec.log,
      now: Date.now,
    });
    assert.ok(identity !== undefined);
    opened.push(identity);
    port = identity.port;
    await eventually('our keys', async () => (await askIdentity(port, '/v1/jwks')).status === 200);
    // As OIDC relying parties have them; SPIFFE's reader wants its own word for their use.
    const { body } = await askIdentity(port, '/v1/jwks');
    const keys = (body.keys as object[]).map((key) => ({ ...key, use: 'jwt-svid' }));
    const file = join(dir, 'ours.json');
    await writeFile(file, JSON.stringify({ keys, spiffe_sequence: 1 }));
    spire = new Spire(dir, { id: `spiffe://${OURS}`, file });
    await spire.start(['httpbin']);
    await eventually("SPIRE's agent to know its workload", async () => (await fetchTheirs().catch(() => undefined)) !== undefined);
  });

  after(async () => {
    for (const each of opened) await each.close();
    await spire?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  const theirs = async (...args: string[]) => (await run(AGENT, ['api', ...args, '-socketPath', spire.agentSocket])).stdout;
  const fetchTheirs = async () => /^\s+(ey\S+)$/m.exec(await theirs('fetch', 'jwt', '-audience', 'billing'))?.[1] ?? '';
  const ours = async (audience: string) => String((await issue(port, [audience])).body.token);

  it('spire-takes-ours-by-the-keys-that-it-was-given', async () => {
    const token = await ours('billing');
    const text = await theirs('validate', 'jwt', '-audience', 'billing', '-svid', token);
    assert.match(text, /SVID is valid/);
    assert.match(text, /spiffe:\/\/mesh\.example\/ns\/foo\/sa\/a/);
    await assert.rejects(theirs('validate', 'jwt', '-audience', 'somebody-else', '-svid', token), /audience/i);
    const [header, payload, signature = ''] = token.split('.');
    const altered = `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    await assert.rejects(theirs('validate', 'jwt', '-audience', 'billing', '-svid', altered), /cryptographic|signature/i);
  });

  it('ours-of-a-key-that-spire-was-not-given-is-refused', async () => {
    const before = await ours('billing');
    await plane.ask('ca', 'POST', '/jwt-keys/withdraw', { kid: readJws(before).kid });
    await eventually('another key', async () => readJws(await ours('billing')).kid !== readJws(before).kid);
    await assert.rejects(theirs('validate', 'jwt', '-audience', 'billing', '-svid', await ours('billing')), /key|authority/i);
  });

  it('we-take-spires-by-spires-keys-alone', async () => {
    const token = await fetchTheirs();
    const refused = (await validate(port, token, 'billing')).body;
    assert.deepEqual([refused.valid, refused.reason], [false, 'TRUST_DOMAIN_UNKNOWN']);
    const { stdout: bundle } = await run(SERVER, ['bundle', 'show', '-format', 'spiffe', '-socketPath', spire.api]);
    const trust = {
      trustDomain: 'cluster.local',
      issuer: undefined,
      texts: new Map([['cluster.local', bundle]]),
      keySets: new Map([['cluster.local', parseJwks(bundle)]]),
      blockedIds: new Set<string>(),
      notBefore: new Map<string, number>(),
      validUntil: Date.now() + 60_000,
    };
    const of = { trust, now: Date.now() };
    const verdict = verdictOn(token, { ...of, audience: 'billing' });
    assert.deepEqual([verdict.valid, verdict.valid && verdict.spiffeId], [true, idOf('httpbin')]);
    const elsewhere = verdictOn(token, { ...of, audience: 'somebody-else' });
    assert.equal(elsewhere.valid ? 'valid' : elsewhere.reason, 'AUDIENCE_MISMATCH');
  });
});
