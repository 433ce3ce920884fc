// Rules that say nothing: whom they match, beside what the Istio pages say of rules that say something.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Authorization, type AuthorizationRule, decideAuthorization, emptyMatch } from '../../src/policy/authorization.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

const peers = { somebody: parseSpiffeId('spiffe://cluster.local/ns/foo/sa/sleep'), nobody: undefined };
const port80 = { ...emptyMatch, destinationPorts: [80] };
const port9 = { ...emptyMatch, destinationPorts: [9] };

const cases: readonly (readonly [name: string, rules: readonly AuthorizationRule[], matches: boolean])[] = [
  ['no rule', [], false],
  ['a rule without clauses', [[]], true],
  ['a clause without matches', [[[]]], true],
  ['an empty match', [[[emptyMatch]]], false],
  ['an empty match beside one that matches', [[[emptyMatch, port80]]], true],
  ['an empty match beside one that does not', [[[emptyMatch, port9]]], false],
  ['a clause of an empty match beside one that matches', [[[emptyMatch], [port80]]], false],
  ['a clause without matches beside one that matches', [[[], [port80]]], true],
  ['a clause without matches beside one that does not', [[[], [port9]]], false],
  ['a rule of an empty match beside one that matches', [[[emptyMatch]], [[port80]]], true],
];

describe('a policy matches by', () => {
  for (const [name, rules, matches] of cases)
    for (const [who, peer] of Object.entries(peers))
      test(`${name}: ${who}, ${matches ? 'yes' : 'no'}`, () => {
        const subject = { peer, sourceIp: '10.0.0.9', destination: { address: '10.0.0.1', port: 80 } };
        const policy = (action: Authorization['action']): Authorization => ({
          ...{ name: 'p', namespace: 'foo', scope: 'GLOBAL', dryRun: false },
          ...{ action, rules },
        });
        const allowed = (action: Authorization['action']) =>
          decideAuthorization({ policies: [policy(action)], missing: [] }, subject).allowed;
        assert.deepEqual([allowed('ALLOW'), allowed('DENY')], [matches, !matches]);
      });
});
