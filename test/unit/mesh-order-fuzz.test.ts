// Whatever is published, taken, refused and reconnected in whatever order, from control over an agent to a sidecar: it ends with what control has, and a policy that is to hold for a pod is at no
// moment bound to nobody.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contents, Hop, random, unbound, World } from '../support/mesh-hops.ts';

const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000);
const RUNS = 150;
const STEPS = 120;

test('no-order-of-events-binds-a-policy-to-nobody-or-loses-anything', () => {
  for (let run = 0; run < RUNS; run++) {
    const next = random(SEED + run);
    const world = new World(next);
    const agent = new Hop(() => world.cache);
    const sidecar = new Hop(() => agent.cache);
    const hops = [agent, sidecar];
    const where = (step: string | number) => `seed ${SEED}, run ${run}, step ${step}`;
    const drain = () => {
      while (hops.map((hop) => hop.moveUp() || hop.moveDown({ refuse: false })).includes(true))
        for (const hop of hops) assert.deepEqual(unbound(hop), [], where('last'));
    };
    const refusals = next(2) === 0 ? 0 : 6;
    for (let step = 0; step < STEPS; step++) {
      const hop = hops[next(2)];
      const kind = next(20);
      if (kind < 3) world.publish();
      else if (kind === 3) hop?.connect();
      else if (kind < 12) hop?.moveUp();
      // Only sidecars refuse: an agent takes whatever comes.
      else hop?.moveDown({ refuse: hop === sidecar && refusals > 0 && next(refusals) === 0 });
      for (const each of hops) assert.deepEqual(unbound(each), [], where(step));
    }
    drain();
    // What was refused goes out again with a change.
    for (let last = 0; last < 12; last++) {
      world.publish();
      drain();
    }
    assert.deepEqual(contents(agent.cache), contents(world.cache), where('end'));
    assert.deepEqual(contents(sidecar.cache), contents(agent.cache), where('end'));
    for (const hop of hops) hop.end();
  }
});
