// What a sidecar asks for, and when: against a stream of which the test is the other side.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type InterestLimits, Interests } from '../../src/discovery/interests.ts';
import type { DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';

const stop = new AbortController();
after(() => stop.abort());

type Change = { readonly added: readonly string[]; readonly dropped: readonly string[] };

class Rig {
  readonly said: Change[] = [];
  readonly warned: string[] = [];
  readonly interests: Interests;
  now = 0;

  constructor(limits: Partial<InterestLimits> = {}) {
    const log = { info: () => undefined, warn: (_: object, message: string) => this.warned.push(message) };
    this.interests = new Interests({ self: 'self', log, signal: stop.signal, limits, now: () => this.now });
  }

  open(): readonly string[] {
    return this.interests.opened((change) => this.said.push(change));
  }

  /** Returns the addresses that are answered by it. */
  answer({ aliases = [], removed = [] }: { aliases?: readonly string[]; removed?: readonly string[] }): readonly string[] {
    const resources = aliases.map((alias) => ({ name: `of ${alias}`, version: '1', aliases: [alias], resource: undefined }));
    const response: DeltaDiscoveryResponse = { systemVersionInfo: '', resources, typeUrl: '', nonce: '', removedResources: [...removed] };
    const answered = this.interests.answeredBy(response);
    this.interests.taken(response);
    return answered;
  }
}

test('asks-once-for-each-address-and-for-all-of-one-turn-together', async () => {
  const rig = new Rig();
  assert.deepEqual(rig.open(), ['self']);
  for (let times = 0; times < 3; times++) for (const address of ['10.0.0.1', 'fd00::1']) rig.interests.hold(address);
  await turn();
  assert.deepEqual(rig.said, [{ added: ['/10.0.0.1', '/fd00::1'], dropped: [] }]);
  assert.deepEqual(rig.answer({ aliases: ['/10.0.0.1', '/10.0.0.9'], removed: ['/fd00::1'] }), ['10.0.0.1', 'fd00::1']);
  await turn();
  assert.equal(rig.said.length, 1);
});

test('names-what-is-answered-with-the-first-request-of-a-new-stream-and-asks-for-the-rest-after-it', async () => {
  const rig = new Rig();
  rig.open();
  rig.interests.hold('10.0.0.1');
  rig.interests.hold('10.0.0.2');
  await turn();
  rig.answer({ aliases: ['/10.0.0.1'] });
  rig.interests.closed();
  rig.interests.hold('10.0.0.3');
  await turn();
  assert.deepEqual(rig.open(), ['self', '/10.0.0.1']);
  await turn();
  assert.deepEqual(rig.said.at(-1), { added: ['/10.0.0.3', '/10.0.0.2'], dropped: [] });
});

test('an-address-on-its-way-out-is-asked-for-again-only-when-the-agent-has-heard', async () => {
  const rig = new Rig({ most: 4, makeRoomFor: 3 });
  rig.open();
  rig.interests.ask('10.0.0.1');
  await turn();
  rig.answer({ aliases: ['/10.0.0.1'] });
  rig.interests.ask('10.0.0.2');
  await turn();
  assert.deepEqual(rig.said.at(-1), { added: ['/10.0.0.2'], dropped: ['/10.0.0.1'] });
  rig.interests.hold('10.0.0.1');
  // On its way before the agent read that.
  assert.deepEqual(rig.answer({ aliases: ['/10.0.0.1'] }), []);
  await turn();
  assert.equal(rig.said.length, 2);
  assert.deepEqual(rig.answer({ removed: ['/10.0.0.1'] }), []);
  await turn();
  assert.deepEqual(rig.said.at(-1)?.added, ['/10.0.0.1']);
  assert.deepEqual(rig.answer({ aliases: ['/10.0.0.1'] }), ['10.0.0.1']);
});

test('what-is-in-use-is-kept-and-who-finds-no-room-waits-for-it-aloud', async () => {
  const rig = new Rig({ most: 2, makeRoomFor: 1 });
  rig.open();
  const releases = ['10.0.0.1', '10.0.0.2'].map((address) => rig.interests.hold(address));
  await turn();
  rig.answer({ aliases: ['/10.0.0.1', '/10.0.0.2'] });
  const gone = ['10.0.0.3', '10.0.0.3'].map((address) => rig.interests.hold(address));
  rig.interests.hold('10.0.0.4');
  await turn();
  assert.deepEqual([rig.interests.size, rig.warned.length, rig.said.length], [2, 1, 1]);
  for (const release of gone) release();
  // Released twice is released once.
  for (const release of [releases[0], releases[0]]) release?.();
  await turn();
  assert.deepEqual(rig.said.at(-1), { added: [], dropped: ['/10.0.0.1'] });
  rig.answer({ removed: ['/10.0.0.1'] });
  await turn();
  // Nobody waits for the other any more.
  assert.deepEqual(rig.said.at(-1), { added: ['/10.0.0.4'], dropped: [] });
});

test('what-is-held-is-asked-for-before-whatever-else-is-wanted', async () => {
  const rig = new Rig();
  rig.open();
  for (let host = 0; host < 40; host++) rig.interests.ask(`10.0.1.${host}`);
  rig.interests.hold('10.0.0.1');
  rig.interests.hold('10.0.1.39');
  await turn();
  const [first, second] = rig.said;
  assert.deepEqual([first?.added.slice(0, 3), first?.added.length], [['/10.0.0.1', '/10.0.1.39', '/10.0.1.0'], 32]);
  await turn();
  assert.equal(rig.said.flatMap(({ added }) => added).length, 41, JSON.stringify(second));
});

test('what-is-not-held-has-half-of-the-room-and-goes-first', async () => {
  const rig = new Rig({ most: 8, makeRoomFor: 1 });
  rig.open();
  const said = (added: readonly string[]) => rig.answer({ removed: [...added] });
  const idle = rig.interests.hold('10.0.0.1');
  for (let host = 0; host < 20; host++) rig.interests.ask(`10.0.1.${host}`);
  await turn();
  assert.equal(rig.said.at(-1)?.added.length, 5);
  said(rig.said.at(-1)?.added ?? []);
  idle();
  rig.now += 1;
  rig.interests.ask('10.0.1.0');
  for (const host of [2, 3, 4, 5]) rig.interests.hold(`10.0.0.${host}`);
  await turn();
  // The other was used earlier, but was held; and of those that were not the first was used again.
  assert.deepEqual(rig.said.at(-1), { added: ['/10.0.0.2', '/10.0.0.3', '/10.0.0.4'], dropped: ['/10.0.1.1'] });
  rig.answer({ removed: ['/10.0.0.2', '/10.0.0.3', '/10.0.0.4', '/10.0.1.1'] });
  await turn();
  assert.deepEqual(rig.said.at(-1)?.added, ['/10.0.0.5']);
});

test('an-agent-that-takes-no-more-is-asked-for-what-is-in-use-and-then-for-half-of-that', { timeout: 10_000 }, async () => {
  const rig = new Rig({ sweepMs: 20 });
  rig.open();
  const held = Array.from({ length: 70 }, (_, host) => `10.0.0.${host}`);
  for (const address of held) rig.interests.hold(address);
  for (let host = 0; host < 30; host++) rig.interests.ask(`10.0.1.${host}`);
  while (rig.interests.size < 100) await turn();
  for (const { added } of rig.said) rig.answer({ removed: added });
  assert.deepEqual(rig.interests.closed(), []);
  assert.equal(rig.open().length, 101);
  assert.deepEqual(rig.interests.closed(true).toSorted(), Array.from({ length: 30 }, (_, host) => `10.0.1.${host}`).toSorted());
  assert.deepEqual(
    rig.open().slice(1),
    held.map((address) => `/${address}`),
  );
  assert.equal(rig.interests.closed(true).length, 35);
  assert.equal(rig.open().length, 36);
  assert.equal(rig.interests.size, 35);
  // Few are taken from everybody.
  assert.equal(rig.interests.closed(true).length, 3);
  assert.deepEqual(rig.interests.closed(true), []);
  assert.equal(rig.open().length, 33);
  rig.said.length = 0;
  rig.answer({});
  // It is tried again, more and more.
  while (rig.interests.size < held.length) await turn();
  assert.deepEqual(
    rig.said.flatMap(({ added }) => added).toSorted(),
    held
      .slice(32)
      .map((address) => `/${address}`)
      .toSorted(),
  );
});

test('nothing-is-let-go-of-while-no-agent-is-there', async () => {
  const rig = new Rig({ most: 1, makeRoomFor: 1 });
  rig.open();
  rig.interests.ask('10.0.0.1');
  await turn();
  rig.answer({ aliases: ['/10.0.0.1'] });
  rig.interests.closed();
  rig.interests.ask('10.0.0.2');
  await turn();
  assert.deepEqual(rig.open(), ['self', '/10.0.0.1']);
  // Nor before the first response of a stream: what it says of a name may be of what was named with the first request.
  rig.interests.ask('10.0.0.2');
  await turn();
  assert.equal(rig.said.length, 1);
  rig.answer({});
  rig.interests.ask('10.0.0.2');
  await turn();
  assert.deepEqual(rig.said.at(-1)?.dropped, ['/10.0.0.1']);
});

test('asks-no-faster-than-an-agent-takes-it', async () => {
  const rig = new Rig();
  rig.open();
  for (let host = 0; host < 200; host++) {
    rig.interests.ask(`10.0.${host}.1`);
    await turn();
  }
  assert.equal(rig.said.length, 50);
});
