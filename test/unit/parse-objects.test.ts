// YAML to objects: every message names file, line and what would have been accepted; one problem refuses the whole set.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { HandfastError } from '../../src/errors.ts';
import { refusal } from '../support/refusal.ts';

/** Files by name, in order. */
function parse(files: Readonly<Record<string, string>>): MeshObjects {
  return parseObjects(Object.entries(files).map(([name, text]) => ({ name, text })));
}

const kinds =
  'accepted: MeshConfig, PeerAuthentication, AuthorizationPolicy, DestinationRule, RequestAuthentication, ScopeConfig, ServiceEntry, Pod, Service';
const modes = 'accepted: UNSET, DISABLE, PERMISSIVE, STRICT';

/** Four lines of head; the spec begins on line 5. */
const peerAuthentication = (spec: string, name = 'a', namespace = 'foo') =>
  `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec:\n${spec}\n`;
const service = (spec: string, name = 'web') =>
  `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: foo}\nspec:\n${spec}\n`;
const pod = (name: string, ip: string) =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: foo}\nstatus: {podIP: "${ip}"}\n`;

describe('accepted', () => {
  test('several documents in one file, and several files, make one set', () => {
    const objects = parse({
      'all.yaml': `${pod('p', '10.0.0.1')}---\n${service('  clusterIP: 10.96.0.1\n  selector: {app: web}\n  ports: [{port: 80}]')}`,
      'policy/strict.yml': peerAuthentication('  mtls: {mode: STRICT}'),
      'mesh.yaml':
        'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  rootNamespace: root\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n',
    });
    assert.deepEqual(
      objects.pods.map(({ metadata, status }) => [metadata.name, status.podIP]),
      [['p', '10.0.0.1']],
    );
    assert.deepEqual(
      objects.services.map(({ spec }) => [spec.clusterIP, spec.ports[0]?.port]),
      [['10.96.0.1', 80]],
    );
    assert.deepEqual(
      objects.peerAuthentications.map(({ name, namespace, mode }) => [name, namespace, mode]),
      [['a', 'foo', 'STRICT']],
    );
    assert.deepEqual(objects.config, { rootNamespace: 'root', outboundTrafficPolicy: { mode: 'REGISTRY_ONLY' }, trustDomainAliases: [] });
  });

  test('a JSON file', () => {
    const objects = parse({
      'strict.json': JSON.stringify({
        apiVersion: 'security.istio.io/v1beta1',
        kind: 'PeerAuthentication',
        metadata: { name: 'a', namespace: 'foo' },
        spec: { selector: { matchLabels: { app: 'web' } }, portLevelMtls: { 8080: { mode: 'DISABLE' } } },
      }),
    });
    const [object] = objects.peerAuthentications;
    assert.deepEqual(object?.portModes, new Map([[8080, 'DISABLE']]));
    assert.deepEqual(object?.selector, new Map([['app', 'web']]));
    assert.equal(object?.mode, undefined);
  });

  test('a PeerAuthentication as `kubectl get -o yaml` prints it', () => {
    const objects = parse({
      'pa.yaml': `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"security.istio.io/v1beta1","kind":"PeerAuthentication","metadata":{"annotations":{},"name":"httpbin","namespace":"bar"}}
  creationTimestamp: "2024-05-14T09:31:07Z"
  generation: 2
  managedFields:
  - apiVersion: security.istio.io/v1beta1
    fieldsType: FieldsV1
    fieldsV1:
      f:spec:
        .: {}
        f:mtls:
          .: {}
          f:mode: {}
    manager: kubectl-client-side-apply
    operation: Update
    time: "2024-05-14T09:31:07Z"
  name: httpbin
  namespace: bar
  resourceVersion: "184223"
  uid: 4f7c6f0e-8a3d-4b5e-9c1b-0a2b3c4d5e6f
spec:
  mtls:
    mode: STRICT
  portLevelMtls:
    "80":
      mode: DISABLE
    8443: {}
  selector:
    matchLabels:
      app: httpbin
