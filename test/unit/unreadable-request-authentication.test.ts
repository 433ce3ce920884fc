// A RequestAuthentication of an API server that cannot be read: until it can be, whoever it selects takes no token on its account.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kubeKinds, readKube } from '../../src/control/objects/kube-kinds.ts';
import { jwtRulesOf } from '../../src/policy/jwt-rules.ts';
import { authenticateRequest } from '../../src/policy/request-authentication.ts';

const kind = kubeKinds.find((one) => one.kind === 'RequestAuthentication');
assert.ok(kind !== undefined);
const object = (jwtRules: unknown) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'RequestAuthentication',
  metadata: { name: 'jwt', namespace: 'foo' },
  spec: { selector: { matchLabels: { app: 'web' } }, jwtRules },
});

test('closes whom it selects', () => {
  const good = readKube(kind, object([{ issuer: 'a', jwksUri: 'https://a.example/' }]), undefined);
  assert.deepEqual(good?.problems, []);
  const bad = readKube(kind, object([{ issuer: 'a' }]), undefined);
  assert.match(bad?.problems.join() ?? '', /is no URL; or give jwks or jwksUri/);
  assert.ok(bad?.entry?.kind === 'RequestAuthentication');
  const { selector } = bad.entry.object;
  const rules = jwtRulesOf([bad.entry.object], new Map());
  assert.deepEqual([...(selector ?? [])], [['app', 'web']]);
  const ask = (authorization: string | undefined) =>
    authenticateRequest(
      rules,
      { values: (name) => (name === 'authorization' && authorization !== undefined ? [authorization] : []), query: '' },
      0,
    );
  assert.ok('refused' in ask('Bearer a.b.c'));
  assert.ok(!('refused' in ask(undefined)));
  // The last good version stays where there was one.
  assert.equal(readKube(kind, object([{ issuer: 'a' }]), good)?.entry, good?.entry);
});
