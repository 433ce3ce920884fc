// ScopeConfig, which is our own: for which pods a wrapped object holds, and what it comes before. The contract is that of the kind, not of its code.

import { describe, test } from 'node:test';
import {
  authorizationPolicy as ap,
  day,
  destinationRule as dr,
  meshConfig,
  peerAuthentication as pa,
  pod,
  refused,
  row,
  scopeConfig as sc,
  service,
  worldOf,
} from './rows.ts';

const OURS = 'handfast ScopeConfig';
const LABELS = 'https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/';
const SETS = `${LABELS}#set-based-requirement`;
const EQUALITY = `${LABELS}#equality-based-requirement`;
const EXPRESSIONS = `${LABELS}#resources-that-support-set-based-requirements`;
const ADDITIVE = 'https://istio.io/latest/docs/concepts/security/#implicit-enablement';
const DRY_RUN = 'https://istio.io/latest/docs/tasks/security/authorization/authz-dry-run/';

const WEB = 'web.shop.svc.cluster.local';
const MESH = [
  pod('foo/one', '10.0.0.1', 'app: web, tier: gold, topology.kubernetes.io/zone: a'),
  pod('foo/two', '10.0.0.2', 'app: web, topology.kubernetes.io/zone: b'),
  pod('foo/api', 'fd00::3', 'app: api'),
  pod('bar/one', '10.0.1.1', 'app: web, tier: gold, topology.kubernetes.io/zone: a'),
  pod('istio-system/gateway', '10.0.2.1', 'app: web'),
  pod('shop/web', '10.0.3.1', 'app: shop'),
  service('shop/web', '{clusterIP: 10.96.0.1, selector: {app: shop}, ports: [{port: 80}]}'),
];
const old = { createdAt: day(1) };
const young = { createdAt: day(2) };
const mode = (word: string) => `{mtls: {mode: ${word}}}`;
const webMode = (word: string) => `{selector: {matchLabels: {app: web}}, mtls: {mode: ${word}}}`;
type Wrapped = Parameters<typeof sc>[1];
const peer = (spec: string, annotations?: string): Wrapped => ['PeerAuthentication', 'wrapped', spec, annotations];
const strict = peer(mode('STRICT'));
const disable = peer(mode('DISABLE'));

interface Of {
  readonly pod?: string;
  readonly port?: number;
  readonly transport?: 'mtls' | 'plaintext';
  readonly selections?: Readonly<Record<string, readonly string[]>>;
  readonly todo?: string;
}
type Row = readonly [title: string, source: string, documents: readonly string[], expected: string, of?: Of];
const world = (documents: readonly string[], { selections = {} }: Of) =>
  worldOf([...MESH, ...documents], { selections: new Map(Object.entries(selections).map(([id, pods]) => [id, new Set(pods)])) });

/** The mode of foo/one, unless told otherwise. */
function modes(rows: readonly Row[]): void {
  for (const [title, source, documents, expected, of = {}] of rows) {
    test(...row({ title, source, expected, todo: of.todo }, () => world(documents, of).mode(of.pod ?? 'foo/one', of.port ?? 80).mode));
  }
}
/** Whether bar/one may call foo/one, unless told otherwise. */
function calls(rows: readonly Row[]): void {
  for (const [title, source, documents, expected, of = {}] of rows) {
    test(
      ...row({ title, source, expected, todo: of.todo }, () => {
        const mesh = world(documents, of);
        const call = { from: 'bar/one', to: of.pod ?? 'foo/one', port: of.port ?? 80, transport: of.transport ?? 'mtls' };
        const [enforced, shadow] = [mesh.call(call), mesh.shadowOf(call)].map((word) => (word === 'allowed' ? 'yes' : 'no'));
        return enforced === shadow ? `${enforced}` : `${enforced}, shadow ${shadow}`;
      }),
    );
  }
}
/** How foo/one dials, unless told otherwise. */
function dials(rows: readonly Row[]): void {
  for (const [title, source, documents, expected, of = {}] of rows) {
    test(...row({ title, source, expected, todo: of.todo }, () => world(documents, of).dial(of.pod ?? 'foo/one', `shop/${WEB}`).transport));
  }
}

