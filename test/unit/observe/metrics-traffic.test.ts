// Connections as counters: what is counted, that nothing ever goes down, and that a stranger cannot make more series than there may be.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Ledger, type Sighting } from '../../../src/observe/ledger.ts';
import type { LedgerFacts } from '../../../src/observe/ledger-entry.ts';
import { metricsText } from '../../../src/observe/metrics-text.ts';
import { TrafficCounters } from '../../../src/observe/metrics-traffic.ts';
import { readExposition } from '../../support/exposition.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const HTTPBIN = 'spiffe://cluster.local/ns/bar/sa/httpbin';

const facts: LedgerFacts = {
  direction: 'inbound',
  peerAddress: '10.0.0.1',
  peerId: SLEEP,
  peerWorkload: 'foo/sleep',
  peerRegisteredId: SLEEP,
  ownAddress: '10.0.0.2',
  port: 8000,
  service: '',
  transport: 'mtls',
  outcome: 'allowed',
  code: '',
  shadowCode: '',
};
const of = (change: Partial<LedgerFacts> = {}, expected = false): Sighting => ({
  facts: { ...facts, ...change },
  ownId: HTTPBIN,
  expected,
});

function rig(max = { inbound: 100, outbound: 100 }) {
  const ledger = new Ledger({ log: { warn: () => undefined }, now: () => 1_000, max });
  const traffic = new TrafficCounters(ledger);
  return { ledger, traffic, read: () => readExposition(metricsText(traffic.families())) };
}

const OPENED = 'istio_tcp_connections_opened_total';
const CLOSED = 'istio_tcp_connections_closed_total';

describe('traffic as counters', () => {
  it('opened-and-closed-with-istios-labels-seen-from-either-side', () => {
    const { traffic, read } = rig();
    const first = traffic.join(of());
    traffic.join(of()).end();
    traffic.join(of({ direction: 'outbound', peerId: HTTPBIN, service: 'bar/httpbin.bar.svc.cluster.local' }));
    const inbound = {
      reporter: 'destination',
      connection_security_policy: 'mutual_tls',
      source_principal: SLEEP,
      destination_principal: HTTPBIN,
      destination_port: '8000',
      destination_service: 'unknown',
      request_protocol: 'tcp',
      response_flags: '-',
    };
    assert.equal(read().sum(OPENED, inbound), 2);
    assert.equal(read().sum(CLOSED, inbound), 1);
    assert.equal(read().sum('handfast_connections_open', { direction: 'inbound' }), 1);
    const outbound = { reporter: 'source', destination_service: 'httpbin.bar.svc.cluster.local', destination_service_namespace: 'bar' };
    assert.equal(read().sum(OPENED, outbound), 1);
    assert.equal(read().sum(CLOSED, outbound), 0);
    first.end();
    assert.equal(read().sum(CLOSED, inbound), 2);
    assert.equal(read().sum('handfast_connections_open', { direction: 'inbound' }), 0);
  });

  it('a-cut-is-closed-and-a-refusal-and-no-connection-more', () => {
    const { traffic, read } = rig();
    traffic.join(of()).end(of({ outcome: 'cut', code: 'AUTHORIZATION_DENIED' }));
    assert.equal(read().sum(OPENED), 1);
    assert.equal(read().sum(CLOSED, { response_flags: 'DENY' }), 1);
    assert.equal(read().sum(CLOSED), 1);
    assert.equal(read().sum('handfast_connections_refused_total', { outcome: 'cut', code: 'AUTHORIZATION_DENIED' }), 1);
  });

  it('refusals-by-code-open-nothing', () => {
    const { traffic, read } = rig();
    traffic.note(of({ outcome: 'refused', code: 'PLAINTEXT_UNDER_STRICT', transport: 'plaintext', peerId: '' }));
    traffic.note(of({ outcome: 'failed', code: 'HANDSHAKE_FAILED', transport: 'unknown', peerId: '' }));
    assert.equal(read().sum(OPENED), undefined);
    const code = (name: string) => read().sum('handfast_connections_refused_total', { code: name });
    assert.deepEqual([code('PLAINTEXT_UNDER_STRICT'), code('HANDSHAKE_FAILED')], [1, 1]);
    assert.equal(read().sum('handfast_plaintext_connections_total'), undefined);
  });

  it('plaintext-that-was-let-in-by-what-is-known-of-the-peer', () => {
    const { traffic, read } = rig();
    const plaintext = { transport: 'plaintext', peerId: '' };
    traffic.join(of(plaintext));
    traffic.join(of({ ...plaintext, peerRegisteredId: '', peerAddress: '10.9.9.9' }));
    traffic.join(of({ ...plaintext, peerRegisteredId: '' }, true));
    // It was let in, and only the application was not there.
    traffic.note(of({ ...plaintext, outcome: 'failed', code: 'DIAL_FAILED' }));
    const count = (labels: Record<string, string>) => read().sum('handfast_plaintext_connections_total', labels);
    assert.equal(count({ peer: 'registered', expected: 'false' }), 2);
    assert.equal(count({ peer: 'unregistered', expected: 'false' }), 1);
    assert.equal(count({ peer: 'unregistered', expected: 'true' }), 1);
    assert.equal(read().sum(OPENED, { connection_security_policy: 'none' }), 3);
  });

  it('nothing-goes-down-when-the-ledger-forgets', () => {
    const { ledger, traffic, read } = rig({ inbound: 2, outbound: 2 });
    for (let peer = 0; peer < 50; peer++) traffic.join(of({ peerAddress: `10.0.1.${peer}` })).end();
    assert.ok(ledger.forgotten > 0);
    assert.ok(ledger.changedAfter(-1).length <= 2);
    assert.deepEqual([read().sum(OPENED), read().sum(CLOSED)], [50, 50]);
  });

  it('more-peers-than-there-is-room-for-are-counted-together', () => {
    const { traffic, read } = rig();
    for (let peer = 0; peer < 5_000; peer++) {
      const opened = traffic.join(of({ peerId: `spiffe://cluster.local/ns/foo/sa/${peer}`, port: peer }));
      if (peer % 2 === 0) opened.end();
      else opened.end(of({ outcome: 'cut', code: `CODE_${peer}` }));
    }
    const { samples, sum } = read();
    assert.ok(samples.size < 1_000, `${samples.size} series`);
    assert.equal(sum(OPENED), 5_000);
    assert.equal(sum(CLOSED), 5_000);
    assert.equal(sum(OPENED, { source_principal: 'other', destination_port: 'other', reporter: 'destination' }), 4_750);
    assert.equal(sum(CLOSED, { source_principal: 'other', response_flags: 'DENY' }), 2_375);
    assert.equal(sum('handfast_connections_refused_total'), 2_500);
    assert.equal(sum('handfast_connections_refused_total', { code: 'other' }), 2_400);
    // Whoever was there first is still told apart.
    traffic.join(of({ peerId: 'spiffe://cluster.local/ns/foo/sa/0', port: 0 }));
    assert.equal(read().sum(OPENED, { source_principal: 'spiffe://cluster.local/ns/foo/sa/0' }), 2);
  });
});
