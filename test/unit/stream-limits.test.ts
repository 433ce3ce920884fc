// How many streams one peer and one workload may hold on an agent.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { StreamLimits } from '../../src/agent/stream-limits.ts';

describe('streams at once', () => {
  test('of one workload: up to its share, and another when one has ended', () => {
    const limits = new StreamLimits({ ofWorkload: 2 });
    const [end] = [limits.prove('spiffe://td/a'), limits.prove('spiffe://td/a')];
    assert.throws(() => limits.prove('spiffe://td/a'), { code: 'RATE_LIMITED', message: /2 streams of spiffe:\/\/td\/a are open/ });
    limits.prove('spiffe://td/b');
    end?.();
    limits.prove('spiffe://td/a');
    assert.throws(() => limits.prove('spiffe://td/a'), { code: 'RATE_LIMITED' });
  });

  test('of one peer: up to its share, whoever they prove to be, and another when one has ended', () => {
    const limits = new StreamLimits({ ofPeer: 1 });
    const end = limits.open('uid 1');
    assert.throws(() => limits.open('uid 1'), { code: 'RATE_LIMITED' });
    limits.open('uid 2');
    end();
    limits.open('uid 1');
  });

  test('2,000 sidecars of one user and as many replicas of one workload as a node has pods are served', () => {
    const limits = new StreamLimits();
    for (let i = 0; i < 2_000; i++) {
      limits.open('uid 1');
      limits.prove(`spiffe://td/w${i}`);
    }
    for (let i = 0; i < 110 * 4; i++) limits.prove('spiffe://td/replicas');
    assert.throws(() => {
      for (let i = 0; i < 4_096; i++) limits.open('uid 1');
    }, /open: end one first/);
  });
});
