// The kinds of policy: what Istio has and Handfast has not is refused by its name, beside a twin that is accepted; and what is accepted means what it says.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { resolveMesh } from '../../src/control/resolve/resolve.ts';
import { objectText, parseTexts, scopeText } from '../support/policy-yaml.ts';
import { refusal } from '../support/refusal.ts';

type Case = readonly [spec: string, ...says: readonly string[]];

/** Each case is refused with its words; `twin`s are accepted. */
function kind(name: string, of: { twins: Readonly<Record<string, string>>; refused: Readonly<Record<string, Case>> }): void {
  describe(name, () => {
    for (const [title, spec] of Object.entries(of.twins)) test(`accepts ${title}`, () => void parseTexts(objectText(name, spec)));
    for (const [title, [spec, ...says]] of Object.entries(of.refused)) {
      test(`refuses ${title}`, () =>
        assert.throws(() => parseTexts(objectText(name, spec)), refusal('OBJECT_INVALID', 'a.yaml:4: ', ...says)));
    }
  });
}

const source = (text: string) => `{rules: [{from: [{source: {${text}}}]}]}`;
const operation = (text: string) => `{rules: [{to: [{operation: {${text}}}]}]}`;
const when = (text: string) => `{rules: [{when: [{${text}}]}]}`;
const many = (count: number, value: (index: number) => string) => Array.from({ length: count }, (_, index) => value(index)).join(', ');

