// Why a pod is under its policies: every candidate with its outcome, and never another answer than the one that is resolved.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { explainWorkload } from '../../src/control/explain/explain-workload.ts';
import { resolveMesh } from '../../src/control/resolve/resolve.ts';
import type { Selections } from '../../src/policy/policy-object.ts';
import { objectText, parseTexts, podText, scopeText } from '../support/policy-yaml.ts';
import { refusal } from '../support/refusal.ts';

const pod = podText('web', { labels: '{app: web}', ip: '10.0.0.1' });
const trustDomain = 'cluster.local';
const peer = (name: string, spec: string, of: Parameters<typeof objectText>[2] = {}) =>
  objectText('PeerAuthentication', spec, { ...of, name });
const strict = '{mtls: {mode: STRICT}}';

function explain(texts: readonly string[], selections: Selections = new Map()) {
  const objects = parseTexts(pod, ...texts);
  const explanation = explainWorkload(objects, selections, { trustDomain, pod: 'foo/web' });
  const policy = resolveMesh(objects, { trustDomain, selections }).policies.find(({ workload }) => workload.endsWith('Pod/foo/web'));
  const [whole] = explanation.inbound;
  assert.deepEqual({ mode: whole?.mode, source: whole?.source }, policy?.inbound);
  assert.deepEqual(explanation, JSON.parse(JSON.stringify(explanation)), 'plain JSON');
  return explanation;
}
const outcomes = (texts: readonly string[], selections?: Selections) =>
  explain(texts, selections).inbound[0]?.candidates.map(({ source, outcome }) => `${source}: ${outcome}`);

describe('inbound', () => {
  const cases: Readonly<Record<string, readonly [texts: string[], ...outcomes: string[]]>> = {
    'nobody says anything': [[], 'default: won'],
    'one says it': [[peer('a', strict)], 'PeerAuthentication foo/a: won', 'default: overridden by PeerAuthentication foo/a'],
    'UNSET inherits': [
      [peer('a', '{mtls: {mode: UNSET}}'), peer('m', strict, { namespace: 'istio-system' })],
      'PeerAuthentication foo/a: UNSET: inherits',
      'PeerAuthentication istio-system/m: won',
      'default: overridden by PeerAuthentication istio-system/m',
    ],
    'a selector that does not match, and scopes that are overridden': [
      [
        peer('other', '{selector: {matchLabels: {app: api}}, mtls: {mode: DISABLE}}'),
        peer('own', '{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}'),
        peer('n', '{mtls: {mode: DISABLE}}'),
      ],
      'PeerAuthentication foo/other: selector app=api does not match',
      'PeerAuthentication foo/own: won',
      'PeerAuthentication foo/n: overridden by PeerAuthentication foo/own',
      'default: overridden by PeerAuthentication foo/own',
    ],
    'an older one, and one in dry-run': [
      [
        peer('old', strict, { createdAt: '2020-01-01T00:00:00Z' }),
        peer('young', '{mtls: {mode: DISABLE}}', { createdAt: '2021-01-01T00:00:00Z' }),
        peer('tried', '{mtls: {mode: DISABLE}}', { annotations: '{handfast.io/shadow: "true"}' }),
      ],
      'PeerAuthentication foo/old: won',
      'PeerAuthentication foo/young: older PeerAuthentication foo/old wins',
      'PeerAuthentication foo/tried: dry-run',
      'default: overridden by PeerAuthentication foo/old',
    ],
    ScopeConfigs: [
      [
        scopeText(
          { kind: 'PeerAuthentication', spec: strict },
          { name: 'others', selector: '{matchLabels: {app: api}}', more: 'priority: 3' },
        ),
        scopeText(
          { kind: 'PeerAuthentication', spec: strict },
          { name: 'slow', more: 'priority: 2, rollout: {steps: [{percent: 100}], intervalSeconds: 1}' },
        ),
        scopeText({ kind: 'PeerAuthentication', spec: strict }, { name: 'x', more: 'priority: 1' }),
        scopeText({ kind: 'PeerAuthentication', spec: strict }, { name: 'y' }),
        peer('plain', strict),
      ],
      'ScopeConfig foo/others (PeerAuthentication foo/wrapped): ScopeConfig foo/others selects other pods',
      'ScopeConfig foo/slow (PeerAuthentication foo/wrapped): not in the rollout of ScopeConfig foo/slow yet',
      'ScopeConfig foo/x (PeerAuthentication foo/wrapped): won',
      'ScopeConfig foo/y (PeerAuthentication foo/wrapped): ScopeConfig foo/x (PeerAuthentication foo/wrapped) wins: its priority is higher',
      'PeerAuthentication foo/plain: ScopeConfig foo/x (PeerAuthentication foo/wrapped) wins: one in a ScopeConfig comes first',
      'default: overridden by ScopeConfig foo/x (PeerAuthentication foo/wrapped)',
    ],
  };
  for (const [title, [texts, ...wanted]] of Object.entries(cases)) test(title, () => assert.deepEqual(outcomes(texts), wanted));

  test('a pod that the rollout has come to', () => {
    const slow = scopeText(
      { kind: 'PeerAuthentication', spec: strict },
      { name: 'slow', more: 'rollout: {steps: [{percent: 100}], intervalSeconds: 1}' },
    );
    assert.equal(explain([slow], new Map([['foo/slow', new Set(['foo/web'])]])).inbound[0]?.mode, 'STRICT');
    assert.equal(explain([slow]).inbound[0]?.mode, 'PERMISSIVE');
  });

  test('each port that is named', () => {
    const texts = [
      peer('own', '{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}, 81: {mode: UNSET}}}'),
      peer('other', '{selector: {matchLabels: {app: api}}, portLevelMtls: {9: {mode: DISABLE}}}'),
    ];
    assert.deepEqual(
      explain(texts).inbound.map(({ port, mode, source }) => [port, mode, source]),
      [
        [undefined, 'STRICT', 'PeerAuthentication foo/own'],
        [9, 'STRICT', 'PeerAuthentication foo/own'],
        [80, 'DISABLE', 'PeerAuthentication foo/own port 80'],
        [81, 'STRICT', 'PeerAuthentication foo/own'],
      ],
    );
    assert.equal(explain(texts).inbound[2]?.candidates.find(({ source }) => source === 'PeerAuthentication foo/own')?.outcome, 'won');
  });

  test('what dry-run would make of it', () => {
    const [whole] = explain([peer('tried', strict, { annotations: '{handfast.io/shadow: "true"}' })]).inbound;
    assert.deepEqual([whole?.mode, whole?.dryRunMode, whole?.dryRunSource], ['PERMISSIVE', 'STRICT', 'PeerAuthentication foo/tried']);
    assert.equal(whole?.candidates[0]?.outcome, 'dry-run: would come first in its scope');
  });
});

