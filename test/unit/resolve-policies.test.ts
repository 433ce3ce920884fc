// Policies resolved from YAML as an operator writes it: ScopeConfigs, dry-run, authorizations, DestinationRules and ServiceEntries.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { resolveMesh } from '../../src/control/resolve/resolve.ts';
import type { ClientTlsSettings, TrafficPolicy, Workload } from '../../src/policy/model.ts';
import type { Selections } from '../../src/policy/policy-object.ts';
import { objectText, parseTexts, podText, scopeText } from '../support/policy-yaml.ts';

const ROOT = 'istio-system';
const OLD = '2020-01-01T00:00:00Z';
const NEW = '2021-01-01T00:00:00Z';
const nobody: Selections = new Map();

function resolve(texts: readonly string[], selections = nobody) {
  const mesh = resolveMesh(parseTexts(...texts), { trustDomain: 'cluster.local', selections });
  const byPod =
    <T>(all: readonly T[], uidOf: (value: T) => string) =>
    (pod: string) =>
      all.find((each) => uidOf(each) === `local//Pod/${pod}`) ?? assert.fail(`no ${pod}`);
  return {
    ...mesh,
    policy: byPod<TrafficPolicy>(mesh.policies, ({ workload }) => workload),
    workload: byPod<Workload>(mesh.workloads, ({ uid }) => uid),
    service: (hostname: string) => mesh.services.find((each) => each.hostname === hostname) ?? assert.fail(`no ${hostname}`),
  };
}

const mtls = (mode: string, selector = '') => `{${selector}mtls: {mode: ${mode}}}`;
const peer = (mode: string, of: { name?: string; namespace?: string; createdAt?: string; selector?: string; annotations?: string } = {}) =>
  objectText('PeerAuthentication', mtls(mode, of.selector), of);
const dryRun = '{handfast.io/shadow: "true"}';
const forApp = (app: string) => `selector: {matchLabels: {app: ${app}}}, `;
const scopedPeer = (mode: string, of: Parameters<typeof scopeText>[1] = {}, own = '') =>
  scopeText({ kind: 'PeerAuthentication', spec: mtls(mode, own) }, of);
const web = podText('web', { labels: '{app: web, topology.kubernetes.io/zone: z1}', ip: '10.0.0.1' });
const api = podText('api', { labels: '{app: api, topology.kubernetes.io/zone: z2}', ip: '10.0.0.2' });
const bar = podText('web', { namespace: 'bar', labels: '{app: web}' });

