// AuthorizationPolicy: who may call whom, as Istio's pages say it.

import { describe, test } from 'node:test';
import type { Call, Caller } from '../../support/policy-world.ts';
import { authorizationPolicy as ap, meshConfig, peerAuthentication, pod, refused, row, worldOf } from './rows.ts';

const CONCEPT = 'https://istio.io/latest/docs/concepts/security/';
const IMPLICIT = `${CONCEPT}#implicit-enablement`;
const POLICIES = `${CONCEPT}#authorization-policies`;
const TARGET = `${CONCEPT}#policy-target`;
const VALUES = `${CONCEPT}#value-matching`;
const EXCLUSION = `${CONCEPT}#exclusion-matching`;
const ALL_OR_NOTHING = `${CONCEPT}#allow-nothing-deny-all-and-allow-all-policy`;
const AUTHENTICATED = `${CONCEPT}#authenticated-and-unauthenticated-identity`;
const NEEDS_MTLS = `${CONCEPT}#dependency-on-mutual-tls`;
const PLAIN_TCP = `${CONCEPT}#using-istio-authorization-on-plain-tcp-protocols`;
const REFERENCE = 'https://istio.io/latest/docs/reference/config/security/authorization-policy/';
const RULE = `${REFERENCE}#Rule`;
const SELECTOR = `${REFERENCE}#AuthorizationPolicy-selector`;
const ACTION = `${REFERENCE}#AuthorizationPolicy-Action`;
const SOURCE = `${REFERENCE}#Source`;
const PRINCIPALS = `${REFERENCE}#Source-principals`;
const NOT_PRINCIPALS = `${REFERENCE}#Source-not_principals`;
const NAMESPACES = `${REFERENCE}#Source-namespaces`;
const NOT_NAMESPACES = `${REFERENCE}#Source-not_namespaces`;
const ACCOUNTS = `${REFERENCE}#Source-service_accounts`;
const NOT_ACCOUNTS = `${REFERENCE}#Source-not_service_accounts`;
const IP_BLOCKS = `${REFERENCE}#Source-ip_blocks`;
const NOT_IP_BLOCKS = `${REFERENCE}#Source-not_ip_blocks`;
const PORTS = `${REFERENCE}#Operation-ports`;
const NOT_PORTS = `${REFERENCE}#Operation-not_ports`;
const CONDITION = `${REFERENCE}#Condition`;
const CONDITIONS = 'https://istio.io/latest/docs/reference/config/security/conditions/#supported-conditions';
const TASKS = 'https://istio.io/latest/docs/tasks/security/authorization';
const TCP_ALLOW = `${TASKS}/authz-tcp/#configure-allow-authorization-policy-for-a-tcp-workload`;
const TCP_DENY = `${TASKS}/authz-tcp/#configure-deny-authorization-policy-for-a-tcp-workload`;
const DENY_TASK = `${TASKS}/authz-deny/#explicitly-deny-a-request`;
const DRY_RUN = `${TASKS}/authz-dry-run/`;
const MIGRATION = `${TASKS}/authz-td-migration/`;
const ROOT = 'https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-root_namespace';
/** Where the pages are silent: what istiod makes of it. */
const GENERATOR = 'https://github.com/istio/istio/blob/master/pilot/pkg/security/authz/model/generator.go';
const BUNDLE = 'https://github.com/istio/istio/blob/master/pilot/pkg/security/trustdomain/bundle.go';

const MESH = [
  pod('foo/web', '10.0.0.1', 'app: web, version: v1'),
  pod('foo/api', '10.0.0.2', 'app: api'),
  pod('bar/cli', '10.0.1.1', 'app: cli'),
  pod('bar/job', '10.0.1.2', 'app: job'),
  pod('bar/web', '10.0.1.3', 'app: web'),
  pod('baz/cli', '10.0.2.1', 'app: cli'),
  pod('legacy/old', '10.0.9.1', 'app: old', { meshed: false }),
  pod('istio-system/gateway', '10.0.3.1', 'app: gateway'),
];

const allow = (...rules: string[]) => `{action: ALLOW, rules: [${rules.join(', ')}]}`;
const deny = (...rules: string[]) => `{action: DENY, rules: [${rules.join(', ')}]}`;
const selecting = (labels: string, spec: string) => spec.replace('{', `{selector: {matchLabels: {${labels}}}, `);
const from = (...sources: string[]) => `{from: [${sources.map((source) => `{source: {${source}}}`).join(', ')}]}`;
const to = (...operations: string[]) => `{to: [${operations.map((operation) => `{operation: {${operation}}}`).join(', ')}]}`;
const when = (...conditions: string[]) => `{when: [${conditions.map((condition) => `{${condition}}`).join(', ')}]}`;
/** One rule of several parts. */
const all = (...parts: string[]) => `{${parts.map((part) => part.slice(1, -1)).join(', ')}}`;
const dryRun = (value: string) => ({ annotations: `{istio.io/dry-run: "${value}"}` });

const CLI = 'cluster.local/ns/bar/sa/cli';
const ip = (address: string): Caller => ({ ip: address, principal: CLI });
const who = (principal: string): Caller => ({ ip: '10.7.7.7', principal });

interface Of extends Partial<Call> {
  readonly trustDomain?: string;
  readonly todo?: string;
}
type Row = readonly [
  title: string,
  source: string,
  documents: readonly string[],
  from: Caller,
  expected: 'yes' | 'no' | 'yes, shadow no' | 'no, shadow yes',
  of?: Of | undefined,
];

function table(rows: readonly Row[]): void {
  for (const [
    title,
    source,
    documents,
    caller,
    expected,
    { trustDomain = 'cluster.local', todo, to: called = 'foo/web', ...more } = {},
  ] of rows) {
    test(
      ...row({ title, source, expected, todo }, () => {
        const world = worldOf([...MESH, ...documents], { trustDomain });
        const call = { from: caller, to: called, ...more };
        const [enforced, shadow] = [world.call(call), world.shadowOf(call)].map((word) =>
          word === 'allowed' ? 'yes' : word === 'AUTHORIZATION_DENIED' ? 'no' : word,
        );
        return enforced === shadow ? `${enforced}` : `${enforced}, shadow ${shadow}`;
      }),
    );
  }
}
/** Rows of one ALLOW policy in foo with one rule. */
const allowing = (
  rows: readonly (readonly [title: string, source: string, rule: string, from: Caller, expected: 'yes' | 'no', of?: Of])[],
): void =>
  table(rows.map(([title, source, rule, caller, expected, of]): Row => [title, source, [ap('foo/a', allow(rule))], caller, expected, of]));
const plaintext = { transport: 'plaintext' } as const;