kind('AuthorizationPolicy', {
  twins: {
    'no rules': '{}',
    'empty rules': '{rules: []}',
    'a rule for all': '{rules: [{}]}',
    'DENY with a rule for all': '{action: DENY, rules: [{}]}',
    principals: source('principals: ["cluster.local/ns/a/sa/b", "*", "a*", "*b"]'),
    'service accounts': source('serviceAccounts: [a, ns/a], ipBlocks: [10.0.0.0/8, "fd00::/8", 10.1.2.3]'),
    ports: operation('ports: ["80"], notPorts: ["81"]'),
    ...Object.fromEntries(
      [
        'source.ip, values: [10.0.0.0/8]',
        'source.namespace, values: [foo]',
        'source.principal, notValues: ["*"]',
        'source.serviceAccount, values: [a]',
        'destination.ip, values: [10.0.0.1]',
        'destination.port, values: ["80"]',
      ].map((text) => [`when ${text}`, when(`key: ${text}`)]),
    ),
    'as many values as there may be': source(`principals: [${many(10_000, (index) => `p${index}`)}]`),
  },
  refused: {
    CUSTOM: ['{action: CUSTOM, rules: [{}]}', 'spec.action "CUSTOM" is not accepted; accepted: ALLOW, DENY'],
    AUDIT: ['{action: AUDIT, rules: [{}]}', 'spec.action "AUDIT" is not accepted'],
    ...Object.fromEntries(
      [
        ['targetRef', '{targetRef: {kind: Gateway, name: a}}', 'use selector'],
        ['targetRefs', '{targetRefs: []}', 'use selector'],
        ['provider', '{provider: {name: a}}', 'ALLOW and DENY'],
      ].map(([field = '', spec = '', says = '']) => [field, [spec, `spec.${field}: is not supported`, says] as const]),
    ),
    ...Object.fromEntries(
      ['remoteIpBlocks', 'notRemoteIpBlocks', 'trustDomains', 'notTrustDomains'].map((field) => [
        field,
        [source(`${field}: ["*"]`), `spec.rules.0.from.0.source.${field}: is not supported`] as const,
      ]),
    ),
    ...Object.fromEntries(
      [
        'request.headers[]',
        'request.headers[X-Forwarded-Client-Cert]',
        'request.headers[a b]',
        'request.auth.claims',
        'request.auth.claims[a][]',
        'request.regex.headers[a]',
        'connection.sni',
        'remote.ip',
        'experimental.envoy.filters.a[b]',
        'source.trustDomain',
        'destination.labels[a]',
        'what',
      ].map((key) => [
        `when ${key}`,
        [when(`key: "${key}", values: [a]`), `key "${key}" is not supported`, 'accepted keys: source.ip'] as const,
      ]),
    ),
    'when without a key': [when('values: [a]'), 'key is missing'],
    'when without values': [when('key: source.ip'), 'give values or notValues'],
    'a field that nobody knows': [
      source('principal: [a]'),
      'unknown field spec.rules.0.from.0.source.principal; accepted: principals, notPrincipals',
    ],
    'a principal with spiffe://': [
      source('principals: ["spiffe://cluster.local/ns/a/sa/b"]'),
      'without spiffe://, as "cluster.local/ns/a/sa/b"',
    ],
    'a principal with spiffe:// in when': [when('key: source.principal, values: ["spiffe://a/ns/a/sa/b"]'), 'without spiffe://'],
    ...Object.fromEntries(
      ['a*b', '*a*', '**', 'a**'].flatMap((value) =>
        ['principals', 'notPrincipals', 'namespaces', 'notNamespaces'].map((field) => [
          `${field} ${value}`,
          [source(`${field}: ["${value}"]`), `spec.rules.0.from.0.source.${field}.0: "${value}" would match nobody`] as const,
        ]),
      ),
    ),
    'an empty principal': [source('principals: [""]'), 'an empty value matches nothing'],
    'an empty source': [source(''), 'spec.rules.0.from.0.source: is empty'],
    'a source of empty lists': [source('principals: []'), 'is empty'],
    'no source': ['{rules: [{from: [{}]}]}', 'spec.rules.0.from.0.source is missing'],
    'an empty operation': [operation(''), 'spec.rules.0.to.0.operation: is empty'],
    'an empty from': ['{rules: [{from: []}]}', 'leave `from` out'],
    'an empty to': ['{rules: [{to: []}]}', 'leave `to` out'],
    'DENY without rules': ['{action: DENY}', 'denies nothing'],
    'service accounts beside principals': [source('serviceAccounts: [a], principals: [b]'), 'may not stand beside'],
    'service accounts beside namespaces': [source('notServiceAccounts: [a], namespaces: [b]'), 'may not stand beside'],
    'a service account with a wildcard': [source('serviceAccounts: ["a*"]'), 'no wildcards'],
    'a service account of three parts': [source('serviceAccounts: ["a/b/c"]'), 'namespace/name'],
    'too many service accounts': [source(`serviceAccounts: [${many(17, (index) => `s${index}`)}]`), 'more than 16'],
    'a block that is none': [source('ipBlocks: [10.0.0.0/33]'), 'is not an IP address or CIDR block'],
    'a port that is a number': [operation('ports: [80]'), 'written as a string'],
    'a port out of range': [operation('ports: ["65536"]'), 'from 1 to 65535'],
    'a selector with a wildcard': ['{selector: {matchLabels: {app: "a*"}}}', 'no wildcards'],
    'too many values': [source(`principals: [${many(10_001, (index) => `p${index}`)}]`), 'more than 10000 values'],
    'too many values in all': [
      `{rules: [{from: [{source: {principals: [${many(9_000, (index) => `p${index}`)}]}}]}, {from: [{source: {principals: [${many(9_000, (index) => `p${index}`)}]}}]}]}`,
      '18000 values',
    ],
    'too many rules': [`{rules: [${many(1001, () => '{}')}]}`, 'more than 1000 rules'],
  },
});

const tls = (text: string) => `{host: a.example, trafficPolicy: {tls: {${text}}}}`;
const files = 'clientCertificate: /a.pem, privateKey: /a.key, caCertificates: /ca.pem';