status: {}
`,
    });
    assert.deepEqual(objects.peerAuthentications, [
      {
        name: 'httpbin',
        namespace: 'bar',
        createdAt: Date.UTC(2024, 4, 14, 9, 31, 7),
        dryRun: false,
        scopeConfig: undefined,
        selector: new Map([['app', 'httpbin']]),
        mode: 'STRICT',
        portModes: new Map([
          [80, 'DISABLE'],
          [8443, undefined],
        ]),
      },
    ]);
  });

  const shapes: Readonly<Record<string, string>> = {
    'a byte-order mark': `\ufeff${peerAuthentication('  mtls: {mode: STRICT}')}`,
    'CRLF line ends': peerAuthentication('  mtls:\n    mode: STRICT').replaceAll('\n', '\r\n'),
    'a leading `---` and comments': `---\n# ours\n${peerAuthentication('  mtls: {mode: STRICT}')}`,
    'a few anchors and aliases': peerAuthentication(
      '  mtls: &strict {mode: STRICT}\n  selector: {matchLabels: {app: a}}\n  portLevelMtls: {80: *strict}',
    ),
  };
  for (const [name, text] of Object.entries(shapes)) {
    test(name, () => assert.equal(parse({ 'a.yaml': text }).peerAuthentications[0]?.mode, 'STRICT'));
  }

  test('the same name in another namespace, and in another kind', () => {
    const strict = '  mtls: {mode: STRICT}';
    const objects = parse({
      'a.yaml': peerAuthentication(strict, 'x', 'foo'),
      'b.yaml': peerAuthentication(strict, 'x', 'bar'),
      'c.yaml': `${pod('x', '10.0.0.1')}---\n${service('  ports: []', 'x')}`,
    });
    assert.equal(objects.peerAuthentications.length, 2);
  });

  test('a document that is empty beside one that is not, as templating leaves them', () => {
    assert.equal(parse({ 'a.yaml': `${peerAuthentication('  mtls: {mode: STRICT}')}---\n` }).peerAuthentications.length, 1);
    assert.equal(parse({ 'a.yaml': `---\n# nothing here\n---\n${pod('p', '10.0.0.1')}` }).pods.length, 1);
  });

  test('creationTimestamp: null, as `kubectl create --dry-run=client -o yaml` writes it', () => {
    const text = `apiVersion: v1\nkind: Service\nmetadata:\n  creationTimestamp: null\n  name: web\nspec: {ports: [{port: 80}]}\nstatus:\n  loadBalancer: {}\n`;
    assert.equal(parse({ 'a.yaml': text }).services.length, 1);
  });

  test('addresses become canonical, so that one address has one text', () => {
    const [object] = parse({ 'a.yaml': pod('p', '::FFFF:10.0.0.1') }).pods;
    assert.equal(object?.status.podIP, '10.0.0.1');
  });

  test('no file at all is an empty mesh with the defaults', () => {
    const objects = parse({});
    assert.deepEqual(objects.config, {
      rootNamespace: 'istio-system',
      outboundTrafficPolicy: { mode: 'ALLOW_ANY' },
      trustDomainAliases: [],
    });
    assert.deepEqual(objects.pods, []);
  });

  test('what comes out is frozen, and no file can reach into the next parse through the defaults', () => {
    assert.ok(Object.isFrozen(parse({})));
  });
});