test('authorization: those that hold first, and why the others do not', () => {
  const policy = (name: string, spec = '{}', of: Parameters<typeof objectText>[2] = {}) =>
    objectText('AuthorizationPolicy', spec, { ...of, name });
  const texts = [
    policy('all'),
    policy('api', '{selector: {matchLabels: {app: api}}}'),
    policy('tried', '{}', { annotations: '{istio.io/dry-run: "true"}' }),
    policy('mesh', '{selector: {matchLabels: {app: web}}}', { namespace: 'istio-system' }),
    policy('replaced'),
    scopeText({ kind: 'AuthorizationPolicy', spec: '{}', name: 'replaced' }, { name: 'x' }),
    policy('kept'),
    scopeText({ kind: 'AuthorizationPolicy', spec: '{selector: {matchLabels: {app: api}}}', name: 'kept' }, { name: 'y' }),
    policy('elsewhere', '{}', { namespace: 'bar' }),
  ];
  assert.deepEqual(
    explain(texts).authorizations.map(({ source, outcome }) => `${source}: ${outcome}`),
    [
      'AuthorizationPolicy istio-system/mesh: holds',
      'ScopeConfig foo/x (AuthorizationPolicy foo/replaced): holds',
      'AuthorizationPolicy foo/all: holds',
      'AuthorizationPolicy foo/kept: holds',
      'ScopeConfig foo/y (AuthorizationPolicy foo/kept): selector app=api does not match',
      'AuthorizationPolicy foo/api: selector app=api does not match',
      'AuthorizationPolicy foo/replaced: replaced by ScopeConfig foo/x (AuthorizationPolicy foo/replaced)',
      'AuthorizationPolicy foo/tried: dry-run',
    ],
  );
});

test('client TLS: the rules of its own side, and services that say something', () => {
  const rule = (name: string, more: string) => objectText('DestinationRule', `{host: h, ${more}}`, { name });
  const texts = [
    rule('a', 'trafficPolicy: {tls: {mode: SIMPLE}}'),
    rule('b', 'trafficPolicy: {tls: {mode: DISABLE}}'),
    rule('c', 'workloadSelector: {matchLabels: {app: api}}'),
    objectText('Service', '{ports: [{port: 80}]}', { name: 'bin', namespace: 'bar', annotations: '{handfast.io/client-tls: DISABLE}' }),
    objectText('Service', '{ports: [{port: 80}]}', { name: 'other', namespace: 'bar' }),
  ];
  const { rules, services } = explain(texts).clientTls;
  assert.deepEqual(
    rules.map(({ source, tls, outcome }) => `${source} ${tls}: ${outcome}`),
    [
      'DestinationRule foo/c auto: selector app=api does not match',
      'DestinationRule foo/a SIMPLE: won',
      'DestinationRule foo/b DISABLE: DestinationRule foo/a wins for h.foo.svc.cluster.local',
    ],
  );
  assert.deepEqual(services, [
    { service: 'bar/bin.bar.svc.cluster.local', tls: 'DISABLE', source: 'Service bar/bin (handfast.io/client-tls)' },
  ]);
});

test('a pod that is not there is refused by name', () =>
  assert.throws(
    () => explainWorkload(parseTexts(pod), new Map(), { trustDomain, pod: 'foo/nobody' }),
    refusal('CONFIG_INVALID', 'there is no pod foo/nobody'),
  ));
