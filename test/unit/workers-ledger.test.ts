// One ledger for several workers: what they saw, told in batches, is counted as if one had seen it.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Ledger, type Sighting } from '../../src/observe/ledger.ts';
import type { LedgerFacts } from '../../src/observe/ledger-entry.ts';
import { SightingFeed } from '../../src/workers/sighting-feed.ts';
import { WorkerSightings } from '../../src/workers/worker-sightings.ts';

const facts: LedgerFacts = {
  direction: 'inbound',
  peerAddress: '10.0.0.1',
  peerId: 'spiffe://cluster.local/ns/foo/sa/sleep',
  peerWorkload: 'foo/sleep',
  peerRegisteredId: 'spiffe://cluster.local/ns/foo/sa/sleep',
  ownAddress: '10.0.0.2',
  port: 8000,
  service: '',
  transport: 'mtls',
  outcome: 'allowed',
  code: '',
  shadowCode: '',
};
const of = (change: Partial<LedgerFacts> = {}): Sighting => ({ facts: { ...facts, ...change }, ownId: 'me', expected: false });
const plaintext: Partial<LedgerFacts> = { transport: 'plaintext', peerId: '' };

function rig(max?: { inbound: number; outbound: number }) {
  const warnings: object[] = [];
  const log = { warn: (fields: object) => warnings.push(fields) };
  const ledger = new Ledger({ log, now: () => 1_000, ...(max === undefined ? {} : { max }) });
  const workers = [1, 2].map(() => {
    const sightings = new WorkerSightings(ledger);
    // As it crosses the threads.
    const feed = new SightingFeed((seen) => sightings.take(structuredClone(seen)));
    return { feed, sightings };
  });
  const flush = () => {
    for (const { feed } of workers) feed.flush();
  };
  const [one, two] = workers;
  if (one === undefined || two === undefined) throw new Error('two workers were made');
  return { ledger, warnings, one, two, flush };
}

const counts = (ledger: Ledger) => ledger.changedAfter(-1).map(({ outcome, connections, open }) => ({ outcome, connections, open }));

describe('the ledger of several workers', () => {
  it('sums-what-they-see-in-one-entry', () => {
    const { ledger, one, two, flush } = rig();
    const opened = [one, one, two].map(({ feed }) => feed.join(of()));
    flush();
    assert.deepEqual(counts(ledger), [{ outcome: 'allowed', connections: 3, open: 3 }]);
    for (const connection of opened.slice(1)) connection.end();
    one.feed.join(of()).end();
    flush();
    assert.deepEqual(counts(ledger), [{ outcome: 'allowed', connections: 4, open: 1 }]);
    assert.deepEqual(ledger.inboundTotals, { connections: 4, failures: 0 });
    assert.deepEqual([ledger.dropped, ledger.forgotten], [0, 0]);
  });

  it('a-cut-is-an-entry-and-a-failure-but-no-connection-more', () => {
    const { ledger, one, flush } = rig();
    const connection = one.feed.join(of());
    flush();
    connection.end(of({ outcome: 'cut', code: 'AUTHORIZATION_DENIED' }));
    flush();
    assert.deepEqual(counts(ledger), [
      { outcome: 'allowed', connections: 1, open: 0 },
      { outcome: 'cut', connections: 1, open: 0 },
    ]);
    assert.deepEqual(ledger.inboundTotals, { connections: 1, failures: 1 });
  });

  it('refusals-are-counted-each', () => {
    const { ledger, one, two, flush } = rig();
    for (const { feed } of [one, two, two]) feed.note(of({ outcome: 'refused', code: 'AUTHORIZATION_DENIED' }));
    flush();
    assert.deepEqual(counts(ledger), [{ outcome: 'refused', connections: 3, open: 0 }]);
    assert.deepEqual(ledger.inboundTotals, { connections: 3, failures: 3 });
  });

  it('the-tripwire-knows-what-the-other-worker-saw', () => {
    const { ledger, warnings, one, two, flush } = rig();
    one.feed.join(of()).end();
    flush();
    two.feed.join(of(plaintext)).end();
    flush();
    assert.equal(warnings.length, 1);
    assert.deepEqual(
      ledger.changedAfter(-1).map(({ transport, tripwire }) => [transport, tripwire]),
      [
        ['plaintext', true],
        ['mtls', false],
      ],
    );
  });

  it('one-that-is-gone-has-nothing-open', () => {
    const { ledger, one, two, flush } = rig();
    for (const { feed } of [one, two]) feed.join(of());
    flush();
    one.sightings.end();
    assert.deepEqual(counts(ledger), [{ outcome: 'allowed', connections: 2, open: 1 }]);
  });

  it('whoever-strict-would-refuse-is-said-at-once', async () => {
    const { ledger, one } = rig();
    one.feed.join(of());
    await setImmediate();
    assert.deepEqual(counts(ledger), []);
    one.feed.join(of(plaintext));
    await setImmediate();
    assert.equal(ledger.changedAfter(-1).length, 2);
  });

  it('the-bounds-are-of-the-pod-and-what-is-dropped-is-counted-once', () => {
    const { ledger, one, two, flush } = rig({ inbound: 1, outbound: 1 });
    one.feed.join(of({ ...plaintext, peerAddress: '10.0.0.3' }));
    two.feed.join(of({ ...plaintext, peerAddress: '10.0.0.4' }));
    two.feed.join(of({ ...plaintext, peerAddress: '10.0.0.4' }));
    flush();
    assert.equal(ledger.changedAfter(-1).length, 1);
    assert.equal(ledger.dropped, 2);
  });
});
