// The pool of sessions by itself: whose they are, which certificate they were made with, and what happens to those that were being made.

import assert from 'node:assert/strict';
import type { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { HandfastError } from '../../src/errors.ts';
import { ReceiveBudget } from '../../src/hbone/receive-budget.ts';
import { type Dialled, type Tunnel, TunnelPool, type TunnelTarget } from '../../src/hbone/tunnel-pool.ts';
import type { TunnelStream } from '../../src/hbone/tunnel-stream.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import type { VerifiedPeer } from '../../src/spiffe/verify-peer.ts';
import { memoryWire } from '../support/h2-duplex.ts';
import { goaway, settings } from '../support/h2-frames.ts';
import { TestCa } from '../support/pki.ts';
import { refusal } from '../support/refusal.ts';

const ca = await TestCa.create();
const own = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');
const ownNext = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');
const other = await ca.identity('spiffe://cluster.local/ns/foo/sa/other');
const SERVER = 'spiffe://cluster.local/ns/bar/sa/httpbin';

interface Dial {
  readonly target: TunnelTarget;
  /** Lets it succeed; the peer's end of the wire. */
  answer(): Duplex;
  fail(error: Error): void;
  nobody(): void;
}

let dials: Dial[];
let pool: TunnelPool;
/** Answer at once, as a peer that takes so many streams. */
let automatic: number | undefined;

beforeEach(() => {
  dials = [];
  automatic = 1_000;
  pool = new TunnelPool({ budget: new ReceiveBudget(), dial });
});
afterEach(() => pool.close());

function dial(target: TunnelTarget): Promise<Dialled | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Dialled | undefined>();
  const made: Dial = {
    target,
    answer: () => {
      const { socket, far } = memoryWire();
      far.resume();
      far.write(settings([3, automatic ?? 1_000]));
      const peer: VerifiedPeer = {
        id: parseSpiffeId(SERVER),
        serial: `${dials.indexOf(made)}`,
        notAfter: Number.POSITIVE_INFINITY,
        certificates: () => [],
      };
      resolve({ socket, peer });
      return far;
    },
    fail: reject,
    nobody: () => resolve(undefined),
  };
  dials.push(made);
  if (automatic !== undefined) made.answer();
  return promise;
}

const target = (change: Partial<TunnelTarget> = {}): TunnelTarget => ({
  source: 'test//Pod/foo/sleep',
  identity: own,
  revocations: noRevocations,
  allowed: [SERVER],
  address: '10.0.0.7',
  destination: 'httpbin at 10.0.0.7:80',
  ...change,
});
const acquire = async (change: Partial<TunnelTarget> = {}): Promise<Tunnel | undefined> => pool.acquire(target(change));
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('a session is shared', () => {
  it('by-those-who-are-the-same-to-the-same', async () => {
    const [first, second] = [await acquire(), await acquire()];
    assert.ok(first);
    assert.ok(first === second);
    assert.equal(dials.length, 1);
  });

  it('by-all-who-ask-while-it-is-being-made', async () => {
    automatic = undefined;
    const both = Promise.all([acquire(), acquire()]);
    await turn();
    assert.equal(dials.length, 1);
    dials[0]?.answer();
    const [first, second] = await both;
    assert.ok(first === second);
  });

  it('whatever-the-order-of-the-names', async () =>
    assert.ok(
      (await acquire({ allowed: ['spiffe://x/a', 'spiffe://x/b'] })) === (await acquire({ allowed: ['spiffe://x/b', 'spiffe://x/a'] })),
    ));

  for (const [name, change] of [
    ['another-address', { address: '10.0.0.8' }],
    ['another-workload-of-the-process', { source: 'test//Pod/foo/neighbour' }],
    ['another-identity', { identity: other }],
    ['other-names', { allowed: ['spiffe://cluster.local/ns/bar/sa/else'] }],
    ['more-names', { allowed: [SERVER, 'spiffe://cluster.local/ns/bar/sa/else'] }],
    ['no-names', { allowed: [] }],
  ] as const)
    it(`but-not-with-${name}`, async () => {
      const first = await acquire();
      const second = await acquire(change);
      assert.ok(first !== second);
      assert.equal(dials.length, 2);
    });

  it('but-not-with-one-name-that-reads-like-two', async () => {
    const two = await acquire({ allowed: ['spiffe://x/a', 'spiffe://x/b'] });
    assert.ok(two !== (await acquire({ allowed: ['spiffe://x/a spiffe://x/b'] })));
  });
});

