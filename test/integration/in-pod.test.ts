// A sidecar without a node agent, as a process: its key is made in it, CA and control know it by its own certificate, and it is told of its own pod and no more.

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ControlPlane, TRUST_DOMAIN } from '../support/control-plane.ts';
import { freePort } from '../support/free-port.ts';
import { Role } from '../support/handfast.ts';
import { issue, validate } from '../support/identity-api.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const MESH = ['sleep', 'other']
  .map(
    (name, index) =>
      `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: foo, labels: {security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: ${name}, containers: [{name: a}]}\nstatus: {podIP: 127.0.0.${index + 21}}\n`,
  )
  .join('---\n');

let records: RecordingLog;
let plane: ControlPlane;
let addresses: { ca: string; control: string };
const at = (name: string) => join(plane.dir, name);

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  await writeFile(join(plane.configDir, 'pods.yaml'), MESH);
});
afterEach(() => plane[Symbol.asyncDispose]());

async function start({ tokensAlone = true, servesSidecars = true } = {}): Promise<void> {
  const ca = await plane.startCa({ listen: { host: '127.0.0.1', port: 0 }, tokensAlone });
  const caAddress = `127.0.0.1:${ca.port}`;
  const root = await readFile(at('ca/root.pem'), 'utf8');
  await writeFile(at('bundle.pem'), root.slice(root.indexOf('-----BEGIN CERTIFICATE')));
  await writeFile(at('join'), Object(await plane.ask('ca', 'POST', '/join-tokens', { ttlMs: 60_000, role: 'control' })).token);
  const node = {
    ca: caAddress,
    caKind: 'handfast' as const,
    trustDomain: TRUST_DOMAIN,
    trustBundleFile: at('bundle.pem'),
    caServerName: undefined,
    stateDir: at('control-state'),
    joinTokenFile: at('join'),
    log: plane.log,
    now: Date.now,
  };
  const control = await plane.startControl({ listen: { host: '127.0.0.1', port: 0, node }, servesSidecars });
  addresses = { ca: caAddress, control: `127.0.0.1:${control.port}` };
}