kind('DestinationRule', {
  twins: {
    'a host alone': '{host: a}',
    DISABLE: tls('mode: DISABLE'),
    SIMPLE: tls('mode: SIMPLE, sni: a.example, caCertificates: /ca.pem, subjectAltNames: [a.example]'),
    MUTUAL: tls(`mode: MUTUAL, ${files}`),
    ISTIO_MUTUAL: tls('mode: ISTIO_MUTUAL, subjectAltNames: ["spiffe://cluster.local/ns/a/sa/b"]'),
    ports:
      '{host: "*.example", trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}, {port: {number: 81}, tls: {mode: SIMPLE}}]}}',
    'exportTo everybody': '{host: "*", exportTo: ["*"]}',
    'a workloadSelector': '{host: a, workloadSelector: {matchLabels: {app: a}}, exportTo: ["."]}',
  },
  refused: {
    ...Object.fromEntries(
      [
        ['credentialName', 'as files'],
        ['insecureSkipVerify', 'always verified'],
        ['caCrl', 'revocations'],
      ].map(([field = '', says = '']) => [
        field,
        [tls(`mode: SIMPLE, ${field}: x`), `spec.trafficPolicy.tls.${field}: is not supported`, says] as const,
      ]),
    ),
    ...Object.fromEntries(
      ['loadBalancer', 'connectionPool', 'outlierDetection', 'tunnel', 'proxyProtocol', 'retryBudget'].map((field) => [
        field,
        [`{host: a, trafficPolicy: {${field}: {}}}`, `spec.trafficPolicy.${field}: is not supported`] as const,
      ]),
    ),
    'loadBalancer of a port': [
      '{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {}}]}}',
      'spec.trafficPolicy.portLevelSettings.0.loadBalancer: is not supported',
    ],
    subsets: ['{host: a, subsets: []}', 'spec.subsets: is not supported', 'Service'],
    'exportTo a namespace': ['{host: a, exportTo: [bar]}', 'spec.exportTo.0 "bar" is not accepted; accepted: *, .'],
    'exportTo both': ['{host: a, exportTo: [".", "*"]}', 'spec.exportTo: one of'],
    'a workloadSelector for everybody': [
      '{host: a, workloadSelector: {matchLabels: {a: b}}, exportTo: ["*"]}',
      'holds in its own namespace',
    ],
    'no host': ['{trafficPolicy: {}}', 'spec.host is missing'],
    'a wildcard in the middle': ['{host: "a.*.b"}', 'spec.host: a host name'],
    'MUTUAL without a key': [tls('mode: MUTUAL, clientCertificate: /a.pem'), 'spec.trafficPolicy.tls.privateKey: is missing'],
    'MUTUAL without a certificate': [tls('mode: MUTUAL, privateKey: /a.key'), 'tls.clientCertificate: is missing'],
    'a certificate under ISTIO_MUTUAL': [
      tls(`mode: ISTIO_MUTUAL, ${files}`),
      'tls.clientCertificate',
      'tls.privateKey',
      'tls.caCertificates',
    ],
    'a CA under DISABLE': [tls('mode: DISABLE, caCertificates: /ca.pem'), 'no TLS under DISABLE'],
    'a certificate under SIMPLE': [tls('mode: SIMPLE, clientCertificate: /a.pem'), 'use MUTUAL'],
    'a relative path': [tls('mode: SIMPLE, caCertificates: ca.pem'), 'absolute path'],
    'a DNS name under ISTIO_MUTUAL': [tls('mode: ISTIO_MUTUAL, subjectAltNames: [a.example]'), 'not a SPIFFE ID'],
    'no mode': [tls('sni: a.example'), 'spec.trafficPolicy.tls.mode: is missing; accepted: DISABLE', 'would turn mTLS off'],
    'no mode of a port': [
      '{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {}}]}}',
      'portLevelSettings.0.tls.mode: is missing',
    ],
    'a port without tls': ['{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}}]}}', 'portLevelSettings.0.tls is missing'],
    'a trafficPolicy with nothing in it': ['{host: a, trafficPolicy: {}}', 'spec.trafficPolicy: is empty'],
    'a mode that nobody knows': [tls('mode: STRICT'), 'accepted: DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL'],
    'one port twice': [
      '{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}, {port: {number: 80}, tls: {mode: SIMPLE}}]}}',
      'stands there already',
    ],
  },
});

const entry = (text: string) => `{hosts: [a.example], resolution: STATIC, ports: [{number: 443, name: tls, protocol: TLS}], ${text}}`;

