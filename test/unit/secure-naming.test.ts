// Secure naming: whom a destination may prove to be, and nobody else.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { WorkloadEndpoint } from '../../src/policy/registry.ts';
import { allowedIdentities, decideSecureNaming } from '../../src/policy/secure-naming.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

const [SLEEP, WEB, EXTRA] = [
  'spiffe://cluster.local/ns/foo/sa/sleep',
  'spiffe://cluster.local/ns/foo/sa/web',
  'spiffe://cluster.local/ns/foo/sa/extra',
] as const;

function endpoint(subjectAltNames?: readonly string[]): WorkloadEndpoint {
  const workload = {
    uid: 'u',
    name: 'web-1',
    namespace: 'foo',
    identity: parseSpiffeId(WEB),
    addresses: ['10.0.0.1'],
    meshed: true,
    healthy: true,
    services: new Map(),
  };
  const service =
    subjectAltNames === undefined
      ? undefined
      : { key: 'foo/web', name: 'web', namespace: 'foo', hostname: 'web', addresses: [], ports: [], subjectAltNames };
  return { address: '10.0.0.1', port: 80, workload, service };
}

describe('the list', () => {
  test("is the workload's own identity", () => assert.deepEqual(allowedIdentities(endpoint()), [WEB]));
  test('and what its service adds, each once', () => {
    assert.deepEqual(allowedIdentities(endpoint([EXTRA, WEB, EXTRA])), [WEB, EXTRA]);
    assert.deepEqual(allowedIdentities(endpoint([])), [WEB]);
  });
});

describe('the decision', () => {
  const decide = (allowed: readonly string[], peer: string) => decideSecureNaming(allowed, parseSpiffeId(peer), 'web.foo:80');

  test('allows whoever is on the list', () => {
    assert.deepEqual(decide([WEB], WEB), { allowed: true });
    assert.deepEqual(decide([WEB, EXTRA], EXTRA), { allowed: true });
  });

  test('refuses everybody else, and names both sides', () => {
    const verdict = decide([WEB, EXTRA], SLEEP);
    assert.ok(!verdict.allowed);
    assert.equal(verdict.code, 'SECURE_NAMING_MISMATCH');
    assert.equal(verdict.reason, `web.foo:80 must be ${WEB} or ${EXTRA}, but the server proved to be ${SLEEP}`);
  });

  test('an empty list allows nobody', () => {
    const verdict = decide([], WEB);
    assert.ok(!verdict.allowed);
    assert.match(verdict.reason, /must be nobody/);
  });

  for (const near of [
    `${WEB}2`,
    WEB.slice(0, -1),
    `${WEB}/x`,
    WEB.replace('/foo/', '/Foo/'),
    WEB.replace('cluster.local', 'cluster.local.evil'),
    'spiffe://cluster.local',
  ]) {
    test(`${near} is not ${WEB}`, () => assert.equal(decide([WEB], near).allowed, false));
  }

  test('a pattern on the list is a text like any other', () => {
    for (const pattern of ['*', 'spiffe://cluster.local/*', '.*', '']) assert.equal(decide([pattern], WEB).allowed, false);
  });
});
