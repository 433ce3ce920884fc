// What an instance holds is what any of its streams holds, and it is heard of until the last of them has ended.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { InstanceHoldings } from '../../src/agent/instance-holdings.ts';
import { ReceiptBook } from '../../src/discovery/receipt-book.ts';

const A = { reporter: 'spiffe://cluster.local/ns/foo/sa/a', pod: 'foo/a' };
function rig() {
  let at = 0;
  const receipts = new ReceiptBook();
  const holdings = new InstanceHoldings({ receipts, now: () => ++at });
  const states = () =>
    Object.fromEntries(
      receipts.all.map(({ secret, version, dropped, left }) => [
        `${secret}@${version}`,
        dropped > 0 ? 'dropped' : left > 0 ? 'left' : 'held',
      ]),
    );
  return { holdings, states };
}

it('one-stream-that-has-it-no-more-does-not-speak-for-another-that-has', () => {
  const { holdings, states } = rig();
  const [one, two] = [holdings.open(A), holdings.open(A)];
  for (const stream of [one, two]) stream.hold('secret:foo/db', { key: 'foo/db', versions: ['7'] });
  one.hold('secret:foo/db', { key: 'foo/db', versions: ['8'] });
  assert.deepEqual(states(), { 'foo/db@7': 'held', 'foo/db@8': 'held' });
  two.hold('secret:foo/db', { key: 'foo/db', versions: ['8'] });
  assert.deepEqual(states(), { 'foo/db@7': 'dropped', 'foo/db@8': 'held' });
});

it('what-only-a-stream-that-has-ended-held-is-heard-of-no-more-and-nothing-else', () => {
  const { holdings, states } = rig();
  const [one, two] = [holdings.open(A), holdings.open(A)];
  one.hold('secret:foo/db', { key: 'foo/db', versions: ['7'] });
  one.hold('secret:foo/x', { key: 'foo/x', versions: ['1'] });
  two.hold('secret:foo/db/key', { key: 'foo/db', versions: ['7'] });
  one.end();
  assert.deepEqual(states(), { 'foo/db@7': 'held', 'foo/x@1': 'left' });
  two.end();
  // Twice is once, and what comes after an end is nothing.
  two.end();
  two.drop('secret:foo/db/key');
  assert.deepEqual(states(), { 'foo/db@7': 'left', 'foo/x@1': 'left' });
});

it('a-name-that-is-let-go-of-is-held-no-more-unless-under-another', () => {
  const { holdings, states } = rig();
  const stream = holdings.open(A);
  stream.hold('secret:foo/db', { key: 'foo/db', versions: ['7', '8'] });
  stream.hold('secret:foo/db/key', { key: 'foo/db', versions: ['8'] });
  stream.drop('secret:foo/db');
  assert.deepEqual(states(), { 'foo/db@7': 'dropped', 'foo/db@8': 'held' });
  stream.drop('secret:foo/db/key');
  assert.deepEqual(states(), { 'foo/db@7': 'dropped', 'foo/db@8': 'dropped' });
});
