// Authorizations between model and wire: they come back as they went, and what is not understood is refused, never read as nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decodeAuthorization, encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import {
  type Authorization,
  type AuthorizationMatch,
  authorizationActions,
  authorizationScopes,
  decideAuthorization,
  emptyMatch,
} from '../../src/policy/authorization.ts';
import { emptyHttpMatch, type HttpMatch } from '../../src/policy/http-match.ts';
import { parseIpBlock } from '../../src/policy/ip-blocks.ts';
import * as wire from '../../src/wire/gen/istio/security/authorization.ts';

const everything: AuthorizationMatch = {
  namespaces: [{ kind: 'exact', value: 'foo' }],
  notNamespaces: [{ kind: 'prefix', value: 'dev-' }],
  serviceAccounts: [{ namespace: 'foo', serviceAccount: 'sleep' }],
  notServiceAccounts: [{ namespace: 'foo', serviceAccount: 'other' }],
  principals: [{ kind: 'suffix', value: '/sa/sleep' }],
  notPrincipals: [{ kind: 'presence', value: '' }],
  sourceIps: [parseIpBlock('10.0.0.0/8'), parseIpBlock('fd00::/8')],
  notSourceIps: [parseIpBlock('10.1.0.0/16')],
  destinationIps: [parseIpBlock('10.0.0.1')],
  notDestinationIps: [parseIpBlock('::1')],
  destinationPorts: [80, 65535],
  notDestinationPorts: [443],
};
const http: HttpMatch = {
  hosts: [{ kind: 'exact', value: 'a.b' }],
  notHosts: [{ kind: 'suffix', value: '.b' }],
  methods: [{ kind: 'exact', value: 'GET' }],
  notMethods: [{ kind: 'presence', value: '' }],
  paths: [
    { kind: 'prefix', value: '/a/' },
    { kind: 'template', value: '/a/{*}/{**}' },
  ],
  notPaths: [{ kind: 'template', value: '/{*}' }],
  requestPrincipals: [{ kind: 'exact', value: 'iss/sub' }],
  notRequestPrincipals: [{ kind: 'prefix', value: 'iss/' }],
  audiences: [{ kind: 'exact', value: 'shop' }],
  notAudiences: [{ kind: 'exact', value: 'bank' }],
  presenters: [{ kind: 'exact', value: 'web' }],
  notPresenters: [{ kind: 'exact', value: 'cli' }],
  headers: [{ name: 'x-a', values: [{ kind: 'exact', value: '1' }], notValues: [{ kind: 'exact', value: '2' }] }],
  claims: [{ path: ['a', 'b'], values: [{ kind: 'exact', value: '1' }], notValues: [] }],
};
const policy: Authorization = { name: 'p', namespace: 'foo', scope: 'NAMESPACE', action: 'DENY', rules: [], dryRun: false };

describe('come back as they went', () => {
  for (const scope of authorizationScopes)
    for (const action of authorizationActions)
      for (const rules of [
        [],
        [[]],
        [[[]]],
        [[[everything, everything], []], []],
        [[[{ ...everything, http }, everything], [{ ...emptyMatch, http }]]],
      ] as const)
        for (const dryRun of [false, true])
          test(`${scope} ${action} ${JSON.stringify(rules).length} ${dryRun}`, () => {
            const sent = { ...policy, scope, action, rules, dryRun };
            assert.deepEqual(decodeAuthorization(encodeAuthorization(sent), 'foo/p'), sent);
          });
});

describe('to whoever does not know our field of HTTP', () => {
  const POST: AuthorizationMatch = { ...emptyMatch, http: { ...emptyHttpMatch, methods: [{ kind: 'exact', value: 'POST' }] } };
  /** As a reader of Istio's own fields has it. */
  const readByOthers = (sent: Authorization) => {
    const read = wire.Authorization.decode(encodeAuthorization(sent));
    for (const { clauses } of read.rules) for (const { matches } of clauses) for (const match of matches) match.http = undefined;
    return decodeAuthorization(wire.Authorization.encode(read).finish(), 'foo/p');
  };
  const subject = { peer: undefined, sourceIp: '10.0.0.1', destination: { address: '10.0.0.2', port: 80 } };
  const verdict = (sent: Authorization) => decideAuthorization({ policies: [readByOthers(sent)], missing: [] }, subject).allowed;
  for (const [what, match] of [
    ['alone', POST],
    ['beside a port', { ...POST, destinationPorts: [80] }],
  ] as const) {
    test(`an ALLOW with it ${what} allows nobody`, () => assert.equal(verdict({ ...policy, action: 'ALLOW', rules: [[[match]]] }), false));
    test(`a DENY with it ${what} denies, whatever is asked`, () => assert.equal(verdict({ ...policy, rules: [[[match]]] }), false));
  }
  test('a DENY of another port does not', () =>
    assert.equal(verdict({ ...policy, rules: [[[{ ...POST, destinationPorts: [81] }]]] }), true));
  test('an ALLOW beside it allows', () =>
    assert.equal(verdict({ ...policy, action: 'ALLOW', rules: [[[POST]], [[{ ...emptyMatch, destinationPorts: [80] }]]] }), true));
});

describe('refused', () => {
  const decode = (fields: object, name = 'foo/p') =>
    decodeAuthorization(wire.Authorization.encode({ ...wire.Authorization.decode(encodeAuthorization(policy)), ...fields }).finish(), name);
  const rule = (match: object) => ({
    rules: [{ clauses: [{ matches: [{ ...wire.Match.decode(Buffer.alloc(0)), ...match }] }] }],
  });

  test('another name than it is looked up by', () => {
    assert.throws(() => decode({}, 'foo/q'), { code: 'OBJECT_INVALID', message: /named foo\/q is foo\/p/ });
    decode({});
  });
  test('scopes, actions and matches of the future', () => {
    for (const fields of [
      { scope: 9 },
      { action: 2 },
      rule({ principals: [{}] }),
      rule({ notPrincipals: [{}] }),
      rule({ namespaces: [{}] }),
    ])
      assert.throws(() => decode(fields), { code: 'OBJECT_INVALID' });
  });
  test('values that match everybody or nobody by being empty', () => {
    for (const $case of ['exact', 'prefix', 'suffix'])
      assert.throws(() => decode(rule({ principals: [{ matchType: { $case, value: '' } }] })), { code: 'OBJECT_INVALID' });
    decode(rule({ principals: [{ matchType: { $case: 'exact', value: 'x' } }] }));
  });
  test('blocks that are none', () => {
    for (const block of [
      { address: Buffer.alloc(4), length: 33 },
      { address: Buffer.alloc(3), length: 0 },
    ])
      assert.throws(() => decode(rule({ sourceIps: [block] })), { code: 'CONFIG_INVALID' });
  });
});