describe('refused', () => {
  const cases: Readonly<Record<string, readonly [files: Record<string, string>, ...says: (string | RegExp)[]]>> = {
    'an unknown field of the spec': [
      { 'a.yaml': peerAuthentication('  mtls: {mode: STRICT}\n  selectors: {}') },
      'a.yaml:6: unknown field spec.selectors; accepted: selector, mtls, portLevelMtls',
    ],
    'an unknown nested field': [
      { 'a.yaml': peerAuthentication('  mtls:\n    mod: STRICT') },
      'a.yaml:6: unknown field spec.mtls.mod; accepted: mode',
    ],
    'an unknown field in a list': [
      { 'a.yaml': service('  ports:\n    - port: 80\n    - prot: 81\n      port: 81') },
      'a.yaml:7: unknown field spec.ports.1.prot; accepted: name, port, targetPort',
    ],
    'an unknown field at the top': [
      { 'a.yaml': `${peerAuthentication('  mtls: {mode: STRICT}')}mtls: {}\n` },
      'a.yaml:6: unknown field mtls; accepted: apiVersion, kind, metadata, spec',
    ],
    'an unknown field named __proto__': [
      { 'a.yaml': peerAuthentication('  __proto__: {mtls: {mode: DISABLE}}') },
      /^a\.yaml:5: .*__proto__/,
    ],
    'a merge key, which YAML 1.2 has not': [
      { 'a.yaml': peerAuthentication('  <<: {mtls: {mode: DISABLE}}') },
      'a.yaml:5: unknown field spec.<<',
    ],
    'a misspelt mode': [
      { 'a.yaml': peerAuthentication('  mtls:\n    mode: STRIKT') },
      `a.yaml:6: spec.mtls.mode "STRIKT" is not accepted; ${modes}`,
    ],
    'a mode in lower case': [
      { 'a.yaml': peerAuthentication('  mtls: {mode: strict}') },
      `spec.mtls.mode "strict" is not accepted; ${modes}`,
    ],
    'a mode with a NUL': [{ 'a.yaml': peerAuthentication('  mtls: {mode: "STRICT\\0"}') }, 'a.yaml:5: ', modes],
    'a mode that is a list': [{ 'a.yaml': peerAuthentication('  mtls: {mode: [STRICT]}') }, 'a.yaml:5: spec.mtls.mode', modes],
    'a mode without a value': [{ 'a.yaml': peerAuthentication('  mtls:\n    mode:') }, 'a.yaml:6: spec.mtls.mode null', modes],
    'a bad mode of a port': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {app: a}}\n  portLevelMtls:\n    80: {mode: OFF}') },
      `a.yaml:7: spec.portLevelMtls.80.mode "OFF" is not accepted; ${modes}`,
    ],
    'a bad outbound traffic policy': [
      {
        'a.yaml':
          'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  outboundTrafficPolicy:\n    mode: DENY\n',
      },
      'a.yaml:6: spec.outboundTrafficPolicy.mode "DENY" is not accepted; accepted: ALLOW_ANY, REGISTRY_ONLY',
    ],
    'a wrong apiVersion': [
      { 'a.yaml': peerAuthentication('  mtls: {}').replace('security.istio.io/v1', 'v1') },
      'a.yaml:1: apiVersion "v1" is not accepted; accepted: security.istio.io/v1, security.istio.io/v1beta1',
    ],
    'no apiVersion': [{ 'a.yaml': 'kind: Pod\nmetadata: {name: p}\n' }, 'a.yaml:1: apiVersion is missing; accepted: v1'],
    'no metadata': [{ 'a.yaml': 'apiVersion: v1\nkind: Pod\n' }, 'a.yaml:1: metadata is missing'],
    'no name': [{ 'a.yaml': 'apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: foo\n' }, 'metadata.name is missing'],
    'a name that Kubernetes would not take': [
      { 'a.yaml': 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: Web_1\n' },
      "a.yaml:4: metadata.name: lower-case letters, digits, '-' and '.'",
    ],
    'a namespace that would add a path segment to the SPIFFE ID': [
      { 'a.yaml': 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: foo/sa/admin\n' },
      'a.yaml:5: metadata.namespace',
    ],
    'a service account that would climb out of its namespace': [
      { 'a.yaml': 'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  serviceAccountName: ../../bar/sa/admin\n' },
      'a.yaml:5: spec.serviceAccountName',
    ],
    'a kind that is not supported, by its name': [
      { 'a.yaml': 'apiVersion: security.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n' },
      `a.yaml:2: kind "VirtualService" is not supported; ${kinds}`,
    ],
    'a kind named like a property of every object': [{ 'a.yaml': 'kind: constructor\n' }, `a.yaml:1: kind "constructor" is not supported`],
    'no kind': [{ 'a.yaml': 'apiVersion: v1\n' }, `a.yaml:1: kind is missing; ${kinds}`],
    'a document that is a word': [{ 'a.yaml': 'hello\n' }, 'a.yaml:1: kind is missing'],
    'a document that is a list': [{ 'a.yaml': '- kind: Pod\n' }, 'a.yaml:1: kind is missing'],
    'broken YAML': [{ 'a.yaml': peerAuthentication('  mtls: {mode: STRICT') }, /^a\.yaml:\d+: not YAML: /],
    'broken JSON': [{ 'a.json': '{"kind": "Pod", "apiVersion": }}' }, /^a\.json:1: not YAML: /],
    'broken YAML in the second document, by its line in the file': [
      { 'a.yaml': `${pod('p', '10.0.0.1')}---\nkind: "Pod\n` },
      /^a\.yaml:(6|7): not YAML: /,
    ],
    'a key that stands twice': [
      { 'a.yaml': peerAuthentication('  mtls: {mode: STRICT}\n  mtls: {mode: DISABLE}') },
      'a.yaml:6: not YAML: Map keys must be unique',
    ],
    'a tab for indentation': [{ 'a.yaml': peerAuthentication('\tmtls: {mode: STRICT}') }, 'a.yaml:5: not YAML: Tabs are not allowed'],
    'a last line that does not end, as in a file half written': [
      { 'a.yaml': peerAuthentication('  mtls: {mode: STRICT}').trimEnd() },
      'a.yaml:5: the last line does not end',
    ],
    'a PeerAuthentication without a spec': [
      { 'a.yaml': 'apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n' },
      /a\.yaml:1: spec/,
    ],
    'a PeerAuthentication that says nothing': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {app: a}}') },
      'a.yaml:4: spec: sets no mode',
    ],
    'an empty file': [{ 'a.yaml': '' }, 'a.yaml:1: no object in it; remove the file to remove its objects'],
    'a file of comments': [{ 'a.yaml': '# mtls: STRICT\n\n# all switched off\n' }, 'a.yaml:1: no object in it'],
    'an empty file beside a good one': [{ 'a.yaml': pod('p', '10.0.0.1'), 'b.yaml': '\n' }, 'b.yaml:1: no object in it'],
    'an alias bomb': [
      {
        'a.yaml': `kind: Pod\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n`,
      },
      /^a\.yaml:\d+: .*alias/i,
    ],
    'brackets nested too deep to parse': [{ 'a.yaml': `kind: ${'['.repeat(20_000)}` }, /^a\.yaml:\d+: /],
    'portLevelMtls without a selector': [
      { 'a.yaml': peerAuthentication('  portLevelMtls:\n    80: {mode: STRICT}') },
      'a.yaml:5: spec.portLevelMtls: portLevelMtls needs a selector with matchLabels',
    ],
    'portLevelMtls with an empty selector': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {}}\n  portLevelMtls: {80: {mode: STRICT}}') },
      'a.yaml:6: spec.portLevelMtls: portLevelMtls needs a selector',
    ],
    'port 0 of portLevelMtls': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {app: a}}\n  portLevelMtls: {0: {mode: STRICT}}') },
      'a.yaml:6: ',
      /port 0: from 1 to 65535|spec\.portLevelMtls\.0: a port number/,
    ],
    'port 65536 of portLevelMtls': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {app: a}}\n  portLevelMtls: {65536: {mode: STRICT}}') },
      'port 65536: from 1 to 65535 is accepted',
    ],
    'a port name in portLevelMtls': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {app: a}}\n  portLevelMtls:\n    http: {mode: STRICT}') },
      'a.yaml:7: spec.portLevelMtls.http: a port number',
    ],
    'one port written two ways in portLevelMtls, of which one would win unseen': [
      {
        'a.yaml': peerAuthentication(
          '  selector: {matchLabels: {app: a}}\n  portLevelMtls:\n    8080: {mode: STRICT}\n    08080: {mode: DISABLE}',
        ),
      },
      /^a\.yaml:\d+: .*8080/,
    ],
    'a selector in the root namespace': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {app: a}}\n  mtls: {mode: STRICT}', 'a', 'istio-system') },
      'a.yaml:1: spec.selector: PeerAuthentication istio-system/a has a selector in the root namespace',
    ],
    'a selector whose only label the parser would drop, so that it would hold for the namespace': [
      { 'a.yaml': peerAuthentication('  selector: {matchLabels: {__proto__: x}}\n  mtls: {mode: DISABLE}') },
      /^a\.yaml:\d+: .*__proto__/,
    ],
    'a label value that is a number': [
      { 'a.yaml': peerAuthentication('  selector:\n    matchLabels:\n      version: 1\n  mtls: {mode: STRICT}') },
      'a.yaml:7: spec.selector.matchLabels.version',
      'string',
    ],
    'a service port that stands twice': [
      { 'a.yaml': service('  ports:\n    - port: 80\n    - port: 80') },
      'a.yaml:7: spec.ports.1.port: port 80 stands there already as ports.0',
    ],
    'a service port 0': [{ 'a.yaml': service('  ports:\n    - port: 0') }, 'a.yaml:6: spec.ports.0.port: '],
    'a service port that is text': [{ 'a.yaml': service('  ports:\n    - port: "80"') }, 'a.yaml:6: spec.ports.0.port: '],
    'a target port 65536': [{ 'a.yaml': service('  ports:\n    - {port: 80, targetPort: 65536}') }, 'a.yaml:6: spec.ports.0.targetPort: '],
    'a pod address that is none': [{ 'a.yaml': pod('p', '10.0.0.256') }, 'a.yaml:4: status.podIP: "10.0.0.256" is not an IP address'],
    'a pod address with a port': [{ 'a.yaml': pod('p', '10.0.0.2:80') }, 'a.yaml:4: status.podIP: "10.0.0.2:80" is not an IP address'],
    'a service address that is none': [
      { 'a.yaml': service('  clusterIP: 10.0.0.256') },
      'a.yaml:5: spec.clusterIP: "10.0.0.256" is not an IP address',
    ],
    'an annotation that is no SPIFFE ID': [
      {
        'a.yaml':
          'apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    handfast.io/subject-alt-names: spiffe://cluster.local/ns/a/sa/b, https://cluster.local/x\nspec: {}\n',
      },
      'a.yaml:6: metadata.annotations.handfast.io/subject-alt-names: not a SPIFFE ID: "https://cluster.local/x"',
    ],
    'a tlsMode label that nobody reads': [
      { 'a.yaml': 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n    security.istio.io/tlsMode: ISTIO\n' },
      'a.yaml:6: ',
      'accepted are "istio"',
      '"disabled"',
    ],
    'two objects of one name, both places named': [
      { 'a.yaml': `${peerAuthentication('  mtls: {mode: STRICT}')}`, 'b.yaml': `# ours\n${peerAuthentication('  mtls: {mode: DISABLE}')}` },
      'b.yaml:2: PeerAuthentication foo/a is already at a.yaml:1',
    ],
    'two objects of one name, one of them in the default namespace by leaving it out': [
      {
        'a.yaml':
          'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\n',
      },
      'a.yaml:5: Pod default/p is already at a.yaml:1',
    ],
    'two MeshConfigs': [
      {
        'a.yaml':
          'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: a}\nspec: {}\n---\napiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: b}\nspec: {}\n',
      },
      'a.yaml:6: MeshConfig is already at a.yaml:1',
    ],
    'two pods at one address, written differently': [
      { 'a.yaml': pod('p', '10.0.0.1'), 'b.yaml': pod('q', '::ffff:a00:1') },
      'b.yaml:1: address 10.0.0.1 is already at a.yaml:1',
    ],
    'a service at the address of a pod': [
      { 'a.yaml': pod('p', '10.0.0.1'), 'b.yaml': service('  clusterIP: 10.0.0.1') },
      'b.yaml:1: address 10.0.0.1 is already at a.yaml:1',
    ],
    'an alias to nothing, by its line': [{ 'a.yaml': peerAuthentication('  mtls: *strict') }, /^a\.yaml:5: .*strict/],
  };
  for (const [name, [files, ...says]] of Object.entries(cases)) {
    test(name, () => assert.throws(() => parse(files), refusal('OBJECT_INVALID', ...says)));
  }

  test('several problems are told at once, one line each, in every file', () => {
    const error = (() => {
      try {
        parse({
          'a.yaml': peerAuthentication('  mtls:\n    mode: STRIKT\n  selectors: {}'),
          'b.yaml': `${pod('p', 'nowhere')}---\nkind: Deployment\n`,
          'c.yaml': '',
        });
        return undefined;
      } catch (thrown) {
        return thrown;
      }
    })();
    assert.ok(error instanceof Error);
    assert.deepEqual(
      error.message
        .split('\n')
        .map((line) => line.split(': ', 1)[0])
        .sort(),
      ['a.yaml:6', 'a.yaml:7', 'b.yaml:4', 'b.yaml:6', 'c.yaml:1'],
    );
  });

  test('one bad file refuses the good ones with it', () => {
    assert.throws(() => parse({ 'a.yaml': pod('p', '10.0.0.1'), 'b.yaml': 'kind: Pod' }), refusal('OBJECT_INVALID', 'b.yaml:1'));
    assert.equal(parse({ 'a.yaml': pod('p', '10.0.0.1') }).pods.length, 1);
  });
});

test('the example policy, cut anywhere, is refused, but at the end of a line behind a mode', () => {
  const text = readFileSync(new URL('../../examples/config/policy.yaml', import.meta.url), 'utf8');
  const accepted: number[] = [];
  for (let length = 0; length < text.length; length++) {
    try {
      parseObjects([{ name: 'policy.yaml', text: text.slice(0, length) }]);
      accepted.push(length);
    } catch (error) {
      assert.ok(error instanceof HandfastError && error.code === 'OBJECT_INVALID', String(error));
    }
  }
  for (const length of accepted) {
    const cut = text.slice(0, length);
    assert.ok(cut.endsWith('\n'), `cut in a line: ${cut.slice(-40)}`);
    assert.match(cut, /mode: \w+\n(---\n|#[^\n]*\n)*$/, `cut before a mode: ${cut.slice(-40)}`);
  }
});
