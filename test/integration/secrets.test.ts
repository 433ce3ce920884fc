// The secret channel over a real control, CA and agent: who is handed what, what is taken back, what is confirmed, and whoever is away.

import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { ControlOptions } from '../../src/control/control.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { SecretSidecar, SecretsDir } from '../support/secrets.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

let records: RecordingLog;
let plane: ControlPlane;
let secrets: SecretsDir;
let opened: SecretSidecar[];

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  secrets = await SecretsDir.create(join(plane.dir, 'secrets'));
  opened = [];
});
afterEach(async () => {
  for (const sidecar of opened) await sidecar[Symbol.asyncDispose]();
  await plane[Symbol.asyncDispose]();
});

const control = (): Partial<ControlOptions> => ({ secrets: { from: { folder: secrets.path }, auditLog: join(plane.dir, 'audit.jsonl') } });
const start = () => plane.start({ control: control() });
const sidecar = async (name: string, of: Parameters<typeof SecretSidecar.open>[2] = {}) => {
  const one = await SecretSidecar.open(plane, name, of);
  opened.push(one);
  return one;
};
const forA = () => secrets.policy('a', { secrets: ['db'], recipients: { serviceAccounts: ['foo/a'] } });
const seen = (event: string) => records.records.filter((record) => record.audit === 'secret' && record.event === event);
interface Shown {
  readonly secret: string;
  readonly current: string;
  readonly versions: readonly string[];
  readonly holders: readonly {
    spiffeId: string;
    pod: string;
    version: string;
    delivered: number;
    loaded: number;
    confirmed: number;
    dropped: number;
    left: number;
    holdsRevoked: boolean;
  }[];
}
const shown = async (body: object = {}) => (Object(await plane.ask('control', 'POST', '/secrets', body)).secrets as Shown[])[0];

describe('who is handed a secret', () => {
  it('whoever-a-policy-names-and-nobody-else-who-cannot-tell-it-from-what-does-not-exist', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'open sesame' } }, current: '7' });
    await forA();
    await start();
    const [a, b] = [await sidecar('a'), await sidecar('b')];
    const { status, body, headers } = await a.ask('foo/db');
    assert.deepEqual(
      [status, body],
      [
        200,
        {
          secret: 'foo/db',
          version: '7',
          current: '7',
          versions: ['7'],
          data: { password: Buffer.from('open sesame').toString('base64') },
        },
      ],
    );
    assert.equal(headers['cache-control'], 'no-store');
    const [refused, absent] = [await b.ask('foo/db'), await b.ask('foo/nothing')];
    assert.equal(refused.status, 404);
    assert.deepEqual([refused.status, refused.body], [absent.status, absent.body]);
    assert.deepEqual(
      seen('refused').map(({ secret, spiffeId, reason }) => [secret, spiffeId, reason]),
      [
        ['foo/db', 'spiffe://cluster.local/ns/foo/sa/b', 'no SecretPolicy entitles it'],
        ['foo/nothing', 'spiffe://cluster.local/ns/foo/sa/b', 'no SecretPolicy entitles it'],
      ],
    );
  });

  it('as-soon-as-a-policy-says-so-and-no-longer-than-it-does', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'open sesame' } }, current: '7' });
    await start();
    const a = await sidecar('a');
    assert.equal((await a.ask('foo/db')).status, 404);
    await forA();
    await eventually(async () => (await a.text('foo/db', 'password')) === 'open sesame');
    await secrets.remove('policy-foo-a.yaml');
    await eventually(async () => (await a.ask('foo/db')).status === 404);
  });
});

describe('versions', () => {
  it('stand-side-by-side-until-one-is-taken-back', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'old' } }, current: '7' });
    await forA();
    await start();
    const a = await sidecar('a', { preload: ['foo/db'] });
    await eventually(async () => (await a.text('foo/db', 'password')) === 'old');
    const waiting = a.ask('foo/db?after=7&wait=20');
    await secrets.secret('db', { versions: { 7: { password: 'old' }, 8: { password: 'new' } }, current: '8' });
    const next = await waiting;
    assert.deepEqual([next.body.current, next.body.versions], ['8', ['7', '8']]);
    assert.equal(await a.text('foo/db', 'password', '7'), 'old');
    assert.equal((await a.ask('foo/db?after=8&wait=0')).status, 204);
    await secrets.secret('db', { versions: { 8: { password: 'new' } }, current: '8' });
    await eventually(async () => (await a.ask('foo/db?version=7')).status === 404);
    assert.equal(await a.text('foo/db', 'password'), 'new');
    await secrets.remove('foo-db.yaml');
    await eventually(async () => (await a.ask('foo/db')).status === 404);
  });

  it('keep-their-contents-under-one-name', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'old' } }, current: '7' });
    await forA();
    await start();
    const a = await sidecar('a');
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await secrets.secret('db', { versions: { 7: { password: 'forged' } }, current: '7' });
    const { problems } = await records.find(({ msg }) => msg === 'secrets refused, the last good ones stay in force');
    assert.deepEqual(problems, ['WorkloadSecret foo/db: the contents of version 7 have changed: add a version of another name instead']);
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await secrets.secret('db', { versions: { 7: { password: 'old' }, 8: { password: 'forged' } }, current: '8' });
    await eventually(async () => (await a.text('foo/db', 'password')) === 'forged');
  });
});

