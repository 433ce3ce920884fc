// When a certificate is renewed: about half way through what is left of it, never all at once, or as often as asked.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { renewalDelay } from '../../src/agent/svid-rotator.ts';
import { TestCa } from '../support/pki.ts';

const HOUR = 3_600_000;
const now = Math.floor(Date.now() / 1000) * 1000;

it('renewal-comes-at-half-life-with-jitter', async () => {
  const ca = await TestCa.create();
  const identity = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep', { notBefore: now - 60_000, notAfter: now + HOUR });
  const plan = { rotateEveryMs: undefined, now: () => now };
  assert.equal(
    renewalDelay(identity, plan, () => 0),
    0.45 * HOUR,
  );
  assert.equal(Math.round(renewalDelay(identity, plan, () => 1)), Math.round(0.55 * HOUR));
  const many = new Set(Array.from({ length: 20 }, () => renewalDelay(identity, plan)));
  assert.ok(many.size > 1, 'every agent would renew in the same moment');
  assert.equal(renewalDelay(identity, { ...plan, now: () => now + 2 * HOUR }), 0, 'an expired certificate is renewed at once');
  assert.equal(renewalDelay(identity, { ...plan, rotateEveryMs: 1_000 }), 1_000);
});

it('very-long-lifetimes-do-not-overflow-the-timer', async () => {
  const ca = await TestCa.create();
  const identity = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep', {
    notBefore: now - 60_000,
    notAfter: now + 24 * 365 * HOUR,
  });
  assert.ok(renewalDelay(identity, { rotateEveryMs: undefined, now: () => now }) < 2 ** 31);
});

it('a-clock-far-behind-does-not-put-renewal-off-beyond-the-certificates-own-life', async () => {
  const ca = await TestCa.create();
  const identity = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep', { notBefore: now, notAfter: now + 24 * HOUR });
  const behind = { rotateEveryMs: undefined, now: () => now - 30 * 24 * HOUR };
  assert.equal(
    renewalDelay(identity, behind, () => 1),
    0.55 * 24 * HOUR,
  );
});
