// DestinationRule and auto-mTLS: how a client dials, as Istio's pages say it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { day, destinationRule as dr, meshConfig, peerAuthentication as pa, pod, refused, row, service, worldOf } from './rows.ts';

const REFERENCE = 'https://istio.io/latest/docs/reference/config/networking/destination-rule/';
const HOST = `${REFERENCE}#DestinationRule-host`;
const EXPORT = `${REFERENCE}#DestinationRule-export_to`;
const CLIENTS = `${REFERENCE}#DestinationRule-workload_selector`;
const PORTS = `${REFERENCE}#TrafficPolicy-port_level_settings`;
const MODES = `${REFERENCE}#ClientTLSSettings-TLSmode`;
const SANS = `${REFERENCE}#ClientTLSSettings-subject_alt_names`;
const SNI = `${REFERENCE}#ClientTLSSettings-sni`;
const PATH = 'https://istio.io/latest/docs/ops/best-practices/traffic-management/#cross-namespace-configuration';
const SPLIT = 'https://istio.io/latest/docs/ops/best-practices/traffic-management/#split-virtual-services';
const AUTO = 'https://istio.io/latest/docs/ops/configuration/traffic-management/tls-configuration/#auto-mtls';
const AUTO_TASK = 'https://istio.io/latest/docs/tasks/security/authentication/authn-policy/#auto-mutual-tls';
const ROOT = 'https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-root_namespace';
/** Where the pages are silent: what istiod makes of it. */
const LOOKUP = 'https://github.com/istio/istio/blob/master/pilot/pkg/model/push_context.go';
const SHORT = 'https://github.com/istio/istio/blob/master/pilot/pkg/model/config.go';
const MERGE = 'https://github.com/istio/istio/blob/master/pilot/pkg/model/destination_rule.go';

const WEB = 'web.shop.svc.cluster.local';
const ports = 'ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 9090, targetPort: 9090}]';
const MESH = [
  pod('front/cli', '10.0.0.1', 'app: cli, tier: gold'),
  pod('front/job', '10.0.0.2', 'app: job'),
  pod('other/cli', '10.0.1.1', 'app: cli'),
  pod('istio-system/gateway', '10.0.2.1', 'app: cli'),
  pod('shop/web', '10.0.3.1', 'app: web'),
  pod('shop/cli', '10.0.3.2', 'app: cli'),
  pod('shop/old', '10.0.3.3', 'app: old', { meshed: false }),
  service('shop/web', `{clusterIP: 10.96.0.1, selector: {app: web}, ${ports}}`),
  service('shop/old', `{clusterIP: 10.96.0.2, selector: {app: old}, ${ports}}`),
];
const policy = (host: string, trafficPolicy: string, more = '') => `{host: "${host}", trafficPolicy: {${trafficPolicy}}${more}}`;
const tls = (host: string, mode: string, more?: string) => policy(host, `tls: {mode: ${mode}}`, more);
const off = (host: string, more?: string) => tls(host, 'DISABLE', more);
const on = (host: string, more?: string) => tls(host, 'ISTIO_MUTUAL', more);
const portLevel = (...modes: [port: number, mode: string][]) =>
  `portLevelSettings: [${modes.map(([number, mode]) => `{port: {number: ${number}}, tls: {mode: ${mode}}}`).join(', ')}]`;
const old = { createdAt: day(1) };
const young = { createdAt: day(2) };

interface Of {
  readonly from?: string;
  readonly host?: string;
  readonly port?: number;
  readonly todo?: string;
}
type Row = readonly [title: string, source: string, documents: readonly string[], expected: string, of?: Of];

/** `expected`: the transport, and the rule that decided or `auto`. */
function table(rows: readonly Row[]): void {
  for (const [title, source, documents, expected, { from = 'front/cli', host = WEB, port = 80, todo } = {}] of rows) {
    test(
      ...row({ title, source, expected, todo }, () => {
        const { transport, mode } = worldOf([...MESH, ...documents]).dial(from, `shop/${host}`, port);
        return `${transport} ${/by DestinationRule (\S+)/.exec(mode)?.[1] ?? 'auto'}`;
      }),
    );
  }
}
const OLD = { host: 'old.shop.svc.cluster.local' };