kind('ServiceEntry', {
  twins: {
    'addresses and endpoints': entry(
      'addresses: [192.0.2.1], endpoints: [{address: 192.0.2.2, ports: {tls: 8443}, labels: {a: b}, serviceAccount: x}]',
    ),
    'the mesh inside': entry('location: MESH_INTERNAL, exportTo: ["*"], subjectAltNames: ["spiffe://cluster.local/ns/a/sa/b"]'),
  },
  refused: {
    ...Object.fromEntries(
      ['NONE', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'].map((mode) => [
        mode,
        [`{hosts: [a.example], resolution: ${mode}}`, `spec.resolution: ${mode} is not supported`, 'known by address'] as const,
      ]),
    ),
    'no resolution, which is NONE': ['{hosts: [a.example]}', 'NONE is not supported'],
    workloadSelector: [entry('workloadSelector: {labels: {a: b}}'), 'spec.workloadSelector: is not supported'],
    'a CIDR block': [entry('addresses: [192.0.2.0/24]'), 'spec.addresses.0: 192.0.2.0/24: a CIDR block is not supported'],
    'a wildcard host': ['{hosts: ["*.example"], resolution: STATIC}', 'wildcards are not supported'],
    'no hosts': ['{hosts: [], resolution: STATIC}', 'at least one host'],
    UDP: ['{hosts: [a.example], resolution: STATIC, ports: [{number: 53, name: dns, protocol: UDP}]}', 'UDP is not supported'],
    'an endpoint that is a name': [entry('endpoints: [{address: b.example}]'), 'is not an IP address'],
    'a port of an endpoint that is none': [
      entry('endpoints: [{address: 192.0.2.2, ports: {http: 80}}]'),
      'is no port of this ServiceEntry',
    ],
    'a DNS name that servers may prove': [entry('subjectAltNames: [a.example]'), 'spec.subjectAltNames.0'],
    ...Object.fromEntries(
      ['network', 'locality', 'weight'].map((field) => [
        field,
        [entry(`endpoints: [{address: 192.0.2.2, ${field}: x}]`), `spec.endpoints.0.${field}: is not supported`] as const,
      ]),
    ),
    'one port number twice': [
      '{hosts: [a.example], resolution: STATIC, ports: [{number: 80, name: a}, {number: 80, name: b}]}',
      'spec.ports.1.number: 80 stands there already',
    ],
    'exportTo a namespace': [entry('exportTo: [bar]'), 'accepted: *'],
    'exportTo its own namespace': [entry('exportTo: ["."]'), 'accepted: *'],
    'another tlsMode': [entry('endpoints: [{address: 192.0.2.2, labels: {security.istio.io/tlsMode: on}}]'), 'accepted are "istio"'],
  },
});

const strict = { kind: 'PeerAuthentication', spec: '{mtls: {mode: STRICT}}' };
const wrapping = (text: string, selector = '{}') =>
  `{selector: ${selector}, object: {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {mtls: {mode: STRICT}}}, ${text}}`;
const wrappedKind = (text: string) => `{object: {${text}}}`;
const rollout = (steps: string, more = '') => wrapping(`rollout: {steps: [${steps}], intervalSeconds: 60${more}}`);

