// Objects resolved into workloads, services and switches, from YAML as an operator writes it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { type ResolvedMesh, resolveMesh } from '../../src/control/resolve/resolve.ts';
import type { Workload } from '../../src/policy/model.ts';

const resolve = (...documents: string[]): ResolvedMesh =>
  resolveMesh(parseObjects([{ name: 'mesh.yaml', text: `${documents.join('\n---\n')}\n` }]), {
    trustDomain: 'cluster.local',
    selections: new Map(),
  });
const onlyWorkload = (...documents: string[]): Workload => resolve(...documents).workloads[0] ?? assert.fail('no workload');
const KEY = 'foo/web.foo.svc.cluster.local';

const pod = (options: { name?: string; namespace?: string; labels?: string; spec?: string; status?: string } = {}) =>
  `apiVersion: v1
kind: Pod
metadata: {name: ${options.name ?? 'web-1'}, namespace: ${options.namespace ?? 'foo'}, labels: ${options.labels ?? '{app: web}'}}
spec: ${options.spec ?? '{serviceAccountName: web}'}
status: ${options.status ?? '{podIP: 10.0.0.1}'}`;
const service = (spec: string, options: { name?: string; namespace?: string; annotations?: string } = {}) =>
  `apiVersion: v1
kind: Service
metadata: {name: ${options.name ?? 'web'}, namespace: ${options.namespace ?? 'foo'}, annotations: ${options.annotations ?? '{}'}}
spec: ${spec}`;
const peerAuthentication = (name: string, namespace: string, spec: string) =>
  `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ${name}, namespace: ${namespace}}
spec: ${spec}`;

describe('a workload', () => {
  test('has the uid, identity and addresses of its pod', () => {
    const workload = onlyWorkload(pod({ status: '{podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "FD00::1"}]}' }));
    assert.equal(workload.uid, 'local//Pod/foo/web-1');
    assert.equal(workload.identity?.uri, 'spiffe://cluster.local/ns/foo/sa/web');
    assert.deepEqual(workload.addresses, ['10.0.0.1', 'fd00::1']);
  });

  test('without a service account is the default one, in the default namespace', () => {
    const workload = onlyWorkload('apiVersion: v1\nkind: Pod\nmetadata: {name: p}');
    assert.equal(workload.identity?.uri, 'spiffe://cluster.local/ns/default/sa/default');
    assert.deepEqual(workload.addresses, []);
  });

  test('is of the trust domain that control serves', () => {
    const objects = parseObjects([{ name: 'a', text: `${pod()}\n` }]);
    assert.equal(
      resolveMesh(objects, { trustDomain: 'prod.example', selections: new Map() }).workloads[0]?.identity?.uri,
      'spiffe://prod.example/ns/foo/sa/web',
    );
  });

  for (const [labels, meshed] of [
    ['{security.istio.io/tlsMode: istio}', true],
    ['{security.istio.io/tlsMode: disabled}', false],
    ['{app: web}', false],
  ] as const) {
    test(`with labels ${labels} is ${meshed ? '' : 'not '}in the mesh`, () => assert.equal(onlyWorkload(pod({ labels })).meshed, meshed));
  }

  for (const [conditions, healthy] of [
    ['[]', true],
    ['[{type: Ready, status: "True"}]', true],
    ['[{type: Ready, status: "False"}]', false],
    ['[{type: Ready, status: Unknown}]', false],
    ['[{type: Initialized, status: "False"}]', true],
    ['[{type: ContainersReady, status: "True"}, {type: Ready, status: "False", lastTransitionTime: "2030-01-01T00:00:00Z"}]', false],
  ] as const) {
    test(`with conditions ${conditions} is ${healthy ? '' : 'not '}healthy`, () => {
      assert.equal(onlyWorkload(pod({ status: `{podIP: 10.0.0.1, conditions: ${conditions}}` })).healthy, healthy);
    });
  }
});

describe('a service selects', () => {
  const selected = (selector: string, labels: string) =>
    onlyWorkload(pod({ labels }), service(`{${selector}ports: [{port: 80}]}`)).services.has(KEY);
  const cases: readonly (readonly [name: string, selector: string, labels: string, wanted: boolean])[] = [
    ['a pod with its label', 'selector: {app: web}, ', '{app: web, x: y}', true],
    ['no pod with another value', 'selector: {app: web}, ', '{app: web2}', false],
    ['no pod without the label', 'selector: {app: web}, ', '{}', false],
    ['a pod with all of its labels', 'selector: {app: web, tier: a}, ', '{app: web, tier: a}', true],
    ['no pod with some of its labels', 'selector: {app: web, tier: a}, ', '{app: web}', false],
    ['nobody with an empty selector', 'selector: {}, ', '{app: web}', false],
    ['nobody without a selector', '', '{app: web}', false],
    ['no pod by a property that every object has', 'selector: {constructor: x}, ', '{app: web}', false],
  ];
  for (const [name, selector, labels, wanted] of cases) test(name, () => assert.equal(selected(selector, labels), wanted));

  test('no pod of another namespace', () => {
    assert.equal(onlyWorkload(pod({ namespace: 'bar' }), service('{selector: {app: web}, ports: [{port: 80}]}')).services.size, 0);
  });

  test('one pod for several services', () => {
    const spec = '{selector: {app: web}, ports: [{port: 80}]}';
    assert.deepEqual(
      [...onlyWorkload(pod(), service(spec), service(spec, { name: 'web2' })).services.keys()],
      [KEY, 'foo/web2.foo.svc.cluster.local'],
    );
  });
});

