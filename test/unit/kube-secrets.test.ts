// Secrets from an API server: each object for itself, its last good version kept, nobody entitled by what could never be read, and nothing of the contents said.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, it } from 'node:test';
import { KubeSecrets } from '../../src/control/secrets/kube-secrets.ts';
import type { SecretWorld } from '../../src/control/secrets/secret-world.ts';
import { HandfastError } from '../../src/errors.ts';
import { FakeKubeApi } from '../support/fake-kube-api.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

const SECRETS = '/apis/handfast.io/v1alpha1/workloadsecrets';
const POLICIES = '/apis/handfast.io/v1alpha1/secretpolicies';
const api = { apiVersion: 'handfast.io/v1alpha1' };
const meta = (name: string) => ({ name, namespace: 'foo', uid: name, generation: 1, managedFields: [{ fieldsV1: { 'f:spec': {} } }] });
const secret = (name: string, text: string, version = '7') => ({
  ...api,
  kind: 'WorkloadSecret',
  metadata: meta(name),
  spec: { current: version, versions: [{ version, stringData: { key: text } }] },
});
const policy = (name: string, recipients: object) => ({
  ...api,
  kind: 'SecretPolicy',
  metadata: meta(name),
  spec: { secrets: ['db'], recipients },
});

let kube: FakeKubeApi;
let records: RecordingLog;
let stopping: AbortController;
beforeEach(() => {
  kube = new FakeKubeApi();
  records = new RecordingLog();
  stopping = new AbortController();
});
afterEach(() => stopping.abort());

async function start(): Promise<KubeSecrets> {
  const source = new KubeSecrets({ api: kube, trustDomain: 'cluster.local', log: records.log, now: () => 0 });
  await source.start(stopping.signal);
  return source;
}

async function until(source: KubeSecrets, holds: (world: SecretWorld) => boolean): Promise<SecretWorld> {
  const deadline = AbortSignal.timeout(10_000);
  for (;;) {
    const { current } = source.world;
    if (current !== undefined && holds(current)) return current;
    deadline.throwIfAborted();
    await new Promise<void>((resolve) => {
      const unsubscribe = source.world.subscribe(() => {
        unsubscribe();
        resolve();
      });
      deadline.addEventListener('abort', () => resolve(), { once: true });
    });
  }
}

it('objects-are-followed-and-a-removed-one-is-gone', async () => {
  kube.put(SECRETS, secret('db', 'sesame'));
  kube.put(POLICIES, policy('db', { serviceAccounts: ['foo/a'] }));
  const source = await start();
  assert.equal(source.world.current?.secrets.get('foo/db')?.versions.get('7')?.get('key')?.toString(), 'sesame');
  assert.deepEqual(
    source.world.current?.policiesOf.get('foo/db')?.map(({ name }) => name),
    ['db'],
  );
  kube.put(SECRETS, secret('db', 'next', '8'));
  await until(source, ({ secrets }) => secrets.get('foo/db')?.current === '8');
  kube.remove(SECRETS, 'foo/db');
  await until(source, ({ secrets }) => secrets.size === 0);
  kube.remove(POLICIES, 'foo/db');
  await until(source, ({ policies }) => policies.length === 0);
});

