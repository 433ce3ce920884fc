// What an agent believes of its sidecars' ledgers, how much of it, and what it hands on.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { Ledgers } from '../../src/agent/ledgers.ts';
import type { LedgerEntry } from '../../src/observe/ledger-entry.ts';
import { DAY, entry, HTTPBIN, mtls, report, SLEEP, T0 } from '../support/ledger-records.ts';

/** The server's end of a stream of reports. */
class Call extends EventEmitter {
  failed: { code?: number } | undefined;
  stop: () => void = () => undefined;

  constructor() {
    super();
    this.on('error', (error) => {
      this.failed = error;
      this.stop();
    });
  }

  end(): this {
    return this;
  }
}

function open(ledgers: Ledgers, of: { spiffeId?: string; connection?: string; stillProven?: () => boolean } = {}) {
  const call = new Call();
  call.stop = ledgers.follow(call, { spiffeId: HTTPBIN, connection: 'c1', stillProven: () => true, ...of });
  return { call, say: (change: Parameters<typeof report>[0]) => void call.emit('data', report(change)) };
}

const fresh = () => new Ledgers(() => T0);
const RUN = (index: number) => `00000000-0000-4000-8000-00000000000${index}`;

describe('a ledger', () => {
  test('is kept with who has proven to have sent it, and replaced entry by entry', () => {
    const ledgers = fresh();
    const { say } = open(ledgers);
    say({ reporter: SLEEP, entries: [entry({ open: 1 }), mtls()] });
    say({ entries: [entry({ connections: 2 })], dropped: 3 });
    const [only, ...others] = ledgers.all;
    assert.deepEqual(others, []);
    assert.deepEqual([only?.reporter, only?.pod, only?.dropped, only?.size], [HTTPBIN, 'bar/httpbin-1', 3, 2]);
    assert.deepEqual(only?.entries, [entry({ connections: 2 }), mtls()]);
  });

  test('goes on to control whole at first, then what has changed, and at last its end', () => {
    const clock = { now: T0 };
    const ledgers = new Ledgers(() => clock.now);
    const { call, say } = open(ledgers);
    say({ entries: [entry(), mtls()] });
    const [reported] = ledgers.reported;
    assert.equal(reported?.ledger.changedAfter(-1).length, 2);
    const revision = reported?.ledger.revision ?? 0;
    say({ entries: [mtls({ connections: 5 })] });
    assert.deepEqual(reported?.ledger.changedAfter(revision), [mtls({ connections: 5 })]);
    call.stop();
    assert.deepEqual([ledgers.all, ledgers.reported], [[], []], 'it may come again');
    clock.now += 5_000;
    const [ended] = ledgers.reported;
    assert.equal(ended?.ended, true);
    assert.ok(ended);
    ledgers.taken(ended, { control: 0, controls: 1 });
    assert.deepEqual(ledgers.reported, []);
  });

  test('that has ended is kept until every control has it, two minutes at most once one has, and for ever while none has', () => {
    const clock = { now: T0 };
    const ledgers = new Ledgers(() => clock.now);
    const end = (run: number) => {
      const { call, say } = open(ledgers, { connection: `c${run}` });
      say({ instance: RUN(run), entries: [entry()] });
      call.stop();
    };
    for (const run of [1, 2, 3]) end(run);
    clock.now += 5_000;
    const [all, one, none] = ledgers.reported;
    assert.ok(all && one && none);
    const runs = () => ledgers.reported.map(({ ledger }) => ledger.instance);
    for (const ended of [all, one]) ledgers.taken(ended, { control: 0, controls: 2 });
    assert.deepEqual(runs(), [RUN(1), RUN(2), RUN(3)]);
    ledgers.taken(all, { control: 0, controls: 2 });
    assert.deepEqual(runs(), [RUN(1), RUN(2), RUN(3)], 'the same control again');
    ledgers.taken(all, { control: 1, controls: 2 });
    assert.deepEqual(runs(), [RUN(2), RUN(3)]);
    clock.now = T0 + 120_000;
    assert.deepEqual(runs(), [RUN(3)]);
    clock.now += DAY;
    assert.deepEqual(runs(), [RUN(3)]);
  });

  test('that has ended and finds no room is missing from what another of its pod says; one that has seen nobody is not', () => {
    const clock = { now: T0 };
    const ledgers = new Ledgers(() => clock.now);
    const ended = (run: number, entries: LedgerEntry[]) => {
      const stream = open(ledgers, { connection: `c${run}` });
      stream.say({ instance: `00000000-0000-4000-8000-${String(run).padStart(12, '0')}`, entries });
      stream.call.stop();
    };
    const state = () => {
      clock.now += 5_000;
      const all = ledgers.reported.map(({ ledger }) => ledger);
      return { runs: all.length, dropped: all.map(({ dropped }) => dropped).filter((count) => count > 0) };
    };
    ended(1, [entry({ connections: 3 })]);
    for (let run = 2; run <= 65; run++) ended(run, [mtls()]);
    assert.deepEqual(state(), { runs: 64, dropped: [] });
    for (let run = 66; run <= 129; run++) ended(run, [entry()]);
    assert.deepEqual(state(), { runs: 64, dropped: [3] });
    const [taken] = ledgers.reported;
    assert.ok(taken);
    ledgers.taken(taken, { control: 0, controls: 2 });
    ended(130, [entry()]);
    assert.deepEqual(state(), { runs: 64, dropped: [3] }, 'what one control has is not missing');
  });

  test('hands its totals on as they were said last, whatever becomes of the entries', () => {
    const ledgers = fresh();
    const { say } = open(ledgers);
    say({ inboundTotals: { connections: 5, failures: 9 }, outboundTotals: { connections: 1, failures: 0 } });
    say({ inboundTotals: { connections: 6, failures: 9 } });
    const [reported] = ledgers.reported;
    assert.deepEqual(
      [reported?.ledger.inboundTotals, reported?.ledger.outboundTotals],
      [
        { connections: 6, failures: 9 },
        { connections: 1, failures: 0 },
      ],
    );
  });

  test('of a sidecar that comes again with another token has not ended', () => {
    const clock = { now: T0 };
    const ledgers = new Ledgers(() => clock.now);
    const states = () => {
      clock.now += 5_000;
      return ledgers.reported.map(({ ended }) => ended);
    };
    const [first, second] = [open(ledgers), open(ledgers, { connection: 'c2' })];
    first.say({ entries: [entry()] });
    second.say({ entries: [entry()] });
    first.call.stop();
    assert.deepEqual(states(), [false]);
    second.call.stop();
    open(ledgers, { connection: 'c3' }).say({ entries: [entry()] });
    assert.deepEqual(states(), [false]);
  });

  test('of a process that has ended is not taken', () => {
    const ledgers = fresh();
    open(ledgers, { stillProven: () => false }).say({ entries: [entry()] });
    assert.deepEqual(ledgers.all, []);
  });
});

