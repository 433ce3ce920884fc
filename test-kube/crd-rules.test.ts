// The rules of our definitions, on a real API server: each refuses its bad object at once, with the field and the way out, takes the twin that is right, and control judges both alike.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { kubeKinds, readKube } from '../src/control/objects/kube-kinds.ts';
import type { ObjectKind } from '../src/control/objects/object-kinds.ts';
import { isJsonObject } from '../src/spiffe/strict-json.ts';
import { rulesOf } from '../tools/crd-rules.ts';
import { KubeCluster } from './support/kube-cluster.ts';

const CRDS = new URL('../deploy/crds/', import.meta.url);
let cluster: KubeCluster;

before(async () => {
  cluster = await KubeCluster.start();
  for (const file of await readdir(CRDS)) await cluster.apply(await readFile(new URL(file, CRDS), 'utf8'));
  const { code, stderr } = await cluster.kubectl(['wait', '--for=condition=Established', '--timeout=60s', 'crd', '--all']);
  assert.equal(code, 0, stderr);
});
after(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

const GROUPS: Readonly<Partial<Record<ObjectKind, string>>> = {
  PeerAuthentication: 'security.istio.io/v1',
  AuthorizationPolicy: 'security.istio.io/v1',
  DestinationRule: 'networking.istio.io/v1',
  ServiceEntry: 'networking.istio.io/v1',
  ScopeConfig: 'handfast.io/v1alpha1',
  MeshConfig: 'handfast.io/v1alpha1',
};

const objectOf = (kind: ObjectKind, spec: object) => ({
  apiVersion: GROUPS[kind],
  kind,
  metadata: { name: 'one', ...(kind === 'MeshConfig' ? {} : { namespace: 'default' }) },
  spec,
});

/** Why control does not take it; undefined if it does. */
function problems(kind: ObjectKind, object: object): string | undefined {
  const known = kubeKinds.find((one) => one.kind === kind);
  assert.ok(known !== undefined && isJsonObject(object));
  const { metadata } = object;
  const stored = { ...object, metadata: { ...Object(metadata), generation: 1, creationTimestamp: '2026-01-01T00:00:00Z' } };
  return readKube(known, stored, undefined)?.problems.join('; ') || undefined;
}

const SELECTOR = { matchLabels: { app: 'web' } };
const STAR = { matchLabels: { app: 'we*' } };
const STRICT = { mtls: { mode: 'STRICT' } };
const tls = (settings: object) => ({ host: 'web', trafficPolicy: { tls: settings } });
const portTls = (settings: object) => ({ host: 'web', trafficPolicy: { portLevelSettings: [{ port: { number: 80 }, tls: settings }] } });
const ports = (...numbers: readonly number[]) => ({
  host: 'web',
  trafficPolicy: { portLevelSettings: numbers.map((number) => ({ port: { number }, tls: { mode: 'ISTIO_MUTUAL' } })) },
});
const entry = (more: object) => ({
  hosts: ['db.example'],
  addresses: ['10.97.0.1'],
  ports: [{ number: 80, name: 'tcp' }],
  resolution: 'STATIC',
  endpoints: [{ address: '192.0.2.1' }],
  ...more,
});
const wrapped = { apiVersion: 'security.istio.io/v1', kind: 'PeerAuthentication', metadata: { name: 'x' }, spec: STRICT };
const scope = (more: object) => ({ object: wrapped, ...more });
const steps = (...all: readonly object[]) => scope({ rollout: { steps: all, intervalSeconds: 60 } });
const expression = (of: object) => scope({ selector: { matchExpressions: [{ key: 'app', ...of }] } });
const FILES = { clientCertificate: '/c.pem', privateKey: '/k.pem' };

/** Kind, what is wrong, a spec with it, what is said, and its twin. */
const table: readonly (readonly [kind: ObjectKind, what: string, bad: object, says: RegExp, good: object])[] = [
  ['PeerAuthentication', 'no mode', { selector: SELECTOR }, /sets no mode: give mtls\.mode/, { selector: SELECTOR, ...STRICT }],
  [
    'PeerAuthentication',
    'ports without a selector',
    { portLevelMtls: { 80: { mode: 'STRICT' } } },
    /portLevelMtls needs a selector with matchLabels/,
    { selector: SELECTOR, portLevelMtls: { 80: { mode: 'STRICT' } } },
  ],
  [
    'PeerAuthentication',
    'ports with a selector of nothing',
    { selector: { matchLabels: {} }, portLevelMtls: { 80: { mode: 'STRICT' } } },
    /portLevelMtls needs a selector with matchLabels/,
    { selector: SELECTOR, portLevelMtls: { 80: { mode: 'DISABLE' } } },
  ],
  [
    'PeerAuthentication',
    'no port',
    { selector: SELECTOR, portLevelMtls: {} },
    /names no port: remove it/,
    { selector: SELECTOR, ...STRICT },
  ],
  ...['0', '65536', '080', 'http'].map(
    (port) =>
      [
        'PeerAuthentication',
        `port ${port}`,
        { selector: SELECTOR, portLevelMtls: { [port]: { mode: 'STRICT' } } },
        /a port is a number from 1 to 65535/,
        { selector: SELECTOR, portLevelMtls: { 65535: { mode: 'STRICT' } } },
      ] as const,
  ),
  [
    'PeerAuthentication',
    'a wildcard',
    { selector: STAR, ...STRICT },
    /selector\.matchLabels: a selector has no wildcards/,
    { selector: SELECTOR, ...STRICT },
  ],
  [
    'AuthorizationPolicy',
    'DENY of nothing',
    { action: 'DENY' },
    /rules: DENY without rules denies nothing/,
    { action: 'DENY', rules: [{}] },
  ],
  [
    'AuthorizationPolicy',
    'DENY of an empty list',
    { action: 'DENY', rules: [] },
    /rules: DENY without rules/,
    { action: 'ALLOW', rules: [] },
  ],
  ['AuthorizationPolicy', 'a wildcard', { selector: STAR }, /selector has no wildcards/, { selector: SELECTOR }],
  [
    'DestinationRule',
    'a workloadSelector for everybody',
    { ...tls({ mode: 'DISABLE' }), workloadSelector: SELECTOR, exportTo: ['*'] },
    /exportTo: a rule with a workloadSelector holds in its own namespace: use "\."/,
    { ...tls({ mode: 'DISABLE' }), workloadSelector: SELECTOR, exportTo: ['.'] },
  ],
  [
    'DestinationRule',
    'a wildcard',
    { host: 'web', workloadSelector: STAR },
    /workloadSelector\.matchLabels: a selector has no wildcards/,
    { host: 'web', workloadSelector: SELECTOR },
  ],
  ['DestinationRule', 'an empty trafficPolicy', { host: 'web', trafficPolicy: {} }, /trafficPolicy is empty/, { host: 'web' }],
  ['DestinationRule', 'a port twice', ports(80, 81, 80), /portLevelSettings: a port stands there twice/, ports(80, 81)],
  ...[tls, portTls].flatMap((of): (typeof table)[number][] => [
    ['DestinationRule', 'no mode', of({ sni: 'x' }), /tls\.mode is missing; accepted: DISABLE/, of({ mode: 'SIMPLE', sni: 'x' })],
    [
      'DestinationRule',
      'files under DISABLE',
      of({ mode: 'DISABLE', caCertificates: '/ca.pem' }),
      /mean nothing under DISABLE/,
      of({ mode: 'SIMPLE', caCertificates: '/ca.pem' }),
    ],
    [
      'DestinationRule',
      'files under ISTIO_MUTUAL',
      of({ mode: 'ISTIO_MUTUAL', ...FILES }),
      /and ISTIO_MUTUAL: remove them/,
      of({ mode: 'ISTIO_MUTUAL' }),
    ],
    [
      'DestinationRule',
      'a certificate under SIMPLE',
      of({ mode: 'SIMPLE', ...FILES }),
      /under SIMPLE a client shows no certificate/,
      of({ mode: 'MUTUAL', ...FILES }),
    ],
    [
      'DestinationRule',
      'MUTUAL without a key',
      of({ mode: 'MUTUAL', clientCertificate: '/c.pem' }),
      /MUTUAL needs clientCertificate and privateKey/,
      of({ mode: 'MUTUAL', ...FILES }),
    ],
    [
      'DestinationRule',
      'a relative path',
      of({ mode: 'SIMPLE', caCertificates: 'ca.pem' }),
      /tls\.caCertificates must be an absolute path/,
      of({ mode: 'SIMPLE', caCertificates: '/ca.pem' }),
    ],
    [
      'DestinationRule',
      'a relative certificate',
      of({ mode: 'MUTUAL', ...FILES, clientCertificate: 'c.pem' }),
      /tls\.clientCertificate must be/,
      of({ mode: 'MUTUAL', ...FILES }),
    ],
    [
      'DestinationRule',
      'a relative key',
      of({ mode: 'MUTUAL', ...FILES, privateKey: 'k.pem' }),
      /tls\.privateKey must be/,
      of({ mode: 'MUTUAL', ...FILES }),
    ],
    [
      'DestinationRule',
      'DNS names under ISTIO_MUTUAL',
      of({ mode: 'ISTIO_MUTUAL', subjectAltNames: ['web.example'] }),
      /under ISTIO_MUTUAL these are SPIFFE IDs/,
      of({ mode: 'ISTIO_MUTUAL', subjectAltNames: ['spiffe://cluster.local/ns/foo/sa/web'] }),
    ],
  ]),
  ['ServiceEntry', 'DNS', entry({ resolution: 'DNS' }), /resolution: destinations are known by address here; give STATIC/, entry({})],
  ['ServiceEntry', 'no resolution', entry({ resolution: undefined }), /give STATIC/, entry({})],
  [
    'ServiceEntry',
    'a block',
    entry({ addresses: ['10.0.0.0/8'] }),
    /addresses: a CIDR block is not supported/,
    entry({ addresses: ['10.0.0.1'] }),
  ],
  [
    'ServiceEntry',
    'a port twice',
    entry({
      ports: [
        { number: 80, name: 'a' },
        { number: 80, name: 'b' },
      ],
    }),
    /spec\.ports\[1\]: Duplicate value/,
    entry({
      ports: [
        { number: 80, name: 'a' },
        { number: 81, name: 'b' },
      ],
    }),
  ],
  [
    'ServiceEntry',
    'DNS names',
    entry({ subjectAltNames: ['db.example'] }),
    /subjectAltNames: these are SPIFFE IDs/,
    entry({ subjectAltNames: ['spiffe://cluster.local/ns/foo/sa/db'] }),
  ],
  [
    'ScopeConfig',
    'a kind that cannot be wrapped',
    { object: { ...wrapped, kind: 'ServiceEntry' } },
    /spec\.object\.kind: Unsupported value: "ServiceEntry"/,
    scope({}),
  ],
  [
    'ScopeConfig',
    'a version of another kind',
    { object: { ...wrapped, apiVersion: 'networking.istio.io/v1' } },
    /object: apiVersion and kind do not go together/,
    { object: { ...wrapped, apiVersion: 'networking.istio.io/v1', kind: 'DestinationRule', spec: tls({ mode: 'DISABLE' }) } },
  ],
  ['ScopeConfig', 'an object without a spec', { object: { ...wrapped, spec: undefined } }, /spec\.object\.spec: Required value/, scope({})],
  [
    'ScopeConfig',
    'a label that no pod has',
    scope({ selector: { matchLabels: { 'handfast.io/pod': 'x' } } }),
    /selector\.matchLabels: accepted under handfast\.io\/: handfast\.io\/pod-name/,
    scope({ selector: { matchLabels: { 'handfast.io/pod-name': 'x' } } }),
  ],
  [
    'ScopeConfig',
    'an expression about a label that no pod has',
    expression({ key: 'handfast.io/node', operator: 'Exists' }),
    /selector\.matchExpressions: accepted under handfast\.io\//,
    expression({ key: 'handfast.io/zone', operator: 'Exists' }),
  ],
  [
    'ScopeConfig',
    'In without values',
    expression({ operator: 'In' }),
    /In and NotIn need values/,
    expression({ operator: 'In', values: ['a'] }),
  ],
  [
    'ScopeConfig',
    'Exists with values',
    expression({ operator: 'Exists', values: ['a'] }),
    /Exists and DoesNotExist have none/,
    expression({ operator: 'Exists' }),
  ],
  [
    'ScopeConfig',
    'a step of both',
    steps({ pods: 1, percent: 10 }, { percent: 100 }),
    /rollout\.steps: give either pods or percent/,
    steps({ pods: 1 }, { percent: 100 }),
  ],
  [
    'ScopeConfig',
    'a step of neither',
    steps({}, { percent: 100 }),
    /give either pods or percent/,
    steps({ percent: 10 }, { percent: 100 }),
  ],
  [
    'ScopeConfig',
    'a step of nobody',
    steps({ percent: 0 }, { percent: 100 }),
    /percent.*should be greater than 0/,
    steps({ percent: 0.5 }, { percent: 100 }),
  ],
  [
    'ScopeConfig',
    'an end before everybody',
    steps({ pods: 1 }, { percent: 99 }),
    /the last step must be everybody/,
    steps({ percent: 100 }),
  ],
  [
    'ScopeConfig',
    'an end in pods',
    steps({ percent: 50 }, { pods: 10 }),
    /the last step must be everybody/,
    steps({ pods: 10 }, { percent: 100 }),
  ],
  [
    'ScopeConfig',
    'pods that shrink',
    steps({ pods: 5 }, { pods: 4 }, { percent: 100 }),
    /pods is less than before it/,
    steps({ pods: 4 }, { pods: 5 }, { percent: 100 }),
  ],
  [
    'ScopeConfig',
    'percents that shrink',
    steps({ percent: 50 }, { pods: 1 }, { percent: 40 }, { percent: 100 }),
    /percent is less than before it/,
    steps({ percent: 40 }, { pods: 1 }, { percent: 50 }, { percent: 100 }),
  ],
  [
    'MeshConfig',
    'a trust domain that is none',
    { trustDomainAliases: ['Other'] },
    /trustDomainAliases\[0\]/,
    { trustDomainAliases: ['other'] },
  ],
];

const apply = (object: object) => cluster.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: JSON.stringify(object) });

for (const [kind, what, bad, says, good] of table)
  test(`${kind}: ${what}`, async () => {
    const refused = await apply(objectOf(kind, bad));
    assert.notEqual(refused.code, 0, 'the API server took it');
    assert.match(refused.stderr, says);
    assert.notEqual(problems(kind, objectOf(kind, bad)), undefined, 'control takes it');
    const taken = await apply(objectOf(kind, good));
    assert.equal(taken.code, 0, taken.stderr);
    assert.equal(problems(kind, objectOf(kind, good)), undefined);
  });

describe('no rule is without a case', () => {
  for (const { kind } of kubeKinds)
    for (const { message } of rulesOf(kind))
      if (message !== undefined)
        test(`${kind}: ${message}`, () => assert.ok(table.some(([of, , , says]) => of === kind && says.test(message))));
});
