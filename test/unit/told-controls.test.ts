// A ledger that has ended is kept until every control that is there has it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ToldControls } from '../../src/agent/controls.ts';
import type { ReportedLedger } from '../../src/discovery/ledger-client.ts';
import { NO_TOTALS } from '../../src/observe/totals.ts';

function ended(pod: string): ReportedLedger {
  return {
    pod,
    reporter: 'spiffe://cluster.local/ns/foo/sa/a',
    ended: true,
    ledger: {
      instance: pod,
      observedSince: 0,
      dropped: 0,
      forgotten: 0,
      inboundTotals: NO_TOTALS,
      outboundTotals: NO_TOTALS,
      revision: 1,
      changedAfter: () => [],
    },
  };
}

function open(controls: number) {
  const kept = [ended('foo/a'), ended('foo/b')];
  const [a, b] = kept;
  if (a === undefined || b === undefined) throw new Error('two');
  const told: string[] = [];
  const of = new ToldControls({
    controls,
    ended: () => kept,
    onTold: (ledger) => {
      told.push(ledger.pod);
      kept.splice(kept.indexOf(ledger), 1);
    },
  });
  return { of, a, b, told };
}

test('with one control it is let go when that has it', () => {
  const { of, a, told } = open(1);
  of.become(0, true);
  assert.deepEqual(told, []);
  of.taken(0, a);
  assert.deepEqual(told, ['foo/a']);
});

test('with several it is kept until all that are there have it', () => {
  const { of, a, told } = open(3);
  of.become(0, true);
  of.become(1, true);
  of.taken(0, a);
  assert.deepEqual(told, []);
  of.taken(1, a);
  assert.deepEqual(told, ['foo/a']);
});

test('one that goes away is not waited for, but nothing is let go that nobody has', () => {
  const { of, a, told } = open(2);
  of.become(0, true);
  of.become(1, true);
  of.taken(0, a);
  of.become(1, false);
  assert.deepEqual(told, ['foo/a']);
  of.become(0, false);
  assert.deepEqual(told, ['foo/a'], 'foo/b has been told to nobody');
});

test('one that comes back is told what is still kept', () => {
  const { of, a, b, told } = open(2);
  of.become(0, true);
  of.taken(0, a);
  assert.deepEqual(told, ['foo/a']);
  of.become(1, true);
  of.taken(0, b);
  assert.deepEqual(told, ['foo/a']);
  of.taken(1, b);
  assert.deepEqual(told, ['foo/a', 'foo/b']);
});
