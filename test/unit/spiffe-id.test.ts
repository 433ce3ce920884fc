// SPIFFE IDs: what the standard allows, and everything that only looks like it
// (https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/).

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseSpiffeId, parseTrustDomain, workloadOf, workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { refusal } from '../support/refusal.ts';

describe('a SPIFFE ID', () => {
  const accepted: readonly (readonly [uri: string, trustDomain: string, path: string])[] = [
    ['spiffe://cluster.local/ns/foo/sa/sleep', 'cluster.local', '/ns/foo/sa/sleep'],
    ['spiffe://cluster.local', 'cluster.local', ''],
    ['spiffe://a/b', 'a', '/b'],
    ['spiffe://a_b-c.d.1/X-y_z.9', 'a_b-c.d.1', '/X-y_z.9'],
    ['spiffe://a/...', 'a', '/...'],
    ['spiffe://a/.hidden', 'a', '/.hidden'],
    ['spiffe://10.0.0.1/x', '10.0.0.1', '/x'],
    [`spiffe://${'t'.repeat(255)}/x`, 't'.repeat(255), '/x'],
    [`spiffe://a/${'p'.repeat(2048 - 11)}`, 'a', `/${'p'.repeat(2048 - 11)}`],
  ];
  for (const [uri, trustDomain, path] of accepted) {
    test(`is accepted: ${uri.slice(0, 60)}`, () => {
      const id = parseSpiffeId(uri);
      assert.deepEqual({ ...id }, { uri, trustDomain, path });
      assert.ok(Object.isFrozen(id));
    });
  }

  const refused: Readonly<Record<string, string>> = {
    nothing: '',
    'no trust domain': 'spiffe:///x',
    'another scheme': 'https://cluster.local/ns/foo/sa/sleep',
    'a scheme in upper case': 'SPIFFE://cluster.local/x',
    'a scheme alone': 'spiffe://',
    'one slash': 'spiffe:/cluster.local/x',
    'a trust domain in upper case': 'spiffe://Cluster.local/x',
    'a port': 'spiffe://cluster.local:443/x',
    'user information': 'spiffe://user@cluster.local/x',
    'a query': 'spiffe://cluster.local/x?y=z',
    'a fragment': 'spiffe://cluster.local/x#y',
    'a trailing slash': 'spiffe://cluster.local/',
    'a trailing slash after a path': 'spiffe://cluster.local/x/',
    'an empty segment': 'spiffe://cluster.local//x',
    'a dot segment': 'spiffe://cluster.local/a/./b',
    'a dot-dot segment': 'spiffe://cluster.local/ns/foo/../bar/sa/sleep',
    'a dot-dot segment at the end': 'spiffe://cluster.local/ns/..',
    'percent-encoding': 'spiffe://cluster.local/ns/foo%2fsa',
    'a percent-encoded dot-dot': 'spiffe://cluster.local/%2e%2e/x',
    'a space before': ' spiffe://cluster.local/x',
    'a space after': 'spiffe://cluster.local/x ',
    'a line break after': 'spiffe://cluster.local/x\n',
    'another ID on a second line': 'spiffe://evil/x\nspiffe://cluster.local/x',
    'a NUL': 'spiffe://cluster.local/x\0.evil',
    'a comma and a second ID': 'spiffe://cluster.local/x,URI:spiffe://cluster.local/y',
    'a quote': 'spiffe://cluster.local/"x"',
    'a backslash': 'spiffe://cluster.local\\x',
    'letters that look alike': 'spiffe://cluster.l\u043ecal/x',
    'letters that are not ASCII': 'spiffe://cluster.local/\u00fc',
    'IPv6 brackets': 'spiffe://[::1]/x',
    'a trust domain of 256 characters': `spiffe://${'t'.repeat(256)}/x`,
    'more than 2,048 bytes': `spiffe://a/${'p'.repeat(2048 - 10)}`,
    'a wildcard': 'spiffe://cluster.local/*',
  };
  for (const [name, uri] of Object.entries(refused)) {
    test(`is refused with ${name}`, () => assert.throws(() => parseSpiffeId(uri), refusal('SPIFFE_ID_INVALID', 'not a SPIFFE ID')));
  }

  test('is refused quickly and quoted shortly, however long it is', () => {
    const long = `spiffe://cluster.local${'/a'.repeat(5_000_000)}!`;
    assert.throws(
      () => parseSpiffeId(long),
      (error: Error) => error.message.length < 300,
    );
  });

  test('is quoted in the refusal so that it cannot forge a log line', () => {
    assert.throws(
      () => parseSpiffeId('x\n{"level":"info"}'),
      (error: Error) => !error.message.includes('\n'),
    );
  });
});

describe('a trust domain', () => {
  for (const name of ['cluster.local', 'a', 'prod-eu_1.example', 't'.repeat(255)]) {
    test(`is accepted: ${name.slice(0, 30)}`, () => assert.equal(parseTrustDomain(name), name));
  }
  for (const name of ['', 'Cluster.local', 'a/b', 'spiffe://a', 'a b', 'a:1', 'a\n', '*', 't'.repeat(256)]) {
    test(`is refused: ${JSON.stringify(name.slice(0, 30))}`, () => assert.throws(() => parseTrustDomain(name), refusal('CONFIG_INVALID')));
  }
});

describe("a workload's ID", () => {
  test('is made of its three parts, and they are read back', () => {
    const of = { trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'a.b' };
    const id = workloadSpiffeId(of);
    assert.equal(id.uri, 'spiffe://cluster.local/ns/foo/sa/a.b');
    assert.deepEqual(workloadOf(id), { namespace: 'foo', serviceAccount: 'a.b' });
  });

  for (const [namespace, serviceAccount] of [
    ['', 'x'],
    ['foo', ''],
    ['..', 'x'],
    ['foo', '.'],
    ['a b', 'x'],
    ['foo', 'x?'],
  ] as const) {
    test(`is refused for ${JSON.stringify(namespace)} and ${JSON.stringify(serviceAccount)}`, () => {
      assert.throws(() => workloadSpiffeId({ trustDomain: 'cluster.local', namespace, serviceAccount }), refusal('SPIFFE_ID_INVALID'));
    });
  }

  test('is refused when a part would add to the path or the trust domain', () => {
    const good = { trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'sleep' };
    for (const bad of [{ trustDomain: 'cluster.local/ns/bar' }, { namespace: 'foo/sa/admin' }, { serviceAccount: 'admin/x' }]) {
      assert.throws(() => workloadSpiffeId({ ...good, ...bad }), refusal('SPIFFE_ID_INVALID'), JSON.stringify(bad));
    }
    assert.ok(workloadSpiffeId(good));
  });

  test('is not read out of IDs of another shape', () => {
    for (const path of ['', '/x', '/ns/foo', '/ns/foo/sa', '/ns/foo/sa/a/b', '/x/ns/foo/sa/a', '/NS/foo/SA/a']) {
      assert.equal(workloadOf(parseSpiffeId(`spiffe://cluster.local${path}`)), undefined, path);
    }
  });
});