describe('ports', () => {
  const portsOf = (ports: string, spec = '{}') =>
    onlyWorkload(pod({ spec }), service(`{selector: {app: web}, ports: ${ports}}`)).services.get(KEY);
  const containers =
    '{containers: [{name: a, ports: [{name: http, containerPort: 8080}, {containerPort: 9}]}, {name: b, ports: [{name: admin, containerPort: 9901}]}]}';

  test('a target port by number', () =>
    assert.deepEqual(portsOf('[{port: 80, targetPort: 8080}]'), [{ servicePort: 80, targetPort: 8080 }]));
  test('none: the service port', () => assert.deepEqual(portsOf('[{port: 80}]'), [{ servicePort: 80, targetPort: 80 }]));
  test("by name: the pod's own port of that name, in any container", () => {
    assert.deepEqual(portsOf('[{port: 80, targetPort: http}, {name: m, port: 81, targetPort: admin}]', containers), [
      { servicePort: 80, targetPort: 8080 },
      { servicePort: 81, targetPort: 9901 },
    ]);
  });
  test('by a name that the pod has not: no endpoint for that port, never another port', () => {
    assert.deepEqual(portsOf('[{port: 80, targetPort: grpc}, {port: 81}]', containers), [{ servicePort: 81, targetPort: 81 }]);
  });
  test('two pods with different numbers behind one name', () => {
    const { workloads } = resolve(
      pod({ name: 'a', spec: '{containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}' }),
      pod({ name: 'b', spec: '{containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]}', status: '{podIP: 10.0.0.2}' }),
      service('{selector: {app: web}, ports: [{port: 80, targetPort: http}]}'),
    );
    assert.deepEqual(
      workloads.map((workload) => workload.services.get(KEY)?.[0]?.targetPort),
      [8080, 9090],
    );
  });
  test('UDP and SCTP are not ours', () => {
    assert.deepEqual(portsOf('[{port: 53, protocol: UDP}, {port: 54, protocol: SCTP}, {port: 53, protocol: TCP}]'), [
      { servicePort: 53, targetPort: 53 },
    ]);
  });
});

describe('a service', () => {
  test('has its key, host name, addresses, and the SPIFFE IDs of its annotation', () => {
    const [only] = resolve(
      service('{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "FD00:96::1"], ports: [{port: 80, targetPort: 8080}]}', {
        annotations: '{handfast.io/subject-alt-names: "spiffe://cluster.local/ns/a/sa/b, spiffe://other/x,"}',
      }),
    ).services;
    assert.equal(only?.key, KEY);
    assert.equal(only?.hostname, 'web.foo.svc.cluster.local');
    assert.deepEqual(only?.addresses, ['10.96.0.1', 'fd00:96::1']);
    assert.deepEqual(only?.ports, [{ servicePort: 80, targetPort: 8080 }]);
    assert.deepEqual(only?.subjectAltNames, ['spiffe://cluster.local/ns/a/sa/b', 'spiffe://other/x']);
  });

  for (const spec of ['{clusterIP: None, ports: []}', '{clusterIP: None, clusterIPs: [None]}', '{clusterIP: ""}', '{}']) {
    test(`${spec} has no address of its own`, () => assert.deepEqual(resolve(service(spec)).services[0]?.addresses, []));
  }
});

describe('policies', () => {
  test('one for each workload, by its uid, with the switch, its ports and their sources', () => {
    const { policies } = resolve(
      pod(),
      pod({ name: 'other', labels: '{app: other}', status: '{podIP: 10.0.0.2}' }),
      pod({ name: 'far', namespace: 'bar', status: '{podIP: 10.0.0.3}' }),
      peerAuthentication('mesh', 'istio-system', '{mtls: {mode: DISABLE}}'),
      peerAuthentication('ns', 'foo', '{mtls: {mode: PERMISSIVE}}'),
      peerAuthentication('web', 'foo', '{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}'),
    );
    assert.deepEqual(
      policies.map(({ workload, inbound }) => [workload, inbound.mode, inbound.source]),
      [
        ['local//Pod/foo/web-1', 'STRICT', 'PeerAuthentication foo/web'],
        ['local//Pod/foo/other', 'PERMISSIVE', 'PeerAuthentication foo/ns'],
        ['local//Pod/bar/far', 'DISABLE', 'PeerAuthentication istio-system/mesh'],
      ],
    );
    assert.deepEqual([...(policies[0]?.inboundPorts ?? [])], [[80, { mode: 'DISABLE', source: 'PeerAuthentication foo/web port 80' }]]);
    assert.equal(policies[1]?.inboundPorts.size, 0);
  });

  test('the root namespace is where MeshConfig says, and the outbound policy goes to everybody', () => {
    const config =
      'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {rootNamespace: root, outboundTrafficPolicy: {mode: REGISTRY_ONLY}}';
    const { policies } = resolve(
      config,
      pod(),
      peerAuthentication('mesh', 'root', '{mtls: {mode: STRICT}}'),
      peerAuthentication('not-mesh', 'istio-system', '{mtls: {mode: DISABLE}}'),
    );
    assert.deepEqual([policies[0]?.inbound.mode, policies[0]?.outbound], ['STRICT', 'REGISTRY_ONLY']);
  });

  test('without any: PERMISSIVE by default and ALLOW_ANY', () => {
    const [only] = resolve(pod()).policies;
    assert.deepEqual(only, {
      workload: 'local//Pod/foo/web-1',
      inbound: { mode: 'PERMISSIVE', source: 'default' },
      inboundPorts: new Map(),
      outbound: 'ALLOW_ANY',
      rootClientTls: [],
      trustDomainAliases: [],
      announced: undefined,
      shadow: undefined,
      clientTls: [],
    });
  });

  test('no object, no mesh', () =>
    assert.deepEqual(resolveMesh(parseObjects([]), { trustDomain: 'cluster.local', selections: new Map() }), {
      workloads: [],
      services: [],
      policies: [],
      authorizations: [],
    }));
});
