// What is kept of sidecars' reports, how much of it, and what goes up to control.

import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { LivePeers } from '../../src/agent/live-peers.ts';
import { NodeReports } from '../../src/control/node-reports.ts';
import { fitReport } from '../../src/discovery/fit-report.ts';
import { ConnectionReport, type LivePeer } from '../../src/wire/gen/handfast/report/v1/report.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const EVIL = 'spiffe://cluster.local/ns/evil/sa/evil';

const peer = (fields: Partial<LivePeer> = {}): LivePeer => ({
  pod: 'foo/sleep-1',
  spiffeId: SLEEP,
  serial: 'AB12',
  direction: 'inbound',
  connections: 1,
  reporter: '',
  ...fields,
});

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

function open(livePeers: LivePeers, of: { spiffeId?: string; connection?: string; stillProven?: () => boolean } = {}) {
  const call = new Call();
  call.stop = livePeers.follow(call, { spiffeId: SLEEP, connection: 'c1', stillProven: () => true, ...of });
  return { call, report: (peers: LivePeer[]) => call.emit('data', { peers, truncated: false }) };
}

describe('a report', () => {
  test('is kept with who has proven to have sent it, until the stream ends', () => {
    const livePeers = new LivePeers();
    const { call, report } = open(livePeers);
    report([peer({ reporter: EVIL })]);
    assert.deepEqual(livePeers.together, { peers: [peer({ reporter: SLEEP })], truncated: false });
    call.stop();
    assert.deepEqual(livePeers.together, { peers: [], truncated: false });
  });

  test('of a process that has ended is not taken', () => {
    const livePeers = new LivePeers();
    open(livePeers, { stillProven: () => false }).report([peer()]);
    assert.deepEqual(livePeers.together.peers, []);
  });

  test('names pods of its own namespace alone', () => {
    const livePeers = new LivePeers();
    const pods = ['foo/sleep-1', 'evil/other', 'foo/\u001b[31m', 'x'.repeat(1_000), ''];
    open(livePeers).report(pods.map((pod) => peer({ pod })));
    assert.deepEqual(
      livePeers.together.peers.map(({ pod }) => pod),
      ['foo/sleep-1', '', '', '', ''],
    );
  });

  const absurd: Readonly<Record<string, Partial<LivePeer>>> = {
    'an ID that is none': { spiffeId: 'x'.repeat(1_000_000) },
    'a serial that is none': { serial: '\u001b]0;x\u0007' },
    'a direction that is none': { direction: 'up' },
  };
  for (const [name, fields] of Object.entries(absurd)) {
    test(`${name} is dropped, which is said, and what is good beside it stays`, () => {
      const livePeers = new LivePeers();
      open(livePeers).report([peer(fields), peer()]);
      assert.deepEqual(livePeers.together, { peers: [peer({ reporter: SLEEP })], truncated: true });
    });
  }
});

describe('no workload', () => {
  test('has more than its share, on however many streams', () => {
    const livePeers = new LivePeers();
    const many = Array.from({ length: 800 }, (_, index) => peer({ serial: index.toString(16).toUpperCase() }));
    const [first, second] = [open(livePeers), open(livePeers, { connection: 'c2' })];
    first.report(many);
    assert.equal(livePeers.together.truncated, false);
    second.report(many);
    assert.equal(livePeers.together.peers.length, 1_000);
    assert.equal(livePeers.together.truncated, true);
    first.report([]);
    second.report(many);
    assert.deepEqual([livePeers.together.peers.length, livePeers.together.truncated], [800, false]);
  });

  test('has two streams on one connection: the newer one stays', () => {
    const livePeers = new LivePeers();
    const older = open(livePeers);
    const [newer, replica, other] = [open(livePeers), open(livePeers, { connection: 'c2' }), open(livePeers, { spiffeId: EVIL })];
    assert.ok(older.call.failed);
    assert.deepEqual([newer.call.failed, replica.call.failed, other.call.failed], [undefined, undefined, undefined]);
  });

  test('reports at any rate', () => {
    const { call, report } = open(new LivePeers());
    for (let i = 0; i < 20; i++) report([]);
    const codes = [call.failed?.code];
    report([]);
    codes.push(call.failed?.code);
    assert.deepEqual(codes, [undefined, status.RESOURCE_EXHAUSTED]);
  });

  test('crowds out another: wherever the report upwards is cut, each has its part', () => {
    const livePeers = new LivePeers();
    const long = `spiffe://cluster.local/${'x'.repeat(600)}`;
    for (let i = 0; i < 8; i++)
      open(livePeers, { spiffeId: `${EVIL}${i}` }).report(Array.from({ length: 1_000 }, () => peer({ spiffeId: long })));
    open(livePeers).report([peer(), peer({ serial: 'CD' })]);
    const sent = fitReport(livePeers.together);
    assert.ok(ConnectionReport.encode({ ...sent, held: [] }).finish().length < 4 * 1024 * 1024);
    assert.ok(ConnectionReport.encode({ ...livePeers.together, held: [] }).finish().length > 4 * 1024 * 1024, 'it would not have arrived');
    assert.equal(sent.truncated, true);
    assert.equal(sent.peers.filter(({ reporter }) => reporter === SLEEP).length, 2);
  });
});

describe('reports of nodes', () => {
  test('tell a node that has said all from one that has not, and from one that is silent', () => {
    const reports = new NodeReports();
    const streams = { a: {}, b: {}, c: {} };
    for (const [node, stream] of Object.entries(streams)) reports.connect(stream, node);
    reports.report(streams.a, { node: 'a', report: { peers: [peer()], truncated: false, held: [] } });
    reports.report(streams.b, { node: 'b', report: { peers: [], truncated: true, held: [] } });
    assert.deepEqual(
      reports.all.map(({ node, state }) => [node, state]),
      [
        ['a', 'complete'],
        ['b', 'truncated'],
        ['c', 'missing'],
      ],
    );
    for (const stream of Object.values(streams)) reports.end(stream);
    reports.report(streams.a, { node: 'a', report: { peers: [peer()], truncated: false, held: [] } });
    assert.deepEqual(reports.all, []);
  });
});
