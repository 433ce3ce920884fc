// A map that changes by following itself is the same as a Map, at every step, and what was read before stays as it was.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OverlayMap } from '../../src/policy/overlay-map.ts';

function randomly(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state / 2_147_483_648;
  };
}

for (const seed of [1, 2, 3]) {
  test(`seed ${seed}`, () => {
    const random = randomly(seed);
    let map = new OverlayMap<string, number>();
    const wanted = new Map<string, number>();
    const steps: { map: OverlayMap<string, number>; wanted: Map<string, number> }[] = [];
    for (let step = 0; step < 60; step++) {
      const changes = new Map<string, number | undefined>();
      for (let change = 0; change < (step === 0 ? 2_000 : 20); change++) {
        const key = `k${Math.floor(random() * 2_500)}`;
        const value = random() < 0.3 ? undefined : step;
        changes.set(key, value);
        if (value === undefined) wanted.delete(key);
        else wanted.set(key, value);
      }
      map = map.with(changes);
      steps.push({ map, wanted: new Map(wanted) });
    }
    for (const { map: then, wanted: as } of steps) {
      for (let index = 0; index < 2_500; index++) assert.equal(then.get(`k${index}`), as.get(`k${index}`));
      assert.equal([...then.values()].length, as.size);
    }
  });
}