describe('AuthorizationPolicy: ALLOW and DENY', () => {
  const [cli, job] = [from(`principals: ["${CLI}"]`), from('principals: ["cluster.local/ns/bar/sa/job"]')];
  table([
    ['no policy', IMPLICIT, [], 'bar/cli', 'yes'],
    ['no policy, plaintext', IMPLICIT, [], 'legacy/old', 'yes', plaintext],
    ['spec: {} allows nothing', REFERENCE, [ap('foo/a', '{}')], 'bar/cli', 'no'],
    ['spec: {} allows nothing in plaintext either', REFERENCE, [ap('foo/a', '{}')], 'legacy/old', 'no', plaintext],
    ['ALLOW without rules allows nothing', ALL_OR_NOTHING, [ap('foo/a', '{action: ALLOW}')], 'bar/cli', 'no'],
    ['rules: [{}] allows all', ALL_OR_NOTHING, [ap('foo/a', '{rules: [{}]}')], 'bar/cli', 'yes'],
    ['rules: [{}] allows plaintext', AUTHENTICATED, [ap('foo/a', '{rules: [{}]}')], 'legacy/old', 'yes', plaintext],
    ['DENY rules: [{}] denies all', ALL_OR_NOTHING, [ap('foo/a', deny('{}'))], 'bar/cli', 'no'],
    ['DENY rules: [{}] denies plaintext', ALL_OR_NOTHING, [ap('foo/a', deny('{}'))], 'legacy/old', 'no', plaintext],
    ['deny-all beats allow-all', ALL_OR_NOTHING, [ap('foo/a', allow('{}')), ap('foo/d', deny('{}'))], 'bar/cli', 'no'],
    ['whatever the order', ALL_OR_NOTHING, [ap('foo/a', deny('{}')), ap('foo/b', allow('{}'))], 'bar/cli', 'no'],
    [
      'whatever the age',
      ALL_OR_NOTHING,
      [ap('foo/a', allow('{}'), { createdAt: '2020-01-01T00:00:00Z' }), ap('foo/d', deny('{}'))],
      'bar/cli',
      'no',
    ],
    ['a DENY that does not match leaves it to ALLOW', IMPLICIT, [ap('foo/a', allow(cli)), ap('foo/d', deny(job))], 'bar/cli', 'yes'],
    ['a DENY that matches', DENY_TASK, [ap('foo/a', allow(cli, job)), ap('foo/d', deny(job))], 'bar/job', 'no'],
    ['a DENY that does not match, and no ALLOW', REFERENCE, [ap('foo/d', deny(job))], 'bar/cli', 'yes'],
    ['an ALLOW that does not match denies', REFERENCE, [ap('foo/a', allow(job))], 'bar/cli', 'no'],
    ['neither matches', REFERENCE, [ap('foo/a', allow(job)), ap('foo/d', deny(from('namespaces: [baz]')))], 'bar/cli', 'no'],
    ['the action is ALLOW unless told', ACTION, [ap('foo/a', `{rules: [${cli}]}`)], 'bar/job', 'no'],
    ['ALLOWs add up', IMPLICIT, [ap('foo/a', allow(job)), ap('foo/b', allow(cli))], 'bar/cli', 'yes'],
    ['allow-nothing takes nothing from another ALLOW', ALL_OR_NOTHING, [ap('foo/a', '{}'), ap('foo/b', allow(cli))], 'bar/cli', 'yes'],
    ['and gives nothing', ALL_OR_NOTHING, [ap('foo/a', '{}'), ap('foo/b', allow(cli))], 'bar/job', 'no'],
    ['DENYs add up', IMPLICIT, [ap('foo/a', deny(job)), ap('foo/b', deny(cli))], 'bar/cli', 'no'],
    ['v1beta1 says the same as v1', REFERENCE, [ap('foo/a', allow(job), { apiVersion: 'security.istio.io/v1beta1' })], 'bar/cli', 'no'],
  ]);
});

describe('AuthorizationPolicy: scope', () => {
  const root = meshConfig('{rootNamespace: bar}');
  table([
    ['a namespace: every pod of it', TARGET, [ap('foo/a', '{}')], 'bar/cli', 'no', { to: 'foo/api' }],
    ['a namespace: no pod of another', TARGET, [ap('foo/a', '{}')], 'foo/api', 'yes', { to: 'bar/cli' }],
    ['the root namespace: every pod', TARGET, [ap('istio-system/a', '{}')], 'bar/cli', 'no'],
    ['the root namespace: pods of its own too', TARGET, [ap('istio-system/a', '{}')], 'bar/cli', 'no', { to: 'istio-system/gateway' }],
    [
      'the root namespace with a selector: matching pods of any namespace',
      REFERENCE,
      [ap('istio-system/a', selecting('app: web', '{}'))],
      'bar/cli',
      'no',
    ],
    ['of any other namespace as well', REFERENCE, [ap('istio-system/a', selecting('app: web', '{}'))], 'bar/cli', 'no', { to: 'bar/web' }],
    [
      'the root namespace with a selector: not the others',
      SELECTOR,
      [ap('istio-system/a', selecting('app: web', '{}'))],
      'bar/cli',
      'yes',
      { to: 'foo/api' },
    ],
    ['a selector: the pods that match', SELECTOR, [ap('foo/a', selecting('app: web', '{}'))], 'bar/cli', 'no'],
    ['a selector: not the others', SELECTOR, [ap('foo/a', selecting('app: web', '{}'))], 'bar/cli', 'yes', { to: 'foo/api' }],
    [
      'a selector: not those of another namespace',
      SELECTOR,
      [ap('foo/a', selecting('app: web', '{}'))],
      'bar/cli',
      'yes',
      { to: 'bar/web' },
    ],
    ['a selector: all labels', POLICIES, [ap('foo/a', selecting('app: web, version: v1', '{}'))], 'bar/cli', 'no'],
    ['a selector: one label missing', POLICIES, [ap('foo/a', selecting('app: web, version: v2', '{}'))], 'bar/cli', 'yes'],
    ['selector: {} is every pod', SELECTOR, [ap('foo/a', '{selector: {}}')], 'bar/cli', 'no', { to: 'foo/api' }],
    ['matchLabels: {} is every pod', SELECTOR, [ap('foo/a', selecting('', '{}'))], 'bar/cli', 'no', { to: 'foo/api' }],
    [
      'a DENY of the mesh beats an ALLOW of a workload',
      IMPLICIT,
      [ap('istio-system/d', deny('{}')), ap('foo/a', selecting('app: web', allow('{}')))],
      'bar/cli',
      'no',
    ],
    [
      'an ALLOW of a workload adds to that of the mesh',
      IMPLICIT,
      [ap('istio-system/a', '{}'), ap('foo/a', selecting('app: web', allow('{}')))],
      'bar/cli',
      'yes',
    ],
    [
      'an ALLOW of the mesh adds to that of a workload: the narrower hides nothing',
      IMPLICIT,
      [ap('istio-system/a', allow('{}')), ap('foo/a', selecting('app: web', '{}'))],
      'bar/cli',
      'yes',
    ],
    [
      'a DENY of a workload beats an ALLOW of the mesh',
      IMPLICIT,
      [ap('istio-system/a', allow('{}')), ap('foo/d', selecting('app: web', deny('{}')))],
      'bar/cli',
      'no',
    ],
    [
      'an ALLOW elsewhere does not close this workload',
      ALL_OR_NOTHING,
      [ap('foo/a', selecting('app: api', '{}')), ap('bar/a', '{}')],
      'bar/cli',
      'yes',
    ],
    ['the root namespace may have another name', ROOT, [root, ap('bar/a', '{}')], 'bar/cli', 'no'],
    ['and then istio-system is a namespace like others', ROOT, [root, ap('istio-system/a', '{}')], 'bar/cli', 'yes'],
    [
      'one name in two namespaces is two policies',
      TARGET,
      [ap('istio-system/a', deny(from('namespaces: [bar]'))), ap('foo/a', allow('{}'))],
      'bar/cli',
      'no',
    ],
  ]);
});