describe('auto-mTLS', () => {
  table([
    ['a server with a sidecar', AUTO_TASK, [], 'mtls auto'],
    ['a server without', AUTO_TASK, [], 'plaintext auto', OLD],
    ['a STRICT server', AUTO_TASK, [pa('shop/p', '{mtls: {mode: STRICT}}')], 'mtls auto'],
    ['a PERMISSIVE server', AUTO_TASK, [pa('shop/p', '{mtls: {mode: PERMISSIVE}}')], 'mtls auto'],
    ['a server with mTLS off', AUTO, [pa('shop/p', '{mtls: {mode: DISABLE}}')], 'plaintext auto'],
    [
      'a port with mTLS off',
      AUTO,
      [pa('shop/p', '{selector: {matchLabels: {app: web}}, portLevelMtls: {"8080": {mode: DISABLE}}}')],
      'plaintext auto',
    ],
    [
      'its other port',
      AUTO,
      [pa('shop/p', '{selector: {matchLabels: {app: web}}, portLevelMtls: {"8080": {mode: DISABLE}}}')],
      'mtls auto',
      { port: 9090 },
    ],
    ['the policy of the client namespace says nothing of servers elsewhere', AUTO, [pa('front/p', '{mtls: {mode: DISABLE}}')], 'mtls auto'],
    ['a rule for another host', AUTO, [dr('shop/r', off('old'))], 'mtls auto'],
    ['a rule for another port', AUTO, [dr('shop/r', policy('web', portLevel([9090, 'DISABLE'])))], 'mtls auto'],
  ]);
});

