// What istiod says, as our sidecars know it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IstiodResources } from '../../src/agent/istiod-resources.ts';
import { decodeAuthorization, encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { decodeAddress } from '../../src/discovery/workload-codec.ts';
import * as security from '../../src/wire/gen/istio/security/authorization.ts';
import * as registry from '../../src/wire/gen/istio/workload/workload.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const OWN = 'Kubernetes//Pod/bar/httpbin';
const OTHER = 'west//Pod/bar/httpbin';
const ENTRY = 'Kubernetes/networking.istio.io/WorkloadEntry/foo/vm';
const ip = (address: string) => Buffer.from(address.split('.').map(Number));

type Wire = Partial<registry.Workload>;
const workload = (uid: string, of: Wire = {}): [string, Uint8Array] => {
  const empty = registry.Workload.decode(new Uint8Array());
  const value = { ...empty, uid, name: 'httpbin', namespace: 'bar', serviceAccount: 'httpbin', addresses: [ip('10.0.0.1')], ...of };
  return [uid, registry.Address.encode({ type: { $case: 'workload', value } }).finish()];
};
const service = (of: Partial<registry.Service> = {}): [string, Uint8Array] => {
  const value = {
    ...registry.Service.decode(new Uint8Array()),
    name: 'httpbin',
    namespace: 'bar',
    hostname: 'httpbin.bar.svc.cluster.local',
    ...of,
  };
  return [`bar/${value.hostname}`, registry.Address.encode({ type: { $case: 'service', value } }).finish()];
};

function open(clusterId = 'Kubernetes') {
  const log = new RecordingLog();
  const resources = new IstiodResources({ clusterId, log: log.log });
  return {
    log,
    resources,
    say: (upserts: readonly [string, Uint8Array][], removed: readonly string[] = []) => {
      const change = resources.addresses({ upserts: new Map(upserts), removed });
      return { removed: change.removed, objects: new Map([...change.upserts].map(([name, bytes]) => [name, decodeAddress(bytes)])) };
    },
  };
}

test('our own pods have the names that our sidecars know them by, and no other cluster’s has one of these', () => {
  const { say } = open();
  const { objects, removed } = say([workload(OWN), workload('local//Pod/bar/httpbin'), workload(ENTRY)], [OWN, 'local//Pod/bar/httpbin']);
  const names = ['local//Pod/bar/httpbin', 'other/local//Pod/bar/httpbin', ENTRY];
  assert.deepEqual([...objects.keys()], names);
  assert.deepEqual(
    [...objects.values()].map((object) => object.kind === 'workload' && object.value.uid),
    names,
  );
  assert.deepEqual(removed, names.slice(0, 2));
  const ours = open('local');
  assert.deepEqual([...ours.say([workload('local//Pod/bar/httpbin')]).objects.keys()], ['local//Pod/bar/httpbin']);
});

test('what is in another network than our own pods is not there: its addresses may be those of pods here', () => {
  const { say } = open();
  const first = say([workload(OTHER, { network: 'west' }), workload(OWN, { network: 'east' }), workload(ENTRY, { network: 'east' })]);
  assert.deepEqual([...first.objects.keys()], ['local//Pod/bar/httpbin', ENTRY]);
  assert.deepEqual(first.removed, [OTHER], 'nor is what was said of it before');
  assert.deepEqual([...say([workload(OTHER, { network: 'east' })]).objects.keys()], [OTHER], 'it has moved here');
  const { objects } = say([
    service({
      addresses: [
        { network: 'west', address: ip('10.1.0.1') },
        { network: 'east', address: ip('10.1.0.2') },
      ],
    }),
  ]);
  const [found] = objects.values();
  assert.deepEqual(found?.value.addresses, ['10.1.0.2']);
});

test('a workload that cannot be used is nobody, at its addresses and for no service; the rest is as it was said', () => {
  const { say, log } = open();
  const services = { 'bar/httpbin.bar.svc.cluster.local': { ports: [{ servicePort: 80, targetPort: 80 }] } };
  const bad = workload(ENTRY, {
    serviceAccount: 'a/b',
    addresses: [ip('10.0.0.9'), Buffer.from([1])],
    services,
    authorizationPolicies: ['foo/deny'],
  });
  const { objects } = say([bad, workload(OWN)]);
  const found = objects.get(ENTRY);
  assert.ok(found?.kind === 'workload');
  const { addresses, meshed, identity, services: of, authorizationPolicies } = found.value;
  assert.deepEqual([addresses, meshed, identity, of.size, authorizationPolicies], [['10.0.0.9'], true, undefined, 0, ['foo/deny']]);
  const own = objects.get('local//Pod/bar/httpbin');
  assert.ok(own?.kind === 'workload' && own.value.identity !== undefined);
  assert.deepEqual(
    log.records.map(({ object }) => object),
    [ENTRY],
  );
});

test('a service that cannot be used leads nowhere, and its addresses stay known', () => {
  const { say, log } = open();
  const { objects } = say([
    service({ addresses: [{ network: '', address: ip('10.1.0.1') }], ports: [{ servicePort: 99_999, targetPort: 0 }] }),
  ]);
  const [found] = objects.values();
  assert.ok(found?.kind === 'service');
  assert.deepEqual([found.value.addresses, found.value.ports], [['10.1.0.1'], []]);
  assert.equal(log.records.length, 1);
});

test('an authorization that cannot be enforced closes whom it is about; the rest is as it was said', () => {
  const { resources, log } = open();
  const good = encodeAuthorization({ name: 'good', namespace: 'foo', scope: 'GLOBAL', action: 'ALLOW', dryRun: false, rules: [] });
  const wire = security.Authorization.decode(good);
  const bad = (of: Partial<security.Authorization>) => security.Authorization.encode({ ...wire, name: 'bad', ...of }).finish();
  const closed = (bytes: Uint8Array) => {
    const { upserts } = resources.authorizations({
      upserts: new Map([
        ['foo/bad', bytes],
        ['foo/good', good],
      ]),
      removed: [],
    });
    assert.deepEqual(upserts.get('foo/good'), good);
    const { action, rules, scope, dryRun } = decodeAuthorization(upserts.get('foo/bad') ?? new Uint8Array(), 'foo/bad');
    assert.deepEqual([action, rules, dryRun], ['DENY', [[]], false]);
    return scope;
  };
  assert.equal(closed(bad({ action: 7 as security.Action })), 'GLOBAL');
  assert.equal(closed(bad({ scope: 9 as security.Scope })), 'NAMESPACE');
  assert.equal(closed(bad({ scope: security.Scope.WORKLOAD_SELECTOR, name: 'another' })), 'WORKLOAD_SELECTOR');
  assert.equal(log.records.length, 3);
});