describe('ScopeConfig: its selector', () => {
  const TWO = { pod: 'foo/two' };
  const API = { pod: 'foo/api' };
  const selecting = (selector: string) => [sc('foo/s', strict, { selector })];
  const expressions = (...all: string[]) => selecting(`{matchExpressions: [${all.map((one) => `{${one}}`).join(', ')}]}`);
  const labels = (all: string) => selecting(`{matchLabels: {${all}}}`);
  modes([
    ['{} is every pod', EXPRESSIONS, selecting('{}'), 'STRICT', API],
    ['no selector is every pod', OURS, [sc('foo/s', strict).replace('selector: {}, ', '')], 'STRICT', API],
    ['matchLabels: {} is every pod', OURS, labels(''), 'STRICT', API],
    ['a label', EQUALITY, labels('tier: gold'), 'STRICT'],
    ['a label that another has not', EQUALITY, labels('tier: gold'), 'PERMISSIVE', TWO],
    ['two labels', EQUALITY, labels('tier: gold, app: web'), 'STRICT'],
    ['two labels, one of which differs', EQUALITY, labels('tier: gold, app: api'), 'PERMISSIVE'],
    ['In', SETS, expressions('key: app, operator: In, values: [api, web]'), 'STRICT'],
    ['In: a value of none', SETS, expressions('key: app, operator: In, values: [api]'), 'PERMISSIVE'],
    ['In: a key that is not there', SETS, expressions('key: tier, operator: In, values: [gold]'), 'PERMISSIVE', TWO],
    ['NotIn', SETS, expressions('key: app, operator: NotIn, values: [api]'), 'STRICT'],
    ['NotIn: one of them', SETS, expressions('key: app, operator: NotIn, values: [api, web]'), 'PERMISSIVE'],
    ['NotIn: a key that is not there', SETS, expressions('key: tier, operator: NotIn, values: [gold]'), 'STRICT', TWO],
    ['Exists', SETS, expressions('key: tier, operator: Exists'), 'STRICT'],
    ['Exists: not there', SETS, expressions('key: tier, operator: Exists'), 'PERMISSIVE', TWO],
    ['DoesNotExist', SETS, expressions('key: tier, operator: DoesNotExist'), 'STRICT', TWO],
    ['DoesNotExist: there', SETS, expressions('key: tier, operator: DoesNotExist'), 'PERMISSIVE'],
    [
      'expressions are ANDed',
      EXPRESSIONS,
      expressions('key: app, operator: In, values: [web]', 'key: tier, operator: DoesNotExist'),
      'PERMISSIVE',
    ],
    [
      'labels and expressions are ANDed',
      EXPRESSIONS,
      selecting('{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Exists}]}'),
      'PERMISSIVE',
      TWO,
    ],
    [
      'labels and expressions, both met',
      EXPRESSIONS,
      selecting('{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Exists}]}'),
      'STRICT',
    ],
    ['handfast.io/pod-name', OURS, labels('handfast.io/pod-name: two'), 'STRICT', TWO],
    ['handfast.io/pod-name of another', OURS, labels('handfast.io/pod-name: two'), 'PERMISSIVE'],
    ['handfast.io/pod-name NotIn', OURS, expressions('key: handfast.io/pod-name, operator: NotIn, values: [one]'), 'PERMISSIVE'],
    ['handfast.io/pod-ip', OURS, labels('handfast.io/pod-ip: 10.0.0.1'), 'STRICT'],
    ['handfast.io/pod-ip of another', OURS, labels('handfast.io/pod-ip: 10.0.0.1'), 'PERMISSIVE', TWO],
    ['handfast.io/pod-ip, IPv6', OURS, labels('handfast.io/pod-ip: "fd00::3"'), 'STRICT', API],
    ['handfast.io/zone', OURS, labels('handfast.io/zone: a'), 'STRICT'],
    ['handfast.io/zone of another', OURS, labels('handfast.io/zone: a'), 'PERMISSIVE', TWO],
    ['handfast.io/zone In', OURS, expressions('key: handfast.io/zone, operator: In, values: [a, b]'), 'STRICT', TWO],
    ['handfast.io/zone DoesNotExist', OURS, expressions('key: handfast.io/zone, operator: DoesNotExist'), 'STRICT', API],
    ['handfast.io/zone and a label', OURS, labels('handfast.io/zone: a, app: api'), 'PERMISSIVE'],
    ['not the pods of another namespace', OURS, selecting('{}'), 'PERMISSIVE', { pod: 'bar/one' }],
    [
      'in the root namespace: of any',
      OURS,
      [sc('istio-system/s', strict, { selector: '{matchLabels: {tier: gold}}' })],
      'STRICT',
      { pod: 'bar/one' },
    ],
    [
      'in the root namespace: those selected',
      OURS,
      [sc('istio-system/s', strict, { selector: '{matchLabels: {tier: gold}}' })],
      'PERMISSIVE',
      TWO,
    ],
    ['in a root namespace of another name', OURS, [meshConfig('{rootNamespace: bar}'), sc('bar/s', strict)], 'STRICT'],
    [
      'and its own selector restricts further',
      OURS,
      [sc('foo/s', peer(webMode('STRICT')), { selector: '{matchLabels: {tier: gold}}' })],
      'STRICT',
    ],
    ['both must match', OURS, [sc('foo/s', peer(webMode('STRICT')), { selector: '{matchLabels: {app: api}}' })], 'PERMISSIVE', API],
  ]);
});

