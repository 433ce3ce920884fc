// PeerAuthentication: whose mode holds, as Istio's pages say it.

import { describe, test } from 'node:test';
import { day, meshConfig, peerAuthentication as pa, pod, refused, row, scopeConfig as sc, worldOf } from './rows.ts';

const CONCEPT = 'https://istio.io/latest/docs/concepts/security/';
const REFERENCE = 'https://istio.io/latest/docs/reference/config/security/peer_authentication/';
const SELECTOR_FIELD = `${CONCEPT}#selector-field`;
const MODES = `${CONCEPT}#peer-authentication`;
const MODE = `${REFERENCE}#PeerAuthentication-MutualTLS-Mode`;
const MTLS = `${REFERENCE}#PeerAuthentication-mtls`;
const PORTS = `${REFERENCE}#PeerAuthentication-port_level_mtls`;
const SELECTOR = 'https://istio.io/latest/docs/reference/config/type/workload-selector/#WorkloadSelector';
const AUTHN_TASK = 'https://istio.io/latest/docs/tasks/security/authentication/authn-policy/';
const MIGRATION = 'https://istio.io/latest/docs/tasks/security/authentication/mtls-migration/';
const MESH_CONFIG = 'https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-root_namespace';
const CREATION_TIME = 'https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/#System';
/** The pages are silent; istiod sorts by time, then name. */
const ORDER = 'https://github.com/istio/istio/blob/master/pilot/pkg/model/config.go';

const MESH = [
  pod('foo/web', '10.0.0.1', 'app: web, version: v1'),
  pod('foo/api', '10.0.0.2', 'app: api'),
  pod('foo/bare', '10.0.0.3'),
  pod('bar/web', '10.0.1.1', 'app: web, version: v1'),
  pod('istio-system/gateway', '10.0.2.1', 'app: web'),
];
const mode = (word: string) => `{mtls: {mode: ${word}}}`;
const web = (rest: string, labels = 'app: web') => `{selector: {matchLabels: {${labels}}}, ${rest}}`;
const webMode = (word: string, labels?: string) => web(`mtls: {mode: ${word}}`, labels);
const [STRICT, PERMISSIVE, DISABLE, UNSET] = [mode('STRICT'), mode('PERMISSIVE'), mode('DISABLE'), mode('UNSET')];
const old = { createdAt: day(1) };
const young = { createdAt: day(2) };

type Row = readonly [
  title: string,
  source: string,
  documents: readonly string[],
  expected: string,
  of?: { pod?: string; port?: number; todo?: string },
];

function table(rows: readonly Row[]): void {
  for (const [title, source, documents, expected, { pod: uid = 'foo/web', port = 8080, todo } = {}] of rows) {
    test(
      ...row({ title, source, expected, todo }, () => {
        const found = worldOf([...MESH, ...documents]).mode(uid, port);
        return `${found.mode} ${found.source.replace('PeerAuthentication ', '')}`;
      }),
    );
  }
}

