// Whom the CA takes for whom, how many tokens each may have verified, and how much of that goes to somebody else's server.

import assert from 'node:assert/strict';
import { Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { AttemptLimits } from '../../src/ca/attempt-limits.ts';
import { caCaller } from '../../src/ca/callers.ts';
import { RefusalLog } from '../../src/ca/refusal-log.ts';
import { HandfastError } from '../../src/errors.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { Turns } from '../../src/turns.ts';
import { type Caller, rememberCaller } from '../../src/wire/caller.ts';
import { checkMember } from '../../src/wire/mesh-member.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const NOW = 1_000_000;
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** A call over a connection of this caller. */
function callBy(caller: Caller): { getPeer(): string } {
  const socket = new Socket();
  sockets.push(socket);
  rememberCaller(socket, caller);
  return { getPeer: () => String(socket.remoteAddress) };
}

const peer = (id: string, notAfter = NOW) => ({ id: parseSpiffeId(id), serial: 'AB', notAfter, certificates: () => [] });
const byCertificate = (id: string, notAfter?: number) => callBy({ kind: 'tls', peer: peer(id, notAfter) });
const rules = { trustDomain: 'cluster.local', now: NOW };
const AGENT = 'spiffe://cluster.local/handfast/agent/node-1';

describe('a caller with a certificate', () => {
  it('is-an-agent-or-control-of-our-own-trust-domain', () => {
    assert.deepEqual(caCaller(byCertificate(AGENT), rules), { kind: 'agent', name: 'node-1' });
    assert.deepEqual(caCaller(byCertificate('spiffe://cluster.local/handfast/control'), rules), { kind: 'control' });
    for (const id of ['spiffe://other.example/handfast/agent/node-1', 'spiffe://other.example/handfast/control'])
      assert.throws(() => caCaller(byCertificate(id), rules), { code: status.PERMISSION_DENIED });
  });

  it('whose-time-is-over-is-nobody', () => {
    assert.throws(() => caCaller(byCertificate(AGENT, NOW - 1), rules), { code: status.UNAUTHENTICATED, details: /has expired/ });
    assert.throws(() => caCaller(byCertificate(AGENT), { ...rules, now: Number.NaN }), { code: status.UNAUTHENTICATED });
    assert.equal(caCaller(byCertificate(AGENT, NOW), rules).kind, 'agent');
  });

  it('is-asked-again-as-it-is-admitted', () => {
    const ours = { trustDomain: 'cluster.local', revocations: noRevocations };
    checkMember(peer(AGENT), ours);
    assert.throws(() => checkMember(peer('spiffe://other.example/a'), ours), { code: 'TRUST_DOMAIN_UNKNOWN' });
    const revoked = { ...ours, revocations: { ...noRevocations, serials: new Set(['AB']) } };
    assert.throws(() => checkMember(peer(AGENT), revoked), { code: 'CERTIFICATE_REVOKED' });
  });
});

describe('tokens to verify', () => {
  it('are-limited-by-caller-and-agents-have-more', () => {
    const limits = new AttemptLimits({ agents: { burst: 3, perSecond: 1 }, anonymous: { burst: 1, perSecond: 1 } }, { now: () => 0 });
    const [agent, stranger] = [byCertificate(AGENT), callBy({ kind: 'anonymous', address: '10.0.0.1' })];
    limits.take(stranger);
    assert.throws(() => limits.take(stranger), { code: 'RATE_LIMITED', message: /try again in 1 s/ });
    limits.take(callBy({ kind: 'anonymous', address: '10.0.0.2' }));
    for (let i = 0; i < 3; i++) limits.take(agent);
    assert.throws(() => limits.take(agent), { code: 'RATE_LIMITED' });
  });

  it('that-were-refused-fill-no-log-and-strangers-silence-no-node', () => {
    let now = 0;
    const log = new RecordingLog();
    const refusals = new RefusalLog(log.log, { now: () => now });
    const refuse = (call: { getPeer(): string }) => refusals.of(call, 'certificate refused')(new HandfastError('TOKEN_REFUSED', 'no'));
    const stranger = callBy({ kind: 'anonymous', address: '10.0.0.1' });
    for (let i = 0; i < 1_000; i++) refuse(stranger);
    assert.equal(log.records.length, 20);
    refuse(byCertificate(AGENT));
    assert.equal(log.records.length, 21);
    now = 1_000;
    refuse(stranger);
    assert.equal(log.records.at(-1)?.suppressed, 980);
  });
});

describe('turns on a server that is not ours', () => {
  const held = () => {
    const { promise, resolve } = Promise.withResolvers<string>();
    return { work: () => promise, end: () => resolve('done') };
  };

  it('so-many-at-once-the-others-in-their-order-and-no-more-than-may-wait', async () => {
    const turns = new Turns('x', { atOnce: 1, waiting: 2, waitMs: 10_000 });
    const order: string[] = [];
    const first = held();
    const running = turns.run(first.work);
    const waiting = ['b', 'c'].map((name) =>
      turns.run(async () => {
        order.push(name);
      }),
    );
    await assert.rejects(
      turns.run(async () => order.push('d')),
      { code: 'UNAVAILABLE', message: /2 requests are waiting/ },
    );
    assert.deepEqual(order, []);
    first.end();
    assert.equal(await running, 'done');
    await Promise.all(waiting);
    assert.deepEqual(order, ['b', 'c']);
    assert.equal(await turns.run(async () => 'free again'), 'free again');
  });

  it('work-that-throws-gives-its-turn-back', async () => {
    const turns = new Turns('x', { atOnce: 1, waiting: 1, waitMs: 10_000 });
    await assert.rejects(
      turns.run(() => Promise.reject(new Error('no'))),
      /no/,
    );
    assert.equal(await turns.run(async () => 1), 1);
  });

  it('whoever-waits-too-long-is-told-and-takes-nobodys-turn', async () => {
    const turns = new Turns('x', { atOnce: 1, waiting: 1, waitMs: 1 });
    const first = held();
    const running = turns.run(first.work);
    await assert.rejects(
      turns.run(async () => 1),
      { code: 'UNAVAILABLE', message: /within 1 ms/ },
    );
    first.end();
    await running;
    assert.equal(await turns.run(async () => 1), 1);
  });
});