describe('ScopeConfig: precedence among PeerAuthentications', () => {
  const [PERMISSIVE, STRICT] = [mode('PERMISSIVE'), mode('STRICT')];
  const priority = (n: number) => ({ more: `priority: ${n}` });
  modes([
    ['it comes before a plain one of the namespace', OURS, [pa('foo/a', PERMISSIVE), sc('foo/s', strict)], 'STRICT'],
    ['even an older one', OURS, [pa('foo/a', PERMISSIVE, old), sc('foo/s', strict, young)], 'STRICT'],
    ['even with a negative priority', OURS, [pa('foo/a', PERMISSIVE), sc('foo/s', strict, priority(-5))], 'STRICT'],
    [
      'but not for the pods it does not select',
      OURS,
      [pa('foo/a', STRICT), sc('foo/s', disable, { selector: '{matchLabels: {tier: gold}}' })],
      'STRICT',
      { pod: 'foo/two' },
    ],
    ['it comes before a plain one of the mesh', OURS, [pa('istio-system/a', PERMISSIVE), sc('istio-system/s', strict)], 'STRICT'],
    [
      'it comes before a plain one of the workload',
      OURS,
      [pa('foo/a', webMode('PERMISSIVE'), old), sc('foo/s', peer(webMode('STRICT')), young)],
      'STRICT',
    ],
    [
      'a wrapped namespace does not beat a plain workload',
      OURS,
      [pa('foo/a', webMode('STRICT')), sc('foo/s', disable, priority(1000))],
      'STRICT',
    ],
    [
      'a wrapped mesh does not beat a plain namespace',
      OURS,
      [pa('foo/a', STRICT), sc('istio-system/s', disable, priority(1000))],
      'STRICT',
    ],
    [
      'a wrapped mesh does not beat a plain workload',
      OURS,
      [pa('foo/a', webMode('STRICT')), sc('istio-system/s', disable, { ...priority(1000), selector: '{matchLabels: {app: web}}' })],
      'STRICT',
    ],
    ['a wrapped namespace beats a plain mesh', OURS, [pa('istio-system/a', STRICT), sc('foo/s', disable)], 'DISABLE'],
    [
      'a wrapped workload beats a wrapped namespace',
      OURS,
      [sc('foo/a', peer(webMode('STRICT'))), sc('foo/b', disable, priority(1000))],
      'STRICT',
    ],
    [
      'the higher priority',
      OURS,
      [sc('foo/a', disable, { ...priority(1), ...old }), sc('foo/b', strict, { ...priority(2), ...young })],
      'STRICT',
    ],
    ['no priority is 0', OURS, [sc('foo/a', disable, { ...priority(-1), ...old }), sc('foo/b', strict, young)], 'STRICT'],
    ['priorities are numbers, not texts', OURS, [sc('foo/a', disable, priority(9)), sc('foo/b', strict, priority(10))], 'STRICT'],
    ['the oldest of one priority', OURS, [sc('foo/a', disable, young), sc('foo/b', strict, old)], 'STRICT'],
    ['the first by name of one age', OURS, [sc('foo/b', disable, old), sc('foo/a', strict, old)], 'STRICT'],
    [
      'the higher priority selects not this pod',
      OURS,
      [sc('foo/a', disable, { ...priority(9), selector: '{matchLabels: {app: api}}' }), sc('foo/b', strict)],
      'STRICT',
    ],
    [
      'UNSET inherits from the mesh',
      OURS,
      [pa('istio-system/m', STRICT), pa('foo/a', mode('DISABLE')), sc('foo/s', peer(mode('UNSET')))],
      'STRICT',
    ],
    [
      'ports',
      OURS,
      [sc('foo/s', peer('{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {"81": {mode: DISABLE}}}'))],
      'DISABLE',
      { port: 81 },
    ],
    [
      'its other ports',
      OURS,
      [sc('foo/s', peer('{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {"81": {mode: DISABLE}}}'))],
      'STRICT',
    ],
  ]);
});

