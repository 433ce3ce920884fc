// A plain DENY for a namespace, which a ScopeConfig replaces for another pod: over real streams, from control's cache to a sidecar's snapshots, there is none that lets somebody in.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { startController } from '../../src/control/controller.ts';
import type { EffectiveObjects, MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { MeshSource, meshTypeUrls } from '../../src/discovery/mesh-source.ts';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { type Authorization, decideAuthorization } from '../../src/policy/authorization.ts';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { A, cleanups, Events, names, rawClient, recordingLog, resources, serve } from '../support/ads-rig.ts';
import { objectText, parseTexts, podText, scopeText } from '../support/policy-yaml.ts';

const opts = { timeout: 30_000 };
const PODS = [podText('web', { labels: '{app: web}', ip: '10.0.0.1' }), podText('other', { labels: '{app: other}', ip: '10.0.0.2' })];
const DENY = objectText('AuthorizationPolicy', '{action: DENY, rules: [{}]}', { name: 'deny' });
const SCOPED = scopeText(
  { kind: 'AuthorizationPolicy', name: 'deny', spec: '{action: DENY, rules: [{to: [{operation: {ports: ["9"]}}]}]}' },
  { name: 'sc', selector: '{matchLabels: {app: other}}' },
);
const plain = parseTexts(...PODS, DENY);
const scoped = parseTexts(...PODS, DENY, SCOPED);

/** Whether nobody in particular may reach port 80 of a pod. */
function isOpen({ registry, authorizations }: MeshSnapshot, pod: string): boolean {
  const self = registry.workload('foo', pod);
  if (self === undefined) return false;
  const subject = { peer: undefined, sourceIp: '10.0.0.9', destination: { address: '10.0.0.1', port: 80 } };
  return decideAuthorization(authorizations.of(self), subject).allowed;
}

/** With nobody that a rollout has come to. */
const effectively = (objects: MeshObjects): EffectiveObjects => ({ objects, selections: new Map() });

/** Control's side without its socket. */
function control() {
  const [effective, cache, ended] = [new Snapshot(effectively(plain)), new ResourceCache(), new AbortController()];
  startController({ effective, cache, trustDomain: 'cluster.local', log: pino({ enabled: false }), signal: ended.signal });
  cleanups.push(() => ended.abort());
  return { objects: { replace: (objects: MeshObjects) => effective.replace(effectively(objects)) }, cache };
}

/** A sidecar's side without its listeners; `addressesAfterMs` is how long it takes to answer those. Every snapshot is looked at. */
function sidecar(address: string, addressesAfterMs: number): Events<{ web: boolean; other: boolean }> {
  const [mesh, seen, stopping] = [new Snapshot<MeshSnapshot>(), new Events<{ web: boolean; other: boolean }>(), new AbortController()];
  const source = new MeshSource(mesh);
  mesh.subscribe((now) => seen.push({ web: isOpen(now, 'web'), other: isOpen(now, 'other') }));
  const running = runDeltaAdsClient({
    target: unixTarget(address),
    nodeId: 'sidecar',
    token: undefined,
    typeUrls: meshTypeUrls,
    apply: (typeUrl, change) => {
      source.apply(typeUrl, change);
      return typeUrl === typeUrls.address ? delay(addressesAfterMs) : undefined;
    },
    log: recordingLog().log,
    signal: stopping.signal,
  });
  cleanups.push(async () => {
    stopping.abort();
    await running;
  });
  return seen;
}

describe('a DENY that is replaced for another pod', opts, () => {
  test('live, the change and its opposite, to a sidecar that takes its time to answer about addresses', opts, async () => {
    const { objects, cache } = control();
    const rig = await serve(undefined, cache);
    const seen = sidecar(rig.address, 40);
    await seen.count(1);
    for (let round = 0; round < 8; round++) {
      // First a pod alone, so that an answer about addresses is under way when the policy changes.
      const pod = podText('third', { ip: `10.0.1.${round}` });
      const policies = round % 2 === 0 ? [DENY, SCOPED] : [DENY];
      objects.replace(parseTexts(...PODS, pod, ...(round % 2 === 0 ? [DENY] : [DENY, SCOPED])));
      await delay(round % 4 < 2 ? 10 : 1);
      objects.replace(parseTexts(...PODS, pod, ...policies));
      // Some while more is under way, some at rest.
      if (round % 3 > 0) await seen.until((all) => all.at(-1)?.other === (round % 2 === 0));
    }
    objects.replace(scoped);
    await seen.until((all) => all.at(-1)?.other === true);
    assert.ok(
      seen.all.every(({ web }) => !web),
      JSON.stringify(seen.all),
    );
  });

  for (const [name, before, after] of [
    ['narrows', plain, scoped],
    ['widens', scoped, plain],
  ] as const)
    test(`it ${name} while the stream is down`, opts, async () => {
      const { objects, cache } = control();
      objects.replace(before);
      const first = await serve(undefined, cache);
      const seen = sidecar(first.address, 0);
      await seen.until((all) => all.at(-1)?.other === (before === scoped));
      // All three are answered.
      await first.requests.until((all) => all.filter(({ responseNonce }) => responseNonce !== '').length >= 3);
      await first.stop();
      objects.replace(after);
      await serve(first.path, cache);
      await seen.until((all) => all.at(-1)?.other === (after === scoped));
      assert.ok(
        seen.all.every(({ web }) => !web),
        JSON.stringify(seen.all),
      );
    });
});

describe('what waits, and what does not', opts, () => {
  const { address, authorization } = typeUrls;
  const ack = (client: ReturnType<typeof rawClient>, typeUrl: string, nonce: string | undefined) =>
    client.send({ typeUrl, responseNonce: nonce ?? '' });

  test(
    'a client that never asks for addresses gets every change of a policy, one that never asks for policies every address',
    opts,
    async () => {
      const rig = await serve();
      rig.cache.replace(authorization, resources({ 'foo/p': '1' }));
      rig.cache.replace(address, resources({ w: '1' }));
      const [policies, addresses] = [rawClient(rig), rawClient(rig)];
      policies.send({ typeUrl: authorization, initialResourceVersions: { 'foo/p': 'old', 'foo/gone': 'v' } });
      addresses.send({ typeUrl: address });
      const [first] = await policies.received.count(1);
      assert.deepEqual(names(first), { resources: ['foo/p'], removed: [] });
      ack(policies, authorization, first?.nonce);
      assert.deepEqual(names((await policies.received.count(2))[1]), { resources: [], removed: ['foo/gone'] });
      assert.deepEqual(names((await addresses.received.count(1))[0]), { resources: ['w'], removed: [] });
    },
  );

  test('with no address under way a policy is changed and removed at once; with one it is when that is answered', opts, async () => {
    const { objects, cache } = control();
    objects.replace(scoped);
    const rig = await serve(undefined, cache);
    const client = rawClient(rig);
    for (const typeUrl of [address, authorization]) client.send({ typeUrl });
    const both = await client.received.count(2);
    assert.deepEqual(
      both.map(({ typeUrl }) => typeUrl),
      [authorization, address],
    );
    for (const { typeUrl, nonce } of both) ack(client, typeUrl, nonce);
    await rig.requests.count(4);
    cache.apply(authorization, { upserts: new Map(), removed: ['foo/deny'] });
    const third = (await client.received.count(3))[2];
    assert.deepEqual(names(third), { resources: [], removed: ['foo/deny'] });
    ack(client, authorization, third?.nonce);
    cache.apply(address, { upserts: resources({ w: '1' }), removed: [] });
    cache.apply(authorization, { upserts: new Map(), removed: ['foo/sc~deny'] });
    const fourth = (await client.received.count(4))[3];
    assert.deepEqual(names(fourth), { resources: ['w'], removed: [] });
    await rig.requests.count(5);
    assert.equal(rig.responses.all.length, 4);
    ack(client, address, fourth?.nonce);
    assert.deepEqual((await client.received.count(5))[4]?.typeUrl, authorization);
  });

  const policyOf = (name: string, scope: Authorization['scope'], dryRun = false) =>
    encodeAuthorization({ name, namespace: 'foo', scope, action: 'ALLOW', rules: [], dryRun });
  const nack = (client: ReturnType<typeof rawClient>, typeUrl: string, nonce: string | undefined) =>
    client.send({ typeUrl, responseNonce: nonce ?? '', errorDetail: { code: 3, message: 'no', details: [] } });

  /** A client that has taken a pod and these policies. */
  async function settled(policies: Readonly<Record<string, Authorization['scope']>>) {
    const rig = await serve();
    rig.cache.replace(authorization, new Map(Object.entries(policies).map(([name, scope]) => [`foo/${name}`, policyOf(name, scope)])));
    rig.cache.replace(address, resources({ w: '1' }));
    const client = rawClient(rig);
    for (const typeUrl of [address, authorization]) client.send({ typeUrl });
    for (const { typeUrl, nonce } of await client.received.count(2)) ack(client, typeUrl, nonce);
    await rig.requests.count(4);
    return { rig, client, nth: async (count: number) => (await client.received.count(count))[count - 1] };
  }

  for (const policiesFirst of [false, true])
    test(
      `what held without being named and is gone is taken back from a client that refuses an address, ${policiesFirst ? 'and again' : 'once it has answered'}`,
      opts,
      async () => {
        const { rig, client, nth } = await settled({ all: 'NAMESPACE', mesh: 'GLOBAL', named: 'WORKLOAD_SELECTOR' });
        const remove = () => rig.cache.apply(authorization, { upserts: new Map(), removed: ['foo/all', 'foo/mesh', 'foo/named'] });
        rig.cache.apply(address, { upserts: resources({ w: 'bad' }), removed: [] });
        const third = await nth(3);
        if (policiesFirst) {
          nack(client, address, third?.nonce);
          await rig.requests.count(5);
          remove();
        } else {
          remove();
          // Whatever is asked for, nothing is said before the answer.
          client.send({ typeUrl: A });
          await rig.requests.count(5);
          assert.equal(rig.responses.all.length, 3);
          nack(client, address, third?.nonce);
        }
        const fourth = await nth(4);
        assert.deepEqual([fourth?.typeUrl, names(fourth)], [authorization, { resources: [], removed: ['foo/all', 'foo/mesh'] }]);
        ack(client, authorization, fourth?.nonce);
        rig.cache.apply(address, { upserts: resources({ w: 'good' }), removed: [] });
        const fifth = await nth(5);
        assert.deepEqual([fifth?.typeUrl, names(fifth).resources], [address, ['w']]);
        ack(client, address, fifth?.nonce);
        assert.deepEqual(names(await nth(6)), { resources: [], removed: ['foo/named'] });
      },
    );

  test('that addresses wait for a policy that was refused is logged, once', opts, async () => {
    const { rig, client, nth } = await settled({ p: 'WORKLOAD_SELECTOR' });
    const lines = () => rig.serverLog.all.filter(({ message }) => /held back/.test(message));
    const widen = (dryRun: boolean) =>
      rig.cache.apply(authorization, { upserts: new Map([['foo/p', policyOf('p', 'NAMESPACE', dryRun)]]), removed: [] });
    widen(true);
    nack(client, authorization, (await nth(3))?.nonce);
    await rig.requests.count(5);
    assert.deepEqual(lines(), [], 'nothing waits');
    for (const text of ['2', '3']) rig.cache.apply(address, { upserts: resources({ w: text }), removed: [] });
    assert.deepEqual(
      lines().map(({ fields }) => fields),
      [{ peer: 'test', typeUrl: address, refused: ['foo/p'] }],
    );
    // One that is mended.
    widen(false);
    ack(client, authorization, (await nth(4))?.nonce);
    assert.deepEqual([(await nth(5))?.typeUrl, lines().length], [address, 1]);
  });
});
