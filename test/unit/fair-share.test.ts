// Shares of what is bounded: nobody gets more than his, and what is given back is there again.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { FairShare } from '../../src/fair-share.ts';

it('one-who-takes-all-he-can-leaves-the-others-theirs', () => {
  const share = new FairShare({ all: 3, each: 2 });
  const first = share.take('a');
  assert.ok(first);
  assert.ok(share.take('a'));
  assert.equal(share.take('a'), undefined);
  assert.ok(share.take('b'));
  assert.equal(share.take('c'), undefined);
  first();
  assert.ok(share.take('c'));
  assert.equal(share.take('a'), undefined);
});