kind('ScopeConfig', {
  twins: {
    everybody: wrapping('priority: 1'),
    'a selector': wrapping(
      'priority: -1',
      '{matchLabels: {app: a}, matchExpressions: [{key: a, operator: In, values: [b]}, {key: c, operator: Exists}]}',
    ),
    'a pod IP': wrapping('priority: 0', '{matchLabels: {handfast.io/pod-ip: "FD00::1"}}'),
    'every label of ours': wrapping(
      'priority: 0',
      '{matchLabels: {handfast.io/pod-name: a}, matchExpressions: [{key: handfast.io/zone, operator: Exists}, {key: handfast.io/pod-ip, operator: Exists}]}',
    ),
    'a rollout': rollout(
      '{pods: 1}, {percent: 10}, {percent: 100}',
      ', paused: true, failureBudget: {maxFailureRatio: 0.1, windowSeconds: 60}',
    ),
    'its own namespace': wrappedKind(
      'apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: foo}, spec: {mtls: {mode: STRICT}}',
    ),
  },
  refused: {
    'another namespace': [
      wrappedKind(
        'apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a, namespace: bar}, spec: {mtls: {mode: STRICT}}',
      ),
      "spec.object.metadata.namespace: bar is not the ScopeConfig's own, foo",
    ],
    'a ScopeConfig in it': [
      wrappedKind('apiVersion: handfast.io/v1alpha1, kind: ScopeConfig, metadata: {name: a}, spec: {}'),
      'kind "ScopeConfig" cannot stand in a ScopeConfig',
    ],
    'a Pod in it': [wrappedKind('kind: Pod'), 'kind "Pod" cannot stand in a ScopeConfig; accepted: PeerAuthentication'],
    'no object': ['{selector: {}}', 'spec.object'],
    'what its object refuses': [
      wrappedKind('apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {provider: {}}'),
      'spec.object.spec.provider: is not supported',
    ],
    'In without values': [wrapping('priority: 0', '{matchExpressions: [{key: a, operator: In}]}'), 'In needs values'],
    'Exists with values': [
      wrapping('priority: 0', '{matchExpressions: [{key: a, operator: Exists, values: [b]}]}'),
      'Exists has no values',
    ],
    'an operator that nobody knows': [
      wrapping('priority: 0', '{matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}'),
      'accepted: In, NotIn, Exists, DoesNotExist',
    ],
    'a label of ours that there is not': [
      wrapping('priority: 0', '{matchLabels: {handfast.io/node: a}}'),
      'spec.selector.matchLabels.handfast.io/node',
      'handfast.io/pod-name, handfast.io/pod-ip, handfast.io/zone',
    ],
    'an expression on a label of ours that there is not': [
      wrapping('priority: 0', '{matchExpressions: [{key: handfast.io/podname, operator: DoesNotExist}]}'),
      'spec.selector.matchExpressions.0.key: "handfast.io/podname"',
    ],
    'a pod IP that is none': [wrapping('priority: 0', '{matchLabels: {handfast.io/pod-ip: web}}'), 'is not an IP address'],
    'a rollout without steps': [rollout(''), 'at least one step'],
    'a rollout that does not end with everybody': [rollout('{percent: 50}'), 'percent: 100'],
    'a rollout that shrinks': [rollout('{percent: 50}, {percent: 20}, {percent: 100}'), 'percent: 20 is less than 50'],
    'pods that shrink': [rollout('{pods: 5}, {pods: 4}, {percent: 100}'), 'pods: 4 is less than 5'],
    'a step of both': [rollout('{pods: 1, percent: 100}'), 'either pods or percent'],
    'too many steps': [rollout(many(101, () => '{percent: 100}')), 'more than 100 steps'],
    'a ratio above 1': [rollout('{percent: 100}', ', failureBudget: {maxFailureRatio: 2, windowSeconds: 1}'), 'maxFailureRatio'],
  },
});

kind('MeshConfig', {
  twins: { 'trust domain aliases': '{trustDomainAliases: [old.example, td_2]}' },
  refused: {
    'a trust domain with spiffe://': ['{trustDomainAliases: ["spiffe://old.example"]}', 'spec.trustDomainAliases.0: a trust domain'],
    'too many aliases': [`{trustDomainAliases: [${many(17, (index) => `td${index}`)}]}`, 'more than 16 aliases'],
  },
});