describe('PeerAuthentication: mesh, namespace, workload, port', () => {
  table([
    ['nobody says anything', MODE, [], 'PERMISSIVE default'],
    [
      'the mesh says STRICT',
      `${AUTHN_TASK}#globally-enabling-istio-mutual-tls-in-strict-mode`,
      [pa('istio-system/m', STRICT)],
      'STRICT istio-system/m',
    ],
    ['in every namespace', SELECTOR_FIELD, [pa('istio-system/m', STRICT)], 'STRICT istio-system/m', { pod: 'bar/web' }],
    [
      'and for the pods of the root namespace',
      SELECTOR_FIELD,
      [pa('istio-system/m', STRICT)],
      'STRICT istio-system/m',
      { pod: 'istio-system/gateway' },
    ],
    ['and for pods without labels', SELECTOR_FIELD, [pa('istio-system/m', STRICT)], 'STRICT istio-system/m', { pod: 'foo/bare' }],
    ['the mesh says DISABLE', MODES, [pa('istio-system/m', DISABLE)], 'DISABLE istio-system/m'],
    ['the mesh says PERMISSIVE', MODES, [pa('istio-system/m', PERMISSIVE)], 'PERMISSIVE istio-system/m'],
    ['a namespace says STRICT', `${MIGRATION}#lock-down-to-mutual-tls-by-namespace`, [pa('foo/n', STRICT)], 'STRICT foo/n'],
    ['namespace STRICT beats mesh PERMISSIVE', SELECTOR_FIELD, [pa('istio-system/m', PERMISSIVE), pa('foo/n', STRICT)], 'STRICT foo/n'],
    ['namespace PERMISSIVE beats mesh STRICT', SELECTOR_FIELD, [pa('istio-system/m', STRICT), pa('foo/n', PERMISSIVE)], 'PERMISSIVE foo/n'],
    ['namespace DISABLE beats mesh STRICT', SELECTOR_FIELD, [pa('istio-system/m', STRICT), pa('foo/n', DISABLE)], 'DISABLE foo/n'],
    [
      'a younger namespace beats an older mesh',
      SELECTOR_FIELD,
      [pa('istio-system/m', STRICT, old), pa('foo/n', PERMISSIVE, young)],
      'PERMISSIVE foo/n',
    ],
    [
      'workload STRICT beats namespace PERMISSIVE',
      SELECTOR_FIELD,
      [pa('foo/n', PERMISSIVE), pa('foo/w', webMode('STRICT'))],
      'STRICT foo/w',
    ],
    [
      'workload PERMISSIVE beats namespace STRICT',
      SELECTOR_FIELD,
      [pa('foo/n', STRICT), pa('foo/w', webMode('PERMISSIVE'))],
      'PERMISSIVE foo/w',
    ],
    [
      'workload DISABLE beats mesh STRICT',
      SELECTOR_FIELD,
      [pa('istio-system/m', STRICT), pa('foo/w', webMode('DISABLE'))],
      'DISABLE foo/w',
    ],
    [
      'a younger workload beats an older namespace',
      SELECTOR_FIELD,
      [pa('foo/n', STRICT, old), pa('foo/w', webMode('PERMISSIVE'), young)],
      'PERMISSIVE foo/w',
    ],
    [
      'port STRICT beats workload PERMISSIVE',
      PORTS,
      [pa('foo/w', web('mtls: {mode: PERMISSIVE}, portLevelMtls: {"8080": {mode: STRICT}}'))],
      'STRICT foo/w port 8080',
    ],
    [
      'port DISABLE beats workload STRICT',
      REFERENCE,
      [pa('foo/w', web('mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: DISABLE}}'))],
      'DISABLE foo/w port 8080',
    ],
    [
      'the other ports keep the workload mode',
      REFERENCE,
      [pa('foo/w', web('mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: DISABLE}}'))],
      'STRICT foo/w',
      { port: 8081 },
    ],
    [
      'every port of a map stands for itself',
      PORTS,
      [pa('foo/w', web('mtls: {mode: STRICT}, portLevelMtls: {"80": {mode: DISABLE}, "8080": {mode: PERMISSIVE}}'))],
      'PERMISSIVE foo/w port 8080',
    ],
    [
      'the port is the workload port, not the service port',
      PORTS,
      [pa('foo/w', web('mtls: {mode: STRICT}, portLevelMtls: {"80": {mode: DISABLE}}'))],
      'STRICT foo/w',
    ],
    [
      'port 65535 has a mode too',
      PORTS,
      [pa('foo/w', web('mtls: {mode: STRICT}, portLevelMtls: {"65535": {mode: PERMISSIVE}}'))],
      'PERMISSIVE foo/w port 65535',
      { port: 65535 },
    ],
    ['v1beta1 says the same as v1', REFERENCE, [pa('foo/n', STRICT, { apiVersion: 'security.istio.io/v1beta1' })], 'STRICT foo/n'],
  ]);
});