describe('a new certificate', () => {
  it('is-what-is-used-once-its-session-is-there', async () => {
    const former = await acquire();
    pool.renew(ownNext);
    await turn();
    await turn();
    const next = await acquire({ identity: ownNext });
    assert.ok(next !== former);
    assert.ok(next?.identity === ownNext);
    assert.notEqual(former?.session.closedBy, undefined, 'the former one is open');
  });

  it('leaves-the-former-session-to-its-streams', async () => {
    const former = await acquire();
    former?.session.connect({ address: '10.0.0.7', port: 80 });
    pool.renew(ownNext);
    await turn();
    await turn();
    assert.equal(former?.session.closedBy, undefined);
    assert.equal(former?.session.available, false);
  });

  it('outlives-a-dial-that-was-begun-under-the-former-one', async () => {
    automatic = undefined;
    const waiting = acquire();
    await turn();
    pool.renew(ownNext);
    await turn();
    for (const made of dials.filter(({ target }) => target.identity === ownNext)) made.answer();
    await turn();
    dials[0]?.answer();
    await waiting;
    await turn();
    const [first, second] = [await acquire({ identity: ownNext }), await acquire({ identity: ownNext })];
    first?.session.connect({ address: '10.0.0.7', port: 80 });
    const third = await acquire({ identity: ownNext });
    for (const tunnel of [first, second, third]) assert.ok(tunnel?.identity === ownNext, 'a new stream runs under the former certificate');
  });
});

describe('a connection that was begun before the certificate changed', () => {
  it('gets-a-session-with-the-next-one-all-the-same', async () => {
    await acquire();
    pool.renew(ownNext);
    await turn();
    await turn();
    pool.cut(() => 'so that another one is made');
    const late = await acquire({ identity: own });
    assert.ok(late?.identity === ownNext);
    assert.ok(late === (await acquire({ identity: ownNext })));
  });
});

describe('a peer that takes one stream on a session', () => {
  const somewhere = { address: '10.0.0.7', port: 80 };

  it('is-asked-on-another-one-while-the-first-is-used', async () => {
    automatic = 1;
    const first = await acquire();
    const stream = first?.session.connect(somewhere).stream;
    await turn();
    assert.equal(first?.session.available, false);
    const second = await acquire();
    assert.ok(second !== first);
    second?.session.connect(somewhere);
    stream?.reset();
    assert.ok((await acquire()) === first);
  });

  it('is-waited-for-when-it-has-as-many-sessions-as-there-may-be-and-not-for-ever', async () => {
    automatic = 1;
    pool.close();
    pool = new TunnelPool({ budget: new ReceiveBudget(), dial, patienceMs: 50 });
    const streams: TunnelStream[] = [];
    for (let n = 0; n < 32; n++) {
      const tunnel = await acquire();
      if (tunnel !== undefined) streams.push(tunnel.session.connect(somewhere).stream);
      await turn();
    }
    const [waiting, impatient] = [acquire(), acquire()];
    await turn();
    assert.equal(pool.sessions, 32);
    streams[7]?.reset();
    const given = await waiting;
    given?.session.connect(somewhere);
    await assert.rejects(impatient, refusal('DIAL_TIMEOUT'));
    assert.equal(dials.length, 32);
  });

  it('tells-who-comes-too-late-that-nobody-was-asked', async () => {
    automatic = 1;
    const [first, second] = await Promise.all([acquire(), acquire()]);
    first?.session.connect(somewhere);
    await turn();
    const answer = await second?.session.connect(somewhere).answered;
    assert.deepEqual(answer, { kind: 'broken', reason: 'the session takes no more streams', unprocessed: true });
  });
});

