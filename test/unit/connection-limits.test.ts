// What bounds connections before anybody is known to be good: counts, handshakes under way, descriptors, time, and lines in the log.

import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { describe, it } from 'node:test';
import { type Caller, networkOf } from '../../src/wire/caller.ts';
import { ConnectionCounts } from '../../src/wire/connection-counts.ts';
import { connectionsWithin } from '../../src/wire/descriptor-limit.ts';
import { PendingHandshakes } from '../../src/wire/pending-handshakes.ts';
import { RefusalReports } from '../../src/wire/refusal-reports.ts';
import { atWallTime } from '../../src/wire/wall-timer.ts';

const local = (uid: number, networkNamespace: number): Caller => ({
  kind: 'unix',
  peer: { pid: 1, uid, gid: uid, networkNamespace, cgroup: undefined, cgroups: '', alive: () => true },
});
const stranger = (address: string): Caller => ({ kind: 'anonymous', address });

/** A socket as accepted from there. */
function from(remoteAddress: string): Socket {
  return Object.defineProperty(new Socket(), 'remoteAddress', { value: remoteAddress });
}

describe('connections', () => {
  it('one-user-cannot-have-more-by-making-network-namespaces', () => {
    const counts = new ConnectionCounts({ maxPerCaller: 2, maxPerUser: 3 });
    for (const namespace of [1, 2, 3]) {
      assert.equal(counts.fullFor(local(7, namespace)), undefined);
      counts.add(local(7, namespace));
    }
    assert.match(counts.fullFor(local(7, 4)) ?? '', /3 connections of this user/);
    assert.equal(counts.fullFor(local(8, 4)), undefined, 'another user has a share of its own');
    counts.remove(local(7, 2));
    assert.equal(counts.fullFor(local(7, 4)), undefined, 'one that ended makes room');
  });

  it('one-caller-cannot-have-all-of-its-users', () => {
    const counts = new ConnectionCounts({ maxPerCaller: 1, maxPerUser: 3 });
    counts.add(local(7, 1));
    assert.match(counts.fullFor(local(7, 1)) ?? '', /this caller/);
    assert.equal(counts.fullFor(local(7, 2)), undefined);
  });

  it('callers-without-a-certificate-have-few-by-address-and-few-in-all', () => {
    const counts = new ConnectionCounts({ maxPerAnonymousAddress: 1, maxAnonymous: 2 });
    counts.add(stranger('10.0.0.1'));
    assert.match(counts.fullFor(stranger('::ffff:10.0.0.1')) ?? '', /this address/);
    assert.equal(counts.fullFor(stranger('10.0.0.2')), undefined);
    counts.add(stranger('10.0.0.2'));
    assert.match(counts.fullFor(stranger('10.0.0.3')) ?? '', /without a certificate/);
    assert.equal(counts.fullFor(local(1, 1)), undefined, 'they take nobody elses places');
  });

  it('a-host-is-its-ipv6-network', () => {
    assert.equal(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64');
    assert.equal(networkOf('2001:db8:1:2::6'), networkOf('2001:db8:1:2:aaaa::'));
    assert.notEqual(networkOf('2001:db8:1:2::6'), networkOf('2001:db8:1:3::6'));
    assert.equal(networkOf('::1'), '0:0:0:0::/64');
    assert.equal(networkOf('fe80::1%eth0'), 'fe80:0:0:0::/64');
  });

  it('there-are-never-more-than-the-process-has-descriptors-for', () => {
    const limits = (soft: string) =>
      `Max processes   5   5   processes\nMax open files            ${soft}                 524288               files\n`;
    assert.equal(connectionsWithin(limits('1024'), { descriptorsEach: 2 }), 128, 'two such listeners take half');
    assert.equal(connectionsWithin(limits('1024'), { descriptorsEach: 1 }), 256);
    assert.equal(connectionsWithin(limits('unlimited'), { descriptorsEach: 2 }), Number.POSITIVE_INFINITY);
    assert.equal(connectionsWithin('', { descriptorsEach: 2 }), Number.POSITIVE_INFINITY);
  });
});

describe('handshakes under way', () => {
  it('of-one-address-that-has-too-many-the-oldest-goes-and-nobody-elses', () => {
    const pending = new PendingHandshakes({ maxHandshakesPerAddress: 2, heldMs: 0 });
    const [other, first, second, third] = [from('10.0.0.2'), from('10.0.0.1'), from('::ffff:10.0.0.1'), from('10.0.0.1')];
    assert.deepEqual(
      [other, first, second].map((each) => pending.begin(each)),
      [undefined, undefined, undefined],
    );
    assert.equal(pending.begin(third), first);
    pending.end(second);
    assert.equal(pending.begin(from('10.0.0.1')), undefined, 'one that ended makes room');
    assert.ok(pending.all.includes(other));
  });

  it('when-all-are-full-the-oldest-goes', () => {
    const pending = new PendingHandshakes({ maxHandshakes: 2, heldMs: 0 });
    const [oldest, second, third] = [from('10.0.0.1'), from('10.0.0.2'), from('10.0.0.3')];
    assert.deepEqual([pending.begin(oldest), pending.begin(second)], [undefined, undefined]);
    assert.equal(pending.begin(third), oldest);
    pending.end(oldest);
    assert.deepEqual(pending.all, [second, third]);
  });

  it('young-ones-are-not-ended-for-another', () => {
    const pending = new PendingHandshakes({ maxHandshakes: 2, heldMs: 60_000 });
    const [first, second, third] = [from('10.0.0.1'), from('10.0.0.2'), from('10.0.0.3')];
    assert.deepEqual([pending.begin(first), pending.begin(second), pending.begin(third)], [undefined, undefined, 'refused']);
    pending.end(first);
    assert.equal(pending.begin(third), undefined);
  });
});

describe('lines in the log', () => {
  it('a-flood-of-one-kind-is-counted-and-does-not-silence-another', () => {
    let now = 0;
    const reports = new RefusalReports({ rate: { burst: 2, perSecond: 1 }, now: () => now });
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(() => reports.take('a')),
      [0, 0, undefined, undefined, undefined],
    );
    assert.equal(reports.take('b'), 0);
    now = 1_000;
    assert.deepEqual([reports.take('a'), reports.take('a')], [3, undefined]);
    now = 2_000;
    assert.equal(reports.take('a'), 1);
  });
});

describe('a timer by the wall clock', () => {
  it('goes-off-when-the-time-has-passed-however-far-off-it-was', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const YEAR = 365 * 86_400_000;
    let [now, rung] = [0, 0];
    atWallTime(YEAR, { now: () => now, callback: () => void rung++ });
    t.mock.timers.tick(600_000);
    assert.equal(rung, 0, 'it was looked at, and the time had not come');
    now = YEAR;
    t.mock.timers.tick(600_000);
    assert.equal(rung, 0, 'valid to the end');
    now = YEAR + 1;
    t.mock.timers.tick(600_000);
    assert.equal(rung, 1, 'also when the clock was set');
    t.mock.timers.tick(600_000);
    assert.equal(rung, 1);
  });

  it('stopped-it-never-goes-off', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let rung = 0;
    atWallTime(10, { now: () => 100, callback: () => void rung++ })();
    t.mock.timers.tick(1_000);
    assert.equal(rung, 0);
  });
});