describe('no stream', () => {
  const wrong: Readonly<Record<string, Parameters<typeof report>[0]>> = {
    'is about a pod of another namespace': { pod: 'foo/sleep' },
    'is about what is no pod': { pod: 'bar/\u001b[31m' },
    'has a run that is none': { instance: 'x' },
    'has observed since tomorrow': { observedSince: T0 + DAY },
    'has observed since 1970': { observedSince: 0 },
    'has had fewer connections than none': { inboundTotals: { connections: -1, failures: 0 } },
    'has had failures that are no number': { outboundTotals: { connections: 1, failures: Number.NaN } },
  };
  for (const [name, change] of Object.entries(wrong)) {
    test(name, () => {
      const ledgers = fresh();
      const { call, say } = open(ledgers);
      say(change);
      assert.equal(call.failed?.code, status.INVALID_ARGUMENT);
      assert.deepEqual(ledgers.all, []);
    });
  }

  test('is about two pods, or two runs', () => {
    for (const change of [{ pod: 'bar/other' }, { instance: RUN(2) }]) {
      const { call, say } = open(fresh());
      say({});
      const early = call.failed;
      assert.equal(early, undefined);
      say(change);
      assert.equal(call.failed?.code, status.INVALID_ARGUMENT);
    }
  });

  test('stays beside a newer one of its own connection', () => {
    const ledgers = fresh();
    const older = open(ledgers);
    const [newer, replica, other] = [open(ledgers), open(ledgers, { connection: 'c2' }), open(ledgers, { spiffeId: SLEEP })];
    assert.ok(older.call.failed);
    assert.deepEqual([newer.call.failed, replica.call.failed, other.call.failed], [undefined, undefined, undefined]);
  });

  test('says something at any rate', () => {
    const { call, say } = open(fresh());
    for (let i = 0; i < 60; i++) say({});
    const early = call.failed;
    assert.equal(early, undefined);
    say({});
    assert.equal(call.failed?.code, status.RESOURCE_EXHAUSTED);
  });
});

