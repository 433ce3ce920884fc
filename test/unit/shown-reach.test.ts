// What the authors of policies are shown of how many sidecars have them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShownReach } from '../../src/control/objects/shown-reach.ts';

const STRICT = 'PeerAuthentication foo/strict';
const counted = (upToDate: number, selected = 3) => new Map([[STRICT, { selected, upToDate }]]);
const version = (generation: number) => new Map([[STRICT, generation]]);

test('of a version that has not been counted nothing is known, and what is said of it stays; of a policy that nobody counts nothing is said', () => {
  const shown = new ShownReach();
  assert.equal(shown.of(STRICT, 1), 'unknown');
  shown.count(counted(3), version(1), 0);
  assert.deepEqual(shown.of(STRICT, 1), { selected: 3, upToDate: 3 });
  assert.equal(shown.of(STRICT, 2), 'unknown');
  assert.equal(shown.of('DestinationRule foo/exported', 1), undefined);
  shown.count(counted(0), version(2), 1);
  assert.deepEqual(shown.of(STRICT, 2), { selected: 3, upToDate: 0 }, 'a new version at once');
});

test('what has come everywhere is shown at once, what changes all the time every 10 s', () => {
  const shown = new ShownReach();
  const after = (ms: number, upToDate: number, selected = 3) => {
    shown.count(counted(upToDate, selected), version(1), ms);
    return shown.of(STRICT, 1);
  };
  assert.deepEqual(after(0, 1), { selected: 3, upToDate: 1 });
  assert.deepEqual(after(9_999, 2), { selected: 3, upToDate: 1 });
  assert.deepEqual(after(10_000, 2), { selected: 3, upToDate: 2 });
  assert.deepEqual(after(10_001, 3), { selected: 3, upToDate: 3 });
  assert.deepEqual(after(12_000, 3, 4), { selected: 3, upToDate: 3 }, 'a pod that is just starting');
  assert.deepEqual(after(14_000, 4, 4), { selected: 4, upToDate: 4 });
  assert.deepEqual(after(16_000, 4, 5), { selected: 4, upToDate: 4 });
  assert.deepEqual(after(24_000, 4, 5), { selected: 5, upToDate: 4 }, 'one that does not get it');
});