describe('PeerAuthentication: UNSET inherits', () => {
  const unsetPort = (workload: string) => web(`${workload}portLevelMtls: {"8080": {mode: UNSET}}`);
  table([
    ['an UNSET mesh is PERMISSIVE', MODES, [pa('istio-system/m', UNSET)], 'PERMISSIVE default'],
    ['an UNSET namespace has the mode of the mesh', MODE, [pa('istio-system/m', STRICT), pa('foo/n', UNSET)], 'STRICT istio-system/m'],
    ['an UNSET namespace without a mesh policy is PERMISSIVE', MODE, [pa('foo/n', UNSET)], 'PERMISSIVE default'],
    ['an UNSET workload has the mode of the namespace', MODE, [pa('foo/n', STRICT), pa('foo/w', webMode('UNSET'))], 'STRICT foo/n'],
    [
      'an UNSET workload in an UNSET namespace has the mode of the mesh',
      MODE,
      [pa('istio-system/m', STRICT), pa('foo/n', UNSET), pa('foo/w', webMode('UNSET'))],
      'STRICT istio-system/m',
    ],
    [
      'all UNSET is PERMISSIVE',
      MODE,
      [pa('istio-system/m', UNSET), pa('foo/n', UNSET), pa('foo/w', webMode('UNSET'))],
      'PERMISSIVE default',
    ],
    [
      'an UNSET port has the mode of the workload',
      MODE,
      [pa('foo/n', PERMISSIVE), pa('foo/w', unsetPort('mtls: {mode: STRICT}, '))],
      'STRICT foo/w',
    ],
    [
      'an UNSET port of an UNSET workload has the mode of the namespace',
      MODE,
      [pa('foo/n', STRICT), pa('foo/w', unsetPort('mtls: {mode: UNSET}, '))],
      'STRICT foo/n',
    ],
    [
      'an UNSET port of a workload without mtls has the mode of the mesh',
      MTLS,
      [pa('istio-system/m', STRICT), pa('foo/w', unsetPort(''))],
      'STRICT istio-system/m',
    ],
    [
      'a workload without mtls sets its port',
      `${CONCEPT}#peer-authentication`,
      [pa('foo/n', STRICT), pa('foo/w', web('portLevelMtls: {"8080": {mode: DISABLE}}'))],
      'DISABLE foo/w port 8080',
    ],
    [
      'and inherits for the others',
      MTLS,
      [pa('foo/n', STRICT), pa('foo/w', web('portLevelMtls: {"8080": {mode: DISABLE}}'))],
      'STRICT foo/n',
      { port: 8081 },
    ],
    [
      'an UNSET workload with a port inherits for the others',
      REFERENCE,
      [pa('foo/n', STRICT), pa('foo/w', web('mtls: {mode: UNSET}, portLevelMtls: {"8080": {mode: DISABLE}}'))],
      'STRICT foo/n',
      { port: 1 },
    ],
  ]);
});

describe('PeerAuthentication: the oldest of one scope', () => {
  table([
    ['two in a namespace', SELECTOR_FIELD, [pa('foo/a', PERMISSIVE, young), pa('foo/b', STRICT, old)], 'STRICT foo/b'],
    [
      'two in a namespace, the other way round',
      SELECTOR_FIELD,
      [pa('foo/b', STRICT, young), pa('foo/a', PERMISSIVE, old)],
      'PERMISSIVE foo/a',
    ],
    [
      'two for the mesh',
      SELECTOR_FIELD,
      [pa('istio-system/a', PERMISSIVE, young), pa('istio-system/b', STRICT, old)],
      'STRICT istio-system/b',
    ],
    [
      'two for a workload',
      SELECTOR_FIELD,
      [pa('foo/a', webMode('PERMISSIVE'), young), pa('foo/b', webMode('STRICT'), old)],
      'STRICT foo/b',
    ],
    [
      'a more specific selector does not count, age does',
      SELECTOR_FIELD,
      [pa('foo/a', webMode('STRICT', 'app: web, version: v1'), young), pa('foo/b', webMode('PERMISSIVE'), old)],
      'PERMISSIVE foo/b',
    ],
    [
      'the oldest that matches',
      SELECTOR_FIELD,
      [pa('foo/a', webMode('PERMISSIVE', 'app: api'), old), pa('foo/b', webMode('STRICT'), young)],
      'STRICT foo/b',
    ],
    [
      'the name "default" has no privilege',
      SELECTOR_FIELD,
      [pa('foo/default', PERMISSIVE, young), pa('foo/z', STRICT, old)],
      'STRICT foo/z',
    ],
    [
      'an older UNSET namespace hides a younger STRICT one',
      SELECTOR_FIELD,
      [pa('istio-system/m', PERMISSIVE), pa('foo/a', UNSET, old), pa('foo/b', STRICT, young)],
      'PERMISSIVE istio-system/m',
    ],
    [
      'an older UNSET mesh hides a younger STRICT one',
      SELECTOR_FIELD,
      [pa('istio-system/a', UNSET, old), pa('istio-system/b', STRICT, young)],
      'PERMISSIVE default',
    ],
    [
      'an older UNSET workload hides a younger STRICT one',
      SELECTOR_FIELD,
      [pa('foo/a', webMode('UNSET'), old), pa('foo/b', webMode('STRICT'), young)],
      'PERMISSIVE default',
    ],
    [
      'ports do not merge: those of a younger workload policy are ignored',
      SELECTOR_FIELD,
      [pa('foo/a', webMode('STRICT'), old), pa('foo/b', web('portLevelMtls: {"8080": {mode: DISABLE}}'), young)],
      'STRICT foo/a',
    ],
    [
      'ports do not merge: those of the older hold',
      SELECTOR_FIELD,
      [pa('foo/a', web('portLevelMtls: {"8080": {mode: STRICT}}'), old), pa('foo/b', webMode('DISABLE'), young)],
      'STRICT foo/a port 8080',
    ],
    [
      'the mode of a younger is not taken for the ports an older leaves open',
      SELECTOR_FIELD,
      [pa('foo/n', STRICT), pa('foo/a', web('portLevelMtls: {"80": {mode: STRICT}}'), old), pa('foo/b', webMode('DISABLE'), young)],
      'STRICT foo/n',
    ],
    ['a tie in a namespace goes by name', ORDER, [pa('foo/b', PERMISSIVE, old), pa('foo/a', STRICT, old)], 'STRICT foo/a'],
    [
      'a tie for the mesh goes by name',
      ORDER,
      [pa('istio-system/b', STRICT, old), pa('istio-system/a', PERMISSIVE, old)],
      'PERMISSIVE istio-system/a',
    ],
    [
      'a tie for a workload goes by name',
      ORDER,
      [pa('foo/b', webMode('PERMISSIVE'), old), pa('foo/a', webMode('STRICT'), old)],
      'STRICT foo/a',
    ],
    ['names go by code point, not by locale', ORDER, [pa('foo/b-1', PERMISSIVE, old), pa('foo/b', STRICT, old)], 'STRICT foo/b'],
    [
      'a time is an instant, not a text',
      CREATION_TIME,
      [pa('foo/a', STRICT, { createdAt: '2024-01-02T00:30:00+02:00' }), pa('foo/b', PERMISSIVE, { createdAt: '2024-01-01T23:00:00Z' })],
      'STRICT foo/a',
    ],
  ]);
});