async function proxy(name = 'sleep', token?: string, identityPort = 0): Promise<Role> {
  await writeFile(at(`${name}-token`), token ?? (await plane.token(name)));
  await mkdir(at(name), { recursive: true });
  const ports = ['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((port) => `--${port}-port=0`);
  return new Role(
    'proxy',
    `--agent=unix:${at(`${name}/agent.sock`)}`,
    `--token-file=${at(`${name}-token`)}`,
    `--ca=${addresses.ca}`,
    `--control=${addresses.control}`,
    `--trust-bundle=${at('bundle.pem')}`,
    `--state=${at(`${name}/state`)}`,
    `--pod-name=${name}`,
    '--pod-namespace=foo',
    `--identity-port=${identityPort}`,
    ...ports,
  );
}

async function readiness(of: Role): Promise<{ ok: boolean; text: string }> {
  const { ports } = await of.said('sidecar listening');
  const answer = await fetch(`http://127.0.0.1:${Object(ports).readiness}/healthz/ready`);
  return { ok: answer.status === 200, text: await answer.text() };
}

async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 25_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what}: not within 25 s`);
    await delay(50);
  }
}

const ledger = async () =>
  Object(await plane.ask('control', 'GET', '/ledger')).instances as { pod: string; reporter: string; live: boolean; believed: boolean }[];

describe('a sidecar without an agent', () => {
  it('is-ready-by-its-token-alone-and-is-believed-of-itself', async () => {
    await start();
    await using sidecar = await proxy();
    await eventually('ready', async () => (await readiness(sidecar)).ok);
    await eventually('its ledger', async () => (await ledger()).length === 1);
    assert.deepEqual(
      (await ledger()).map(({ pod, reporter, live, believed }) => [pod, reporter, live, believed]),
      [['foo/sleep', 'spiffe://cluster.local/ns/foo/sa/sleep', true, true]],
    );
    const { reports } = Object(await plane.ask('control', 'GET', '/connections'));
    assert.match(reports[0].node, /^workload ns\/foo\/sa\/sleep at (::ffff:)?127\.0\.0\.1$/);
    assert.equal(reports[0].state, 'complete');
    await records.find(({ msg, purpose }) => msg === 'certificate issued' && purpose === 'token-alone');
    // The CA waits for it with a change of roots, while it is there.
    const { behind } = Object(await plane.ask('ca', 'GET', '/status'));
    assert.deepEqual(behind ?? [], []);
    assert.equal(await sidecar.stop(), 0);
  });

  it('gives-its-application-tokens-and-judges-those-of-others', async () => {
    await start();
    const port = await freePort();
    await using sidecar = await proxy('sleep', undefined, port);
    await sidecar.said('sidecar listening');
    await eventually('a token', async () => (await issue(port, ['b'])).status === 200);
    const { body } = await issue(port, ['b']);
    assert.equal(body.spiffeId, 'spiffe://cluster.local/ns/foo/sa/sleep');
    await eventually('a verdict', async () => (await validate(port, body.token)).body.valid === true);
    assert.equal((await validate(port, body.token, 'c')).body.reason, 'AUDIENCE_MISMATCH');
    assert.equal(await sidecar.stop(), 0);
  });

  it('keeps-what-it-trusts-and-no-key', async () => {
    await start();
    await using sidecar = await proxy();
    await eventually('ready', async () => (await readiness(sidecar)).ok);
    const kept = async () => (await readdir(at('sleep/state')).catch(() => [])).sort();
    await eventually('its trust', async () => (await kept()).length === 2);
    assert.deepEqual(await kept(), ['bundle.pem', 'revocations.pem']);
    for (const name of await kept()) assert.doesNotMatch(await readFile(at(`sleep/state/${name}`), 'utf8'), /KEY/);
    assert.equal(await sidecar.stop(), 0);
  });

  it('whose-certificate-is-revoked-has-another-by-its-token', async () => {
    await start();
    await using sidecar = await proxy();
    await eventually('ready', async () => (await readiness(sidecar)).ok);
    const issued = () =>
      records.records.filter(({ msg, spiffeId }) => msg === 'certificate issued' && spiffeId === 'spiffe://cluster.local/ns/foo/sa/sleep');
    const first = issued().at(-1)?.serial;
    await plane.ask('ca', 'POST', '/revocations', { serial: first });
    await eventually('another', async () => issued().at(-1)?.serial !== first);
    await eventually('ready', async () => (await readiness(sidecar)).ok);
    await eventually('a ledger that lives', async () => (await ledger()).some(({ live }) => live));
    assert.equal(await sidecar.stop(), 0);
  });

  it('follows-a-change-of-roots', async () => {
    await start();
    await using sidecar = await proxy();
    await eventually('ready', async () => (await readiness(sidecar)).ok);
    await plane.ask('ca', 'POST', '/root/prepare', {});
    await eventually('both roots', async () => (await readFile(at('sleep/state/bundle.pem'), 'utf8')).split('BEGIN').length === 3);
    await eventually('everybody', () =>
      plane.ask('ca', 'POST', '/root/activate', {}).then(
        () => true,
        () => false,
      ),
    );
    await plane.ask('ca', 'POST', '/root/retire', { force: true });
    await eventually('one root', async () => (await readFile(at('sleep/state/bundle.pem'), 'utf8')).split('BEGIN').length === 2);
    await eventually('ready', async () => (await readiness(sidecar)).ok);
    await using late = await proxy('sleep');
    await eventually('ready again, by what was kept', async () => (await readiness(late)).ok);
    for (const role of [late, sidecar]) await role.stop();
  });

  it('is-refused-by-a-ca-that-wants-agents-and-by-a-control-that-serves-none', async () => {
    await start({ tokensAlone: false });
    await using refused = await proxy();
    await refused.said('no certificate for the token of this pod');
    assert.equal((await readiness(refused)).ok, false);
    await refused.stop();
    await plane.stopCa();
    await plane.control?.stop();
    await start({ servesSidecars: false });
    await using unserved = await proxy('other');
    const ended = await unserved.said('discovery stream ended, what was received stays in force');
    assert.match(String(ended.reason), /only agents are served here/);
    assert.equal((await readiness(unserved)).ok, false);
    await unserved.stop();
  });

  it('with-another-pod-s-name-is-nobody', async () => {
    await start();
    await using thief = await proxy('sleep', await plane.token('other'));
    await eventually('a certificate', async () =>
      records.records.some(({ msg, spiffeId }) => msg === 'certificate issued' && spiffeId === 'spiffe://cluster.local/ns/foo/sa/other'),
    );
    await eventually('its refusal', async () => /IDENTITY_MISMATCH|its token proves/.test((await readiness(thief)).text));
    await eventually('its ledger', async () => (await ledger()).length === 1);
    assert.deepEqual(
      (await ledger()).map(({ pod, believed }) => [pod, believed]),
      [['foo/sleep', false]],
    );
    await thief.stop();
  });

  it('says-which-flags-belong-together', async () => {
    addresses = { ca: '127.0.0.1:1', control: '127.0.0.1:1' };
    for (const [flags, words] of [
      [['--ca=127.0.0.1:1'], /needs --control and --trust-bundle too/],
      [['--control=127.0.0.1:1'], /give --ca too/],
      [['--ca=127.0.0.1:1', '--control=127.0.0.1:1', `--trust-bundle=${at('b')}`, '--sds=unix:/x'], /a certificate comes from one of them/],
    ] as const) {
      await writeFile(at('token'), 'x');
      const role = new Role('proxy', '--pod-name=a', '--pod-namespace=b', `--token-file=${at('token')}`, ...flags);
      await assert.rejects(role.said('sidecar listening'), words);
    }
  });
});
