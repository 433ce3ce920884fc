// A proposed policy, held against what was recorded: who would be refused, who would be let in, who would dial otherwise.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { replay } from '../../src/control/ledger/policy-replay.ts';
import type { LedgerEntry } from '../../src/observe/ledger-entry.ts';
import { type Authorization, type AuthorizationMatch, emptyMatch } from '../../src/policy/authorization.ts';
import { entry, instance, meshWith, mtls, type PodSpec, SLEEP } from '../support/ledger-records.ts';

const HTTPBIN: PodSpec = { name: 'httpbin-1', service: 'httpbin', address: '10.0.0.2' };
const CLIENT: PodSpec = { name: 'sleep', namespace: 'foo', serviceAccount: 'sleep', address: '10.0.0.1' };

function allowing(principal: string): Authorization {
  const match: AuthorizationMatch = { ...emptyMatch, principals: [{ kind: 'exact', value: principal.slice('spiffe://'.length) }] };
  return { name: 'allow', namespace: 'bar', scope: 'NAMESPACE', action: 'ALLOW', rules: [[[match]]], dryRun: false };
}

function judged(
  entries: readonly LedgerEntry[],
  of: { before?: PodSpec; after?: PodSpec; was?: readonly Authorization[]; is?: readonly Authorization[] } = {},
) {
  const mesh = (pod: PodSpec = HTTPBIN, authorizations: readonly Authorization[] = []) => meshWith([pod, CLIENT], authorizations).mesh;
  return replay([instance({ entries })], mesh(of.before, of.was), mesh(of.after, of.is));
}

const changes = (of: ReturnType<typeof judged>) => of.inbound.map(({ change, transport, code }) => [change, transport, code]);

describe('who came in', () => {
  const strict: PodSpec = { ...HTTPBIN, mode: 'STRICT' };

  test('in plaintext would be refused by STRICT, by mTLS not', () => {
    const of = judged([entry({ connections: 3 }), entry({ transport: 'passthrough-tls' }), mtls()], { after: strict });
    assert.deepEqual(changes(of), [
      ['would refuse', 'plaintext', 'PLAINTEXT_UNDER_STRICT'],
      ['would refuse', 'passthrough-tls', 'PLAINTEXT_UNDER_STRICT'],
    ]);
    assert.deepEqual([of.judged, of.inbound[0]?.connections, of.inbound[0]?.servers], [3, 3, ['bar/httpbin-1']]);
    assert.match(of.inbound[0]?.reason ?? '', /STRICT by the test/);
  });

  test('and was refused would be let in when STRICT goes, if it was refused for that', () => {
    const entries = [
      entry({ outcome: 'refused', code: 'PLAINTEXT_UNDER_STRICT' }),
      entry({ outcome: 'refused', code: 'PLAINTEXT_UNDER_STRICT', transport: 'unknown' }),
      entry({ outcome: 'refused', code: 'CERTIFICATE_REVOKED' }),
      entry({ peerAddress: '' }),
      entry({ ownAddress: '' }),
    ];
    assert.deepEqual(changes(judged(entries, { before: strict })), [['would newly allow', 'plaintext', 'PLAINTEXT_UNDER_STRICT']]);
  });

  test('is known by what it has proven, never by what is registered at its address', () => {
    const of = judged([mtls(), entry(), mtls({ peerId: 'spiffe://cluster.local/ns/foo/sa/other' })], { is: [allowing(SLEEP)] });
    assert.deepEqual(changes(of), [
      ['would refuse', 'plaintext', 'AUTHORIZATION_DENIED'],
      ['would refuse', 'mtls', 'AUTHORIZATION_DENIED'],
    ]);
    assert.deepEqual(changes(judged([mtls({ outcome: 'refused', code: 'AUTHORIZATION_DENIED' })], { was: [allowing('spiffe://x')] })), [
      ['would newly allow', 'mtls', 'AUTHORIZATION_DENIED'],
    ]);
  });

  test('finds the same as before where nothing changes', () => {
    const of = judged([entry(), mtls()], { before: strict, after: strict });
    assert.deepEqual([of.inbound, of.outbound, of.judged], [[], [], 2]);
  });

  test('is not judged where the pod is not registered, or another has reported it', () => {
    const { mesh } = meshWith([HTTPBIN]);
    const strangers = [
      instance({ pod: 'bar/unknown', wasBelieved: false, entries: [entry()] }),
      instance({ reporter: SLEEP, wasBelieved: false, entries: [entry()], dropped: 2 }),
      instance({ pod: 'bar/gone', reporter: 'spiffe://cluster.local/ns/bar/sa/gone', entries: [entry()] }),
    ];
    const notJudgedBecause = { gone: 1, unbelieved: 2, requests: 0 };
    const nothing = { judged: 0, notJudged: 3, notJudgedBecause, missing: 2, inbound: [], outbound: [] };
    assert.deepEqual(replay(strangers, mesh, meshWith([strict]).mesh), nothing);
  });

  test('to a pod that is gone is judged by each that took its place', () => {
    const gone = [instance({ pod: 'bar/httpbin-0', live: false, entries: [entry()] })];
    const another: PodSpec = { name: 'httpbin-2', service: 'httpbin' };
    const { mesh } = meshWith([HTTPBIN, another]);
    for (const after of [
      [strict, another],
      [HTTPBIN, { ...another, mode: 'STRICT' as const }],
    ]) {
      const of = replay(gone, mesh, meshWith(after).mesh);
      assert.deepEqual([of.notJudged, of.judged, of.inbound.map(({ servers }) => servers)], [0, 1, [['bar/httpbin-0 (gone)']]]);
      assert.equal(of.inbound[0]?.change, 'would refuse');
    }
    const renamed: PodSpec = { ...HTTPBIN, serviceAccount: 'web' };
    const before = [instance({ live: false, entries: [entry()] })];
    const of = replay(before, meshWith([renamed]).mesh, meshWith([{ ...renamed, mode: 'STRICT' }]).mesh);
    assert.deepEqual(changes(of), [['would refuse', 'plaintext', 'PLAINTEXT_UNDER_STRICT']]);
    const byPort = [{ ...HTTPBIN, ports: { 8080: 'STRICT' as const } }, another];
    assert.deepEqual(changes(replay(gone, mesh, meshWith(byPort).mesh)), [['would refuse', 'plaintext', 'PLAINTEXT_UNDER_STRICT']]);
  });
});