describe('a PeerAuthentication in a ScopeConfig', () => {
  const modes = (texts: readonly string[], selections = nobody) => {
    const { policy } = resolve([web, api, bar, ...texts], selections);
    return ['foo/web', 'foo/api', 'bar/web'].map((pod) => policy(pod).inbound.mode[0]).join('');
  };
  const cases: Readonly<Record<string, readonly [texts: string[], modes: string]>> = {
    'holds for everybody in its namespace with an empty selector': [[scopedPeer('STRICT')], 'SSP'],
    'holds for the pods it selects': [[scopedPeer('STRICT', { selector: '{matchLabels: {app: web}}' })], 'SPP'],
    'selects by name of the pod': [[scopedPeer('STRICT', { selector: '{matchLabels: {handfast.io/pod-name: api}}' })], 'PSP'],
    'selects by address of the pod': [
      [scopedPeer('STRICT', { selector: '{matchLabels: {handfast.io/pod-ip: "::ffff:10.0.0.1"}}' })],
      'SPP',
    ],
    'selects by zone': [[scopedPeer('STRICT', { selector: '{matchLabels: {handfast.io/zone: z2}}' })], 'PSP'],
    'selects by In': [[scopedPeer('STRICT', { selector: '{matchExpressions: [{key: app, operator: In, values: [api, x]}]}' })], 'PSP'],
    'selects by NotIn': [[scopedPeer('STRICT', { selector: '{matchExpressions: [{key: app, operator: NotIn, values: [api]}]}' })], 'SPP'],
    'selects by NotIn what has no such label': [
      [scopedPeer('STRICT', { selector: '{matchExpressions: [{key: x, operator: NotIn, values: [api]}]}' })],
      'SSP',
    ],
    'selects by Exists': [[scopedPeer('STRICT', { selector: '{matchExpressions: [{key: handfast.io/zone, operator: Exists}]}' })], 'SSP'],
    'selects by DoesNotExist': [
      [scopedPeer('STRICT', { namespace: ROOT, selector: '{matchExpressions: [{key: handfast.io/zone, operator: DoesNotExist}]}' })],
      'PPS',
    ],
    'selects everywhere in the root namespace': [[scopedPeer('STRICT', { namespace: ROOT, selector: '{matchLabels: {app: web}}' })], 'SPS'],
    'in the root namespace stays below a namespace': [[scopedPeer('STRICT', { namespace: ROOT }), peer('DISABLE', { name: 'n' })], 'DDS'],
    'comes before a plain one of its scope': [[peer('DISABLE', { createdAt: OLD }), scopedPeer('STRICT', { createdAt: NEW })], 'SSP'],
    'stays below a plain one of a nearer scope': [[peer('DISABLE', { selector: forApp('web') }), scopedPeer('STRICT')], 'DSP'],
    'keeps its own selector': [[scopedPeer('STRICT', {}, forApp('web'))], 'SPP'],
    'of a higher priority comes first': [
      [
        scopedPeer('STRICT', { name: 'x', createdAt: NEW, more: 'priority: 2' }),
        scopedPeer('DISABLE', { name: 'y', createdAt: OLD, more: 'priority: 1' }),
      ],
      'SSP',
    ],
    'of the same priority the oldest comes first': [
      [scopedPeer('STRICT', { name: 'x', createdAt: NEW }), scopedPeer('DISABLE', { name: 'y', createdAt: OLD })],
      'DDP',
    ],
    'of the same age the first name comes first': [[scopedPeer('STRICT', { name: 'y' }), scopedPeer('DISABLE', { name: 'x' })], 'DDP'],
  };
  for (const [title, [texts, wanted]] of Object.entries(cases)) test(title, () => assert.equal(modes(texts), wanted));

  test('with a rollout holds for whom it has come to, and for nobody else', () => {
    const rollout = scopedPeer('STRICT', { name: 'x', more: 'rollout: {steps: [{pods: 1}, {percent: 100}], intervalSeconds: 1}' });
    assert.equal(modes([rollout]), 'PPP');
    assert.equal(modes([rollout], new Map([['foo/x', new Set(['foo/api'])]])), 'PSP');
    assert.equal(modes([rollout], new Map([['bar/x', new Set(['foo/api'])]])), 'PPP');
    // A selection outlives neither its selector nor its namespace.
    assert.equal(modes([rollout], new Map([['foo/x', new Set(['bar/web'])]])), 'PPP');
  });
  test('without a rollout holds whatever was selected', () => {
    assert.equal(modes([scopedPeer('STRICT', { name: 'x' })], new Map([['foo/x', new Set<string>()]])), 'SSP');
  });
  test('is named with both', () => {
    const { policy } = resolve([web, scopedPeer('STRICT', { name: 'x' })]);
    assert.equal(policy('foo/web').inbound.source, 'ScopeConfig foo/x (PeerAuthentication foo/wrapped)');
  });
});

describe('dry-run', () => {
  const shadow = (...texts: string[]) => {
    const { inbound, shadow: would } = resolve([web, ...texts]).policy('foo/web');
    return [inbound.mode, would?.inbound.mode];
  };
  test('of a PeerAuthentication changes nothing, and is told', () =>
    assert.deepEqual(shadow(peer('STRICT', { annotations: dryRun })), ['PERMISSIVE', 'STRICT']));
  test('that is not on holds', () =>
    assert.deepEqual(shadow(peer('STRICT', { annotations: '{handfast.io/shadow: "false"}' })), ['STRICT', undefined]));
  test('that would change nothing is not told', () => {
    assert.deepEqual(shadow(peer('PERMISSIVE', { annotations: dryRun })), ['PERMISSIVE', undefined]);
    assert.deepEqual(shadow(peer('DISABLE', { name: 'x', createdAt: OLD }), peer('STRICT', { annotations: dryRun, createdAt: NEW })), [
      'DISABLE',
      undefined,
    ]);
  });
  test('of a ScopeConfig', () => assert.deepEqual(shadow(scopedPeer('STRICT', { annotations: dryRun })), ['PERMISSIVE', 'STRICT']));
});