describe('PeerAuthentication: selectors and namespaces', () => {
  const root = meshConfig('{rootNamespace: bar}');
  table([
    ['all labels must match, and do', SELECTOR, [pa('foo/w', webMode('STRICT', 'app: web, version: v1'))], 'STRICT foo/w'],
    ['all labels must match, and one does not', SELECTOR, [pa('foo/w', webMode('STRICT', 'app: web, version: v2'))], 'PERMISSIVE default'],
    ['all labels must match, and one is not there', SELECTOR, [pa('foo/w', webMode('STRICT', 'app: web, tier: x'))], 'PERMISSIVE default'],
    ['values are case-sensitive', SELECTOR, [pa('foo/w', webMode('STRICT', 'app: Web'))], 'PERMISSIVE default'],
    ['keys are case-sensitive', SELECTOR, [pa('foo/w', webMode('STRICT', 'App: web'))], 'PERMISSIVE default'],
    ['a value is no prefix', SELECTOR, [pa('foo/w', webMode('STRICT', 'app: we'))], 'PERMISSIVE default'],
    [
      'another workload of the namespace is not touched',
      SELECTOR_FIELD,
      [pa('foo/w', webMode('STRICT'))],
      'PERMISSIVE default',
      { pod: 'foo/api' },
    ],
    ['a pod without labels is not selected', SELECTOR_FIELD, [pa('foo/w', webMode('STRICT'))], 'PERMISSIVE default', { pod: 'foo/bare' }],
    [
      'selector: {} is namespace-wide',
      SELECTOR_FIELD,
      [pa('foo/n', '{selector: {}, mtls: {mode: STRICT}}')],
      'STRICT foo/n',
      { pod: 'foo/api' },
    ],
    ['matchLabels: {} is namespace-wide', SELECTOR_FIELD, [pa('foo/n', webMode('STRICT', ''))], 'STRICT foo/n', { pod: 'foo/api' }],
    [
      'and so loses to a workload, even when older',
      SELECTOR_FIELD,
      [pa('foo/n', webMode('STRICT', ''), old), pa('foo/w', webMode('PERMISSIVE'), young)],
      'PERMISSIVE foo/w',
    ],
    [
      'matchLabels: {} in the root namespace is mesh-wide',
      SELECTOR_FIELD,
      [pa('istio-system/m', webMode('STRICT', ''))],
      'STRICT istio-system/m',
      { pod: 'bar/web' },
    ],
    ['another namespace does not leak', SELECTOR_FIELD, [pa('bar/n', STRICT)], 'PERMISSIVE default'],
    ['a selector of another namespace does not leak', SELECTOR_FIELD, [pa('bar/w', webMode('STRICT'))], 'PERMISSIVE default'],
    ['but holds in its own', SELECTOR_FIELD, [pa('bar/w', webMode('STRICT'))], 'STRICT bar/w', { pod: 'bar/web' }],
    ['another namespace does not weaken', SELECTOR_FIELD, [pa('istio-system/m', STRICT), pa('bar/n', DISABLE)], 'STRICT istio-system/m'],
    ['the root namespace may have another name', MESH_CONFIG, [root, pa('bar/m', STRICT)], 'STRICT bar/m'],
    ['and then istio-system is a namespace like others', MESH_CONFIG, [root, pa('istio-system/n', STRICT)], 'PERMISSIVE default'],
    ['with pods of its own', MESH_CONFIG, [root, pa('istio-system/n', STRICT)], 'STRICT istio-system/n', { pod: 'istio-system/gateway' }],
  ]);
});