describe('who was called', () => {
  const call = (change: Partial<LedgerEntry> = {}) =>
    mtls({ direction: 'outbound', peerAddress: '10.0.0.2', ownAddress: '', service: 'bar/httpbin.bar.svc.cluster.local', ...change });
  const dialled = (after: PodSpec, change?: Partial<LedgerEntry>) => {
    const by = instance({ pod: 'foo/sleep', reporter: SLEEP, entries: [call(change)] });
    return replay([by], meshWith([HTTPBIN, CLIENT]).mesh, meshWith([after, CLIENT]).mesh);
  };

  test('would be dialled otherwise under DISABLE, and not under STRICT', () => {
    const of = dialled({ ...HTTPBIN, mode: 'DISABLE' });
    assert.deepEqual(
      of.outbound.map(({ client, destination, port, before, after }) => [client, destination, port, before, after]),
      [['foo/sleep', 'bar/httpbin.bar.svc.cluster.local', 8080, 'mtls', 'plaintext']],
    );
    assert.deepEqual([dialled({ ...HTTPBIN, mode: 'STRICT' }).outbound, dialled({ ...HTTPBIN, mode: 'STRICT' }).judged], [[], 1]);
  });

  test('is not judged where nobody is registered at the address', () => {
    assert.equal(dialled({ ...HTTPBIN, mode: 'DISABLE' }, { peerAddress: '192.0.2.1' }).judged, 0);
  });

  test('by a pod that is gone would be dialled otherwise by those that took its place', () => {
    const by = instance({ pod: 'foo/sleep-0', reporter: SLEEP, live: false, entries: [call()] });
    const of = replay([by], meshWith([HTTPBIN, CLIENT]).mesh, meshWith([{ ...HTTPBIN, mode: 'DISABLE' }, CLIENT]).mesh);
    assert.deepEqual(
      of.outbound.map(({ client, before, after }) => [client, before, after]),
      [['foo/sleep-0 (gone)', 'mtls', 'plaintext']],
    );
  });
});