describe('ScopeConfig: AuthorizationPolicy', () => {
  const policy = (spec: string, name = 'wrapped', annotations?: string): Wrapped => ['AuthorizationPolicy', name, spec, annotations];
  const [ALLOW, DENY, NOTHING] = ['{rules: [{}]}', '{action: DENY, rules: [{}]}', '{}'];
  const gold = { selector: '{matchLabels: {tier: gold}}' };
  const TWO = { pod: 'foo/two' };
  const dry = { annotations: '{handfast.io/shadow: "true"}' };
  calls([
    ['a DENY is added', OURS, [ap('foo/a', ALLOW), sc('foo/s', policy(DENY))], 'no'],
    ['but not for others', OURS, [ap('foo/a', ALLOW), sc('foo/s', policy(DENY), gold)], 'yes', TWO],
    ['an ALLOW is added', ADDITIVE, [ap('foo/a', NOTHING), sc('foo/s', policy(ALLOW))], 'yes'],
    ['but not for others', OURS, [ap('foo/a', NOTHING), sc('foo/s', policy(ALLOW), gold)], 'no', TWO],
    ['it does not outvote a plain DENY', ADDITIVE, [ap('foo/a', DENY), sc('foo/s', policy(ALLOW), { more: 'priority: 1000' })], 'no'],
    ['allow-nothing closes the selected', OURS, [sc('foo/s', policy(NOTHING), gold)], 'no'],
    ['and nobody else', OURS, [sc('foo/s', policy(NOTHING), gold)], 'yes', TWO],
    ['of one name it replaces: a DENY by an ALLOW', OURS, [ap('foo/a', DENY), sc('foo/s', policy(ALLOW, 'a'), gold)], 'yes'],
    ['of one name it replaces: not for others', OURS, [ap('foo/a', DENY), sc('foo/s', policy(ALLOW, 'a'), gold)], 'no', TWO],
    ['of one name it replaces: an ALLOW by nothing', OURS, [ap('foo/a', ALLOW), sc('foo/s', policy(NOTHING, 'a'), gold)], 'no'],
    ['the name of the ScopeConfig replaces nothing', OURS, [ap('foo/a', DENY), sc('foo/a', policy(ALLOW, 'b'))], 'no'],
    ['one name in another namespace replaces nothing', OURS, [ap('istio-system/a', DENY), sc('foo/s', policy(ALLOW, 'a'))], 'no'],
    ['nor from the root namespace', OURS, [ap('foo/a', DENY), sc('istio-system/s', policy(ALLOW, 'a'))], 'no'],
    ['one name, both in the root namespace', OURS, [ap('istio-system/a', DENY), sc('istio-system/s', policy(ALLOW, 'a'), gold)], 'yes'],
    [
      'one name, both in the root namespace: not for others',
      OURS,
      [ap('istio-system/a', DENY), sc('istio-system/s', policy(ALLOW, 'a'), gold)],
      'no',
      TWO,
    ],
    ['in the root namespace it holds everywhere', OURS, [sc('istio-system/s', policy(DENY), gold)], 'no', { pod: 'bar/one' }],
    ['in a namespace it holds there', OURS, [sc('foo/s', policy(DENY))], 'yes', { pod: 'bar/one' }],
    [
      'its own selector restricts further',
      OURS,
      [sc('foo/s', policy('{selector: {matchLabels: {app: api}}, action: DENY, rules: [{}]}'))],
      'yes',
    ],
    // Nothing takes its place there.
    [
      'it replaces nothing where its own selector leaves the pod out: the DENY stays',
      OURS,
      [ap('foo/a', DENY), sc('foo/s', policy('{selector: {matchLabels: {app: api}}, rules: [{}]}', 'a'))],
      'no',
    ],
    [
      'it replaces where its own selector has the pod',
      OURS,
      [ap('foo/a', DENY), sc('foo/s', policy('{selector: {matchLabels: {app: web}}, rules: [{}]}', 'a'))],
      'yes',
    ],
    [
      'one of a higher priority that leaves the pod out leaves it to the next',
      OURS,
      [
        ap('foo/a', DENY),
        sc('foo/s', policy('{selector: {matchLabels: {app: api}}, rules: [{}]}', 'a'), { more: 'priority: 2' }),
        sc('foo/t', policy(ALLOW, 'a'), { more: 'priority: 1' }),
      ],
      'yes',
    ],
    ['shadow on the ScopeConfig', OURS, [sc('foo/s', policy(DENY), dry)], 'yes, shadow no'],
    ['shadow on the wrapped', OURS, [sc('foo/s', policy(DENY, 'a', '{handfast.io/shadow: "true"}'))], 'yes, shadow no'],
    ['dry-run on the wrapped', DRY_RUN, [sc('foo/s', policy(DENY, 'a', '{istio.io/dry-run: "true"}'))], 'yes, shadow no'],
    ['shadow "false" is in force', OURS, [sc('foo/s', policy(DENY), { annotations: '{handfast.io/shadow: "false"}' })], 'no'],
    ['shadow on either is enough', OURS, [sc('foo/s', policy(DENY, 'a', '{handfast.io/shadow: "false"}'), dry)], 'yes, shadow no'],
    [
      'dry-run on the wrapped is enough',
      OURS,
      [sc('foo/s', policy(DENY, 'a', '{istio.io/dry-run: "true"}'), { annotations: '{handfast.io/shadow: "false"}' })],
      'yes, shadow no',
    ],
    [
      'one in dry-run replaces in the shadow alone: the DENY stays',
      OURS,
      [ap('foo/a', DENY), sc('foo/s', policy(ALLOW, 'a'), dry)],
      'no, shadow yes',
    ],
    [
      'one in the shadow that leaves the pod out replaces nothing in the shadow',
      OURS,
      [ap('foo/a', DENY), sc('foo/s', policy('{selector: {matchLabels: {app: api}}, rules: [{}]}', 'a'), dry)],
      'no',
    ],
    [
      'one in dry-run replaces in the shadow alone: the ALLOW stays',
      OURS,
      [ap('foo/a', ALLOW), sc('foo/s', policy(NOTHING, 'a'), dry)],
      'yes, shadow no',
    ],
  ]);
});