describe('AuthorizationPolicy: principals', () => {
  const principals = (...values: string[]) => from(`principals: [${values.map((value) => `"${value}"`).join(', ')}]`);
  allowing([
    ['exact', PRINCIPALS, principals(CLI), 'bar/cli', 'yes'],
    ['exact, another account', PRINCIPALS, principals(CLI), 'bar/job', 'no'],
    ['exact, another namespace', PRINCIPALS, principals(CLI), 'baz/cli', 'no'],
    ['exact is no prefix', VALUES, principals('cluster.local/ns/bar/sa/cl'), 'bar/cli', 'no'],
    ['exact is no suffix', VALUES, principals('ns/bar/sa/cli'), 'bar/cli', 'no'],
    ['case counts', VALUES, principals('cluster.local/ns/bar/sa/Cli'), 'bar/cli', 'no'],
    ['prefix', VALUES, principals('cluster.local/ns/bar/*'), 'bar/cli', 'yes'],
    ['prefix of another', VALUES, principals('cluster.local/ns/bar/*'), 'baz/cli', 'no'],
    ['prefix: nothing more is a match', RULE, principals(`${CLI}*`), 'bar/cli', 'yes'],
    ['prefix is not a suffix', VALUES, principals('ns/bar/*'), 'bar/cli', 'no'],
    ['suffix', VALUES, principals('*/sa/cli'), 'bar/cli', 'yes'],
    ['suffix of another', VALUES, principals('*/sa/cli'), 'bar/job', 'no'],
    ['suffix: nothing more is a match', RULE, principals(`*${CLI}`), 'bar/cli', 'yes'],
    ['presence', AUTHENTICATED, principals('*'), 'bar/cli', 'yes'],
    ['presence, plaintext', AUTHENTICATED, principals('*'), 'legacy/old', 'no', plaintext],
    ['a dot is a dot', VALUES, principals('clusterXlocal/ns/bar/sa/*', 'cluster.local/ns/b.r/sa/cli'), 'bar/cli', 'no'],
    ['exact, plaintext from the address of that pod', NEEDS_MTLS, principals(CLI), 'bar/cli', 'no', plaintext],
    ['prefix, plaintext', NEEDS_MTLS, principals('cluster.local/*'), 'bar/cli', 'no', plaintext],
    ['suffix, plaintext', NEEDS_MTLS, principals('*cli'), 'bar/cli', 'no', plaintext],
    ['one of several', SOURCE, principals('cluster.local/ns/x/sa/y', CLI), 'bar/cli', 'yes'],
    ['none of several', SOURCE, principals('cluster.local/ns/x/sa/y', CLI), 'bar/job', 'no'],
  ]);
  const not = (value: string) => from(`notPrincipals: ["${value}"]`);
  allowing([
    ['notPrincipals: another', NOT_PRINCIPALS, not(CLI), 'bar/job', 'yes'],
    ['notPrincipals: that one', NOT_PRINCIPALS, not(CLI), 'bar/cli', 'no'],
    ['notPrincipals: prefix', EXCLUSION, not('cluster.local/ns/bar/*'), 'bar/job', 'no'],
    ['notPrincipals: suffix', EXCLUSION, not('*/cli'), 'bar/cli', 'no'],
    ['notPrincipals: plaintext has none, and so matches', NEEDS_MTLS, not(CLI), 'legacy/old', 'yes', plaintext],
    ['notPrincipals ["*"]: whoever has one', EXCLUSION, not('*'), 'bar/cli', 'no'],
    ['notPrincipals ["*"]: plaintext', EXCLUSION, not('*'), 'legacy/old', 'yes', plaintext],
    ['principals and notPrincipals', SOURCE, from(`principals: ["cluster.local/ns/bar/*"], notPrincipals: ["${CLI}"]`), 'bar/job', 'yes'],
    ['principals but notPrincipals', SOURCE, from(`principals: ["cluster.local/ns/bar/*"], notPrincipals: ["${CLI}"]`), 'bar/cli', 'no'],
  ]);
  table([
    ['DENY notPrincipals ["*"] keeps plaintext out', EXCLUSION, [ap('foo/d', deny(not('*')))], 'legacy/old', 'no', plaintext],
    ['and lets mTLS in', EXCLUSION, [ap('foo/d', deny(not('*')))], 'bar/cli', 'yes'],
    ['DENY principals ["*"] does not touch plaintext', NEEDS_MTLS, [ap('foo/d', deny(principals('*')))], 'legacy/old', 'yes', plaintext],
    ['DENY a principal', DENY_TASK, [ap('foo/d', deny(principals(CLI)))], 'bar/cli', 'no'],
  ]);
});

