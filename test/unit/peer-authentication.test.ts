// Which PeerAuthentication decides, by the rules of https://istio.io/latest/docs/reference/config/security/peer_authentication/:
// mesh < namespace < workload < port, UNSET inherits, the oldest of one scope wins, and every answer names its source.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { switchFor } from '../../src/policy/model.ts';
import { indexPolicies, peerAuthenticationTiers } from '../../src/policy/namespace-policies.ts';
import { type PeerAuthentication, resolvePeerAuthentication } from '../../src/policy/peer-authentication.ts';
import { PolicySubject } from '../../src/policy/policy-subject.ts';

const ROOT = 'istio-system';

function object(name: string, fields: Partial<PeerAuthentication> = {}): PeerAuthentication {
  return {
    name,
    namespace: 'foo',
    createdAt: 1,
    dryRun: false,
    scopeConfig: undefined,
    selector: undefined,
    mode: undefined,
    portModes: new Map(),
    ...fields,
  };
}
const labels = (of: Readonly<Record<string, string>>) => new Map(Object.entries(of));
const mesh = (fields: Partial<PeerAuthentication>, name = 'mesh') => object(name, { namespace: ROOT, ...fields });
const workload = (fields: Partial<PeerAuthentication>, name = 'w') => object(name, { selector: labels({ app: 'web' }), ...fields });

function resolve(all: readonly PeerAuthentication[], subject: { namespace?: string; labels?: Readonly<Record<string, string>> } = {}) {
  const namespace = subject.namespace ?? 'foo';
  const policiesOf = (place: string) =>
    indexPolicies({
      peerAuthentications: all.filter((each) => each.namespace === place),
      authorizationPolicies: [],
      destinationRules: [],
      requestAuthentications: [],
      scopeConfigs: [],
    });
  const root = policiesOf(ROOT);
  const within = { root, own: namespace === ROOT ? root : policiesOf(namespace) };
  const who = new PolicySubject({ namespace, podName: 'web-1', labels: subject.labels ?? { app: 'web', version: 'v1' }, addresses: [] });
  return resolvePeerAuthentication(peerAuthenticationTiers(within, who, new Map()));
}

describe('the workload as a whole', () => {
  const cases: Readonly<Record<string, readonly [all: PeerAuthentication[], mode: string, source: string]>> = {
    'nobody says anything: PERMISSIVE': [[], 'PERMISSIVE', 'default'],
    'the mesh': [[mesh({ mode: 'STRICT' })], 'STRICT', 'PeerAuthentication istio-system/mesh'],
    'the namespace over the mesh': [[mesh({ mode: 'STRICT' }), object('n', { mode: 'DISABLE' })], 'DISABLE', 'PeerAuthentication foo/n'],
    'the workload over the namespace': [
      [mesh({ mode: 'DISABLE' }), object('n', { mode: 'PERMISSIVE' }), workload({ mode: 'STRICT' })],
      'STRICT',
      'PeerAuthentication foo/w',
    ],
    'the workload over the mesh': [[mesh({ mode: 'STRICT' }), workload({ mode: 'PERMISSIVE' })], 'PERMISSIVE', 'PeerAuthentication foo/w'],
    'the order in which they are given does not matter': [
      [workload({ mode: 'STRICT' }), object('n', { mode: 'PERMISSIVE' }), mesh({ mode: 'DISABLE' })],
      'STRICT',
      'PeerAuthentication foo/w',
    ],
    'the namespace UNSET inherits the mesh': [[mesh({ mode: 'STRICT' }), object('n')], 'STRICT', 'PeerAuthentication istio-system/mesh'],
    'the workload UNSET inherits the namespace': [[object('n', { mode: 'STRICT' }), workload({})], 'STRICT', 'PeerAuthentication foo/n'],
    'both UNSET inherit the mesh': [
      [mesh({ mode: 'DISABLE' }), object('n'), workload({})],
      'DISABLE',
      'PeerAuthentication istio-system/mesh',
    ],
    'all UNSET: the default': [[mesh({}), object('n'), workload({})], 'PERMISSIVE', 'default'],
    "another namespace's is not ours": [[object('n', { namespace: 'bar', mode: 'STRICT' })], 'PERMISSIVE', 'default'],
    "another namespace's workload object with our labels is not ours": [
      [workload({ namespace: 'bar', mode: 'STRICT' })],
      'PERMISSIVE',
      'default',
    ],
    'the oldest of a namespace wins, though it is the laxer': [
      [object('a', { mode: 'STRICT', createdAt: 2 }), object('b', { mode: 'PERMISSIVE', createdAt: 1 })],
      'PERMISSIVE',
      'PeerAuthentication foo/b',
    ],
    'the oldest of the mesh wins': [
      [mesh({ mode: 'DISABLE', createdAt: 9 }, 'a'), mesh({ mode: 'STRICT', createdAt: 3 }, 'z')],
      'STRICT',
      'PeerAuthentication istio-system/z',
    ],
    'the oldest of the workload wins': [
      [workload({ mode: 'DISABLE', createdAt: 9 }, 'a'), workload({ mode: 'STRICT', createdAt: 3 }, 'z')],
      'STRICT',
      'PeerAuthentication foo/z',
    ],
    'an older namespace object does not win over a younger workload object': [
      [object('n', { mode: 'DISABLE', createdAt: 1 }), workload({ mode: 'STRICT', createdAt: 9 })],
      'STRICT',
      'PeerAuthentication foo/w',
    ],
    'the oldest of a scope is UNSET: the scope inherits, the second oldest is not asked': [
      [mesh({ mode: 'STRICT' }), object('a', { createdAt: 1 }), object('b', { mode: 'DISABLE', createdAt: 2 })],
      'STRICT',
      'PeerAuthentication istio-system/mesh',
    ],
    'of equal age the name decides': [
      [object('b', { mode: 'STRICT' }), object('a', { mode: 'DISABLE' })],
      'DISABLE',
      'PeerAuthentication foo/a',
    ],
    'of equal age the name decides, in the other order too': [
      [object('a', { mode: 'DISABLE' }), object('b', { mode: 'STRICT' })],
      'DISABLE',
      'PeerAuthentication foo/a',
    ],
    'a selector needs every one of its labels': [
      [workload({ mode: 'STRICT', selector: labels({ app: 'web', version: 'v2' }) })],
      'PERMISSIVE',
      'default',
    ],
    'a selector with every label met': [
      [workload({ mode: 'STRICT', selector: labels({ app: 'web', version: 'v1' }) })],
      'STRICT',
      'PeerAuthentication foo/w',
    ],
    'a selector with a label that the workload has not': [
      [workload({ mode: 'STRICT', selector: labels({ tier: '' }) })],
      'PERMISSIVE',
      'default',
    ],
    'an older workload object for another workload does not count': [
      [
        workload({ mode: 'DISABLE', createdAt: 1, selector: labels({ app: 'other' }) }, 'other'),
        workload({ mode: 'STRICT', createdAt: 5 }),
      ],
      'STRICT',
      'PeerAuthentication foo/w',
    ],
    'a selector in the root namespace is nothing to other namespaces': [
      [mesh({ mode: 'STRICT', selector: labels({ app: 'web' }) })],
      'PERMISSIVE',
      'default',
    ],
  };
  for (const [name, [all, mode, source]] of Object.entries(cases)) {
    test(name, () => assert.deepEqual(resolve(all).inbound, { mode, source }));
  }

  test('a workload in the root namespace: the mesh object is its namespace object too, and counts once', () => {
    assert.deepEqual(resolve([mesh({ mode: 'STRICT' })], { namespace: ROOT }).inbound, {
      mode: 'STRICT',
      source: 'PeerAuthentication istio-system/mesh',
    });
  });

  test('without labels only wide objects hold', () => {
    assert.equal(resolve([object('n', { mode: 'STRICT' }), workload({ mode: 'DISABLE' })], { labels: {} }).inbound.mode, 'STRICT');
  });

  test('nothing that was given is changed', () => {
    const all = Object.freeze([object('b', { createdAt: 2, mode: 'STRICT' }), object('a', { createdAt: 1, mode: 'DISABLE' })]);
    resolve(all);
    assert.deepEqual(
      all.map(({ name }) => name),
      ['b', 'a'],
    );
  });
});

