// AuthorizationPolicy over HTTP, row by row from what Istio documents: each row has a request that is allowed and one that is denied, under the same policies.
// https://istio.io/latest/docs/reference/config/security/authorization-policy/, .../conditions/, https://istio.io/latest/docs/concepts/security/#value-matching

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Asked, PolicyWorld } from '../../support/policy-world.ts';
import { objectText, podText } from '../../support/policy-yaml.ts';

const SERVICE = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: foo}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
`;
const pods = [
  podText('web', { namespace: 'foo', ip: '10.0.0.1', labels: '{security.istio.io/tlsMode: istio, app: web}', serviceAccount: 'web' }),
  podText('cli', { namespace: 'bar', ip: '10.0.0.2', labels: '{security.istio.io/tlsMode: istio}', serviceAccount: 'cli' }),
  SERVICE,
];
const worldOf = (...specs: readonly string[]) =>
  new PolicyWorld(
    [...pods, ...specs.map((spec, index) => objectText('AuthorizationPolicy', spec, { name: `p${index}`, namespace: 'foo' }))].join(
      '---\n',
    ),
  );
const to = (operation: string) => `{to: [{operation: {${operation}}}]}`;
const from = (source: string) => `{from: [{source: {${source}}}]}`;
const when = (key: string, lists: string) => `{when: [{key: "${key}", ${lists}}]}`;
const allow = (...rules: readonly string[]) => `{action: ALLOW, rules: [${rules.join(', ')}]}`;
const deny = (...rules: readonly string[]) => `{action: DENY, rules: [${rules.join(', ')}]}`;

const ISS = 'https://issuer.example';
const alice = {
  iss: ISS,
  sub: 'alice',
  aud: ['web', 'other'],
  azp: 'app',
  groups: ['dev', 'ops'],
  role: 'admin',
  org: { team: 'a', parts: ['x', 'y'] },
};

type Row = readonly [title: string, specs: readonly string[] | string, allowed: Asked, denied: Asked];
const rows: readonly Row[] = [
  // methods
  ['a method', allow(to('methods: [GET]')), { method: 'GET' }, { method: 'POST' }],
  ['one of several methods', allow(to('methods: [GET, HEAD]')), { method: 'HEAD' }, { method: 'PUT' }],
  ['a method has its case', allow(to('methods: [GET]')), { method: 'GET' }, { method: 'get' }],
  ['a method by its beginning', allow(to('methods: ["P*"]')), { method: 'PATCH' }, { method: 'GET' }],
  ['a method by its end', allow(to('methods: ["*ET"]')), { method: 'GET' }, { method: 'PUT' }],
  ['notMethods of an ALLOW', allow(to('notMethods: [DELETE]')), { method: 'GET' }, { method: 'DELETE' }],
  ['a DENY of a method', deny(to('methods: [DELETE]')), { method: 'GET' }, { method: 'DELETE' }],
  ['a DENY of all methods but one', deny(to('notMethods: [GET]')), { method: 'GET' }, { method: 'POST' }],
  ['a DENY of all methods but one, which has its case', deny(to('notMethods: [GET]')), { method: 'GET' }, { method: 'get' }],
  // hosts
  ['a host', allow(to('hosts: [web.foo]')), { host: 'web.foo' }, { host: 'web.bar' }],
  ['a host in another case', allow(to('hosts: [web.foo]')), { host: 'WEB.Foo' }, { host: 'WEB.Bar' }],
  ['a host that the policy has in another case', allow(to('hosts: [WEB.Foo]')), { host: 'web.foo' }, { host: 'web.fo' }],
  ['a host with its port is another one', allow(to('hosts: [web.foo]')), { host: 'web.foo' }, { host: 'web.foo:8080' }],
  ['a host with any port', allow(to('hosts: [web.foo, "web.foo:*"]')), { host: 'web.foo:8080' }, { host: 'web.foo.evil' }],
  ['hosts by their end', allow(to('hosts: ["*.example.com"]')), { host: 'a.example.com' }, { host: 'example.com' }],
  ['hosts by their end, not within', allow(to('hosts: ["*.example.com"]')), { host: 'a.EXAMPLE.com' }, { host: 'a.example.com.evil' }],
  ['a DENY of a host', deny(to('hosts: [admin.foo]')), { host: 'web.foo' }, { host: 'admin.foo' }],
  ['a DENY of a host reaches it with a port', deny(to('hosts: [admin.foo]')), { host: 'web.foo:80' }, { host: 'admin.foo:80' }],
  ['a DENY of a host reaches it with a dot', deny(to('hosts: [admin.foo]')), { host: 'web.foo.' }, { host: 'ADMIN.foo.' }],
  [
    'a DENY of a host reaches it with a dot and a port',
    deny(to('hosts: [admin.foo]')),
    { host: 'admin.foo2:1' },
    { host: 'admin.foo.:80' },
  ],
  ['notHosts of an ALLOW', allow(to('notHosts: [admin.foo]')), { host: 'web.foo' }, { host: 'admin.foo' }],
  ['notHosts of an ALLOW, in disguise', allow(to('notHosts: [admin.foo]')), { host: 'web.foo' }, { host: 'Admin.foo.:443' }],
  ['a DENY of all hosts but one', deny(to('notHosts: [web.foo]')), { host: 'web.foo' }, { host: 'web.foo:80' }],
  ['there must be a host', allow(to('hosts: ["*"]')), { host: 'x' }, { host: '' }],
  // paths
  ['a path', allow(to('paths: [/info]')), { target: '/info' }, { target: '/data' }],
  ['a path whole', allow(to('paths: [/info]')), { target: '/info' }, { target: '/info/' }],
  ['a path has its case', allow(to('paths: [/info]')), { target: '/info' }, { target: '/Info' }],
  ['a path without its query', allow(to('paths: [/info]')), { target: '/info?x=/data' }, { target: '/data?/info' }],
  ['a path by its beginning', allow(to('paths: ["/info*"]')), { target: '/information' }, { target: '/inf' }],
  ['a path by its end', allow(to('paths: ["*/info"]')), { target: '/a/info' }, { target: '/a/infos' }],
  ['a DENY of a path', deny(to('paths: [/admin]')), { target: '/' }, { target: '/admin' }],
  ['a DENY of what is below a path', deny(to('paths: ["/admin/*"]')), { target: '/admin' }, { target: '/admin/x' }],
  ['notPaths of an ALLOW', allow(to('notPaths: ["/admin*"]')), { target: '/a' }, { target: '/admin' }],
  ['a DENY of all paths but one', deny(to('notPaths: [/healthz]')), { target: '/healthz' }, { target: '/a' }],
  ['a path with dots', deny(to('paths: [/admin]')), { target: '/admin/../a' }, { target: '/a/../admin' }],
  ['a path with encoded dots', deny(to('paths: [/admin]')), { target: '/a%2e/admin' }, { target: '/a/%2e%2e/admin' }],
  ['a path with two slashes', deny(to('paths: [/admin/x]')), { target: '/a//x' }, { target: '/admin//x' }],
  ['a path that begins with two slashes', deny(to('paths: ["/admin*"]')), { target: '//a' }, { target: '//admin' }],
  ['a path with a backslash', deny(to('paths: [/admin/x]')), { target: '/a\\x' }, { target: '/admin\\x' }],
  ['a path with an encoded slash', deny(to('paths: [/admin/x]')), { target: '/a%2fx' }, { target: '/admin%2Fx' }],
  ['a path with an encoded backslash', deny(to('paths: [/admin/x]')), { target: '/a%5cx' }, { target: '/admin%5Cx' }],
  ['a path with an encoded letter', deny(to('paths: [/admin]')), { target: '/%61' }, { target: '/%61dmin' }],
  ['a path with parameters', deny(to('paths: [/admin]')), { target: '/a;x=/admin' }, { target: '/admin;x=1' }],
  ['a path with parameters in the middle', deny(to('paths: [/admin/x]')), { target: '/a;b/x' }, { target: '/admin;b/x' }],
  ['a path with dots behind parameters', deny(to('paths: [/admin]')), { target: '/a/b;/..' }, { target: '/a/..;/admin' }],
  ['a path that is encoded twice', deny(to('paths: [/admin]')), { target: '/%2561' }, { target: '/%2561dmin' }],
  ['dots that are encoded twice', deny(to('paths: [/admin]')), { target: '/a%252e' }, { target: '/a/%252e%252e/admin' }],
  ['an exception by one reading is none', allow(to('notPaths: [/admin]')), { target: '/x//admin' }, { target: '/admin;a' }],
  ['an ALLOW by one reading is none', allow(to('paths: ["/public/*"]')), { target: '/public/a' }, { target: '/public/..%2fadmin' }],
  ['a DENY of all but one path, in disguise', deny(to('notPaths: ["/public*"]')), { target: '/public/a' }, { target: '/public/..;/x' }],
  // path templates
  ['a template of one segment', allow(to('paths: ["/a/{*}/c"]')), { target: '/a/b/c' }, { target: '/a/b/b/c' }],
  ['a template wants a segment', allow(to('paths: ["/a/{*}"]')), { target: '/a/b' }, { target: '/a/' }],
  ['a template of many segments', allow(to('paths: ["/a/{**}"]')), { target: '/a/b/c' }, { target: '/b/a/c' }],
  ['a template of many segments, or none', allow(to('paths: ["/a/{**}"]')), { target: '/a/' }, { target: '/a' }],
  ['a template with an end', allow(to('paths: ["/a/{**}/z"]')), { target: '/a/b/c/z' }, { target: '/a/b/c' }],
  ['a template of both', allow(to('paths: ["/{*}/b/{**}"]')), { target: '/a/b/c/d' }, { target: '/a/c/c/d' }],
  ['a DENY by a template', deny(to('paths: ["/{*}/admin"]')), { target: '/a/b/admin' }, { target: '/a/admin' }],
  ['notPaths by a template', allow(to('notPaths: ["/a/{*}/c"]')), { target: '/a/c' }, { target: '/a/b/c' }],
  ['a template is no regular expression', allow(to('paths: ["/a.b/{*}"]')), { target: '/a.b/c' }, { target: '/aXb/c' }],
  // together
  ['fields of an operation hold together', allow(to('methods: [GET], paths: [/a]')), { target: '/a' }, { target: '/a', method: 'POST' }],
  [
    'operations are alternatives',
    allow('{to: [{operation: {paths: [/a]}}, {operation: {paths: [/b]}}]}'),
    { target: '/b' },
    { target: '/c' },
  ],
  ['rules are alternatives', allow(to('paths: [/a]'), to('paths: [/b]')), { target: '/b' }, { target: '/c' }],
  [
    'from and to hold together',
    allow('{from: [{source: {namespaces: [bar]}}], to: [{operation: {paths: [/a]}}]}'),
    { target: '/a' },
    { target: '/b' },
  ],
  ['a port beside a path', allow(to('ports: ["80"], paths: [/a]')), { target: '/a' }, { target: '/b' }],
  ['DENY before ALLOW', [allow(to('paths: ["/*"]')), deny(to('methods: [POST]'))], { method: 'GET' }, { method: 'POST' }],
  ['several ALLOWs', [allow(to('paths: [/a]')), allow(to('paths: [/b]'))], { target: '/b' }, { target: '/c' }],
  // headers
  ['a header', allow(when('request.headers[x-a]', 'values: ["1"]')), { headers: { 'x-a': '1' } }, { headers: { 'x-a': '2' } }],
  ['a header that is not there', allow(when('request.headers[x-a]', 'values: ["1"]')), { headers: { 'x-a': '1' } }, {}],
  [
    'a header whose name is in another case',
    allow(when('request.headers[X-A]', 'values: ["1"]')),
    { headers: { 'x-a': '1' } },
    { headers: { 'x-b': '1' } },
  ],
  [
    'a header by its beginning',
    allow(when('request.headers[user-agent]', 'values: ["Mozilla/*"]')),
    { headers: { 'user-agent': 'Mozilla/5' } },
    { headers: { 'user-agent': 'curl' } },
  ],
  [
    'a header by its end',
    allow(when('request.headers[x-a]', 'values: ["*z"]')),
    { headers: { 'x-a': 'az' } },
    { headers: { 'x-a': 'za' } },
  ],
  ['a header, whatever it says', allow(when('request.headers[x-a]', 'values: ["*"]')), { headers: { 'x-a': '' } }, {}],
  ['a header not to be', allow(when('request.headers[x-a]', 'notValues: ["1"]')), {}, { headers: { 'x-a': '1' } }],
  ['a DENY where a header is not as it should be', deny(when('request.headers[x-a]', 'notValues: ["1"]')), { headers: { 'x-a': '1' } }, {}],
  [
    'a header twice is one of two values',
    allow(when('request.headers[x-a]', 'values: ["1"]')),
    { headers: { 'x-a': '1' } },
    { headers: { 'x-a': '1,1' } },
  ],
  ['a header has no inherited name', allow(when('request.headers[constructor]', 'values: ["*"]')), { headers: { constructor: 'a' } }, {}],
  // tokens
  ['a request principal', allow(from(`requestPrincipals: ["${ISS}/alice"]`)), { claims: alice }, { claims: { ...alice, sub: 'bob' } }],
  ['any request principal', allow(from('requestPrincipals: ["*"]')), { claims: alice }, {}],
  ['a token without a subject is nobody', allow(from('requestPrincipals: ["*"]')), { claims: alice }, { claims: { iss: ISS } }],
  ['a DENY of those without a token', deny(from('notRequestPrincipals: ["*"]')), { claims: alice }, {}],
  ['all of an issuer', allow(from(`requestPrincipals: ["${ISS}/*"]`)), { claims: alice }, { claims: { ...alice, iss: `${ISS}.evil` } }],
  ['a subject of any issuer', allow(from('requestPrincipals: ["*/alice"]')), { claims: alice }, { claims: { ...alice, sub: 'malice' } }],
  [
    'the condition request.auth.principal',
    allow(when('request.auth.principal', `values: ["${ISS}/alice"]`)),
    { claims: alice },
    { claims: { ...alice, iss: 'x' } },
  ],
  ['an audience', allow(when('request.auth.audiences', 'values: [web]')), { claims: alice }, { claims: { ...alice, aud: ['else'] } }],
  [
    'no such audience',
    allow(when('request.auth.audiences', 'notValues: [other]')),
    { claims: { ...alice, aud: 'web' } },
    { claims: alice },
  ],
  ['a presenter', allow(when('request.auth.presenter', 'values: [app]')), { claims: alice }, { claims: { ...alice, azp: 'bot' } }],
  [
    'a presenter that is not there',
    allow(when('request.auth.presenter', 'values: ["*"]')),
    { claims: alice },
    { claims: { iss: ISS, sub: 'a' } },
  ],
  ['a claim', allow(when('request.auth.claims[role]', 'values: [admin]')), { claims: alice }, { claims: { ...alice, role: 'user' } }],
  ['a claim that is not there', allow(when('request.auth.claims[role]', 'values: [admin]')), { claims: alice }, {}],
  [
    'a claim that is a list',
    allow(when('request.auth.claims[groups]', 'values: [ops]')),
    { claims: alice },
    { claims: { ...alice, groups: ['dev'] } },
  ],
  [
    'a claim within another',
    allow(when('request.auth.claims[org][team]', 'values: [a]')),
    { claims: alice },
    { claims: { ...alice, org: { team: 'b' } } },
  ],
  [
    'a list within a claim',
    allow(when('request.auth.claims[org][parts]', 'values: [y]')),
    { claims: alice },
    { claims: { ...alice, org: { parts: ['z'] } } },
  ],
  [
    'a claim not to be',
    allow(when('request.auth.claims[groups]', 'notValues: [ops]')),
    { claims: { ...alice, groups: ['dev'] } },
    { claims: alice },
  ],
  [
    'words of a scope',
    allow(when('request.auth.claims[scope]', 'values: [write]')),
    { claims: { ...alice, scope: 'read write' } },
    { claims: { ...alice, scope: 'read rewrite' } },
  ],
  [
    'a claim has no inherited name',
    allow(when('request.auth.claims[constructor][name]', 'values: ["*"]')),
    { claims: { constructor: { name: 'a' } } },
    { claims: alice },
  ],
  ['a claim that is no text', allow(when('request.auth.claims[n]', 'values: ["1"]')), { claims: { n: '1' } }, { claims: { n: 1 } }],
];

const call = { from: 'bar/cli', to: 'foo/web' } as const;
describe('each request that is allowed has one that is denied', () => {
  for (const [title, specs, allowed, refused] of rows)
    test(title, () => {
      const world = worldOf(...(typeof specs === 'string' ? [specs] : specs));
      assert.equal(world.ask(call, allowed), 'allowed');
      assert.equal(world.ask(call, refused), 'AUTHORIZATION_DENIED');
    });
});

test('a huge policy is asked in little time', () => {
  const paths = Array.from({ length: 5_000 }, (_, index) => `"/{*}/x${index}/{**}/z"`);
  const world = worldOf(deny(to(`paths: [${paths.join(', ')}]`)));
  const begun = performance.now();
  assert.equal(world.ask(call, { target: `/${'a/'.repeat(4_000)}` }), 'allowed');
  assert.ok(performance.now() - begun < 10_000);
});
