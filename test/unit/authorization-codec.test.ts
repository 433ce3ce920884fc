// Authorizations between model and wire: they come back as they went, and what is not understood is refused, never read as nothing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decodeAuthorization, encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { type Authorization, type AuthorizationMatch, authorizationActions, authorizationScopes } from '../../src/policy/authorization.ts';
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
const policy: Authorization = { name: 'p', namespace: 'foo', scope: 'NAMESPACE', action: 'DENY', rules: [], dryRun: false };

describe('come back as they went', () => {
  for (const scope of authorizationScopes)
    for (const action of authorizationActions)
      for (const rules of [[], [[]], [[[]]], [[[everything, everything], []], []]] as const)
        for (const dryRun of [false, true])
          test(`${scope} ${action} ${JSON.stringify(rules).length} ${dryRun}`, () => {
            const sent = { ...policy, scope, action, rules, dryRun };
            assert.deepEqual(decodeAuthorization(encodeAuthorization(sent), 'foo/p'), sent);
          });
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
