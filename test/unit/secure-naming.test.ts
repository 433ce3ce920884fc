// Secure naming: whom a destination may prove to be, and nobody else.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TrafficPolicy } from '../../src/policy/model.ts';
import type { WorkloadEndpoint } from '../../src/policy/registry.ts';
import { allowedIdentities, decideSecureNaming } from '../../src/policy/secure-naming.ts';
import { parseSpiffeId, type SpiffeId } from '../../src/spiffe/spiffe-id.ts';

const [SLEEP, WEB, EXTRA] = [
  'spiffe://cluster.local/ns/foo/sa/sleep',
  'spiffe://cluster.local/ns/foo/sa/web',
  'spiffe://cluster.local/ns/foo/sa/extra',
] as const;

const noFiles = { sni: undefined, clientCertificate: undefined, privateKey: undefined, caCertificates: undefined };
const client: TrafficPolicy = {
  workload: 'c',
  inbound: { mode: 'STRICT', source: 'x' },
  inboundPorts: new Map(),
  outbound: 'ALLOW_ANY',
  announced: undefined,
  shadow: undefined,
  clientTls: [],
  rootClientTls: [],
  trustDomainAliases: [],
};
const plain = { tls: undefined, client };

function endpoint(subjectAltNames?: readonly string[], identity: SpiffeId | undefined = parseSpiffeId(WEB)): WorkloadEndpoint {
  const workload = {
    uid: 'u',
    name: 'web-1',
    namespace: 'foo',
    identity,
    addresses: ['10.0.0.1'],
    meshed: true,
    hbone: false,
    healthy: true,
    services: new Map(),
    authorizationPolicies: [],
  };
  const service =
    subjectAltNames === undefined
      ? undefined
      : { key: 'foo/web', name: 'web', namespace: 'foo', hostname: 'web', addresses: [], ports: [], subjectAltNames, clientTls: undefined };
  return { address: '10.0.0.1', port: 80, servicePort: 80, workload, service };
}

describe('the list', () => {
  test("is the workload's own identity", () => assert.deepEqual(allowedIdentities(endpoint(), plain), [WEB]));
  test('and what its service adds, each once', () => {
    assert.deepEqual(allowedIdentities(endpoint([EXTRA, WEB, EXTRA]), plain), [WEB, EXTRA]);
    assert.deepEqual(allowedIdentities(endpoint([]), plain), [WEB]);
  });
  test('an endpoint outside the mesh is whom its service names, or nobody', () => {
    const outside = (names: readonly string[]) => ({ ...endpoint(names), workload: { ...endpoint().workload, identity: undefined } });
    assert.deepEqual(allowedIdentities(outside([EXTRA]), plain), [EXTRA]);
    assert.deepEqual(allowedIdentities(outside([]), plain), []);
  });
  test("under each of the mesh's names", () => {
    const by = { tls: undefined, client: { ...client, trustDomainAliases: ['old.example'] } };
    assert.deepEqual(allowedIdentities(endpoint(), by), [WEB, 'spiffe://old.example/ns/foo/sa/web']);
  });
  test("a rule of the client's own that names somebody names all of them", () => {
    const tls = { mode: 'ISTIO_MUTUAL', subjectAltNames: [EXTRA], source: 'x', ...noFiles } as const;
    assert.deepEqual(allowedIdentities(endpoint([SLEEP]), { tls, client }), [EXTRA]);
    assert.deepEqual(allowedIdentities(endpoint([SLEEP]), { tls: { ...tls, subjectAltNames: [] }, client }), [WEB, SLEEP]);
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
