// What a sidecar shows of itself: identity, ledger, process; made once a second at most.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Ledger, type Sighting } from '../../../src/observe/ledger.ts';
import { Metrics } from '../../../src/observe/metrics.ts';
import { TrafficCounters } from '../../../src/observe/metrics-traffic.ts';
import { Snapshot } from '../../../src/snapshot.ts';
import { noRevocations, type RevocationList } from '../../../src/spiffe/crl.ts';
import type { Identity } from '../../../src/spiffe/identity.ts';
import { readExposition } from '../../support/exposition.ts';
import { TestCa } from '../../support/pki.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const ca = await TestCa.create();

let now: number;
let missing: readonly string[];
let identity: Snapshot<Identity>;
let revocations: Snapshot<RevocationList>;
let ledger: Ledger;
let metrics: Metrics;

beforeEach(() => {
  now = 1_700_000_000_000;
  missing = [];
  identity = new Snapshot<Identity>();
  revocations = new Snapshot<RevocationList>();
  ledger = new Ledger({ log: { warn: () => undefined }, now: () => now });
  const traffic = new TrafficCounters(ledger);
  metrics = new Metrics({ traffic, ledger, identity, revocations, missing: () => missing, workers: 2, version: '1.2.3', now: () => now });
});
afterEach(() => metrics.close());

/** Not what is kept from a moment ago. */
const read = () => {
  now += 1_000;
  return readExposition(metrics.text());
};

describe('metrics of a sidecar', () => {
  it('what-has-not-come-has-no-value', () => {
    missing = ['no certificate has arrived yet'];
    const { sum } = read();
    assert.equal(sum('handfast_ready'), 0);
    assert.equal(sum('handfast_identity_expiry_timestamp_seconds'), undefined);
    assert.equal(sum('handfast_revocation_list_entries'), undefined);
    missing = [];
    assert.equal(read().sum('handfast_ready'), 1);
  });

  it('a-rotation-is-counted-and-a-new-bundle-is-none', async () => {
    const first = await ca.identity(SLEEP);
    identity.replace(first);
    assert.equal(read().sum('handfast_identity_rotations_total'), 0);
    assert.equal(read().sum('handfast_identity_expiry_timestamp_seconds', { principal: SLEEP }), first.svid.notAfter / 1_000);
    identity.replace({ ...first });
    assert.equal(read().sum('handfast_identity_rotations_total'), 0);
    identity.replace(await ca.identity(SLEEP));
    assert.equal(read().sum('handfast_identity_rotations_total'), 1);
  });

  it('the-revocation-list', () => {
    revocations.replace(noRevocations);
    assert.equal(read().sum('handfast_revocation_list_entries'), 0);
    assert.equal(read().sum('handfast_revocation_list_next_update_timestamp_seconds'), undefined);
    revocations.replace({ ...noRevocations, serials: new Set(['01', '02']), blockedIds: new Set([SLEEP]), nextUpdate: 5_000 });
    assert.equal(read().sum('handfast_revocation_list_entries'), 3);
    assert.equal(read().sum('handfast_revocation_list_next_update_timestamp_seconds'), 5);
  });

  it('the-tripwire', () => {
    const facts = {
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
    const plaintext: Sighting = { facts: { ...facts, peerId: '', transport: 'plaintext' }, ownId: '', expected: false };
    ledger.join(plaintext);
    assert.equal(read().sum('handfast_tripwire_total'), 0);
    ledger.join({ facts, ownId: '', expected: false });
    ledger.join(plaintext);
    ledger.note(plaintext);
    assert.equal(read().sum('handfast_tripwire_total'), 2);
    assert.equal(read().sum('handfast_ledger_dropped_total'), 0);
  });

  it('the-process', () => {
    const { sum } = read();
    assert.equal(sum('handfast_build_info', { version: '1.2.3', node: process.versions.node }), 1);
    assert.equal(sum('handfast_workers'), 2);
    for (const name of ['process_cpu_seconds_total', 'process_resident_memory_bytes', 'process_start_time_seconds'])
      assert.ok((sum(name) ?? 0) > 0, name);
  });

  it('is-made-once-a-second-however-many-ask', () => {
    let made = 0;
    const counting = {
      families: () => {
        made++;
        return [];
      },
    };
    const other = new Metrics({
      traffic: counting,
      ledger,
      identity,
      revocations,
      missing: () => [],
      workers: 1,
      version: '',
      now: () => now,
    });
    const first = other.text();
    now += 999;
    assert.equal(other.text(), first);
    assert.equal(made, 1);
    now += 1;
    other.text();
    assert.equal(made, 2);
    // A clock that was set back keeps nobody from the present.
    now -= 500_000;
    other.text();
    assert.equal(made, 3);
    other.close();
  });
});