describe('an AuthorizationPolicy', () => {
  const policy = (of: Parameters<typeof objectText>[2] & { selector?: string } = {}) =>
    objectText('AuthorizationPolicy', `{${of.selector ?? ''}}`, of);
  const scopes = (...texts: string[]) =>
    resolve([web, api, bar, ...texts]).authorizations.map(({ namespace, name, scope }) => `${namespace}/${name} ${scope}`);
  const bound = (texts: readonly string[], selections = nobody) => {
    const { workload } = resolve([web, api, bar, ...texts], selections);
    return ['foo/web', 'foo/api', 'bar/web'].map((pod) => workload(pod).authorizationPolicies);
  };
  const scoped = (of: Parameters<typeof scopeText>[1] = {}, name = 'wrapped') =>
    scopeText({ kind: 'AuthorizationPolicy', spec: '{}', name }, of);
  const onlyWeb = '{matchLabels: {app: web}}';

  test('is for its namespace, for the mesh in the root namespace, or for whom it selects', () => {
    assert.deepEqual(scopes(policy()), ['foo/a NAMESPACE']);
    assert.deepEqual(scopes(policy({ namespace: ROOT })), ['istio-system/a GLOBAL']);
    assert.deepEqual(scopes(policy({ selector: forApp('web') })), ['foo/a WORKLOAD_SELECTOR']);
  });
  test('is named by the workloads it selects, those of all namespaces in the root namespace', () => {
    assert.deepEqual(bound([policy()]), [[], [], []]);
    assert.deepEqual(bound([policy({ selector: forApp('web') })]), [['foo/a'], [], []]);
    assert.deepEqual(bound([policy({ selector: forApp('web'), namespace: ROOT })]), [['istio-system/a'], [], ['istio-system/a']]);
  });
  test('in a ScopeConfig is named by those whom both select', () => {
    assert.deepEqual(bound([scoped({ name: 'x', selector: onlyWeb })]), [['foo/x~wrapped'], [], []]);
    assert.deepEqual(scopes(scoped({ name: 'x' })), ['foo/x~wrapped WORKLOAD_SELECTOR']);
    assert.deepEqual(bound([scoped({ name: 'x', namespace: ROOT, selector: onlyWeb })]), [
      ['istio-system/x~wrapped'],
      [],
      ['istio-system/x~wrapped'],
    ]);
  });
  test('in a ScopeConfig adds to the others', () => {
    assert.deepEqual(scopes(policy(), scoped({ name: 'x' })).toSorted(), ['foo/a NAMESPACE', 'foo/x~wrapped WORKLOAD_SELECTOR']);
  });
  test('in a ScopeConfig replaces the one of its name for those selected', () => {
    const texts = [policy(), scoped({ name: 'x', selector: onlyWeb }, 'a')];
    assert.deepEqual(bound(texts), [['foo/x~a'], ['foo/a'], []]);
    assert.deepEqual(scopes(...texts).toSorted(), ['foo/a WORKLOAD_SELECTOR', 'foo/x~a WORKLOAD_SELECTOR']);
    const global = [policy({ namespace: ROOT }), scoped({ name: 'x', namespace: ROOT, selector: onlyWeb }, 'a')];
    assert.deepEqual(bound(global), [['istio-system/x~a'], ['istio-system/a'], ['istio-system/x~a']]);
  });
  test('replaces nobody where its rollout has not come to', () => {
    const texts = [policy(), scoped({ name: 'x', more: 'rollout: {steps: [{percent: 100}], intervalSeconds: 1}' }, 'a')];
    assert.deepEqual(bound(texts), [['foo/a'], ['foo/a'], []]);
    assert.deepEqual(bound(texts, new Map([['foo/x', new Set(['foo/web'])]])), [['foo/x~a'], ['foo/a'], []]);
  });
  test('replaces nobody whom its own selector leaves out', () => {
    const own = scopeText({ kind: 'AuthorizationPolicy', spec: `{${forApp('web')}}`, name: 'a' }, { name: 'x' });
    assert.deepEqual(bound([policy(), own]), [['foo/x~a'], ['foo/a'], []]);
  });
  test('in dry-run replaces nothing', () => {
    assert.deepEqual(bound([policy(), scoped({ name: 'x', annotations: dryRun }, 'a')]), [['foo/x~a'], ['foo/x~a'], []]);
    assert.deepEqual(scopes(policy(), scoped({ name: 'x', annotations: dryRun }, 'a')).includes('foo/a NAMESPACE'), true);
  });
});