it('the-last-good-version-of-each-stays-and-what-never-was-good-is-nothing', async () => {
  kube.put(SECRETS, secret('db', 'sesame'));
  kube.put(POLICIES, policy('db', { serviceAccounts: ['foo/a'] }));
  kube.put(POLICIES, policy('never', { serviceAccounts: ['*'] }));
  const source = await start();
  assert.deepEqual(
    source.world.current?.policies.map(({ name }) => name),
    ['db'],
  );
  kube.put(POLICIES, policy('db', { principals: ['*'] }));
  kube.put(SECRETS, secret('db', 'forged'));
  kube.put(SECRETS, { ...secret('other', 'sesame'), spec: { current: '7', versions: [{ version: '7', data: { key: 'sesame!' } }] } });
  kube.put(SECRETS, secret('last', 'x'));
  const world = await until(source, ({ secrets }) => secrets.has('foo/last'));
  assert.equal(world.secrets.get('foo/db')?.versions.get('7')?.get('key')?.toString(), 'sesame');
  assert.deepEqual([...(world.policies[0]?.ids ?? [])], ['spiffe://cluster.local/ns/foo/sa/a']);
  assert.equal(world.secrets.has('foo/other'), false);
  const refusals = records.records.filter(({ msg }) => String(msg).startsWith('object refused'));
  assert.equal(refusals.length, 4);
  assert.ok(!JSON.stringify(records.records).match(/sesame|forged/));
  // The same stands in their statuses, and nothing of the contents; what is in force says so, too.
  const conditionOf = async (path: string, name: string) => {
    const { items } = await kube.request({ method: 'GET', path, signal: stopping.signal });
    const found = (items as { metadata: { name: string }; status?: { conditions: Record<string, string>[] } }[]).find(
      ({ metadata }) => metadata.name === name,
    );
    return found?.status?.conditions[0];
  };
  await eventually(
    async () => (await conditionOf(SECRETS, 'db'))?.status === 'False' && (await conditionOf(SECRETS, 'last'))?.status === 'True',
  );
  await eventually(async () => (await conditionOf(POLICIES, 'never'))?.status === 'False');
  const { message } = (await conditionOf(SECRETS, 'db')) ?? {};
  assert.match(
    String(message),
    /^the contents of version 7 have changed: .* Its last version that could be read stays in force; if there was none, nobody has/,
  );
  assert.equal(records.records.filter(({ msg }) => String(msg).startsWith('object refused')).length, 4);
});

it('a-new-version-is-not-handed-out-by-policies-from-before-it', async () => {
  kube.put(SECRETS, secret('db', 'sesame'));
  kube.put(POLICIES, policy('db', { serviceAccounts: ['foo/a', 'foo/b'] }));
  const source = await start();
  await kube.askedTimes(`watch ${POLICIES}`, 2);
  // The watch of policies says nothing of it; and the secret's watch does.
  kube.mute(POLICIES);
  kube.put(POLICIES, policy('db', { serviceAccounts: ['foo/a'] }));
  const seen: [string | undefined, number][] = [];
  source.world.subscribe(({ secrets, policies }) => seen.push([secrets.get('foo/db')?.current, policies[0]?.ids.size ?? 0]));
  kube.put(SECRETS, secret('db', 'next', '8'));
  await until(source, ({ secrets }) => secrets.get('foo/db')?.current === '8');
  assert.deepEqual(
    seen.filter(([current, ids]) => current === '8' && ids > 1),
    [],
  );
});

it('a-secret-that-is-gone-is-gone-though-the-policies-cannot-be-listed', async () => {
  kube.put(SECRETS, secret('db', 'sesame'));
  kube.put(SECRETS, secret('other', 'sesame'));
  const source = await start();
  await kube.askedTimes(`watch ${POLICIES}`, 2);
  kube.away = new HandfastError('UNAVAILABLE', 'away');
  kube.put(SECRETS, secret('db', 'next', '8'));
  kube.remove(SECRETS, 'foo/other');
  const world = await until(source, ({ secrets }) => !secrets.has('foo/other'));
  assert.equal(world.secrets.get('foo/db')?.current, '7');
  kube.away = undefined;
  await until(source, ({ secrets }) => secrets.get('foo/db')?.current === '8');
});

it('nothing-is-published-before-both-kinds-are-known-and-what-is-known-stays-while-the-api-server-is-away', async () => {
  kube.put(SECRETS, secret('db', 'sesame'));
  kube.put(POLICIES, policy('db', { serviceAccounts: ['foo/a'] }));
  const source = await start();
  kube.away = new HandfastError('UNAVAILABLE', 'away');
  kube.endWatches();
  await kube.askedTimes(`watch ${SECRETS}`, 3);
  assert.equal(source.world.current?.secrets.size, 1);
  kube.away = undefined;
  kube.put(SECRETS, secret('db', 'next', '8'));
  await until(source, ({ secrets }) => secrets.get('foo/db')?.current === '8');
});