describe('PeerAuthentication: what a mode lets in', () => {
  const ports = web('mtls: {mode: STRICT}, portLevelMtls: {"9090": {mode: PERMISSIVE}}');
  const rows: readonly (readonly [string, string, string, 'mtls' | 'plaintext', number, string])[] = [
    ['STRICT takes mTLS', MODES, STRICT, 'mtls', 80, 'allowed'],
    ['STRICT refuses plaintext', MODES, STRICT, 'plaintext', 80, 'PLAINTEXT_UNDER_STRICT'],
    ['PERMISSIVE takes mTLS', MODES, PERMISSIVE, 'mtls', 80, 'allowed'],
    ['PERMISSIVE takes plaintext', MODES, PERMISSIVE, 'plaintext', 80, 'allowed'],
    ['DISABLE takes plaintext', MODE, DISABLE, 'plaintext', 80, 'allowed'],
    [
      'a PERMISSIVE port of a STRICT workload takes plaintext',
      `${AUTHN_TASK}#enable-mutual-tls-per-workload`,
      ports,
      'plaintext',
      9090,
      'allowed',
    ],
    ['its other ports do not', `${AUTHN_TASK}#enable-mutual-tls-per-workload`, ports, 'plaintext', 9091, 'PLAINTEXT_UNDER_STRICT'],
  ];
  for (const [title, source, spec, transport, port, expected] of rows) {
    test(
      ...row({ title, source, expected }, () =>
        worldOf([...MESH, pa('foo/p', spec)]).call({ from: 'bar/web', to: 'foo/web', port, transport }),
      ),
    );
  }
});

describe('PeerAuthentication: differences', () => {
  const ours = 'handfast PeerAuthentication';
  test(
    ...refused(
      'portLevelMtls without a selector',
      PORTS,
      [pa('foo/n', '{mtls: {mode: STRICT}, portLevelMtls: {"80": {mode: DISABLE}}}')],
      'portLevelMtls',
    ),
  );
  test(
    ...refused(
      'portLevelMtls with an empty selector',
      PORTS,
      [pa('foo/n', web('portLevelMtls: {"80": {mode: DISABLE}}', ''))],
      'portLevelMtls',
    ),
  );
  test(
    ...refused(
      'a selector in the root namespace (Istio ignores it)',
      REFERENCE,
      [pa('istio-system/m', webMode('STRICT'))],
      'spec.selector: PeerAuthentication istio-system/m has a selector in the root namespace',
    ),
  );
  test(
    ...refused(
      'a selector in a root namespace of another name',
      REFERENCE,
      [meshConfig('{rootNamespace: bar}'), pa('bar/m', webMode('STRICT'))],
      'spec.selector: PeerAuthentication bar/m has a selector in the root namespace',
    ),
  );
  test(
    ...refused(
      'one of the root namespace with a selector, wrapped',
      ours,
      [sc('istio-system/s', ['PeerAuthentication', 'w', webMode('STRICT')])],
      'spec.object.spec.selector: ',
      'ScopeConfig istio-system/s',
    ),
  );
  for (const value of ['true', 'false'])
    test(
      ...refused(
        `istio.io/dry-run "${value}", which is for ALLOW and DENY policies alone (Istio enforces it)`,
        'https://istio.io/latest/docs/tasks/security/authorization/authz-dry-run/#limitations',
        [pa('foo/n', STRICT, { annotations: `{istio.io/dry-run: "${value}"}` })],
        'metadata.annotations.istio.io/dry-run',
        'use handfast.io/shadow',
      ),
    );
  table([
    [
      'handfast.io/shadow enforces nothing',
      ours,
      [pa('foo/n', STRICT, { annotations: '{handfast.io/shadow: "true"}' })],
      'PERMISSIVE default',
    ],
    ['handfast.io/shadow "false" does', ours, [pa('foo/n', STRICT, { annotations: '{handfast.io/shadow: "false"}' })], 'STRICT foo/n'],
  ]);
  test(...refused('portLevelMtls that names no port', PORTS, [pa('foo/n', web('portLevelMtls: {}'))], 'spec.portLevelMtls: names no port'));
  test(...refused('one that sets nothing (Istio inherits)', ours, [pa('foo/n', '{}')], 'mode'));
});