describe('receipts', () => {
  it('say-who-has-it-who-has-read-it-who-uses-it-and-who-has-it-no-more', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'old' } }, current: '7' });
    await forA();
    await start();
    const a = await sidecar('a', { preload: ['foo/db'] });
    await eventually(async () => (await shown())?.holders.length === 1);
    const first = (await shown())?.holders[0];
    assert.deepEqual([first?.spiffeId, first?.pod, first?.version, first?.loaded], ['spiffe://cluster.local/ns/foo/sa/a', 'foo/a', '7', 0]);
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await eventually(async () => Number((await shown())?.holders[0]?.loaded) > 0);
    assert.equal((await a.confirm('foo/db', '8')).status, 409);
    assert.equal((await a.confirm('foo/db', '7')).status, 204);
    await eventually(async () => Number((await shown())?.holders[0]?.confirmed) > 0);
    await secrets.secret('db', { versions: { 8: { password: 'new' } }, current: '8' });
    await eventually(async () => {
      const all = (await shown())?.holders ?? [];
      return (
        all.some(({ version, dropped }) => version === '7' && dropped > 0) &&
        all.some(({ version, dropped }) => version === '8' && dropped === 0)
      );
    });
    assert.deepEqual(
      (await shown())?.holders.map(({ holdsRevoked }) => holdsRevoked),
      [false, false],
    );
    for (const event of ['handed', 'withdrawn', 'delivered', 'loaded', 'confirmed', 'dropped', 'changed', 'revoked'])
      assert.ok(seen(event).length > 0, event);
    const file = await readFile(join(plane.dir, 'audit.jsonl'), 'utf8');
    assert.equal((await stat(join(plane.dir, 'audit.jsonl'))).mode & 0o777, 0o600);
    const lines = file
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.ok(
      lines.some(
        ({ event, version, spiffeId }) => event === 'confirmed' && version === '7' && spiffeId === 'spiffe://cluster.local/ns/foo/sa/a',
      ),
    );
    for (const content of ['old', 'new'])
      for (const text of [content, Buffer.from(content).toString('base64')]) assert.ok(!file.includes(`"${text}"`));
  });
});

describe('whoever is away', () => {
  it('agent-and-control-may-be-and-what-was-revoked-meanwhile-is-gone-when-they-are-back', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'old' } }, current: '7' });
    await forA();
    await start();
    const a = await sidecar('a', { preload: ['foo/db'] });
    await eventually(async () => (await a.text('foo/db', 'password')) === 'old');
    await plane.stopAgent();
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await plane.startAgent();
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await plane.control?.stop();
    plane.control = undefined;
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await plane.stopAgent();
    await plane.startAgent();
    // Neither of them knows anything now; what is held stays.
    assert.equal(await a.text('foo/db', 'password'), 'old');
    await secrets.remove('foo-db.yaml');
    await plane.startControl(control());
    await eventually(async () => (await a.ask('foo/db')).status === 404);
  });

  it('secrets-end-with-the-certificate-of-whom-they-are-for', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'old' } }, current: '7' });
    await forA();
    await start();
    let ahead = 0;
    const a = await sidecar('a', { now: () => Date.now() + ahead });
    assert.equal((await a.ask('foo/db')).status, 200);
    ahead = 3_600_000;
    assert.equal((await a.ask('foo/db')).status, 503);
    ahead = 0;
    assert.equal((await a.ask('foo/db')).status, 200);
  });

  it('a-blocked-identity-loses-its-secrets-and-another-keeps-them', async () => {
    await secrets.secret('db', { versions: { 7: { password: 'old' } }, current: '7' });
    await secrets.policy('ab', { secrets: ['db'], recipients: { principals: ['cluster.local/ns/foo/sa/*'] } });
    await start();
    const [a, b] = [await sidecar('a'), await sidecar('b')];
    assert.equal((await a.ask('foo/db')).status, 200);
    assert.equal((await b.ask('foo/db')).status, 200);
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: 'spiffe://cluster.local/ns/foo/sa/a' });
    await eventually(async () => (await a.ask('foo/db')).status === 404);
    assert.equal((await b.ask('foo/db')).status, 200);
  });
});