describe('annotations', () => {
  const specs = { PeerAuthentication: strict.spec, AuthorizationPolicy: '{}', DestinationRule: '{host: a}' } as const;
  type Kind = keyof typeof specs;
  const plain = (kind: Kind, annotations: string) => objectText(kind, specs[kind], { annotations });
  const wrapped = (kind: Kind, annotations: string) => scopeText({ kind, spec: specs[kind], annotations });
  const scope = (kind: Kind, annotations: string) => scopeText({ kind, spec: specs[kind] }, { annotations });
  const isShadow = (text: string) => {
    const { peerAuthentications, authorizationPolicies, scopeConfigs } = parseTexts(text);
    return [...peerAuthentications, ...authorizationPolicies, ...scopeConfigs.map((each) => each.wrapped.policy)][0]?.dryRun;
  };
  for (const kind of ['PeerAuthentication', 'AuthorizationPolicy'] as const) {
    for (const [where, text] of Object.entries({ plain, wrapped, scope })) {
      test(`handfast.io/shadow of ${kind} (${where}) is "true" or "false"`, () => {
        assert.equal(isShadow(text(kind, '{handfast.io/shadow: "true"}')), true);
        assert.equal(isShadow(text(kind, '{handfast.io/shadow: "false"}')), false);
        assert.equal(isShadow(text(kind, '{}')), false);
        assert.throws(
          () => isShadow(text(kind, '{handfast.io/shadow: "yes"}')),
          refusal('OBJECT_INVALID', 'handfast.io/shadow: "yes" is not accepted'),
        );
      });
    }
  }
  for (const [where, text] of Object.entries({ plain, wrapped })) {
    test(`istio.io/dry-run of AuthorizationPolicy (${where}) is "true" or "false", and of one mind with handfast.io/shadow`, () => {
      const both = (ours: string, istios: string) =>
        text('AuthorizationPolicy', `{handfast.io/shadow: "${ours}", istio.io/dry-run: "${istios}"}`);
      assert.equal(isShadow(text('AuthorizationPolicy', '{istio.io/dry-run: "true"}')), true);
      assert.equal(isShadow(text('AuthorizationPolicy', '{istio.io/dry-run: "false"}')), false);
      assert.equal(isShadow(both('true', 'true')), true);
      assert.equal(isShadow(both('false', 'false')), false);
      assert.throws(() => isShadow(both('true', 'false')), refusal('OBJECT_INVALID', 'remove one of them'));
      assert.throws(() => isShadow(both('false', 'true')), refusal('OBJECT_INVALID', 'remove one of them'));
      assert.throws(
        () => isShadow(text('AuthorizationPolicy', '{istio.io/dry-run: "yes"}')),
        refusal('OBJECT_INVALID', 'istio.io/dry-run: "yes" is not accepted'),
      );
    });
  }
  test('istio.io/dry-run is refused where Istio would enforce, with the way out', () => {
    for (const text of [plain, wrapped, scope])
      for (const value of ['true', 'false'])
        assert.throws(
          () => parseTexts(text('PeerAuthentication', `{istio.io/dry-run: "${value}"}`)),
          refusal('OBJECT_INVALID', 'metadata.annotations.istio.io/dry-run: is for an AuthorizationPolicy alone', 'use handfast.io/shadow'),
        );
    assert.throws(
      () => parseTexts(scope('AuthorizationPolicy', '{istio.io/dry-run: "true"}')),
      refusal('OBJECT_INVALID', 'a.yaml:3: metadata.annotations.istio.io/dry-run', 'use handfast.io/shadow'),
    );
  });
  test('both are refused where there is no shadow', () => {
    for (const name of ['istio.io/dry-run', 'handfast.io/shadow']) {
      const entryText = objectText('ServiceEntry', entry('addresses: []'), { annotations: `{${name}: "true"}` });
      for (const text of [...[plain, wrapped, scope].map((of) => of('DestinationRule', `{${name}: "true"}`)), entryText])
        assert.throws(() => parseTexts(text), refusal('OBJECT_INVALID', `metadata.annotations.${name}: is not supported`, 'has no shadow'));
    }
    for (const text of [plain, wrapped, scope]) parseTexts(text('DestinationRule', '{}'));
  });
  test('handfast.io/client-tls is one of three', () => {
    const text = (mode: string) => objectText('Service', '{ports: [{port: 80}]}', { annotations: `{handfast.io/client-tls: ${mode}}` });
    for (const mode of ['DISABLE', 'ISTIO_MUTUAL', 'AUTO']) parseTexts(text(mode));
    assert.throws(
      () => parseTexts(text('SIMPLE')),
      refusal('OBJECT_INVALID', '"SIMPLE" is not accepted; accepted: DISABLE, ISTIO_MUTUAL, AUTO'),
    );
  });
});

describe('unique', () => {
  const service = objectText('Service', '{clusterIP: 10.96.0.1, ports: [{port: 80}]}', { name: 'web' });
  const pod = objectText('Pod', '{}', { name: 'p', status: '{podIP: 10.0.0.1}' });
  for (const [title, other, says] of [
    ['an endpoint and a pod', entry('endpoints: [{address: 10.0.0.1}]'), 'address 10.0.0.1 is already at a.yaml:'],
    ['an entry and a service', entry('addresses: [10.96.0.1]'), 'address 10.96.0.1 is already at'],
    [
      'a host and a service',
      '{hosts: [web.foo.svc.cluster.local], resolution: STATIC}',
      'host foo/web.foo.svc.cluster.local is already at',
    ],
    ['two endpoints', entry('endpoints: [{address: 192.0.2.1}, {address: 192.0.2.1}]'), 'address 192.0.2.1 is already at'],
  ] as const) {
    test(`${title} may not share what they have`, () =>
      assert.throws(() => parseTexts(service, pod, objectText('ServiceEntry', other)), refusal('OBJECT_INVALID', says)));
  }
  test('a wrapped PeerAuthentication with a selector in the root namespace would select nobody', () => {
    const selecting = { kind: 'PeerAuthentication', spec: '{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}}' };
    parseTexts(scopeText(selecting));
    assert.throws(
      () => parseTexts(scopeText(selecting, { namespace: 'istio-system' })),
      refusal('OBJECT_INVALID', 'spec.object.spec.selector: ', 'in ScopeConfig istio-system/a'),
    );
  });
});