describe('AuthorizationPolicy: namespaces and service accounts', () => {
  const spaces = (value: string) => from(`namespaces: ["${value}"]`);
  const notSpaces = (value: string) => from(`notNamespaces: ["${value}"]`);
  allowing([
    ['exact', NAMESPACES, spaces('bar'), 'bar/cli', 'yes'],
    ['another', NAMESPACES, spaces('bar'), 'baz/cli', 'no'],
    ['exact is no prefix', VALUES, spaces('ba'), 'bar/cli', 'no'],
    ['prefix', RULE, spaces('ba*'), 'bar/cli', 'yes'],
    ['prefix: nothing more is a match', RULE, spaces('bar*'), 'bar/cli', 'yes'],
    ['prefix of another', RULE, spaces('fo*'), 'bar/cli', 'no'],
    ['suffix', RULE, spaces('*ar'), 'bar/cli', 'yes'],
    ['suffix of another', RULE, spaces('*az'), 'bar/cli', 'no'],
    ['presence', RULE, spaces('*'), 'bar/cli', 'yes'],
    ['presence, plaintext', NEEDS_MTLS, spaces('*'), 'legacy/old', 'no', plaintext],
    ['plaintext from a pod of that namespace', NEEDS_MTLS, spaces('bar'), 'bar/cli', 'no', plaintext],
    ['the certificate counts, not the address', NAMESPACES, spaces('foo'), { ip: '10.0.0.2', principal: CLI }, 'no'],
    ['an identity without a namespace is in none', GENERATOR, spaces('*'), who('cluster.local/db'), 'no'],
    ['notNamespaces: another', NOT_NAMESPACES, notSpaces('bar'), 'baz/cli', 'yes'],
    ['notNamespaces: that one', NOT_NAMESPACES, notSpaces('bar'), 'bar/cli', 'no'],
    ['notNamespaces: prefix', RULE, notSpaces('ba*'), 'baz/cli', 'no'],
    ['notNamespaces: plaintext has none, and so matches', NEEDS_MTLS, notSpaces('bar'), 'legacy/old', 'yes', plaintext],
    ['namespaces and principals', SOURCE, from(`namespaces: [bar], principals: ["*/sa/cli"]`), 'bar/cli', 'yes'],
    ['namespaces but not principals', SOURCE, from(`namespaces: [bar], principals: ["*/sa/cli"]`), 'bar/job', 'no'],
    ['principals but not namespaces', SOURCE, from(`namespaces: [bar], principals: ["*/sa/cli"]`), 'baz/cli', 'no'],
    ['serviceAccounts: namespace/name', ACCOUNTS, from('serviceAccounts: [bar/cli]'), 'bar/cli', 'yes'],
    ['serviceAccounts: another name', ACCOUNTS, from('serviceAccounts: [bar/cli]'), 'bar/job', 'no'],
    ['serviceAccounts: another namespace', ACCOUNTS, from('serviceAccounts: [bar/cli]'), 'baz/cli', 'no'],
    ['serviceAccounts: a name alone is of the namespace of the policy', ACCOUNTS, from('serviceAccounts: [api]'), 'foo/api', 'yes'],
    ['serviceAccounts: and of no other', ACCOUNTS, from('serviceAccounts: [cli]'), 'bar/cli', 'no'],
    ['serviceAccounts: no prefix', ACCOUNTS, from('serviceAccounts: [bar/cl]'), 'bar/cli', 'no'],
    ['serviceAccounts: one of several', ACCOUNTS, from('serviceAccounts: [baz/cli, bar/cli]'), 'bar/cli', 'yes'],
    ['serviceAccounts: plaintext', ACCOUNTS, from('serviceAccounts: [bar/cli]'), 'bar/cli', 'no', plaintext],
    ['serviceAccounts: in whatever trust domain', GENERATOR, from('serviceAccounts: [bar/cli]'), who('other.td/ns/bar/sa/cli'), 'yes'],
    ['notServiceAccounts: that one', NOT_ACCOUNTS, from('notServiceAccounts: [bar/cli]'), 'bar/cli', 'no'],
    ['notServiceAccounts: another', NOT_ACCOUNTS, from('notServiceAccounts: [bar/cli]'), 'bar/job', 'yes'],
    ['notServiceAccounts: plaintext', NOT_ACCOUNTS, from('notServiceAccounts: [bar/cli]'), 'legacy/old', 'yes', plaintext],
  ]);
  table([
    [
      'serviceAccounts: in the root namespace a name alone is of the root namespace',
      ACCOUNTS,
      [ap('istio-system/a', allow(from('serviceAccounts: [cli]')))],
      'bar/cli',
      'no',
    ],
    [
      'serviceAccounts: which has them too',
      ACCOUNTS,
      [ap('istio-system/a', allow(from('serviceAccounts: [gateway]')))],
      'istio-system/gateway',
      'yes',
    ],
    ['DENY notNamespaces: from elsewhere', POLICIES, [ap('foo/d', deny(notSpaces('foo')))], 'bar/cli', 'no'],
    ['DENY notNamespaces: from there', POLICIES, [ap('foo/d', deny(notSpaces('foo')))], 'foo/api', 'yes'],
    ['DENY notNamespaces: plaintext', NEEDS_MTLS, [ap('foo/d', deny(notSpaces('foo')))], 'foo/api', 'no', plaintext],
    ['DENY namespaces: plaintext is in none', NEEDS_MTLS, [ap('foo/d', deny(spaces('legacy')))], 'legacy/old', 'yes', plaintext],
    ['DENY a namespace with * at its end', RULE, [ap('foo/d', deny(spaces('b*')))], 'bar/cli', 'no'],
    ['DENY namespaces', REFERENCE, [ap('foo/d', deny(spaces('bar')))], 'bar/cli', 'no'],
  ]);
});