describe('a port', () => {
  const portModes = new Map([
    [80, 'DISABLE' as const],
    [443, undefined],
  ]);

  test('of the workload object wins over everything, and is named with its port', () => {
    const { inbound, inboundPorts } = resolve([mesh({ mode: 'STRICT' }), workload({ mode: 'PERMISSIVE', portModes })]);
    assert.deepEqual(inbound, { mode: 'PERMISSIVE', source: 'PeerAuthentication foo/w' });
    assert.deepEqual([...inboundPorts], [[80, { mode: 'DISABLE', source: 'PeerAuthentication foo/w port 80' }]]);
  });

  test('UNSET inherits what holds for the workload, wherever that came from', () => {
    for (const [all, mode] of [
      [[workload({ mode: 'STRICT', portModes })], 'STRICT'],
      [[object('n', { mode: 'STRICT' }), workload({ portModes })], 'STRICT'],
      [[mesh({ mode: 'DISABLE' }), workload({ portModes })], 'DISABLE'],
      [[workload({ portModes })], 'PERMISSIVE'],
    ] as const) {
      const resolved = resolve(all);
      assert.equal(switchFor(resolved, 443).mode, mode);
      assert.equal(switchFor(resolved, 80).mode, 'DISABLE');
    }
  });

  test('that nobody names is the workload as a whole', () => {
    const resolved = resolve([workload({ mode: 'STRICT', portModes })]);
    for (const port of [1, 81, 8080, 65535]) assert.equal(switchFor(resolved, port).mode, 'STRICT');
  });

  test('of the oldest workload object alone: a younger one adds none', () => {
    const { inbound, inboundPorts } = resolve([
      workload({ createdAt: 1, mode: 'STRICT', portModes: new Map([[80, 'PERMISSIVE']]) }, 'old'),
      workload({ createdAt: 2, mode: 'DISABLE', portModes: new Map([[81, 'DISABLE']]) }, 'young'),
    ]);
    assert.equal(inbound.source, 'PeerAuthentication foo/old');
    assert.deepEqual([...inboundPorts.keys()], [80]);
  });

  test('of an object for another workload does not hold', () => {
    assert.equal(resolve([workload({ selector: labels({ app: 'other' }), portModes })]).inboundPorts.size, 0);
  });

  test('the same number as the workload mode still has its own source, for whoever asks why', () => {
    const { inboundPorts } = resolve([workload({ mode: 'STRICT', portModes: new Map([[80, 'STRICT']]) })]);
    assert.equal(inboundPorts.get(80)?.source, 'PeerAuthentication foo/w port 80');
  });
});