describe('an AuthorizationPolicy means', () => {
  const rules = (spec: string, ...others: string[]) =>
    resolveMesh(parseTexts(objectText('AuthorizationPolicy', spec), ...others), { trustDomain: 'cluster.local', selections: new Map() })
      .authorizations[0];
  const match = (spec: string, ...others: string[]) => rules(spec, ...others)?.rules[0]?.[0]?.[0];

  test('nobody without rules, everybody with an empty one', () => {
    assert.deepEqual(rules('{}')?.rules, []);
    assert.deepEqual(rules('{rules: [{}]}')?.rules, [[]]);
  });
  test('each of from, to and when a clause, and each source a match', () => {
    const spec =
      '{rules: [{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}], to: [{operation: {ports: ["80"]}}], when: [{key: source.ip, values: [10.0.0.0/8], notValues: [10.1.0.0/16]}]}]}';
    const [rule] = rules(spec)?.rules ?? [];
    assert.deepEqual(
      rule?.map((clause) => clause.length),
      [2, 1, 1],
    );
    assert.deepEqual(rule?.[2]?.[0]?.sourceIps.length, 1);
    assert.deepEqual(rule?.[2]?.[0]?.notSourceIps.length, 1);
  });
  test('names by their wildcards', () => {
    assert.deepEqual(match(source('namespaces: [a, "a*", "*a", "*"]'))?.namespaces, [
      { kind: 'exact', value: 'a' },
      { kind: 'prefix', value: 'a' },
      { kind: 'suffix', value: 'a' },
      { kind: 'presence', value: '' },
    ]);
  });
  test("service accounts of the policy's namespace, where none is named", () => {
    assert.deepEqual(match(source('serviceAccounts: [a, bar/b]'))?.serviceAccounts, [
      { namespace: 'foo', serviceAccount: 'a' },
      { namespace: 'bar', serviceAccount: 'b' },
    ]);
    assert.deepEqual(match(when('key: source.serviceAccount, notValues: [a]'))?.notServiceAccounts, [
      { namespace: 'foo', serviceAccount: 'a' },
    ]);
  });
  test('all of the trust domains of the mesh, where one of them is named', () => {
    const aliases = objectText('MeshConfig', '{trustDomainAliases: [old.example, td-b]}', { name: 'mesh' });
    const values = (principal: string) =>
      match(source(`principals: ["${principal}"]`), aliases)?.principals.map(({ kind, value }) => `${kind} ${value}`);
    const all = ['cluster.local', 'old.example', 'td-b'].map((trustDomain) => `exact ${trustDomain}/ns/a/sa/b`);
    assert.deepEqual(values('cluster.local/ns/a/sa/b'), all);
    assert.deepEqual(values('old.example/ns/a/sa/b'), all);
    assert.deepEqual(values('other.example/ns/a/sa/b'), ['exact other.example/ns/a/sa/b']);
    assert.deepEqual(values('*/ns/a/sa/b'), ['suffix /ns/a/sa/b']);
    assert.deepEqual(values('*-b/ns/a/sa/b'), ['suffix -b/ns/a/sa/b']);
    assert.deepEqual(values('cluster.local/*'), ['prefix cluster.local/', 'prefix old.example/', 'prefix td-b/']);
    assert.deepEqual(values('old.example/ns/a/sa/*')?.length, 3);
    assert.deepEqual(values('other.example/ns/*'), ['prefix other.example/ns/']);
    assert.deepEqual(values('cluster.local*'), ['prefix cluster.local']);
    assert.deepEqual(values('*'), ['presence ']);
  });
});