describe('client TLS', () => {
  const rule = (host: string, mode: string | undefined, of: Parameters<typeof objectText>[2] & { more?: string } = {}) =>
    objectText(
      'DestinationRule',
      `{host: "${host}"${mode === undefined ? '' : `, trafficPolicy: {tls: {mode: ${mode}}}`}${of.more ?? ''}}`,
      of,
    );
  const service = (annotations = '{}', namespace = 'bar') =>
    objectText('Service', '{ports: [{port: 80}]}', { name: 'httpbin', namespace, annotations });
  const rules = (...texts: string[]) =>
    resolve([web, api, bar, ...texts])
      .policy('foo/web')
      .clientTls.map(({ host, tls }) => `${host} ${tls?.mode ?? 'auto'}`);
  const told = (settings: ClientTlsSettings | undefined) =>
    settings === undefined ? undefined : `${settings.tls?.mode} ${settings.tls?.source}`;
  const httpbin = (...texts: string[]) => told(resolve(texts).service('httpbin.bar.svc.cluster.local').clientTls);

  test("of a client are its own namespace's rules", () => {
    assert.deepEqual(rules(rule('a.example', 'SIMPLE'), rule('b.example', 'SIMPLE', { namespace: 'bar' })), ['a.example SIMPLE']);
    assert.deepEqual(rules(rule('a.example', 'SIMPLE', { more: ', exportTo: ["."]' })), ['a.example SIMPLE']);
  });
  test('completes a short name only', () => {
    assert.deepEqual(rules(rule('httpbin', 'DISABLE')), ['httpbin.foo.svc.cluster.local DISABLE']);
    assert.deepEqual(rules(rule('httpbin.bar', 'DISABLE')), ['httpbin.bar DISABLE']);
    assert.deepEqual(rules(rule('*', 'DISABLE')), ['* DISABLE']);
    assert.deepEqual(rules(rule('*.local', 'DISABLE')), ['*.local DISABLE']);
  });
  test('of several rules for one host is the oldest that says something', () => {
    const old = (mode: string | undefined) => rule('h', mode, { name: 'x', createdAt: OLD });
    const young = rule('h', 'SIMPLE', { name: 'a', createdAt: NEW });
    assert.deepEqual(rules(young, old('DISABLE')), ['h.foo.svc.cluster.local DISABLE']);
    assert.deepEqual(rules(young, old(undefined)), ['h.foo.svc.cluster.local SIMPLE']);
    assert.deepEqual(rules(old(undefined)), ['h.foo.svc.cluster.local auto']);
  });
  test('of a rule with a workloadSelector comes first, for those it selects', () => {
    const selecting = (app: string) =>
      rule('h', 'SIMPLE', { name: 'x', createdAt: NEW, more: `, workloadSelector: {matchLabels: {app: ${app}}}` });
    const plain = rule('h', 'DISABLE', { createdAt: OLD });
    assert.deepEqual(rules(plain, selecting('web')), ['h.foo.svc.cluster.local SIMPLE']);
    assert.deepEqual(rules(plain, selecting('api')), ['h.foo.svc.cluster.local DISABLE']);
  });
  test('of a ScopeConfig comes before all', () => {
    const wrapped = { kind: 'DestinationRule', spec: '{host: h, trafficPolicy: {tls: {mode: SIMPLE}}}' };
    const plain = rule('h', 'DISABLE', { createdAt: OLD, more: ', workloadSelector: {matchLabels: {app: web}}' });
    assert.deepEqual(rules(plain, scopeText(wrapped, { name: 's' })), ['h.foo.svc.cluster.local SIMPLE']);
    assert.deepEqual(rules(plain, scopeText(wrapped, { name: 's', selector: '{matchLabels: {app: api}}' })), [
      'h.foo.svc.cluster.local DISABLE',
    ]);
  });
  test('of ports replaces that of the destination', () => {
    const text = objectText(
      'DestinationRule',
      '{host: h, trafficPolicy: {tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}, {port: {number: 81}, tls: {mode: ISTIO_MUTUAL}}]}}',
    );
    const [only] = resolve([web, text]).policy('foo/web').clientTls;
    assert.deepEqual(
      [...(only?.ports ?? [])].map(([port, tls]) => [port, tls?.mode]),
      [
        [80, 'DISABLE'],
        [81, 'ISTIO_MUTUAL'],
      ],
    );
  });
  test("of a service is its own namespace's rule, its annotation, or the root namespace's rule", () => {
    const own = rule('httpbin', 'ISTIO_MUTUAL', { namespace: 'bar', name: 'own' });
    const root = rule('*', 'DISABLE', { namespace: ROOT, name: 'root' });
    const annotated = service('{handfast.io/client-tls: DISABLE}');
    assert.equal(httpbin(service()), undefined);
    assert.equal(httpbin(service(), root), 'DISABLE DestinationRule istio-system/root');
    assert.equal(httpbin(service('{handfast.io/client-tls: AUTO}'), root), 'undefined undefined');
    assert.equal(httpbin(annotated, root), 'DISABLE Service bar/httpbin (handfast.io/client-tls)');
    assert.equal(httpbin(annotated, root, own), 'ISTIO_MUTUAL DestinationRule bar/own');
  });
  test('of a service is not what others keep to themselves', () => {
    assert.equal(httpbin(service(), rule('httpbin', 'DISABLE', { namespace: 'bar', more: ', exportTo: ["."]' })), undefined);
    assert.equal(httpbin(service(), rule('httpbin.bar.svc.cluster.local', 'DISABLE', { namespace: 'foo' })), undefined);
    assert.equal(httpbin(service(), rule('*', 'DISABLE', { namespace: ROOT, more: ', exportTo: ["."]' })), undefined);
  });
  test('of a service is the most specific rule', () => {
    const texts = [
      rule('*', 'DISABLE', { namespace: 'bar', name: 'all', createdAt: OLD }),
      rule('*.svc.cluster.local', 'SIMPLE', { namespace: 'bar', name: 'suffix', createdAt: NEW }),
    ];
    assert.equal(httpbin(service(), ...texts), 'SIMPLE DestinationRule bar/suffix');
    assert.equal(
      httpbin(service(), ...texts, rule('httpbin', 'DISABLE', { namespace: 'bar', name: 'exact' })),
      'DISABLE DestinationRule bar/exact',
    );
  });
});