describe('DestinationRule: modes and ports', () => {
  table([
    ['DISABLE', MODES, [dr('shop/r', off(WEB))], 'plaintext shop/r'],
    ['SIMPLE', MODES, [dr('shop/r', tls(WEB, 'SIMPLE'))], 'tls shop/r'],
    [
      'MUTUAL',
      MODES,
      [dr('shop/r', policy(WEB, 'tls: {mode: MUTUAL, clientCertificate: /a, privateKey: /b, caCertificates: /c}'))],
      'tls shop/r',
    ],
    ['ISTIO_MUTUAL', MODES, [dr('shop/r', on(WEB))], 'mtls shop/r'],
    ['ISTIO_MUTUAL to a server without a sidecar', MODES, [dr('shop/r', on('old'))], 'mtls shop/r', OLD],
    ['ISTIO_MUTUAL to a server with mTLS off', MODES, [pa('shop/p', '{mtls: {mode: DISABLE}}'), dr('shop/r', on(WEB))], 'mtls shop/r'],
    ['SIMPLE to a server without a sidecar', MODES, [dr('shop/r', tls('old', 'SIMPLE'))], 'tls shop/r', OLD],
    ['DISABLE to a server without a sidecar', MODES, [dr('shop/r', off('old'))], 'plaintext shop/r', OLD],
    ['a port', PORTS, [dr('shop/r', policy(WEB, portLevel([80, 'DISABLE'])))], 'plaintext shop/r'],
    [
      'a port beats the host',
      PORTS,
      [dr('shop/r', policy(WEB, `tls: {mode: DISABLE}, ${portLevel([80, 'ISTIO_MUTUAL'])}`))],
      'mtls shop/r',
    ],
    [
      'the other ports are of the host',
      PORTS,
      [dr('shop/r', policy(WEB, `tls: {mode: DISABLE}, ${portLevel([80, 'ISTIO_MUTUAL'])}`))],
      'plaintext shop/r',
      { port: 9090 },
    ],
    [
      'a port turns it off',
      PORTS,
      [dr('shop/r', policy(WEB, `tls: {mode: ISTIO_MUTUAL}, ${portLevel([80, 'DISABLE'])}`))],
      'plaintext shop/r',
    ],
    [
      'each port for itself',
      PORTS,
      [dr('shop/r', policy(WEB, portLevel([80, 'ISTIO_MUTUAL'], [9090, 'DISABLE'])))],
      'plaintext shop/r',
      { port: 9090 },
    ],
    [
      'a port is that of the service, not of the pod',
      PORTS,
      [dr('shop/r', policy(WEB, `tls: {mode: ISTIO_MUTUAL}, ${portLevel([8080, 'DISABLE'])}`))],
      'mtls shop/r',
    ],
    [
      'v1beta1 and v1alpha3 say the same',
      REFERENCE,
      [dr('shop/r', off(WEB), { apiVersion: 'networking.istio.io/v1alpha3' })],
      'plaintext shop/r',
    ],
  ]);
  const dialled = (trafficPolicy: string, more: readonly string[] = []) => {
    const { allowed, sni } = worldOf([...MESH, ...more, dr('shop/r', policy(WEB, trafficPolicy))]).dial('front/cli', `shop/${WEB}`);
    return `${allowed.join(',')} sni ${sni}`;
  };
  const OWN = 'spiffe://cluster.local/ns/shop/sa/web';
  const rows: readonly (readonly [string, string, string, string])[] = [
    ['ISTIO_MUTUAL: the account of the server', MODES, 'tls: {mode: ISTIO_MUTUAL}', `${OWN} sni undefined`],
    ['subjectAltNames', SANS, 'tls: {mode: SIMPLE, subjectAltNames: [a.example, b.example]}', 'a.example,b.example sni undefined'],
    ['sni', SNI, 'tls: {mode: SIMPLE, sni: c.example, subjectAltNames: [a.example]}', 'a.example sni c.example'],
    [
      'a port does not inherit sni',
      PORTS,
      `tls: {mode: SIMPLE, sni: c.example}, ${portLevel([80, 'ISTIO_MUTUAL'])}`,
      `${OWN} sni undefined`,
    ],
    [
      'a port does not inherit subjectAltNames',
      PORTS,
      `tls: {mode: SIMPLE, subjectAltNames: [a.example]}, ${portLevel([80, 'ISTIO_MUTUAL'])}`,
      `${OWN} sni undefined`,
    ],
  ];
  const ALIASES = 'https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-trust_domain_aliases';
  test(
    ...row({ title: 'a server may still have the identity of an alias', source: ALIASES, expected: 'new.td old.td' }, () => {
      const { allowed } = worldOf([...MESH, meshConfig('{trustDomainAliases: [old.td]}')], { trustDomain: 'new.td' }).dial(
        'front/cli',
        `shop/${WEB}`,
      );
      return allowed.map((id) => id.replace('spiffe://', '').replace('/ns/shop/sa/web', '')).join(' ');
    }),
  );
  for (const [title, source, trafficPolicy, expected] of rows) test(...row({ title, source, expected }, () => dialled(trafficPolicy)));
});

