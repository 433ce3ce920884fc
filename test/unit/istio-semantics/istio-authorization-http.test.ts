// AuthorizationPolicy over HTTP: who may ask for what, as Istio's pages say it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Asked, PolicyWorld } from '../../support/policy-world.ts';
import { authorizationPolicy as ap, pod, refused, worldOf } from './rows.ts';

const CONCEPT = 'https://istio.io/latest/docs/concepts/security/';
const VALUES = `${CONCEPT}#value-matching`;
const EXCLUSION = `${CONCEPT}#exclusion-matching`;
const PLAIN_TCP = `${CONCEPT}#using-istio-authorization-on-plain-tcp-protocols`;
const IMPLICIT = `${CONCEPT}#implicit-enablement`;
const REFERENCE = 'https://istio.io/latest/docs/reference/config/security/authorization-policy/';
const OPERATION = `${REFERENCE}#Operation`;
const RULE = `${REFERENCE}#Rule`;
const SOURCE = `${REFERENCE}#Source`;
const CONDITIONS = 'https://istio.io/latest/docs/reference/config/security/conditions/';
const NORMALIZATION = 'https://istio.io/latest/docs/reference/config/security/normalization/';
const HTTP_TASK = 'https://istio.io/latest/docs/tasks/security/authorization/authz-http/';
const DENY_TASK = 'https://istio.io/latest/docs/tasks/security/authorization/authz-deny/';
const JWT_TASK = 'https://istio.io/latest/docs/tasks/security/authorization/authz-jwt/';
const TCP_TASK = 'https://istio.io/latest/docs/tasks/security/authorization/authz-tcp/';
const PRACTICES = 'https://istio.io/latest/docs/ops/best-practices/security/';
const DRY_RUN = 'https://istio.io/latest/docs/tasks/security/authorization/authz-dry-run/';