describe('AuthorizationPolicy: addresses', () => {
  const blocks = (...values: string[]) => from(`ipBlocks: [${values.map((value) => `"${value}"`).join(', ')}]`);
  const notBlocks = (value: string) => from(`notIpBlocks: ["${value}"]`);
  allowing([
    ['an address', IP_BLOCKS, blocks('203.0.113.4'), ip('203.0.113.4'), 'yes'],
    ['another address', IP_BLOCKS, blocks('203.0.113.4'), ip('203.0.113.5'), 'no'],
    ['an address is no prefix', IP_BLOCKS, blocks('203.0.113.4'), ip('203.0.113.40'), 'no'],
    ['a block: its first', IP_BLOCKS, blocks('203.0.113.0/24'), ip('203.0.113.0'), 'yes'],
    ['a block: its last', IP_BLOCKS, blocks('203.0.113.0/24'), ip('203.0.113.255'), 'yes'],
    ['a block: the one after', IP_BLOCKS, blocks('203.0.113.0/24'), ip('203.0.114.0'), 'no'],
    ['a block: the one before', IP_BLOCKS, blocks('203.0.113.0/24'), ip('203.0.112.255'), 'no'],
    ['a block within a byte', IP_BLOCKS, blocks('10.1.2.64/26'), ip('10.1.2.127'), 'yes'],
    ['a block within a byte: the one after', IP_BLOCKS, blocks('10.1.2.64/26'), ip('10.1.2.128'), 'no'],
    ['/32', IP_BLOCKS, blocks('10.1.2.3/32'), ip('10.1.2.3'), 'yes'],
    ['/32: a neighbour', IP_BLOCKS, blocks('10.1.2.3/32'), ip('10.1.2.2'), 'no'],
    ['/31', IP_BLOCKS, blocks('10.1.2.2/31'), ip('10.1.2.3'), 'yes'],
    ['/1: the upper half', IP_BLOCKS, blocks('128.0.0.0/1'), ip('255.255.255.255'), 'yes'],
    ['/1: not the lower', IP_BLOCKS, blocks('128.0.0.0/1'), ip('127.255.255.255'), 'no'],
    ['0.0.0.0/0', IP_BLOCKS, blocks('0.0.0.0/0'), ip('203.0.113.4'), 'yes'],
    ['0.0.0.0/0 has no IPv6 in it', IP_BLOCKS, blocks('0.0.0.0/0'), ip('2001:db8::1'), 'no'],
    ['IPv6', IP_BLOCKS, blocks('2001:db8::1'), ip('2001:db8::1'), 'yes'],
    ['IPv6 in another spelling', IP_BLOCKS, blocks('2001:0DB8:0:0::0001'), ip('2001:db8::1'), 'yes'],
    ['IPv6, another', IP_BLOCKS, blocks('2001:db8::1'), ip('2001:db8::10'), 'no'],
    ['an IPv6 block', IP_BLOCKS, blocks('2001:db8::/32'), ip('2001:db8:ffff:ffff::1'), 'yes'],
    ['an IPv6 block: the one after', IP_BLOCKS, blocks('2001:db8::/32'), ip('2001:db9::'), 'no'],
    ['an IPv6 /128', IP_BLOCKS, blocks('2001:db8::1/128'), ip('2001:db8::2'), 'no'],
    ['::/0 has no IPv4 in it', IP_BLOCKS, blocks('::/0'), ip('203.0.113.4'), 'no'],
    ['one of several', IP_BLOCKS, blocks('10.0.0.0/8', '2001:db8::/32'), ip('2001:db8::1'), 'yes'],
    ['no mTLS is needed', IP_BLOCKS, blocks('10.0.9.1'), 'legacy/old', 'yes', plaintext],
    ['no mTLS helps', IP_BLOCKS, blocks('10.0.9.1'), 'bar/cli', 'no'],
    ['notIpBlocks: within', NOT_IP_BLOCKS, notBlocks('203.0.113.0/24'), ip('203.0.113.4'), 'no'],
    ['notIpBlocks: without', NOT_IP_BLOCKS, notBlocks('203.0.113.0/24'), ip('203.0.114.4'), 'yes'],
    ['notIpBlocks: of the other family', NOT_IP_BLOCKS, notBlocks('0.0.0.0/0'), ip('2001:db8::1'), 'yes'],
    ['ipBlocks and notIpBlocks', SOURCE, from('ipBlocks: [10.0.1.0/24], notIpBlocks: [10.0.1.1]'), 'bar/job', 'yes'],
    ['ipBlocks but notIpBlocks', SOURCE, from('ipBlocks: [10.0.1.0/24], notIpBlocks: [10.0.1.1]'), 'bar/cli', 'no'],
    [
      'the example of the page: all three',
      SOURCE,
      from(`principals: ["${CLI}"], namespaces: [bar], notIpBlocks: ["203.0.113.4"]`),
      ip('203.0.113.5'),
      'yes',
    ],
    [
      'the example of the page: but from there',
      SOURCE,
      from(`principals: ["${CLI}"], namespaces: [bar], notIpBlocks: ["203.0.113.4"]`),
      ip('203.0.113.4'),
      'no',
    ],
  ]);
  table([
    [
      'DENY ipBlocks',
      `${TASKS}/authz-ingress/#ip-based-allow-list-and-deny-list`,
      [ap('foo/d', deny(blocks('10.0.9.0/24')))],
      'legacy/old',
      'no',
      plaintext,
    ],
  ]);
});

describe('AuthorizationPolicy: ports', () => {
  const ports = to('ports: ["9000", "9001"]');
  allowing([
    ['the first of two', TCP_ALLOW, ports, 'bar/cli', 'yes', { port: 9000 }],
    ['the second of two', TCP_ALLOW, ports, 'bar/cli', 'yes', { port: 9001 }],
    ['a third', TCP_ALLOW, ports, 'bar/cli', 'no', { port: 9002 }],
    ['in plaintext too', PORTS, ports, 'legacy/old', 'yes', { port: 9000, ...plaintext }],
    ['a port is no prefix', VALUES, to('ports: ["900"]'), 'bar/cli', 'no', { port: 9000 }],
    ['the last port', PORTS, to('ports: ["65535"]'), 'bar/cli', 'yes', { port: 65535 }],
    ['notPorts: that one', NOT_PORTS, to('notPorts: ["9000"]'), 'bar/cli', 'no', { port: 9000 }],
    ['notPorts: another', NOT_PORTS, to('notPorts: ["9000"]'), 'bar/cli', 'yes', { port: 9001 }],
    ['ports and notPorts', `${REFERENCE}#Operation`, to('ports: ["80", "81"], notPorts: ["81"]'), 'bar/cli', 'yes', { port: 80 }],
    ['ports but notPorts', `${REFERENCE}#Operation`, to('ports: ["80", "81"], notPorts: ["81"]'), 'bar/cli', 'no', { port: 81 }],
    ['the mongodb example', PLAIN_TCP, all(from(`principals: ["${CLI}"]`), to('ports: ["27017"]')), 'bar/cli', 'yes', { port: 27017 }],
    [
      'the mongodb example, another caller',
      PLAIN_TCP,
      all(from(`principals: ["${CLI}"]`), to('ports: ["27017"]')),
      'bar/job',
      'no',
      { port: 27017 },
    ],
    [
      'the mongodb example, another port',
      PLAIN_TCP,
      all(from(`principals: ["${CLI}"]`), to('ports: ["27017"]')),
      'bar/cli',
      'no',
      { port: 27018 },
    ],
  ]);
  table([
    ['DENY a port', TCP_DENY, [ap('foo/d', deny(to('ports: ["9000"]')))], 'bar/cli', 'no', { port: 9000 }],
    ['DENY a port: the others stay open', TCP_DENY, [ap('foo/d', deny(to('ports: ["9000"]')))], 'bar/cli', 'yes', { port: 9001 }],
    ['DENY notPorts', NOT_PORTS, [ap('foo/d', deny(to('notPorts: ["9000"]')))], 'bar/cli', 'no', { port: 9001 }],
  ]);
});