describe('DestinationRule: hosts', () => {
  table([
    ['a full name', HOST, [dr('shop/r', off(WEB))], 'plaintext shop/r'],
    ['a short name, in the namespace of the service', HOST, [dr('shop/r', off('web'))], 'plaintext shop/r'],
    ['a short name is of the namespace of the rule', HOST, [dr('front/r', off('web'))], 'mtls auto'],
    ['a short name in the root namespace', HOST, [dr('istio-system/r', off('web'))], 'mtls auto'],
    ['a full name in the client namespace', HOST, [dr('front/r', off(WEB))], 'plaintext front/r'],
    ['half a name with a dot is taken as it stands', SHORT, [dr('shop/r', off('web.shop'))], 'mtls auto'],
    [
      'names have no case',
      'https://www.rfc-editor.org/rfc/rfc4343#section-3',
      [dr('shop/r', off('WEB.Shop.svc.cluster.local'))],
      'plaintext shop/r',
    ],
    ['a prefix is no name', HOST, [dr('shop/r', off('we'))], 'mtls auto'],
    ['a wildcard for a namespace', HOST, [dr('shop/r', off('*.shop.svc.cluster.local'))], 'plaintext shop/r'],
    ['a wildcard for all services', HOST, [dr('shop/r', off('*.svc.cluster.local'))], 'plaintext shop/r'],
    ['*.local', HOST, [dr('shop/r', off('*.local'))], 'plaintext shop/r'],
    ['*', HOST, [dr('istio-system/r', off('*'))], 'plaintext istio-system/r'],
    ['a wildcard for another namespace', HOST, [dr('shop/r', off('*.front.svc.cluster.local'))], 'mtls auto'],
    ['a wildcard stands before a dot', HOST, [dr('shop/r', off('*.hop.svc.cluster.local'))], 'mtls auto'],
    [
      'the exact beats the wildcard',
      LOOKUP,
      [dr('shop/a', off('*.shop.svc.cluster.local'), old), dr('shop/b', on('web'), young)],
      'mtls shop/b',
    ],
    [
      'the longer wildcard beats the shorter',
      LOOKUP,
      [dr('shop/a', off('*.svc.cluster.local'), old), dr('shop/b', on('*.shop.svc.cluster.local'), young)],
      'mtls shop/b',
    ],
    ['any beats *', LOOKUP, [dr('shop/a', on('*'), old), dr('shop/b', off('*.local'), young)], 'plaintext shop/b'],
    ['the oldest of one host', SPLIT, [dr('shop/a', off('web'), young), dr('shop/b', on('web'), old)], 'mtls shop/b'],
    ['the oldest, short or full', SPLIT, [dr('shop/a', off('web'), young), dr('shop/b', on(WEB), old)], 'mtls shop/b'],
    ['the oldest of one wildcard', SPLIT, [dr('shop/a', off('*.local'), young), dr('shop/b', on('*.local'), old)], 'mtls shop/b'],
    ['a tie goes by name', LOOKUP, [dr('shop/b', on('web'), old), dr('shop/a', off('web'), old)], 'plaintext shop/a'],
    [
      'the traffic policy of a younger is discarded whole',
      SPLIT,
      [dr('shop/a', policy('web', portLevel([9090, 'ISTIO_MUTUAL'])), old), dr('shop/b', off('web'), young)],
      'mtls auto',
    ],
  ]);
});

describe('DestinationRule: namespaces', () => {
  const root = meshConfig('{rootNamespace: other}');
  table([
    ['client before service', PATH, [dr('front/a', on(WEB)), dr('shop/b', off(WEB))], 'mtls front/a'],
    ['client before service, even when younger', PATH, [dr('front/a', on(WEB), young), dr('shop/b', off(WEB), old)], 'mtls front/a'],
    ['client before root', PATH, [dr('front/a', on(WEB)), dr('istio-system/b', off(WEB))], 'mtls front/a'],
    ['service before root', PATH, [dr('shop/a', on(WEB)), dr('istio-system/b', off(WEB))], 'mtls shop/a'],
    ['root', PATH, [dr('istio-system/b', off(WEB))], 'plaintext istio-system/b'],
    ['root, for every client', PATH, [dr('istio-system/b', off(WEB))], 'plaintext istio-system/b', { from: 'other/cli' }],
    [
      'a wildcard of the client before an exact of the service',
      LOOKUP,
      [dr('front/a', on('*.local')), dr('shop/b', off(WEB))],
      'mtls front/a',
    ],
    [
      'a wildcard of the service before an exact of the root',
      LOOKUP,
      [dr('shop/a', on('*.local')), dr('istio-system/b', off(WEB))],
      'mtls shop/a',
    ],
    ['a namespace of neither', PATH, [dr('other/a', off(WEB))], 'mtls auto'],
    ['another client sees not the rule of this one', PATH, [dr('front/a', off(WEB))], 'mtls auto', { from: 'other/cli' }],
    ['a client in the namespace of the service', PATH, [dr('shop/a', off(WEB))], 'plaintext shop/a', { from: 'shop/cli' }],
    [
      'the rule of the client for one host leaves the others to the service',
      PATH,
      [dr('front/a', on('old.shop.svc.cluster.local')), dr('shop/b', off(WEB))],
      'plaintext shop/b',
    ],
    // istiod lets the service go first here, so that a rule for the whole mesh does not hide all others from gateways; the page knows no such exception.
    [
      'a client in the root namespace has that first',
      PATH,
      [dr('istio-system/a', off('*')), dr('shop/b', on(WEB))],
      'plaintext istio-system/a',
      { from: 'istio-system/gateway' },
    ],
    [
      'a client in the root namespace: root',
      LOOKUP,
      [dr('istio-system/a', off('*'))],
      'plaintext istio-system/a',
      { from: 'istio-system/gateway' },
    ],
    ['the root namespace may have another name', ROOT, [root, dr('other/a', off(WEB))], 'plaintext other/a'],
    ['and then istio-system is a namespace like others', ROOT, [root, dr('istio-system/a', off(WEB))], 'mtls auto'],
  ]);
});