describe('a session that has ended', () => {
  it('is-not-handed-out-to-whom-it-was-made-for', async () => {
    automatic = undefined;
    const waiting = acquire();
    await turn();
    dials[0]?.answer().destroy();
    const tunnel = await waiting.catch(() => undefined);
    const outgoing = tunnel?.session.connect({ address: '10.0.0.7', port: 80 });
    await turn();
    await turn();
    const answer = await Promise.race([
      outgoing?.answered,
      turn()
        .then(turn)
        .then(() => 'nobody says anything'),
    ]);
    assert.notEqual(answer, 'nobody says anything');
  });

  it('answers-who-asks-it-for-a-stream-all-the-same', async () => {
    const tunnel = await acquire();
    assert.ok(tunnel);
    tunnel.session.cut('test');
    const { answered, stream } = tunnel.session.connect({ address: '10.0.0.7', port: 80 });
    const answer = await Promise.race([
      answered,
      turn()
        .then(turn)
        .then(() => undefined),
    ]);
    assert.equal(answer?.kind, 'broken', 'whoever asked waits for ever');
    assert.equal(stream.closed, true);
    assert.equal(tunnel.session.streams.size, 0);
  });

  it('is-replaced', async () => {
    automatic = undefined;
    const waiting = acquire();
    await turn();
    const far = dials[0]?.answer();
    const first = await waiting;
    far?.write(goaway(0));
    await turn();
    await turn();
    dials[1]?.answer();
    const second = await acquire();
    assert.ok(first !== second);
  });
});

describe('a dial', () => {
  it('that-fails-fails-all-who-wait-and-is-tried-again', async () => {
    automatic = undefined;
    const both = Promise.allSettled([acquire(), acquire()]);
    await turn();
    dials[0]?.fail(new HandfastError('DIAL_FAILED', 'nobody there'));
    for (const settled of await both) {
      assert.equal(settled.status, 'rejected');
      if (settled.status === 'rejected') refusal('DIAL_FAILED')(settled.reason);
    }
    automatic = 1_000;
    assert.ok(await acquire());
  });

  it('that-finds-nobody-is-remembered-for-that-address-alone', async () => {
    automatic = undefined;
    const waiting = acquire();
    await turn();
    dials[0]?.nobody();
    assert.equal(await waiting, undefined);
    assert.deepEqual([pool.takes('10.0.0.7'), pool.takes('10.0.0.8')], [false, true]);
  });

  it('that-ends-after-the-pool-is-closed-leaves-nothing-open', async () => {
    automatic = undefined;
    const waiting = acquire().catch((error) => error);
    await turn();
    pool.close();
    const far = dials[0]?.answer();
    refusal('DRAINING')(await waiting);
    await turn();
    assert.equal(far?.readableEnded || far?.destroyed, true);
  });
});

describe('a cut', () => {
  it('ends-the-sessions-of-those-who-are-refused-and-of-nobody-else', async () => {
    const bad = await acquire();
    const good = await acquire({ address: '10.0.0.8' });
    pool.cut(({ serial }) => (serial === bad?.peer.serial ? 'revoked' : undefined));
    assert.notEqual(bad?.session.closedBy, undefined);
    assert.equal(good?.session.closedBy, undefined);
    assert.ok((await acquire()) !== bad);
  });

  it('reaches-sessions-that-were-retired-and-have-streams', async () => {
    const former = await acquire();
    former?.session.connect({ address: '10.0.0.7', port: 80 });
    pool.renew(ownNext);
    await turn();
    pool.cut(() => 'revoked');
    assert.notEqual(former?.session.closedBy, undefined);
  });
});
