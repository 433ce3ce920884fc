// x-forwarded-client-cert by Envoy's modes: who proves nothing brings nothing in, and what is brought in cannot swallow what we say.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import { forwardedClientCert, isForwardedClientCert } from '../../src/http/forwarded-client-cert.ts';
import { type ForwardClientCertMode, forwardClientCertModes } from '../../src/policy/forward-client-cert.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import type { VerifiedPeer } from '../../src/spiffe/verify-peer.ts';
import { TestCa } from '../support/pki.ts';

const by = 'spiffe://cluster.local/ns/bar/sa/httpbin';
const uri = 'spiffe://cluster.local/ns/foo/sa/sleep';
const certificate = new X509Certificate((await (await TestCa.create()).svid(uri)).chain);
const peer: VerifiedPeer = { id: parseSpiffeId(uri), serial: '01', notAfter: 0, certificates: () => [certificate] };
const hash = certificate.fingerprint256.replaceAll(':', '').toLowerCase();
const own = `By=${by};Hash=${hash};URI=${uri}`;
const brought = 'By=spiffe://a/b;Hash=00;Subject="CN=x,O=\\"y\\"";URI=spiffe://c/d';

function headerOf(mode: ForwardClientCertMode, incoming: readonly string[], proven = true) {
  return forwardedClientCert(incoming, { mode, from: proven ? { by, peer } : undefined });
}

describe('a proven peer', () => {
  const wanted: Readonly<Record<ForwardClientCertMode, string | undefined>> = {
    SANITIZE: undefined,
    FORWARD_ONLY: brought,
    APPEND_FORWARD: `${brought},${own}`,
    SANITIZE_SET: own,
  };
  for (const mode of forwardClientCertModes) {
    test(`${mode}: with a header`, () => assert.deepEqual(headerOf(mode, [brought]), { value: wanted[mode] }));
    test(`${mode}: without one`, () =>
      assert.deepEqual(headerOf(mode, []), { value: mode === 'SANITIZE' || mode === 'FORWARD_ONLY' ? undefined : own }));
  }
  test('the hash is the SHA-256 of the certificate, in hex', () => assert.match(hash, /^[0-9a-f]{64}$/));
  test('several headers are one list, in order', () =>
    assert.deepEqual(headerOf('APPEND_FORWARD', ['By=a;URI=b', 'By=c;URI=d']), { value: `By=a;URI=b,By=c;URI=d,${own}` }));
});

describe('who has proven nothing', () => {
  for (const mode of forwardClientCertModes)
    test(`${mode}: nothing goes on`, () => assert.deepEqual(headerOf(mode, [brought], false), { value: undefined }));
});

describe('what is brought in', () => {
  for (const text of [
    'By=a;URI="spiffe://evil',
    'By=a;URI="b"c',
    'URI="a\\"',
    'URI',
    ';',
    'By=a,,URI=b',
    'By=a;',
    'Evil=a',
    'By=a b',
    'By=a\\b',
    'By=a,',
    '"',
  ]) {
    test(`${text} is refused where it would go on`, () => {
      assert.deepEqual(headerOf('APPEND_FORWARD', [text]), { refusal: 'malformed' });
      assert.deepEqual(headerOf('FORWARD_ONLY', [text]), { refusal: 'malformed' });
    });
    test(`${text} does no harm where it does not`, () => assert.deepEqual(headerOf('SANITIZE_SET', [text]), { value: own }));
  }
  test('a chain of proxies fits', () => {
    const chain = Array.from({ length: 40 }, () => brought).join(',');
    assert.deepEqual(headerOf('FORWARD_ONLY', [chain]), { value: chain });
  });
  test('more than 8 KiB is refused, however it is cut up', () => {
    const chain = Array.from({ length: 130 }, () => brought);
    assert.deepEqual(headerOf('APPEND_FORWARD', [chain.join(',')]), { refusal: 'too-long' });
    assert.deepEqual(headerOf('APPEND_FORWARD', chain), { refusal: 'too-long' });
  });
});

test('names that frameworks take for the same', () => {
  for (const name of ['x-forwarded-client-cert', 'x_forwarded_client_cert', 'x-forwarded_client-cert'])
    assert.ok(isForwardedClientCert(name));
  for (const name of ['x-forwarded-client-certs', 'x-forwarded-for', 'forwarded-client-cert']) assert.ok(!isForwardedClientCert(name));
});