describe('DestinationRule: exportTo', () => {
  const exported = (...to: string[]) => `, exportTo: [${to.map((namespace) => `"${namespace}"`).join(', ')}]`;
  table([
    ['nothing said is everybody', EXPORT, [dr('shop/r', off(WEB))], 'plaintext shop/r'],
    ['* is everybody', EXPORT, [dr('shop/r', off(WEB, exported('*')))], 'plaintext shop/r'],
    ['. is not the others', EXPORT, [dr('shop/r', off(WEB, exported('.')))], 'mtls auto'],
    ['. is its own', EXPORT, [dr('shop/r', off(WEB, exported('.')))], 'plaintext shop/r', { from: 'shop/cli' }],
    ['. in the client namespace', EXPORT, [dr('front/r', off(WEB, exported('.')))], 'plaintext front/r'],
    ['. in the root namespace', EXPORT, [dr('istio-system/r', off(WEB, exported('.')))], 'mtls auto'],
    [
      'a hidden rule of the service gives way to the root',
      LOOKUP,
      [dr('shop/a', off(WEB, exported('.'))), dr('istio-system/b', on(WEB))],
      'mtls istio-system/b',
    ],
  ]);
});

describe('DestinationRule: workloadSelector', () => {
  const selecting = (labels: string) => `, workloadSelector: {matchLabels: {${labels}}}`;
  const gold = selecting('tier: gold');
  table([
    ['a client that matches', CLIENTS, [dr('front/r', off(WEB, gold))], 'plaintext front/r'],
    ['a client that does not', CLIENTS, [dr('front/r', off(WEB, gold))], 'mtls auto', { from: 'front/job' }],
    ['all labels', CLIENTS, [dr('front/r', off(WEB, selecting('app: cli, tier: gold')))], 'plaintext front/r'],
    ['one label missing', CLIENTS, [dr('front/r', off(WEB, selecting('app: cli, tier: iron')))], 'mtls auto'],
    ['it selects clients, not servers', CLIENTS, [dr('shop/r', off(WEB, selecting('app: web')))], 'mtls auto'],
    ['not those of another namespace', CLIENTS, [dr('shop/r', off(WEB, selecting('app: cli')))], 'mtls auto'],
    ['in its own', CLIENTS, [dr('shop/r', off(WEB, selecting('app: cli')))], 'plaintext shop/r', { from: 'shop/cli' }],
    ['not from the root namespace', CLIENTS, [dr('istio-system/r', off(WEB, selecting('app: cli')))], 'mtls auto'],
    [
      'it beats a rule for all, even when younger',
      LOOKUP,
      [dr('front/a', on(WEB), old), dr('front/b', off(WEB, gold), young)],
      'plaintext front/b',
    ],
    [
      'the rule for all stays for the others',
      CLIENTS,
      [dr('front/a', on(WEB)), dr('front/b', off(WEB, gold))],
      'mtls front/a',
      { from: 'front/job' },
    ],
    ['the oldest of one selector', MERGE, [dr('front/a', off(WEB, gold), young), dr('front/b', on(WEB, gold), old)], 'mtls front/b'],
  ]);
});