describe('AuthorizationPolicy: conditions', () => {
  const one = (key: string, value: string) => when(`key: ${key}, values: ["${value}"]`);
  const not = (key: string, value: string) => when(`key: ${key}, notValues: ["${value}"]`);
  allowing([
    ['source.ip', CONDITIONS, one('source.ip', '10.0.1.1'), 'bar/cli', 'yes'],
    ['source.ip: a block', CONDITIONS, one('source.ip', '10.0.1.0/24'), 'bar/cli', 'yes'],
    ['source.ip: another', CONDITIONS, one('source.ip', '10.0.1.0/24'), 'baz/cli', 'no'],
    ['source.ip notValues', CONDITION, not('source.ip', '10.0.1.0/24'), 'bar/cli', 'no'],
    ['source.namespace', CONDITIONS, one('source.namespace', 'bar'), 'bar/cli', 'yes'],
    ['source.namespace: another', CONDITIONS, one('source.namespace', 'bar'), 'baz/cli', 'no'],
    ['source.namespace: plaintext', NEEDS_MTLS, one('source.namespace', 'bar'), 'bar/cli', 'no', plaintext],
    ['source.namespace: prefix', RULE, one('source.namespace', 'ba*'), 'baz/cli', 'yes'],
    ['source.namespace notValues', CONDITION, not('source.namespace', 'bar'), 'bar/cli', 'no'],
    ['source.namespace notValues: plaintext', NEEDS_MTLS, not('source.namespace', 'bar'), 'legacy/old', 'yes', plaintext],
    ['source.principal', CONDITIONS, one('source.principal', CLI), 'bar/cli', 'yes'],
    ['source.principal: another', CONDITIONS, one('source.principal', CLI), 'bar/job', 'no'],
    ['source.principal: suffix', RULE, one('source.principal', '*/cli'), 'baz/cli', 'yes'],
    ['source.principal: presence', RULE, one('source.principal', '*'), 'legacy/old', 'no', plaintext],
    ['source.principal notValues', CONDITION, not('source.principal', CLI), 'bar/cli', 'no'],
    ['source.serviceAccount', CONDITIONS, one('source.serviceAccount', 'bar/cli'), 'bar/cli', 'yes'],
    ['source.serviceAccount: of the namespace of the policy', CONDITIONS, one('source.serviceAccount', 'cli'), 'bar/cli', 'no'],
    ['destination.port', CONDITIONS, one('destination.port', '80'), 'bar/cli', 'yes', { port: 80 }],
    ['destination.port: another', CONDITIONS, one('destination.port', '80'), 'bar/cli', 'no', { port: 81 }],
    ['destination.port notValues', CONDITION, not('destination.port', '80'), 'bar/cli', 'no', { port: 80 }],
    ['destination.ip', CONDITIONS, one('destination.ip', '10.0.0.1'), 'bar/cli', 'yes'],
    ['destination.ip: a block', CONDITIONS, one('destination.ip', '10.0.0.0/31'), 'bar/cli', 'yes'],
    ['destination.ip: another', CONDITIONS, one('destination.ip', '10.0.0.2'), 'bar/cli', 'no'],
    ['destination.ip notValues', CONDITION, not('destination.ip', '10.0.0.0/24'), 'bar/cli', 'no'],
    ['values: one of several', CONDITION, when('key: source.namespace, values: [x, bar]'), 'bar/cli', 'yes'],
    ['values and notValues', CONDITION, when(`key: source.principal, values: ["*/cli"], notValues: ["${CLI}"]`), 'baz/cli', 'yes'],
    ['values but notValues', CONDITION, when(`key: source.principal, values: ["*/cli"], notValues: ["${CLI}"]`), 'bar/cli', 'no'],
    [
      'two conditions',
      RULE,
      when('key: source.namespace, values: [bar]', 'key: destination.port, values: ["80"]'),
      'bar/cli',
      'yes',
      { port: 80 },
    ],
    [
      'two conditions, one met',
      RULE,
      when('key: source.namespace, values: [bar]', 'key: destination.port, values: ["80"]'),
      'bar/cli',
      'no',
      { port: 81 },
    ],
  ]);
});

describe('AuthorizationPolicy: from, to, when and rules', () => {
  const barTo80 = all(from('namespaces: [bar]'), to('ports: ["80"]'));
  const three = all(from('namespaces: [bar]'), to('ports: ["80"]'), when('key: source.ip, values: ["10.0.1.1"]'));
  const two = [all(from('namespaces: [bar]'), to('ports: ["80"]')), all(from('namespaces: [baz]'), to('ports: ["81"]'))];
  allowing([
    ['from: the first', RULE, from('namespaces: [bar]', 'namespaces: [baz]'), 'bar/cli', 'yes'],
    ['from: or the second', RULE, from('namespaces: [bar]', 'namespaces: [baz]'), 'baz/cli', 'yes'],
    ['from: or none', RULE, from('namespaces: [bar]', 'namespaces: [baz]'), 'foo/api', 'no'],
    [
      'from: the parts of two sources do not mix',
      RULE,
      from('namespaces: [bar], ipBlocks: [10.9.9.9]', 'namespaces: [baz], ipBlocks: [10.0.1.1]'),
      'bar/cli',
      'no',
    ],
    ['to: or the second', RULE, to('ports: ["80"]', 'ports: ["81"]'), 'bar/cli', 'yes', { port: 81 }],
    ['to: or none', RULE, to('ports: ["80"]', 'ports: ["81"]'), 'bar/cli', 'no', { port: 82 }],
    ['from and to', RULE, barTo80, 'bar/cli', 'yes', { port: 80 }],
    ['from but not to', RULE, barTo80, 'bar/cli', 'no', { port: 81 }],
    ['to but not from', RULE, barTo80, 'baz/cli', 'no', { port: 80 }],
    ['from and to and when', RULE, three, 'bar/cli', 'yes', { port: 80 }],
    ['from and to but not when', RULE, three, 'bar/job', 'no', { port: 80 }],
    ['when and from but not to', RULE, three, 'bar/cli', 'no', { port: 81 }],
  ]);
  table([
    ['rules: the first', RULE, [ap('foo/a', allow(...two))], 'bar/cli', 'yes', { port: 80 }],
    ['rules: or the second', RULE, [ap('foo/a', allow(...two))], 'baz/cli', 'yes', { port: 81 }],
    ['rules: the parts of two do not mix', RULE, [ap('foo/a', allow(...two))], 'bar/cli', 'no', { port: 81 }],
    ['rules: an empty one among others matches', RULE, [ap('foo/a', allow(barTo80, '{}'))], 'foo/api', 'yes', { port: 9 }],
    ['DENY from and to', RULE, [ap('foo/d', deny(barTo80))], 'bar/cli', 'no', { port: 80 }],
    ['DENY from but not to', RULE, [ap('foo/d', deny(barTo80))], 'bar/cli', 'yes', { port: 81 }],
    ['DENY the second rule', RULE, [ap('foo/d', deny(...two))], 'baz/cli', 'no', { port: 81 }],
    [
      'an ALLOW and a DENY on one rule',
      REFERENCE,
      [ap('foo/a', allow(barTo80)), ap('foo/d', deny(barTo80))],
      'bar/cli',
      'no',
      { port: 80 },
    ],
    [
      'STRICT comes before an allow-all',
      NEEDS_MTLS,
      [peerAuthentication('foo/p', '{mtls: {mode: STRICT}}'), ap('foo/a', allow(from('namespaces: [bar]')))],
      'bar/cli',
      'yes',
    ],
  ]);
});