describe('ScopeConfig: DestinationRule', () => {
  const rule = (word: string) => ['DestinationRule', 'wrapped', `{host: ${WEB}, trafficPolicy: {tls: {mode: ${word}}}}`] as const;
  const plain = (id: string, word: string) => dr(id, rule(word)[2], old);
  const gold = { selector: '{matchLabels: {tier: gold}}' };
  dials([
    ['for a client', OURS, [sc('foo/s', rule('DISABLE'), gold)], 'plaintext'],
    ['not for others', OURS, [sc('foo/s', rule('DISABLE'), gold)], 'mtls', { pod: 'foo/two' }],
    ['not for those of another namespace', OURS, [sc('foo/s', rule('DISABLE'))], 'mtls', { pod: 'bar/one' }],
    ['it selects clients, not servers', OURS, [sc('shop/s', rule('DISABLE'), { selector: '{matchLabels: {app: shop}}' })], 'mtls'],
    ['in the root namespace: clients everywhere', OURS, [sc('istio-system/s', rule('DISABLE'), gold)], 'plaintext', { pod: 'bar/one' }],
    [
      'it comes before an older plain one of its tier',
      OURS,
      [plain('foo/a', 'ISTIO_MUTUAL'), sc('foo/s', rule('DISABLE'), { ...gold, ...young })],
      'plaintext',
    ],
    ['and leaves that to the others', OURS, [plain('foo/a', 'SIMPLE'), sc('foo/s', rule('DISABLE'), gold)], 'tls', { pod: 'foo/two' }],
    [
      'in the root namespace it does not beat the client namespace',
      OURS,
      [plain('foo/a', 'ISTIO_MUTUAL'), sc('istio-system/s', rule('DISABLE'), { more: 'priority: 1000' })],
      'mtls',
    ],
    [
      'nor the service namespace',
      OURS,
      [plain('shop/a', 'ISTIO_MUTUAL'), sc('istio-system/s', rule('DISABLE'), { more: 'priority: 1000' })],
      'mtls',
    ],
    [
      'in the client namespace it beats the service namespace',
      OURS,
      [plain('shop/a', 'ISTIO_MUTUAL'), sc('foo/s', rule('DISABLE'))],
      'plaintext',
    ],
    [
      'the higher priority',
      OURS,
      [sc('foo/a', rule('SIMPLE'), { more: 'priority: 1' }), sc('foo/b', rule('DISABLE'), { more: 'priority: 2' })],
      'plaintext',
    ],
  ]);
});