describe('DestinationRule: differences', () => {
  const ours = 'handfast DestinationRule';
  const annotated = service('shop/note', `{clusterIP: 10.96.0.9, selector: {app: web}, ${ports}}`, {
    annotations: '{handfast.io/client-tls: DISABLE}',
  });
  const NOTE = { host: 'note.shop.svc.cluster.local' };
  const strict = pa('shop/p', '{mtls: {mode: STRICT}}');
  const strictPort = pa('shop/p', '{selector: {matchLabels: {app: web}}, portLevelMtls: {"8080": {mode: STRICT}}}');
  const transports: readonly (readonly [string, readonly string[], string, Of?])[] = [
    ['DISABLE to a STRICT server is mTLS: it would refuse plaintext', [strict, dr('shop/r', off(WEB))], 'mtls'],
    ['DISABLE to a STRICT port is mTLS', [strictPort, dr('shop/r', off(WEB))], 'mtls'],
    ['DISABLE to its other port is plaintext', [strictPort, dr('shop/r', off(WEB))], 'plaintext', { port: 9090 }],
    ['DISABLE of a port to a STRICT server is mTLS', [strict, dr('shop/r', policy(WEB, portLevel([80, 'DISABLE'])))], 'mtls'],
    ['the annotation turns mTLS off', [annotated], 'plaintext', NOTE],
    ['the annotation to a STRICT server is mTLS', [annotated, strict], 'mtls', NOTE],
    ['ISTIO_MUTUAL is never plaintext', [pa('shop/p', '{mtls: {mode: DISABLE}}'), dr('shop/r', on('*'))], 'mtls'],
  ];
  for (const [title, documents, expected, { host = WEB, port = 80 } = {}] of transports) {
    test(
      ...row({ title, source: ours, expected }, () => worldOf([...MESH, ...documents]).dial('front/cli', `shop/${host}`, port).transport),
    );
  }
  test('under STRICT the server still proves who it is [handfast DestinationRule]', () => {
    const { allowed } = worldOf([...MESH, strict, dr('shop/r', off(WEB))]).dial('front/cli', `shop/${WEB}`);
    assert.deepEqual(allowed, ['spiffe://cluster.local/ns/shop/sa/web']);
  });
  test(...refused('exportTo ~', EXPORT, [dr('shop/r', off(WEB, ', exportTo: ["~"]'))], 'spec.exportTo'));
  test(
    ...refused(
      'a workloadSelector that is exported',
      CLIENTS,
      [dr('shop/r', off(WEB, ', workloadSelector: {matchLabels: {a: b}}, exportTo: ["*"]'))],
      'spec.exportTo',
    ),
  );
  test(...refused('a wildcard within a host', HOST, [dr('shop/r', off('web.*.svc.cluster.local'))], 'spec.host'));
  for (const field of ['loadBalancer', 'connectionPool', 'outlierDetection', 'tunnel', 'proxyProtocol', 'retryBudget']) {
    test(...refused(field, ours, [dr('shop/r', policy(WEB, `tls: {mode: DISABLE}, ${field}: {}`))], `spec.trafficPolicy.${field}`));
  }
  for (const field of ['loadBalancer', 'connectionPool', 'outlierDetection']) {
    const settings = `portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}, ${field}: {}}]`;
    test(...refused(`${field} of a port`, ours, [dr('shop/r', policy(WEB, settings))], `spec.trafficPolicy.portLevelSettings.0.${field}`));
  }
  test(...refused('exportTo a namespace by name', EXPORT, [dr('shop/r', off(WEB, ', exportTo: [front]'))], 'spec.exportTo', 'front'));
  test(...refused('exportTo two namespaces', EXPORT, [dr('shop/r', off(WEB, ', exportTo: [front, other]'))], 'spec.exportTo'));
  test(...refused('subsets', ours, [dr('shop/r', off(WEB, ', subsets: [{name: v1}]'))], 'spec.subsets'));
  test(...refused('credentialName', ours, [dr('shop/r', policy(WEB, 'tls: {mode: SIMPLE, credentialName: x}'))], 'tls.credentialName'));
  test(
    ...refused(
      'insecureSkipVerify',
      ours,
      [dr('shop/r', policy(WEB, 'tls: {mode: SIMPLE, insecureSkipVerify: true}'))],
      'tls.insecureSkipVerify',
    ),
  );
});
