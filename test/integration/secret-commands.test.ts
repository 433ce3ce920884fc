// The secret channel from the command line: `up` with a folder, what operators see, and flags that do not go together.

import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { freePort } from '../support/free-port.ts';
import { handfast, Role } from '../support/handfast.ts';
import { askIdentity } from '../support/identity-api.ts';
import { SecretsDir } from '../support/secrets.ts';
import { eventually } from '../support/workers-pair.ts';

let dir: string;
let secrets: SecretsDir;
const at = (name: string) => join(dir, name);

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-commands-'));
  secrets = await SecretsDir.create(at('secrets'));
  await mkdir(at('config'));
  await writeFile(at('config/mesh.yaml'), 'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n');
});
afterEach(() => rm(dir, { recursive: true }));

const up = (...flags: readonly string[]) => ['up', `--config=${at('config')}`, `--state=${at('ca')}`, `--run-dir=${dir}`, ...flags];

describe('handfast up', () => {
  it('hands-out-what-stands-in-the-folder-and-says-who-has-it', async () => {
    await secrets.secret('db', { versions: { 7: { key: 'sesame' } }, current: '7' });
    await secrets.policy('a', { secrets: ['db'], recipients: { serviceAccounts: ['foo/a'] } });
    await using plane = new Role(...up(`--secrets-dir=${secrets.path}`));
    await plane.said('agent listening');
    const token = await handfast('token', 'create', '--namespace=foo', '--service-account=a', `--state=${at('ca')}`);
    await writeFile(at('a.token'), token.stdout);
    const port = await freePort();
    await using sidecar = new Role(
      'proxy',
      `--agent=unix:${at('agent.sock')}`,
      `--token-file=${at('a.token')}`,
      '--pod-name=a',
      '--pod-namespace=foo',
      `--identity-port=${port}`,
      ...['inbound', 'outbound', 'tunnel', 'readiness', 'status'].map((kind) => `--${kind}-port=0`),
    );
    await sidecar.said('sidecar listening');
    await eventually(async () => (await askIdentity(port, '/v1/secrets/foo/db')).status === 200);
    assert.equal((await askIdentity(port, '/v1/secrets/foo/db/receipt', { body: { version: '7' } })).status, 204);
    let shown = '';
    await eventually(async () => {
      shown = (await handfast('secrets', `--run-dir=${dir}`, '-n', 'foo')).stdout;
      return shown.includes('confirmed');
    });
    assert.match(shown, /^foo\/db: current 7, of 7\nPOLICY +MAY RECEIVE\nfoo\/a +foo\/a\nWORKLOAD +POD +NODE +VERSION +STATE +SINCE\n/);
    assert.match(shown, /^spiffe:\/\/cluster\.local\/ns\/foo\/sa\/a +foo\/a +local +7 +confirmed +20\d\d-/m);
    assert.ok(!shown.includes('sesame'));
    assert.equal((await handfast('secrets', `--run-dir=${dir}`, '-n', 'bar')).stdout, 'there are none\n');
    assert.equal((await handfast('secrets', `--run-dir=${dir}`, 'foo/db')).stdout, shown);
    assert.equal((await handfast('secrets', `--run-dir=${dir}`, 'foo/other')).stdout, 'there are none\n');
    assert.equal((await handfast('secrets', `--run-dir=${dir}`, '-n', 'bar', 'foo/db')).code, 2);
    assert.equal(await sidecar.stop(), 0);
    assert.equal(await plane.stop(), 0);
    assert.ok(!plane.output.includes('sesame') && !sidecar.output.includes('sesame'));
  });

  it('does-not-begin-with-a-folder-that-others-may-open', async () => {
    await chmod(secrets.path, 0o755);
    const { code, stderr } = await handfast(...up(`--secrets-dir=${secrets.path}`));
    assert.equal(code, 2);
    assert.match(stderr, /may be opened by others \(mode 755\): chmod 700/);
  });
});

describe('flags', () => {
  const proxy = (...flags: readonly string[]) => ['proxy', '--pod-name=a', '--pod-namespace=foo', ...flags];
  const cases: Readonly<Record<string, readonly [args: () => readonly string[], said: RegExp]>> = {
    'records of what there is not': [() => up(`--audit-log=${at('audit')}`), /--audit-log is a record of secrets, and there are none/],
    'the API server without Kubernetes': [
      () => ['control', `--config=${at('config')}`, '--secrets'],
      /--secrets are those of the API server/,
    ],
    'a folder beside the API server': [
      () => ['control', '--kubernetes', '--kube-server=https://127.0.0.1:1', `--secrets-dir=${secrets.path}`],
      /--secrets-dir is for --config/,
    ],
    'a secret that is no name': [() => proxy('--secret=../db'), /--secret "\.\.\/db" is not accepted: NAMESPACE\/NAME/],
    'a secret without the port that serves it': [() => proxy('--secret=foo/db', '--identity-port=0'), /--secret needs --identity-port/],
  };
  for (const [what, [args, said]] of Object.entries(cases))
    it(`refused: ${what}`, async () => {
      const { code, stderr } = await handfast(...args());
      assert.match(stderr, said);
      assert.equal(code, 2);
    });

  it('refused: a secret among the configuration', async () => {
    await secrets.secret('db', { versions: { 7: { key: 'sesame' } }, current: '7' });
    const { stderr } = await handfast('up', `--config=${secrets.path}`, `--state=${at('ca')}`, `--run-dir=${dir}`);
    assert.match(stderr, /foo-db\.yaml:1: a WorkloadSecret stands in a folder of its own, closed to others: --secrets-dir/);
    assert.ok(!stderr.includes('sesame'));
  });
});