describe('AuthorizationPolicy: dry-run', () => {
  table([
    ['a DENY does not deny', `${DRY_RUN}#create-dry-run-policy`, [ap('foo/d', deny('{}'), dryRun('true'))], 'bar/cli', 'yes, shadow no'],
    ['an ALLOW does not close', DRY_RUN, [ap('foo/a', '{}', dryRun('true'))], 'bar/cli', 'yes, shadow no'],
    ['an ALLOW does not open', DRY_RUN, [ap('foo/a', '{}'), ap('foo/b', allow('{}'), dryRun('true'))], 'bar/cli', 'no, shadow yes'],
    ['"false" is in force', `${DRY_RUN}#summary`, [ap('foo/d', deny('{}'), dryRun('false'))], 'bar/cli', 'no'],
    [
      'one in force beside one in dry-run',
      DRY_RUN,
      [ap('foo/d', deny(from('namespaces: [baz]'))), ap('foo/e', deny('{}'), dryRun('true'))],
      'bar/cli',
      'yes, shadow no',
    ],
    ['a DENY in force holds in both', DRY_RUN, [ap('foo/d', deny('{}')), ap('foo/a', allow('{}'), dryRun('true'))], 'bar/cli', 'no'],
    ['in the root namespace', DRY_RUN, [ap('istio-system/d', deny('{}'), dryRun('true'))], 'bar/cli', 'yes, shadow no'],
    ['as a label it says nothing', DRY_RUN, [ap('foo/d', deny('{}'), { labels: '{istio.io/dry-run: "true"}' })], 'bar/cli', 'no'],
  ]);
});

