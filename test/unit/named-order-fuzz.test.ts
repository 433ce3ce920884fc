// The same for a sidecar that asks its agent for its own workload and for addresses that come and go, through the parts that do it in earnest: it ends with what belongs to these, an address is
// never answered without whoever is there, and nobody is met without its policy.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { AddressView } from '../../src/discovery/address-view.ts';
import { Interests } from '../../src/discovery/interests.ts';
import { NameBudget } from '../../src/discovery/name-budget.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { addressOfPod, Hop, random, uidOf, unbound, World } from '../support/mesh-hops.ts';

const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000);
const RUNS = 80;
const STEPS = 200;
const MOST = 8;
const PODS = ['web', 'pod-0', 'pod-1', 'pod-2', 'pod-3'];
const quiet = { info: () => undefined, warn: () => undefined };

test('no-order-of-events-answers-for-a-stranger-or-loses-anything', async () => {
  for (let run = 0; run < RUNS; run++) {
    const next = random(SEED + run);
    const where = (step: string | number) => `seed ${SEED}, run ${run}, step ${step}`;
    const world = new World(next);
    const agent = new Hop(() => world.cache);
    const budget = new NameBudget();
    const stop = new AbortController();
    let now = 0;
    const interests = new Interests({
      self: uidOf('web'),
      log: quiet,
      signal: stop.signal,
      // One of the two addresses beyond these is always on its way out.
      limits: { most: MOST, makeRoomFor: 5, few: 2 },
      now: () => now,
    });
    const known = new Set<string>();
    const names = new Map<string, Interests | readonly string[]>([
      [typeUrls.address, interests],
      [typeUrls.trafficPolicy, [uidOf('web')]],
      [typeUrls.authorization, [uidOf('web')]],
    ]);
    const sidecar = new Hop(
      () => new AddressView(agent.index, budget.open('foo')),
      names,
      ({ answered = [], forgotten = [] }) => {
        for (const name of forgotten) known.delete(name.slice(1));
        for (const address of answered) known.add(address);
      },
    );
    const hops = [agent, sidecar];
    const refusals = next(2) === 0 ? 0 : 6;
    const isRefusedAtTimes = next(2) === 0;
    const check = (step: string | number) => {
      for (const hop of hops) assert.deepEqual(unbound(hop), [], where(step));
      const [addresses, policies] = [sidecar.cache.resources(typeUrls.address), sidecar.cache.resources(typeUrls.trafficPolicy)];
      for (const [uid] of addresses ?? [])
        if (agent.cache.resources(typeUrls.trafficPolicy)?.has(uid) === true && refusals === 0)
          assert.ok(policies?.has(uid), `${uid} without its policy: ${where(step)}`);
    };
    const releases = new Map<string, () => void>();
    const drain = async () => {
      for (let idle = 0; idle < 3; idle++) {
        now += 1_000;
        await turn();
        while (hops.map((hop) => hop.moveUp() || hop.moveDown({ refuse: false })).includes(true)) {
          idle = 0;
          check('last');
        }
      }
    };
    for (let step = 0; step < STEPS; step++) {
      const hop = hops[next(2)];
      const kind = next(24);
      now += 50;
      if (kind < 3) world.publish();
      else if (kind === 3) hop?.connect({ isTooMuch: isRefusedAtTimes && next(2) === 0 });
      else if (kind < 7) {
        const address = `10.0.0.${next(10)}`;
        const release = releases.get(address);
        if (release === undefined) releases.set(address, interests.hold(address));
        else {
          release();
          releases.delete(address);
        }
        await turn();
      } else if (kind < 15) hop?.moveUp();
      else hop?.moveDown({ refuse: hop === sidecar && refusals > 0 && next(refusals) === 0 });
      check(step);
    }
    await drain();
    for (let last = 0; last < 12; last++) {
      world.publish();
      await drain();
    }
    for (const address of known) {
      const pod = PODS.find((each) => addressOfPod(each) === address && world.cache.resources(typeUrls.address)?.has(uidOf(each)));
      if (pod === undefined) continue;
      for (const typeUrl of [typeUrls.address, typeUrls.trafficPolicy]) {
        const version: string | undefined = world.cache.resources(typeUrl)?.get(uidOf(pod))?.version;
        assert.equal(sidecar.cache.resources(typeUrl)?.get(uidOf(pod))?.version, version, `${pod}: ${where('end')}`);
      }
    }
    // Everything in use is known that there is room for, and nothing is kept that was let go of.
    const inUse = [...releases.keys()].filter((address) => known.has(address)).length;
    assert.ok(inUse >= Math.min(releases.size, isRefusedAtTimes ? 2 : MOST), `${inUse} of ${releases.size}: ${where('end')}`);
    assert.ok(known.size <= MOST, where('end'));
    const kept = [...(sidecar.cache.resources(typeUrls.address)?.keys() ?? [])].filter((uid) => uid !== uidOf('web'));
    for (const uid of kept)
      assert.ok(
        PODS.some((pod) => uidOf(pod) === uid && known.has(addressOfPod(pod))),
        `${uid} is kept: ${where('end')}`,
      );
    stop.abort();
    for (const hop of hops) hop.end();
  }
});
