// The promise of the secret channel as a whole, with every part a process of its own: a secret rotated a hundred times under load, an agent that restarts in the middle,
// everybody entitled has each version, nobody else ever has any, receipts agree, and nothing of it is on a disk.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../support/free-port.ts';
import { handfast, Role } from '../support/handfast.ts';
import { askIdentity } from '../support/identity-api.ts';
import { SecretsDir } from '../support/secrets.ts';

const ROTATIONS = 100;
const RESTART_AT = 50;
const ENTITLED = ['a', 'b', 'c'];
const OTHERS = ['d', 'e'];
const POD = (name: string, index: number) =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: foo, labels: {security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: ${name}, containers: [{name: a}]}\nstatus: {podIP: 127.0.0.${index + 21}}\n`;

let dir: string;
let secrets: SecretsDir;
let roles: Role[];
const at = (name: string) => join(dir, name);

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-secrets-'));
  secrets = await SecretsDir.create(at('secrets'));
  await mkdir(at('config'));
  await writeFile(at('config/pods.yaml'), [...ENTITLED, ...OTHERS].map(POD).join('---\n'));
  roles = [];
});
afterEach(async () => {
  for (const role of roles.reverse()) await role.stop();
  await rm(dir, { recursive: true });
});

function started(...args: readonly string[]): Role {
  const role = new Role(...args);
  roles.push(role);
  return role;
}

async function agent(): Promise<Role> {
  const role = started(
    'agent',
    `--socket=${at('agent.sock')}`,
    `--workload-socket=${at('workload.sock')}`,
    `--operator-socket=${at('agent-operator.sock')}`,
    `--ca=unix:${at('ca.sock')}`,
    `--control=unix:${at('control.sock')}`,
    `--state=${at('agent-state')}`,
  );
  await role.said('agent listening');
  return role;
}

async function sidecar(name: string, ...flags: readonly string[]): Promise<number> {
  const token = await handfast('token', 'create', '--namespace=foo', `--service-account=${name}`, `--state=${at('ca')}`);
  await writeFile(at(`${name}.token`), token.stdout);
  const port = await freePort();
  await started(
    'proxy',
    `--agent=unix:${at('agent.sock')}`,
    `--token-file=${at(`${name}.token`)}`,
    `--pod-name=${name}`,
    '--pod-namespace=foo',
    `--identity-port=${port}`,
    ...['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((kind) => `--${kind}-port=0`),
    ...flags,
  ).said('sidecar listening');
  return port;
}

/** One value a version, which stands nowhere else in the world. */
const values = Array.from({ length: ROTATIONS + 1 }, () => randomBytes(24));

/** The present version and the one before it, as whoever rotates without a gap keeps them. */
async function rotateTo(version: number): Promise<void> {
  const both = [version - 1, version].filter((one) => one > 0);
  const versions = both.map((one) => `{version: "${one}", data: {key: ${values[one]?.toString('base64')}}}`).join(', ');
  await secrets.write(
    'db.yaml',
    `apiVersion: handfast.io/v1alpha1\nkind: WorkloadSecret\nmetadata: {name: db, namespace: foo}\nspec: {current: "${version}", versions: [${versions}]}\n`,
  );
}

/** An application that follows its secret by waiting for what comes after the version that it has, and confirms each. */
class Application {
  readonly #port: number;
  /** When it had each version first, by performance.now(). */
  readonly had = new Map<number, number>();
  readonly #waiting = new Set<() => void>();

  constructor(port: number) {
    this.#port = port;
  }

  async run(signal: AbortSignal): Promise<void> {
    let version = '0';
    while (!signal.aborted) {
      const { status, body } = await askIdentity(this.#port, `/v1/secrets/foo/db?after=${version}&wait=1`);
      if (status !== 200) {
        await delay(20);
        continue;
      }
      version = String(body.current);
      assert.equal(String(Object(body.data).key), values[Number(version)]?.toString('base64'));
      if (!this.had.has(Number(version))) this.had.set(Number(version), performance.now());
      for (const wake of [...this.#waiting]) wake();
      assert.equal((await askIdentity(this.#port, '/v1/secrets/foo/db/receipt', { body: { version } })).status, 204);
    }
  }

  async has(version: number): Promise<number> {
    const until = performance.now() + 30_000;
    for (;;) {
      const when = this.had.get(version);
      if (when !== undefined) return when;
      assert.ok(performance.now() < until, `version ${version} was not there within 30 s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => wake(), 1_000);
        const wake = () => {
          clearTimeout(timer);
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }
}

/** Asks and asks; returns how often, and by what it was answered. */
async function load(port: number, signal: AbortSignal): Promise<Map<number, number>> {
  const answers = new Map<number, number>();
  while (!signal.aborted) {
    const { status } = await askIdentity(port, '/v1/secrets/foo/db');
    answers.set(status, (answers.get(status) ?? 0) + 1);
    await delay(10);
  }
  return answers;
}