const SERVICE = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: foo}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}, {name: tcp-raw, port: 9000}]}
`;
const MESH = [
  pod('foo/web', '10.0.0.1', 'app: web'),
  pod('bar/cli', '10.0.1.1', 'app: cli'),
  pod('baz/cli', '10.0.2.1', 'app: cli'),
  SERVICE,
];

const allow = (...rules: string[]) => `{action: ALLOW, rules: [${rules.join(', ')}]}`;
const deny = (...rules: string[]) => `{action: DENY, rules: [${rules.join(', ')}]}`;
const to = (...operations: string[]) => `{to: [${operations.map((operation) => `{operation: {${operation}}}`).join(', ')}]}`;
const from = (source: string) => `from: [{source: {${source}}}]`;
const when = (key: string, values: string) => `{when: [{key: "${key}", ${values}}]}`;
const web = (spec: string) => ap('foo/a', spec);

type Row = readonly [
  what: string,
  page: string,
  policies: readonly string[],
  asked: Asked & { from?: string; port?: number; plaintext?: true },
  verdict: 'yes' | 'no',
];

const ISS = 'https://issuer';
const alice = {
  iss: ISS,
  sub: 'alice',
  aud: ['shop', 'other'],
  azp: 'frontend',
  group: ['staff', 'admins'],
  realm: { roles: ['reader'], level: 3 },
  email: 'alice@example.com',
};

function rows(all: readonly Row[]): void {
  for (const [what, page, policies, { from: caller = 'bar/cli', port = 80, plaintext, ...asked }, verdict] of all) {
    test(`${what}: ${verdict} [${page}]`, () => {
      const world: PolicyWorld = worldOf([...MESH, ...policies]);
      const call = { from: caller, to: 'foo/web', port, ...(plaintext ? { transport: 'plaintext' as const } : {}) };
      assert.equal(world.ask(call, asked), verdict === 'yes' ? 'allowed' : 'AUTHORIZATION_DENIED');
    });
  }
}

describe('methods', () => {
  rows([
    ['a method that is allowed', OPERATION, [web(allow(to('methods: [GET]')))], { method: 'GET' }, 'yes'],
    ['another', OPERATION, [web(allow(to('methods: [GET]')))], { method: 'POST' }, 'no'],
    ['one of several', OPERATION, [web(allow(to('methods: [GET, POST]')))], { method: 'POST' }, 'yes'],
    ['HEAD is not GET', OPERATION, [web(allow(to('methods: [GET]')))], { method: 'HEAD' }, 'no'],
    ['a method that is denied', DENY_TASK, [web(deny(to('methods: [GET]')))], { method: 'GET' }, 'no'],
    ['its twin', DENY_TASK, [web(deny(to('methods: [GET]')))], { method: 'POST' }, 'yes'],
    ['notMethods keeps out', EXCLUSION, [web(allow(to('notMethods: [DELETE]')))], { method: 'DELETE' }, 'no'],
    ['notMethods lets in', EXCLUSION, [web(allow(to('notMethods: [DELETE]')))], { method: 'GET' }, 'yes'],
    ['deny all but', DENY_TASK, [web(deny(to('notMethods: [GET]')))], { method: 'PUT' }, 'no'],
    ['deny all but: its twin', DENY_TASK, [web(deny(to('notMethods: [GET]')))], { method: 'GET' }, 'yes'],
    ['a method by its beginning', VALUES, [web(allow(to('methods: ["P*"]')))], { method: 'PATCH' }, 'yes'],
    ['any method', VALUES, [web(allow(to('methods: ["*"]')))], { method: 'TRACE' }, 'yes'],
  ]);
});

describe('paths', () => {
  const get = (paths: string) => [web(allow(to(`paths: [${paths}]`)))];
  const not = (paths: string) => [web(deny(to(`paths: [${paths}]`)))];
  rows([
    ['exactly', OPERATION, get('/info'), { target: '/info' }, 'yes'],
    ['exactly, not below', OPERATION, get('/info'), { target: '/info/more' }, 'no'],
    ['exactly, not with a slash behind', OPERATION, get('/info'), { target: '/info/' }, 'no'],
    ['in this case alone', OPERATION, get('/info'), { target: '/INFO' }, 'no'],
    ['the query does not matter', OPERATION, get('/info'), { target: '/info?a=b' }, 'yes'],
    ['by its beginning', VALUES, get('"/test/*"'), { target: '/test/a/b' }, 'yes'],
    ['by its beginning, itself', VALUES, get('"/test/*"'), { target: '/test/' }, 'yes'],
    ['by its beginning, not what is shorter', VALUES, get('"/test/*"'), { target: '/test' }, 'no'],
    ['by its end', VALUES, get('"*/info"'), { target: '/a/b/info' }, 'yes'],
    ['by its end, not more', VALUES, get('"*/info"'), { target: '/a/info/b' }, 'no'],
    ['any', VALUES, get('"*"'), { target: '/' }, 'yes'],
    ['one segment', OPERATION, get('"/foo/{*}/bar"'), { target: '/foo/x/bar' }, 'yes'],
    ['one segment, not two', OPERATION, get('"/foo/{*}/bar"'), { target: '/foo/x/y/bar' }, 'no'],
    ['one segment, not an empty one', OPERATION, get('"/foo/{*}/bar"'), { target: '/foo//bar' }, 'no'],
    ['segments at the end', OPERATION, get('"/foo/{**}"'), { target: '/foo/a/b' }, 'yes'],
    ['segments, one of each', OPERATION, get('"/{*}/a/{**}"'), { target: '/x/a/y/z' }, 'yes'],
    ['segments, then a name', OPERATION, get('"/foo/{**}/bar"'), { target: '/foo/a/b/bar' }, 'yes'],
    ['segments, then another name', OPERATION, get('"/foo/{**}/bar"'), { target: '/foo/a/b/baz' }, 'no'],
    ['denied', DENY_TASK, not('"/admin*"'), { target: '/admin/x' }, 'no'],
    ['denied: its twin', DENY_TASK, not('"/admin*"'), { target: '/open' }, 'yes'],
    ['notPaths keeps out', EXCLUSION, [web(allow(to('notPaths: ["/admin*"]')))], { target: '/admin' }, 'no'],
    ['notPaths lets in', EXCLUSION, [web(allow(to('notPaths: ["/admin*"]')))], { target: '/open' }, 'yes'],
    [
      'two operations are one or the other',
      RULE,
      [web(allow(to('paths: [/a]', 'paths: [/b], methods: [POST]')))],
      { target: '/b', method: 'POST' },
      'yes',
    ],
    ['two operations are not mixed', RULE, [web(allow(to('paths: [/a]', 'paths: [/b], methods: [POST]')))], { target: '/b' }, 'no'],
  ]);
});

describe('paths that are written to get past', () => {
  const denied = [web(deny(to('paths: ["/admin", "/admin/*"]')))];
  const open = [web(allow(to('paths: ["/public/*"]')))];
  rows([
    ...[
      '//admin',
      '/./admin',
      '/x/../admin',
      '/%61dmin',
      '/x/%2e%2e/admin',
      '/x\\..\\admin',
      '/admin;a=b',
      '/;/admin',
      '/%2561dmin',
      '/x%2f..%2fadmin',
      '/x/..;/admin',
      '/admin%2fx',
      '//admin//x',
    ].map((target): Row => [`DENY /admin, ${target}`, NORMALIZATION, denied, { target }, 'no']),
    ...['/administrator', '/x/admin', '/a%20dmin'].map(
      (target): Row => [`DENY /admin, ${target}`, NORMALIZATION, denied, { target }, 'yes'],
    ),
    ...[
      '/public/../admin',
      '/public/%2e%2e/admin',
      '/public/..;/admin',
      '/public/..%2fadmin',
      '/public/..%5cadmin',
      '/public/%252e%252e/admin',
      '/public\\..\\admin',
    ].map((target): Row => [`ALLOW /public/*, ${target}`, NORMALIZATION, open, { target }, 'no']),
    ...['/public/a', '//public/a', '/public//a', '/public/a/../b', '/public/a;v=1', '/public/a%2fb'].map(
      (target): Row => [`ALLOW /public/*, ${target}`, NORMALIZATION, open, { target }, 'yes'],
    ),
  ]);
});

describe('hosts', () => {
  const only = (hosts: string) => [web(allow(to(`hosts: [${hosts}]`)))];
  rows([
    ['exactly', OPERATION, only('example.com'), { host: 'example.com' }, 'yes'],
    ['another', OPERATION, only('example.com'), { host: 'example.org' }, 'no'],
    ['in either case', PRACTICES, only('Example.com'), { host: 'EXAMPLE.com' }, 'yes'],
    ['with its port it is another', PRACTICES, only('example.com'), { host: 'example.com:8080' }, 'no'],
    ['with any port', PRACTICES, only('example.com, "example.com:*"'), { host: 'example.com:8080' }, 'yes'],
    ['a port that is asked for', PRACTICES, only('"example.com:8080"'), { host: 'example.com:8081' }, 'no'],
    ['by its end', VALUES, only('"*.example.com"'), { host: 'a.example.com' }, 'yes'],
    ['by its end, not the domain itself', VALUES, only('"*.example.com"'), { host: 'example.com' }, 'no'],
    ['by its beginning', VALUES, only('"prod.*"'), { host: 'prod.example.com' }, 'yes'],
    [
      'denied, in another case and with a port and the root’s dot',
      PRACTICES,
      [web(deny(to('hosts: [secret.example.com]')))],
      { host: 'Secret.example.com.:80' },
      'no',
    ],
    ['denied: its twin', PRACTICES, [web(deny(to('hosts: [secret.example.com]')))], { host: 'open.example.com' }, 'yes'],
    ['notHosts', EXCLUSION, [web(allow(to('notHosts: ["*.internal"]')))], { host: 'a.internal:80' }, 'no'],
    ['notHosts: its twin', EXCLUSION, [web(allow(to('notHosts: ["*.internal"]')))], { host: 'a.external' }, 'yes'],
    ['no host at all is none', OPERATION, only('"*"'), { host: '' }, 'no'],
  ]);
});

describe('headers', () => {
  const KEY = 'request.headers[X-Token]';
  rows([
    ['denied, twice', DENY_TASK, [web(deny(when(KEY, 'values: [bad]')))], { headers: { 'x-token': ['bad', 'good'] } }, 'no'],
    ['denied unless, twice', DENY_TASK, [web(deny(when(KEY, 'notValues: [admin]')))], { headers: { 'x-token': ['admin', 'guest'] } }, 'no'],
    ['allowed unless, twice', DENY_TASK, [web(allow(when(KEY, 'notValues: [bad]')))], { headers: { 'x-token': ['bad', 'good'] } }, 'no'],
    ['allowed, twice', DENY_TASK, [web(allow(when(KEY, 'values: [admin]')))], { headers: { 'x-token': ['admin', 'guest'] } }, 'no'],
    ['exactly', CONDITIONS, [web(allow(when(KEY, 'values: [admin]')))], { headers: { 'x-token': 'admin' } }, 'yes'],
    ['another value', CONDITIONS, [web(allow(when(KEY, 'values: [admin]')))], { headers: { 'x-token': 'guest' } }, 'no'],
    ['its case matters', CONDITIONS, [web(allow(when(KEY, 'values: [admin]')))], { headers: { 'x-token': 'Admin' } }, 'no'],
    ['absent', CONDITIONS, [web(allow(when(KEY, 'values: [admin]')))], {}, 'no'],
    ['there is one', VALUES, [web(allow(when(KEY, 'values: ["*"]')))], { headers: { 'x-token': 'any' } }, 'yes'],
    ['there is none', VALUES, [web(allow(when(KEY, 'values: ["*"]')))], {}, 'no'],
    ['by its beginning', VALUES, [web(allow(when(KEY, 'values: ["Mozilla/*"]')))], { headers: { 'x-token': 'Mozilla/5.0' } }, 'yes'],
    ['denied', DENY_TASK, [web(deny(when(KEY, 'values: [bad]')))], { headers: { 'x-token': 'bad' } }, 'no'],
    ['denied unless', DENY_TASK, [web(deny(when(KEY, 'notValues: [admin]')))], { headers: { 'x-token': 'guest' } }, 'no'],
    ['denied unless, absent', DENY_TASK, [web(deny(when(KEY, 'notValues: [admin]')))], {}, 'no'],
    ['denied unless: its twin', DENY_TASK, [web(deny(when(KEY, 'notValues: [admin]')))], { headers: { 'x-token': 'admin' } }, 'yes'],
    [
      'several values are another value',
      CONDITIONS,
      [web(allow(when(KEY, 'values: [admin]')))],
      { headers: { 'x-token': 'guest,admin' } },
      'no',
    ],
  ]);
});

describe('tokens', () => {
  const principals = (text: string) => [web(allow(`{${from(`requestPrincipals: [${text}]`)}}`))];
  rows([
    ['anybody who has one', JWT_TASK, principals('"*"'), { claims: alice }, 'yes'],
    ['nobody', JWT_TASK, principals('"*"'), {}, 'no'],
    ['a principal', SOURCE, principals(`"${ISS}/alice"`), { claims: alice }, 'yes'],
    ['another', SOURCE, principals(`"${ISS}/bob"`), { claims: alice }, 'no'],
    ['of an issuer', SOURCE, principals(`"${ISS}/*"`), { claims: alice }, 'yes'],
    ['of another issuer', SOURCE, principals('"https://other/*"'), { claims: alice }, 'no'],
    ['a token is needed', JWT_TASK, [web(deny(`{${from('notRequestPrincipals: ["*"]')}}`))], {}, 'no'],
    ['a token is needed: its twin', JWT_TASK, [web(deny(`{${from('notRequestPrincipals: ["*"]')}}`))], { claims: alice }, 'yes'],
    [
      'the principal as a condition',
      CONDITIONS,
      [web(allow(when('request.auth.principal', `values: ["${ISS}/alice"]`)))],
      { claims: alice },
      'yes',
    ],
    ['one of its audiences', CONDITIONS, [web(allow(when('request.auth.audiences', 'values: [shop]')))], { claims: alice }, 'yes'],
    ['none of its audiences', CONDITIONS, [web(allow(when('request.auth.audiences', 'values: [bank]')))], { claims: alice }, 'no'],
    ['its presenter', CONDITIONS, [web(allow(when('request.auth.presenter', 'values: [frontend]')))], { claims: alice }, 'yes'],
    ['another presenter', CONDITIONS, [web(allow(when('request.auth.presenter', 'values: [backend]')))], { claims: alice }, 'no'],
    ['a claim', CONDITIONS, [web(allow(when('request.auth.claims[email]', 'values: ["*@example.com"]')))], { claims: alice }, 'yes'],
    ['a member of a list', JWT_TASK, [web(allow(when('request.auth.claims[group]', 'values: [admins]')))], { claims: alice }, 'yes'],
    ['no member of a list', JWT_TASK, [web(allow(when('request.auth.claims[group]', 'values: [owners]')))], { claims: alice }, 'no'],
    [
      'a claim in a claim',
      CONDITIONS,
      [web(allow(when('request.auth.claims[realm][roles]', 'values: [reader]')))],
      { claims: alice },
      'yes',
    ],
    ['a claim in no claim', CONDITIONS, [web(allow(when('request.auth.claims[email][roles]', 'values: ["*"]')))], { claims: alice }, 'no'],
    ['a number is no text', CONDITIONS, [web(allow(when('request.auth.claims[realm][level]', 'values: ["3"]')))], { claims: alice }, 'no'],
    [
      'a claim of every object',
      CONDITIONS,
      [web(allow(when('request.auth.claims[constructor][name]', 'values: ["*"]')))],
      { claims: alice },
      'no',
    ],
    ['a claim without a token', CONDITIONS, [web(allow(when('request.auth.claims[group]', 'values: [admins]')))], {}, 'no'],
    ['denied by a claim', CONDITIONS, [web(deny(when('request.auth.claims[group]', 'values: [admins]')))], { claims: alice }, 'no'],
  ]);
});

describe('together', () => {
  const both = [
    web(
      allow(
        `{${from('principals: ["cluster.local/ns/bar/sa/cli"]')}, to: [{operation: {methods: [GET], paths: ["/data/*"]}}], when: [{key: "request.headers[x-a]", values: ["1"]}]}`,
      ),
    ),
  ];
  const asked = { target: '/data/x', headers: { 'x-a': '1' } };
  rows([
    ['all of it', RULE, both, asked, 'yes'],
    ['another peer', RULE, both, { ...asked, from: 'baz/cli' }, 'no'],
    ['nobody proven', RULE, both, { ...asked, plaintext: true }, 'no'],
    ['another method', RULE, both, { ...asked, method: 'POST' }, 'no'],
    ['another path', RULE, both, { ...asked, target: '/other' }, 'no'],
    ['without the header', RULE, both, { target: '/data/x' }, 'no'],
    ['DENY comes first', IMPLICIT, [...both, ap('foo/b', deny(to('methods: [GET]')))], asked, 'no'],
    ['DENY of something else', IMPLICIT, [...both, ap('foo/b', deny(to('methods: [PUT]')))], asked, 'yes'],
    ['one of two ALLOWs', HTTP_TASK, [...both, ap('foo/b', allow(to('paths: [/health]')))], { target: '/health', from: 'baz/cli' }, 'yes'],
    ['nothing is allowed', IMPLICIT, [web('{}')], {}, 'no'],
    ['ALLOW everything', IMPLICIT, [web(allow('{}'))], {}, 'yes'],
    [
      'what is in dry-run does nothing',
      DRY_RUN,
      [ap('foo/a', deny(to('methods: [GET]')), { annotations: '{istio.io/dry-run: "true"}' })],
      {},
      'yes',
    ],
    ['by port', OPERATION, [web(allow(to('ports: ["80"], methods: [GET]')))], {}, 'yes'],
    ['by another port', OPERATION, [web(allow(to('ports: ["81"], methods: [GET]')))], {}, 'no'],
  ]);
});

describe('where requests are not read', () => {
  rows([
    ['an ALLOW that asks for HTTP allows nothing', TCP_TASK, [web(allow(to('methods: [GET]')))], { port: 9000 }, 'no'],
    [
      'an ALLOW that asks for HTTP and a port allows nothing',
      PLAIN_TCP,
      [web(allow(to('methods: [GET], ports: ["9000"]')))],
      { port: 9000 },
      'no',
    ],
    ['an ALLOW of the port alone does', TCP_TASK, [web(allow(to('ports: ["9000"]')))], { port: 9000 }, 'yes'],
    ['one rule with and one without', PLAIN_TCP, [web(allow(to('methods: [GET]'), to('ports: ["9000"]')))], { port: 9000 }, 'yes'],
    ['a DENY that asks for HTTP alone denies all', TCP_TASK, [web(deny(to('methods: [GET]')))], { port: 9000 }, 'no'],
    ['a DENY with a port denies that port', TCP_TASK, [web(deny(to('methods: [GET], ports: ["9000"]')))], { port: 9000 }, 'no'],
    ['a DENY with another port does not', TCP_TASK, [web(deny(to('methods: [GET], ports: ["80"]')))], { port: 9000 }, 'yes'],
    [
      'a DENY of a peer with HTTP denies that peer',
      PLAIN_TCP,
      [web(deny(`{${from('namespaces: [bar]')}, to: [{operation: {paths: [/a]}}]}`))],
      { port: 9000 },
      'no',
    ],
    [
      'a DENY of another peer with HTTP does not',
      PLAIN_TCP,
      [web(deny(`{${from('namespaces: [baz]')}, to: [{operation: {paths: [/a]}}]}`))],
      { port: 9000 },
      'yes',
    ],
    ['a condition of HTTP allows nothing', PLAIN_TCP, [web(allow(when('request.headers[a]', 'values: [b]')))], { port: 9000 }, 'no'],
    ['a condition of HTTP denies all', PLAIN_TCP, [web(deny(when('request.headers[a]', 'values: [b]')))], { port: 9000 }, 'no'],
    ['a token allows nothing', PLAIN_TCP, [web(allow(`{${from('requestPrincipals: ["*"]')}}`))], { port: 9000 }, 'no'],
  ]);
});

describe('refused, since it would match nothing', () => {
  for (const [field, value, ...words] of [
    ['methods', 'get', 'methods are in upper case'],
    ['paths', 'admin', 'would match nothing'],
    ['paths', '/a?b', 'a path ends before its query'],
    ['paths', '/a/../b', 'in normal form it is "/b"'],
    ['paths', '/%61', 'in normal form it is "/a"'],
    ['paths', '/a*b', 'there is one * in a path'],
    ['paths', '/a{*}', 'stand for whole segments'],
    ['paths', '/{**}/{*}', 'no {*} and no second {**}'],
    ['paths', 'a/{*}', 'a path template begins with /'],
    ['hosts', 'a*b', 'would match nobody'],
  ] as const)
    test(...refused(`${field} ${value}`, OPERATION, [web(allow(to(`${field}: ["${value}"]`)))], `operation.${field}`, ...words));
});