describe('ScopeConfig: rollout and shadow', () => {
  const rolling = { more: 'rollout: {steps: [{percent: 50}, {percent: 100}], intervalSeconds: 60}' };
  const deny = ['AuthorizationPolicy', 'a', '{action: DENY, rules: [{}]}'] as const;
  const allow = ['AuthorizationPolicy', 'a', '{rules: [{}]}'] as const;
  const chosen = { selections: { 'foo/s': ['foo/one'] } };
  modes([
    ['without a selection: nobody', OURS, [sc('foo/s', strict, rolling)], 'PERMISSIVE'],
    ['the pods of the selection', OURS, [sc('foo/s', strict, rolling)], 'STRICT', chosen],
    ['no others', OURS, [sc('foo/s', strict, rolling)], 'PERMISSIVE', { ...chosen, pod: 'foo/two' }],
    [
      'the selection of another ScopeConfig is not its own',
      OURS,
      [sc('foo/s', strict, rolling)],
      'PERMISSIVE',
      { selections: { 'foo/t': ['foo/one'], 'bar/s': ['foo/one'] } },
    ],
    ['an empty selection: nobody', OURS, [sc('foo/s', strict, rolling)], 'PERMISSIVE', { selections: { 'foo/s': [] } }],
    [
      'what is rolled out leaves the rest as it was',
      OURS,
      [pa('foo/a', mode('STRICT')), sc('foo/s', disable, rolling)],
      'STRICT',
      { ...chosen, pod: 'foo/two' },
    ],
    ['without a rollout a selection says nothing', OURS, [sc('foo/s', strict)], 'STRICT', { selections: { 'foo/s': [] } }],
    [
      'shadow on the ScopeConfig of a PeerAuthentication',
      OURS,
      [sc('foo/s', strict, { annotations: '{handfast.io/shadow: "true"}' })],
      'PERMISSIVE',
    ],
    ['shadow on a wrapped PeerAuthentication', OURS, [sc('foo/s', peer(mode('STRICT'), '{handfast.io/shadow: "true"}'))], 'PERMISSIVE'],
  ]);
  calls([
    [
      'shadow on a ScopeConfig of STRICT',
      OURS,
      [sc('foo/s', strict, { annotations: '{handfast.io/shadow: "true"}' })],
      'yes, shadow no',
      { transport: 'plaintext' },
    ],
    [
      'shadow on a wrapped STRICT',
      OURS,
      [sc('foo/s', peer(mode('STRICT'), '{handfast.io/shadow: "true"}'))],
      'yes, shadow no',
      { transport: 'plaintext' },
    ],
    [
      'shadow of PERMISSIVE',
      OURS,
      [pa('foo/a', mode('STRICT')), sc('foo/s', peer(mode('PERMISSIVE')), { annotations: '{handfast.io/shadow: "true"}' })],
      'no, shadow yes',
      { transport: 'plaintext' },
    ],
    ['a policy without a selection', OURS, [sc('foo/s', deny, rolling)], 'yes'],
    ['a policy with a selection', OURS, [sc('foo/s', deny, rolling)], 'no', chosen],
    [
      'a replacement not rolled out yet leaves the plain one',
      OURS,
      [ap('foo/a', '{action: DENY, rules: [{}]}'), sc('foo/s', allow, rolling)],
      'no',
    ],
    ['a replacement rolled out here', OURS, [ap('foo/a', '{action: DENY, rules: [{}]}'), sc('foo/s', allow, rolling)], 'yes', chosen],
    [
      'a replacement rolled out here, whose own selector leaves the pod out',
      OURS,
      [
        ap('foo/a', '{action: DENY, rules: [{}]}'),
        sc('foo/s', ['AuthorizationPolicy', 'a', '{selector: {matchLabels: {app: api}}, rules: [{}]}'], rolling),
      ],
      'no',
      chosen,
    ],
    [
      'a replacement rolled out elsewhere leaves the plain one',
      OURS,
      [ap('foo/a', '{action: DENY, rules: [{}]}'), sc('foo/s', allow, rolling)],
      'no',
      { ...chosen, pod: 'foo/two' },
    ],
  ]);
  const rule = ['DestinationRule', 'a', `{host: ${WEB}, trafficPolicy: {tls: {mode: DISABLE}}}`] as const;
  dials([
    ['a rule for a selected client', OURS, [sc('foo/s', rule, rolling)], 'plaintext', chosen],
    ['a rule for another', OURS, [sc('foo/s', rule, rolling)], 'mtls', { ...chosen, pod: 'foo/two' }],
  ]);
  for (const [name, documents, path] of [
    ['ScopeConfig', [sc('foo/s', strict, { annotations: '{istio.io/dry-run: "true"}' })], 'metadata.annotations.'],
    ['ScopeConfig of an AuthorizationPolicy', [sc('foo/s', deny, { annotations: '{istio.io/dry-run: "true"}' })], 'metadata.annotations.'],
    ['wrapped PeerAuthentication', [sc('foo/s', peer(mode('STRICT'), '{istio.io/dry-run: "true"}'))], 'spec.object.metadata.annotations.'],
  ] as const)
    test(...refused(`istio.io/dry-run on a ${name}`, DRY_RUN, documents, `${path}istio.io/dry-run`, 'use handfast.io/shadow'));
  for (const name of ['istio.io/dry-run', 'handfast.io/shadow'])
    test(
      ...refused(
        `${name} on a wrapped rule`,
        OURS,
        [sc('foo/s', [rule[0], rule[1], rule[2], `{${name}: "false"}`])],
        `spec.object.metadata.annotations.${name}`,
        'has no shadow',
      ),
    );
  test(
    ...refused(
      'a rule in the shadow, which has no shadow',
      OURS,
      [sc('foo/s', rule, { annotations: '{handfast.io/shadow: "true"}' })],
      'metadata.annotations.handfast.io/shadow',
    ),
  );
});