describe('AuthorizationPolicy: trust domains', () => {
  const principal = (value: string) => allow(from(`principals: ["${value}"]`));
  const aliases = meshConfig('{trustDomainAliases: [old.td]}');
  const prod = { trustDomain: 'new.td' };
  table([
    ['the domain of the mesh', MIGRATION, [ap('foo/a', principal('new.td/ns/bar/sa/cli'))], 'bar/cli', 'yes', prod],
    [
      'a domain that the mesh no longer has',
      `${MIGRATION}#migrate-trust-domain-without-trust-domain-aliases`,
      [ap('foo/a', principal('old.td/ns/bar/sa/cli'))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'cluster.local points to the domain of the mesh',
      `${MIGRATION}#best-practices`,
      [ap('foo/a', principal('cluster.local/ns/bar/sa/cli'))],
      'bar/cli',
      'yes',
      prod,
    ],
    [
      'cluster.local with a prefix',
      `${MIGRATION}#best-practices`,
      [ap('foo/a', principal('cluster.local/ns/bar/sa/c*'))],
      'bar/cli',
      'yes',
      prod,
    ],
    [
      'cluster.local and another account',
      `${MIGRATION}#best-practices`,
      [ap('foo/a', principal('cluster.local/ns/bar/sa/cli'))],
      'bar/job',
      'no',
      prod,
    ],
    [
      'cluster.local is then nobody of that name',
      BUNDLE,
      [ap('foo/a', principal('cluster.local/ns/bar/sa/cli'))],
      who('cluster.local/ns/bar/sa/cli'),
      'no',
      prod,
    ],
    [
      'an alias in the policy is the mesh',
      `${MIGRATION}#migrate-trust-domain-with-trust-domain-aliases`,
      [aliases, ap('foo/a', principal('old.td/ns/bar/sa/cli'))],
      'bar/cli',
      'yes',
      prod,
    ],
    [
      'an alias, another account',
      `${MIGRATION}#migrate-trust-domain-with-trust-domain-aliases`,
      [aliases, ap('foo/a', principal('old.td/ns/bar/sa/cli'))],
      'bar/job',
      'no',
      prod,
    ],
    [
      'the mesh in the policy is an alias',
      BUNDLE,
      [aliases, ap('foo/a', principal('new.td/ns/bar/sa/cli'))],
      who('old.td/ns/bar/sa/cli'),
      'yes',
      prod,
    ],
    [
      'cluster.local points to the aliases too',
      `${MIGRATION}#best-practices`,
      [aliases, ap('foo/a', principal('cluster.local/ns/bar/sa/cli'))],
      who('old.td/ns/bar/sa/cli'),
      'yes',
      prod,
    ],
    [
      'a foreign domain is no alias',
      BUNDLE,
      [aliases, ap('foo/a', principal('new.td/ns/bar/sa/cli'))],
      who('other.td/ns/bar/sa/cli'),
      'no',
      prod,
    ],
    [
      'a foreign domain in the policy is itself',
      BUNDLE,
      [aliases, ap('foo/a', principal('other.td/ns/bar/sa/cli'))],
      who('other.td/ns/bar/sa/cli'),
      'yes',
      prod,
    ],
    [
      'a foreign domain in the policy is not the mesh',
      BUNDLE,
      [aliases, ap('foo/a', principal('other.td/ns/bar/sa/cli'))],
      'bar/cli',
      'no',
      prod,
    ],
    ['*/ns/... is of any domain', VALUES, [ap('foo/a', principal('*/ns/bar/sa/cli'))], who('other.td/ns/bar/sa/cli'), 'yes', prod],
    ['*.td/ns/... is a suffix', VALUES, [ap('foo/a', principal('*.td/ns/bar/sa/cli'))], 'bar/cli', 'yes', prod],
    [
      'DENY an alias denies the mesh',
      BUNDLE,
      [aliases, ap('foo/d', deny(from('principals: ["old.td/ns/bar/sa/cli"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'DENY the mesh denies an alias',
      BUNDLE,
      [aliases, ap('foo/d', deny(from('principals: ["new.td/ns/bar/sa/cli"]')))],
      who('old.td/ns/bar/sa/cli'),
      'no',
      prod,
    ],
    [
      'DENY cluster.local',
      `${MIGRATION}#best-practices`,
      [ap('foo/d', deny(from('principals: ["cluster.local/ns/bar/sa/cli"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'DENY a prefix of cluster.local',
      `${MIGRATION}#best-practices`,
      [ap('foo/d', deny(from('principals: ["cluster.local/ns/bar/*"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'DENY a prefix of cluster.local: another namespace',
      `${MIGRATION}#best-practices`,
      [ap('foo/d', deny(from('principals: ["cluster.local/ns/bar/*"]')))],
      'baz/cli',
      'yes',
      prod,
    ],
    [
      'DENY a prefix of the mesh denies an alias',
      `${MIGRATION}#best-practices`,
      [aliases, ap('foo/d', deny(from('principals: ["new.td/ns/bar/*"]')))],
      who('old.td/ns/bar/sa/cli'),
      'no',
      prod,
    ],
    [
      'ALLOW a prefix of an alias is the mesh',
      `${MIGRATION}#best-practices`,
      [aliases, ap('foo/a', principal('old.td/*'))],
      'bar/cli',
      'yes',
      prod,
    ],
    [
      'and nobody of another domain',
      `${MIGRATION}#best-practices`,
      [aliases, ap('foo/a', principal('old.td/*'))],
      who('other.td/ns/bar/sa/cli'),
      'no',
      prod,
    ],
    [
      'notPrincipals a prefix of cluster.local',
      `${MIGRATION}#best-practices`,
      [ap('foo/a', allow(from('notPrincipals: ["cluster.local/ns/bar/*"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    ['a prefix of a foreign domain is itself', BUNDLE, [ap('foo/a', principal('other.td/ns/*'))], 'bar/cli', 'no', prod],
    ['a prefix without its / is no trust domain yet', VALUES, [ap('foo/a', principal('cluster.local*'))], 'bar/cli', 'no', prod],
    ['what begins with * is left as it is', VALUES, [aliases, ap('foo/a', principal('*ld.td/ns/bar/sa/cli'))], 'bar/cli', 'no', prod],
    [
      'notPrincipals cluster.local',
      `${MIGRATION}#best-practices`,
      [ap('foo/a', allow(from('notPrincipals: ["cluster.local/ns/bar/sa/cli"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'notPrincipals of an alias',
      BUNDLE,
      [aliases, ap('foo/a', allow(from('notPrincipals: ["old.td/ns/bar/sa/cli"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'source.principal with an alias',
      BUNDLE,
      [aliases, ap('foo/a', allow(when('key: source.principal, values: ["old.td/ns/bar/sa/cli"]')))],
      'bar/cli',
      'yes',
      prod,
    ],
    [
      'source.principal notValues with an alias',
      BUNDLE,
      [aliases, ap('foo/a', allow(when('key: source.principal, notValues: ["old.td/ns/bar/sa/cli"]')))],
      'bar/cli',
      'no',
      prod,
    ],
    [
      'a namespace is one in every domain',
      GENERATOR,
      [ap('foo/a', allow(from('namespaces: [bar]')))],
      who('other.td/ns/bar/sa/x'),
      'yes',
      prod,
    ],
  ]);
});

describe('AuthorizationPolicy: differences', () => {
  const foo = (spec: string) => [ap('foo/a', spec)];
  for (const [title, rule] of [
    ['a principal with * within', from('principals: ["cluster.local/ns/*/sa/cli"]')],
    ['a principal with * on both sides', from('principals: ["*/ns/bar/*"]')],
    ['a namespace with * within', from('namespaces: ["b*r"]')],
    ['a namespace with * on both sides', from('namespaces: ["*a*"]')],
  ] as const)
    test(...refused(`${title} (istiod takes it for anything in a namespace)`, GENERATOR, foo(deny(rule)), 'source.', 'would match nobody'));
  for (const [annotations, ...words] of [
    ['{istio.io/dry-run: "true", handfast.io/shadow: "false"}', 'handfast.io/shadow: is "false" and istio.io/dry-run is "true"'],
    ['{istio.io/dry-run: "false", handfast.io/shadow: "true"}', 'handfast.io/shadow: is "true" and istio.io/dry-run is "false"'],
  ] as const)
    test(...refused(`the annotations ${annotations}`, DRY_RUN, [ap('foo/a', deny('{}'), { annotations })], ...words));
  const denying = (annotations: string) => [ap('foo/a', deny('{}'), { annotations })];
  table([
    ['handfast.io/shadow', DRY_RUN, denying('{handfast.io/shadow: "true"}'), 'bar/cli', 'yes, shadow no'],
    ['handfast.io/shadow "false" is in force', DRY_RUN, denying('{handfast.io/shadow: "false"}'), 'bar/cli', 'no'],
    ['both, of one mind', DRY_RUN, denying('{istio.io/dry-run: "true", handfast.io/shadow: "true"}'), 'bar/cli', 'yes, shadow no'],
  ]);
  for (const field of ['remoteIpBlocks', 'notRemoteIpBlocks']) {
    test(
      ...refused(
        `${field}, which are HTTP`,
        PLAIN_TCP,
        foo(allow(from(`${field}: ["10.0.0.1"], namespaces: [bar]`))),
        `spec.rules.0.from.0.source.${field}`,
      ),
    );
  }
  for (const key of ['remote.ip', 'connection.sni', 'experimental.envoy.filters.a[b]']) {
    test(
      ...refused(
        `the condition ${key}`,
        CONDITIONS,
        foo(allow(when(`key: "${key}", values: ["10.0.0.1"]`))),
        'spec.rules.0.when.0.key',
        key,
      ),
    );
  }
  test(...refused('CUSTOM', ACTION, foo('{action: CUSTOM, rules: [{}]}'), 'spec.action', 'CUSTOM'));
  test(...refused('AUDIT', ACTION, foo('{action: AUDIT, rules: [{}]}'), 'spec.action', 'AUDIT'));
  test(...refused('a provider', ACTION, foo('{provider: {name: x}, rules: [{}]}'), 'spec.provider'));
  test(...refused('targetRefs', REFERENCE, foo('{targetRefs: [{kind: Gateway, name: g}], rules: [{}]}'), 'spec.targetRefs'));
  test(...refused('targetRef', REFERENCE, foo('{targetRef: {kind: Gateway, name: g}, rules: [{}]}'), 'spec.targetRef'));
  test(...refused('DENY without rules', REFERENCE, foo('{action: DENY}'), 'spec.rules'));
  test(...refused('trustDomains', SOURCE, foo(allow(from('trustDomains: [x]'))), 'source.trustDomains'));
});