describe('a ServiceEntry', () => {
  const entry = (spec: string) =>
    resolve([
      objectText(
        'ServiceEntry',
        `{hosts: [a.example, b.example], resolution: STATIC, addresses: [192.0.2.1], ports: [{number: 443, name: tls, targetPort: 8443}, {number: 80, name: http}], ${spec}}`,
        { name: 'ext' },
      ),
    ]);
  const label = 'labels: {security.istio.io/tlsMode: istio}';

  test('is a service for each host, with the same addresses and endpoints', () => {
    const { services, workloads } = entry('endpoints: [{address: 192.0.2.2, ports: {http: 8080}}]');
    assert.deepEqual(
      services.map(({ key, addresses }) => [key, addresses]),
      [
        ['foo/a.example', ['192.0.2.1']],
        ['foo/b.example', ['192.0.2.1']],
      ],
    );
    const ports = [
      { servicePort: 443, targetPort: 8443 },
      { servicePort: 80, targetPort: 8080 },
    ];
    assert.equal(workloads[0]?.uid, 'local//ServiceEntry/foo/ext/192.0.2.2');
    assert.deepEqual(
      [...(workloads[0]?.services ?? [])],
      [
        ['foo/a.example', ports],
        ['foo/b.example', ports],
      ],
    );
  });
  test('has endpoints in the mesh where it is inside and they say so', () => {
    const meshed = (spec: string) => entry(spec).workloads[0]?.meshed;
    assert.equal(meshed(`location: MESH_INTERNAL, endpoints: [{address: 192.0.2.2, ${label}}]`), true);
    assert.equal(meshed('location: MESH_INTERNAL, endpoints: [{address: 192.0.2.2}]'), false);
    assert.equal(meshed(`endpoints: [{address: 192.0.2.2, ${label}}]`), false);
  });
  test('has endpoints that must prove their service account, where they have one', () => {
    const identity = (spec: string) => entry(spec).workloads[0]?.identity?.uri;
    assert.equal(identity('endpoints: [{address: 192.0.2.2, serviceAccount: x}]'), 'spiffe://cluster.local/ns/foo/sa/x');
    assert.equal(identity('endpoints: [{address: 192.0.2.2}]'), undefined);
  });
});
