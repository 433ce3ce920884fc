// Back-off: doubling, bounded, with jitter in the upper half of each step.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../../src/backoff.ts';

const waits = (random: number, count: number, options = { baseMs: 200, maxMs: 10_000 }) => {
  const backoff = new Backoff({ ...options, random: () => random });
  return Array.from({ length: count }, () => backoff.next());
};

test('steps double from the base to the maximum and stay there', () => {
  assert.deepEqual(waits(1, 9), [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
});

test('jitter takes at most half of a step', () => {
  assert.deepEqual(waits(0, 4), [100, 200, 400, 800]);
  assert.deepEqual(waits(0.5, 2), [150, 300]);
});

test('a success starts over', () => {
  const backoff = new Backoff({ baseMs: 200, maxMs: 10_000, random: () => 1 });
  for (let i = 0; i < 5; i++) backoff.next();
  backoff.reset();
  assert.equal(backoff.next(), 200);
});

test('after a year of failures it is still the maximum, never infinite or zero', () => {
  const backoff = new Backoff({ baseMs: 200, maxMs: 10_000, random: () => 1 });
  for (let i = 0; i < 5000; i++) backoff.next();
  assert.equal(backoff.next(), 10_000);
});

test('a maximum below the base bounds the first step too', () => {
  assert.deepEqual(waits(1, 2, { baseMs: 500, maxMs: 100 }), [100, 100]);
});

test('without a source of chance of their own, two clients do not wait alike', () => {
  const first = Array.from({ length: 4 }, () => new Backoff({ baseMs: 1e6, maxMs: 1e6 }).next());
  assert.ok(new Set(first).size > 1);
  assert.ok(first.every((wait) => wait >= 5e5 && wait <= 1e6));
});
