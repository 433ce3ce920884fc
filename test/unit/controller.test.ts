// The controller publishes what changed, and nothing else; a workload is never without an authorization on the way.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { pino } from 'pino';
import { startController } from '../../src/control/controller.ts';
import type { EffectiveObjects } from '../../src/control/objects/mesh-objects.ts';
import { ObjectParser } from '../../src/control/objects/parse-objects.ts';
import { ResourceCache, type ResourceChange } from '../../src/discovery/resource-cache.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { decodeTrafficPolicy } from '../../src/discovery/workload-codec.ts';
import type { Selections } from '../../src/policy/policy-object.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { objectText, podText, scopeText } from '../support/policy-yaml.ts';

const shortName = (typeUrl: string) => typeUrl.slice(typeUrl.lastIndexOf('.') + 1);

function rig(texts: Readonly<Record<string, string>>) {
  const applied: string[] = [];
  class Recorded extends ResourceCache {
    override apply(typeUrl: string, change: ResourceChange): void {
      applied.push(`${shortName(typeUrl)} ${[...change.upserts.keys(), ...change.removed.map((name) => `-${name}`)].join(' ')}`.trim());
      super.apply(typeUrl, change);
    }
  }
  const cache = new Recorded();
  const parser = new ObjectParser();
  const files = new Map(Object.entries(texts));
  const parse = () => parser.parse([...files].map(([name, text]) => ({ name, text })));
  const effective = new Snapshot<EffectiveObjects>({ objects: parse(), selections: new Map() });
  const ending = new AbortController();
  startController({
    effective,
    cache,
    trustDomain: 'cluster.local',
    log: pino({ level: 'silent' }),
    signal: ending.signal,
  });
  return {
    applied,
    cache,
    select: (selections: Selections) => effective.replace({ objects: parse(), selections }),
    stop: () => ending.abort(),
    write(name: string, text: string | undefined) {
      applied.length = 0;
      if (text === undefined) files.delete(name);
      else files.set(name, text);
      effective.replace({ objects: parse(), selections: effective.current?.selections ?? new Map() });
    },
  };
}

const web = podText('web', { labels: '{app: web}', ip: '10.0.0.1' });
const authorization = (spec = '{}') => objectText('AuthorizationPolicy', spec);
const selecting = '{selector: {matchLabels: {app: web}}}';
const UID = 'local//Pod/foo/web';

describe('what is published', () => {
  test('is everything at first', () => {
    const { cache } = rig({ 'web.yaml': web, 'a.yaml': authorization() });
    assert.deepEqual([...(cache.resources(typeUrls.address)?.keys() ?? [])], [UID]);
    assert.deepEqual([...(cache.resources(typeUrls.trafficPolicy)?.keys() ?? [])], [UID]);
    assert.deepEqual([...(cache.resources(typeUrls.authorization)?.keys() ?? [])], ['foo/a']);
  });
  test('is there for every type, though there is nothing of it', () => {
    const { cache } = rig({ 'mesh.yaml': objectText('MeshConfig', '{}') });
    for (const typeUrl of [typeUrls.address, typeUrls.trafficPolicy, typeUrls.authorization])
      assert.equal(cache.resources(typeUrl)?.size, 0);
  });
  test('is what a change changes', () => {
    const { applied, write } = rig({ 'web.yaml': web, 'api.yaml': podText('api', { namespace: 'bar' }) });
    write('strict.yaml', objectText('PeerAuthentication', '{mtls: {mode: STRICT}}'));
    assert.deepEqual(applied, [`TrafficPolicy ${UID}`]);
    write('web.yaml', undefined);
    assert.deepEqual(applied, [`Address -${UID}`, `TrafficPolicy -${UID}`]);
  });
  test('is nothing when nothing changes', () => {
    const { applied, write } = rig({ 'web.yaml': web });
    write('web.yaml', `${web}# a comment\n`);
    assert.deepEqual(applied, []);
  });
  test('is what a step of a rollout changes', () => {
    const more = 'rollout: {steps: [{percent: 100}], intervalSeconds: 1}';
    const scoped = scopeText({ kind: 'PeerAuthentication', spec: '{mtls: {mode: STRICT}}' }, { name: 'x', more });
    const { applied, select, stop } = rig({ 'web.yaml': web, 'x.yaml': scoped });
    applied.length = 0;
    select(new Map([['foo/x', new Set(['foo/web'])]]));
    assert.deepEqual(applied, [`TrafficPolicy ${UID}`]);
    stop();
    applied.length = 0;
    select(new Map());
    assert.deepEqual(applied, []);
  });
});

describe('an authorization', () => {
  test('that is new comes before the workloads that name it', () => {
    const { applied, write } = rig({ 'web.yaml': web });
    write('a.yaml', authorization(selecting));
    assert.deepEqual(applied, ['Authorization foo/a', `Address ${UID}`]);
  });
  test('that narrows to whom it selects comes after these name it', () => {
    const { applied, write } = rig({ 'web.yaml': web, 'a.yaml': authorization() });
    write('a.yaml', authorization(selecting));
    assert.deepEqual(applied, [`Address ${UID}`, 'Authorization foo/a']);
  });
  test('that widens comes before the workloads no longer name it', () => {
    const { applied, write } = rig({ 'web.yaml': web, 'a.yaml': authorization(selecting) });
    write('a.yaml', authorization());
    assert.deepEqual(applied, ['Authorization foo/a', `Address ${UID}`]);
  });
  test('that is gone goes after the workloads no longer name it', () => {
    const { applied, write } = rig({ 'web.yaml': web, 'a.yaml': authorization(selecting) });
    write('a.yaml', undefined);
    assert.deepEqual(applied, [`Address ${UID}`, 'Authorization -foo/a']);
  });
});

test('a rule with DISABLE that goes away with the change to STRICT, or just before it, still has the switch turned in stages', () => {
  const service = objectText('Service', '{clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}', {
    name: 'web',
    apiVersion: 'v1',
  });
  const rule = objectText('DestinationRule', '{host: web, trafficPolicy: {tls: {mode: DISABLE}}}');
  const strict = objectText('PeerAuthentication', '{mtls: {mode: STRICT}}');
  const announced = (cache: ResourceCache) => {
    const resource = cache.resources(typeUrls.trafficPolicy)?.get(UID);
    assert.ok(resource);
    const { inbound, announced: next } = decodeTrafficPolicy(resource.value);
    return [inbound.mode, next?.inbound.mode];
  };
  const start = () => rig({ 'web.yaml': web, 'service.yaml': service, 'rule.yaml': rule });
  const together = start();
  together.write('rule.yaml', strict);
  assert.deepEqual(announced(together.cache), ['PERMISSIVE', 'STRICT']);
  together.stop();
  const apart = start();
  apart.write('rule.yaml', undefined);
  apart.write('other.yaml', podText('other', { ip: '10.0.0.2' }));
  apart.write('strict.yaml', strict);
  assert.deepEqual(announced(apart.cache), ['PERMISSIVE', 'STRICT']);
  apart.stop();
  const never = rig({ 'web.yaml': web, 'service.yaml': service });
  never.write('strict.yaml', strict);
  assert.deepEqual(announced(never.cache), ['STRICT', undefined]);
  never.stop();
});