describe('no entry', () => {
  const absurd: Readonly<Record<string, Partial<LedgerEntry>>> = {
    'has a direction that is none': { direction: 'up' },
    'has a transport that is none': { transport: 'pigeon' },
    'has an outcome that is none': { outcome: 'fine' },
    'has a port that is none': { port: 65_536 },
    'has an address that is none': { peerAddress: 'localhost\n' },
    'has an ID that is none': { peerRegisteredId: 'x' },
    'has an ID too long to be ours': { peerRegisteredId: `spiffe://cluster.local/${'x'.repeat(700)}` },
    'has proven somebody in plaintext': { peerId: SLEEP },
    'has a workload that is no name': { peerWorkload: 'foo/\u001b[2J' },
    'has a service that is no name': { service: 'bar/\nx' },
    'has a code that is none': { code: 'oh no' },
    'was last seen before it was first': { firstSeen: T0, lastSeen: T0 - 1 },
    'was seen tomorrow': { lastSeen: T0 + DAY },
    'has more open than there were': { open: 2 },
    'has no connection': { connections: 0 },
  };
  for (const [name, change] of Object.entries(absurd)) {
    test(`${name}: it is dropped, which is counted, and what is good beside it stays`, () => {
      const ledgers = fresh();
      open(ledgers).say({ entries: [entry(change), mtls()] });
      assert.deepEqual([ledgers.all[0]?.entries, ledgers.all[0]?.dropped], [[mtls()], 1]);
    });
  }
});

describe('no workload', () => {
  const many = (from: number, count: number) =>
    Array.from({ length: count }, (_, index) =>
      mtls({ peerAddress: `10.${(from + index) >> 16}.${((from + index) >> 8) & 255}.${(from + index) & 255}` }),
    );

  test('has more entries of one sidecar than a sidecar keeps, and none without mTLS is hidden by it', () => {
    const ledgers = fresh();
    const { say } = open(ledgers);
    say({ entries: [entry()] });
    say({ entries: many(0, 6_000) });
    const [only] = ledgers.all;
    assert.deepEqual([only?.size, only?.dropped, only?.forgotten], [5_000, 0, 1_001]);
    assert.equal(only?.entries.filter(({ transport }) => transport === 'plaintext').length, 1);
  });

  test('has more than its share, on however many streams; another has its own', () => {
    const ledgers = fresh();
    for (let i = 0; i < 12; i++)
      open(ledgers, { connection: `c${i}` }).say({
        instance: `00000000-0000-4000-8000-0000000000${i + 10}`,
        entries: many(i * 5_000, 5_000),
      });
    open(ledgers, { spiffeId: SLEEP }).say({ pod: 'foo/sleep', entries: [entry()] });
    const sizes = Map.groupBy(ledgers.summaries, ({ reporter }) => reporter);
    assert.equal(
      sizes.get(HTTPBIN)?.reduce((sum, { size }) => sum + size, 0),
      50_000,
    );
    assert.equal(sizes.get(SLEEP)?.[0]?.size, 1);
  });
});