it('every-entitled-workload-has-each-of-a-hundred-versions-and-nobody-else-any', async () => {
  await secrets.policy('db', { secrets: ['db'], recipients: { serviceAccounts: ENTITLED.map((name) => `foo/${name}`) } });
  await started('ca', `--state=${at('ca')}`, `--socket=${at('ca.sock')}`, `--operator-socket=${at('ca-operator.sock')}`).said(
    'CA listening',
  );
  await started(
    'control',
    `--config=${at('config')}`,
    `--secrets-dir=${secrets.path}`,
    `--audit-log=${at('audit.jsonl')}`,
    `--socket=${at('control.sock')}`,
    `--operator-socket=${at('control-operator.sock')}`,
    `--state=${at('control')}`,
  ).said('control listening');
  let running = await agent();
  const ports = new Map<string, number>();
  for (const name of [...ENTITLED, ...OTHERS])
    ports.set(name, await sidecar(name, ...(name === 'b' ? ['--workers=2'] : name === 'c' ? ['--secret=foo/db'] : [])));
  const port = (name: string) => ports.get(name) ?? 0;

  const ending = new AbortController();
  const applications = ENTITLED.map((name) => new Application(port(name)));
  const following = applications.map((application) => application.run(ending.signal));
  const loads = [...ENTITLED, ...OTHERS].map((name) => load(port(name), ending.signal));
  const delays: number[] = [];
  let overRestart = 0;
  for (let version = 1; version <= ROTATIONS; version++) {
    const isAway = version === RESTART_AT;
    if (isAway) await running.stop();
    const written = performance.now();
    await rotateTo(version);
    if (isAway) running = await agent();
    const had = await Promise.all(applications.map((application) => application.has(version)));
    const took = Math.max(...had) - written;
    if (isAway) overRestart = took;
    else delays.push(took);
  }
  ending.abort();
  await Promise.all(following);
  const answers = await Promise.all(loads);
  delays.sort((a, b) => a - b);
  const asked = answers.flatMap((each) => [...each.values()]).reduce((a, b) => a + b);
  console.log(
    `# ${ROTATIONS} rotations, from the rename of the file to the last of ${ENTITLED.length} applications: median ${Math.round(delays[49] ?? 0)} ms, worst ${Math.round(delays.at(-1) ?? 0)} ms; over an agent's restart ${Math.round(overRestart)} ms; ${asked} requests beside`,
  );

  // Each version, in order, at every entitled application; and nobody else was ever answered with one.
  for (const { had } of applications)
    assert.deepEqual(
      [...had.keys()],
      Array.from({ length: ROTATIONS }, (_, index) => index + 1),
    );
  for (const each of answers.slice(ENTITLED.length)) assert.deepEqual([...each.keys()], [404]);
  for (const each of answers.slice(0, ENTITLED.length)) assert.ok((each.get(200) ?? 0) > 0);

  // Receipts agree: every version was delivered to, loaded and confirmed by each of them, and all but the last two were taken back.
  const receipts = async () => {
    const { stdout } = await handfast('secrets', `--run-dir=${dir}`, '-n', 'foo', 'db', '-o', 'json');
    const [{ holders }] = JSON.parse(stdout).secrets;
    return holders as { spiffeId: string; version: string; delivered: number; loaded: number; confirmed: number; dropped: number }[];
  };
  const until = performance.now() + 20_000;
  const all = (holders: Awaited<ReturnType<typeof receipts>>) =>
    holders.filter(
      ({ confirmed, loaded, dropped, version }) => confirmed > 0 && loaded > 0 && dropped > 0 === Number(version) < ROTATIONS - 1,
    ).length;
  while (all(await receipts()) < ENTITLED.length * ROTATIONS) {
    assert.ok(performance.now() < until, `${all(await receipts())} receipts of ${ENTITLED.length * ROTATIONS} within 20 s`);
    await delay(200);
  }
  const holders = await receipts();
  assert.deepEqual(
    [...new Set(holders.map(({ spiffeId }) => spiffeId))].sort(),
    ENTITLED.map((name) => `spiffe://cluster.local/ns/foo/sa/${name}`),
  );
  assert.equal(holders.length, ENTITLED.length * ROTATIONS);
  const records = (await readFile(at('audit.jsonl'), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  for (const event of ['delivered', 'loaded', 'confirmed'])
    assert.equal(records.filter((record) => record.event === event).length, ENTITLED.length * ROTATIONS, event);
  assert.deepEqual(
    [...new Set(records.flatMap((record) => (record.reason === 'no SecretPolicy entitles it' ? [record.spiffeId] : [])))].sort(),
    OTHERS.map((name) => `spiffe://cluster.local/ns/foo/sa/${name}`),
  );

  // Nothing of it is in a file, in whatever form: not in what the parts keep, nor in what they have open, nor in what they log.
  const needles = values.flatMap((value) => [value, Buffer.from(value.toString('base64')), Buffer.from(value.toString('hex'))]);
  const holdsOne = (content: Buffer) => needles.some((needle) => content.includes(needle));
  assert.ok(holdsOne(await readFile(join(secrets.path, 'db.yaml'))), 'the search finds what is there');
  const files = await filesBelow(dir, secrets.path);
  assert.ok(files.includes(at('audit.jsonl')));
  for (const file of files) assert.ok(!holdsOne(await readFile(file)), file);
  for (const role of roles) {
    assert.ok(!holdsOne(Buffer.from(role.output)), 'the log');
    for (const file of await openFilesOf(role.child.pid ?? 0)) assert.ok(!holdsOne(await readFile(file)), file);
  }
});

async function filesBelow(root: string, except: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(root, { withFileTypes: true })) {
    const path = join(root, entry.name);
    if (entry.isDirectory() && path !== except) found.push(...(await filesBelow(path, except)));
    else if (entry.isFile()) found.push(path);
  }
  return found;
}

/** Regular files, deleted ones too. */
async function openFilesOf(pid: number): Promise<string[]> {
  const found: string[] = [];
  for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
    const path = `/proc/${pid}/fd/${fd}`;
    const info = await stat(path).catch(() => undefined);
    const target = await readlink(path).catch(() => '');
    if (info?.isFile() === true && !target.startsWith('/proc/')) found.push(path);
  }
  return found;
}
