// Switches are turned in stages: at every one, whoever dials by the stage before or the stage after is taken.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { StagedSwitches } from '../../src/control/staged-switches.ts';
import { type InboundSwitches, type MutualTlsMode, mutualTlsModes, switchFor, type TrafficPolicy } from '../../src/policy/model.ts';

type Modes = readonly [MutualTlsMode, Readonly<Record<number, MutualTlsMode>>?];

function policyOf([mode, ports = {}]: Modes): TrafficPolicy {
  return {
    workload: 'w',
    inbound: { mode, source: 'PeerAuthentication foo/x' },
    inboundPorts: new Map(Object.entries(ports).map(([port, of]) => [Number(port), { mode: of, source: 'x' }])),
    outbound: 'ALLOW_ANY',
    announced: undefined,
    shadow: undefined,
    clientTls: [],
    rootClientTls: [],
    trustDomainAliases: [],
  };
}

/** Everything that is published on the way, in `accept/dial` where they differ. */
function way(from: Modes, to: Modes, plaintextClients: boolean): TrafficPolicy[] {
  const stages = new StagedSwitches();
  const at = (now: number) => ({ plaintextClients, now });
  const published = [stages.turn(policyOf(from), at(0)), stages.turn(policyOf(to), at(0))];
  for (let guard = 0; stages.nextAt !== undefined; guard++) {
    assert.ok(guard < 5, 'it never arrives');
    const due = stages.nextAt;
    assert.deepEqual(stages.advance(due - 1), [], 'before it is due');
    published.push(...stages.advance(due));
  }
  return published;
}
const words = (published: readonly TrafficPolicy[], port = 1) =>
  published.map((policy) => {
    const [accept, dial] = [switchFor(policy, port).mode, switchFor(policy.announced ?? policy, port).mode];
    return policy.announced === undefined ? accept : `${accept}/${dial}`;
  });

describe('auto-mTLS clients follow DISABLE alone', () => {
  const cases: readonly (readonly [from: MutualTlsMode, to: MutualTlsMode, stages: readonly string[]])[] = [
    ['PERMISSIVE', 'STRICT', ['PERMISSIVE', 'STRICT']],
    ['STRICT', 'PERMISSIVE', ['STRICT', 'PERMISSIVE']],
    ['DISABLE', 'PERMISSIVE', ['DISABLE', 'PERMISSIVE/DISABLE', 'PERMISSIVE']],
    ['DISABLE', 'STRICT', ['DISABLE', 'PERMISSIVE/DISABLE', 'PERMISSIVE/STRICT', 'STRICT']],
    ['PERMISSIVE', 'DISABLE', ['PERMISSIVE', 'PERMISSIVE/DISABLE', 'DISABLE']],
    ['STRICT', 'DISABLE', ['STRICT', 'PERMISSIVE/STRICT', 'PERMISSIVE/DISABLE', 'DISABLE']],
    ['STRICT', 'STRICT', ['STRICT', 'STRICT']],
  ];
  for (const [from, to, stages] of cases) test(`${from} to ${to}`, () => assert.deepEqual(words(way([from], [to], false)), stages));
});

describe('clients that are told DISABLE follow STRICT too', () => {
  const cases: readonly (readonly [from: MutualTlsMode, to: MutualTlsMode, stages: readonly string[]])[] = [
    ['PERMISSIVE', 'STRICT', ['PERMISSIVE', 'PERMISSIVE/STRICT', 'STRICT']],
    ['STRICT', 'PERMISSIVE', ['STRICT', 'PERMISSIVE/STRICT', 'PERMISSIVE']],
  ];
  for (const [from, to, stages] of cases) test(`${from} to ${to}`, () => assert.deepEqual(words(way([from], [to], true)), stages));
});

test('a port is turned for itself', () => {
  const published = way(['STRICT', { 80: 'DISABLE' }], ['STRICT'], false);
  assert.deepEqual(words(published, 80), ['DISABLE', 'PERMISSIVE/DISABLE', 'PERMISSIVE/STRICT', 'STRICT']);
  assert.deepEqual(words(published, 81), ['STRICT', 'STRICT/STRICT', 'STRICT/STRICT', 'STRICT']);
});

test('another turn on the way begins where it is', () => {
  const stages = new StagedSwitches();
  const now = { plaintextClients: true, now: 0 };
  stages.turn(policyOf(['PERMISSIVE']), now);
  stages.turn(policyOf(['STRICT']), now);
  // Clients have heard of STRICT, and dial by it until they hear otherwise.
  assert.deepEqual(words([stages.turn(policyOf(['PERMISSIVE']), now)]), ['PERMISSIVE']);
  assert.equal(stages.nextAt, undefined);
});

test('a change of something else on the way does not hurry it', () => {
  const stages = new StagedSwitches({ openedMs: 10, followedMs: 100 });
  stages.turn(policyOf(['PERMISSIVE']), { plaintextClients: true, now: 0 });
  stages.turn(policyOf(['STRICT']), { plaintextClients: true, now: 0 });
  const again = stages.turn({ ...policyOf(['STRICT']), outbound: 'REGISTRY_ONLY' }, { plaintextClients: true, now: 50 });
  assert.deepEqual([words([again]), again.outbound, stages.nextAt], [['PERMISSIVE/STRICT'], 'REGISTRY_ONLY', 100]);
  assert.deepEqual(
    stages.advance(100).map(({ outbound, inbound }) => [outbound, inbound.mode]),
    [['REGISTRY_ONLY', 'STRICT']],
  );
});

test('another target on the way does not hurry it either', () => {
  const stages = new StagedSwitches({ openedMs: 10, followedMs: 100 });
  const at = (now: number) => ({ plaintextClients: false, now });
  stages.turn(policyOf(['DISABLE']), at(0));
  stages.turn(policyOf(['STRICT']), at(0));
  stages.advance(10);
  // Clients have been told of mTLS this very moment.
  const other = stages.turn(policyOf(['STRICT', { 9000: 'PERMISSIVE' }]), at(11));
  assert.deepEqual([words([other]), stages.nextAt], [['PERMISSIVE/STRICT'], 110]);
  assert.deepEqual(words(stages.advance(110)), ['STRICT']);
});

test('targets that change again and again hold nothing back for ever', () => {
  const stages = new StagedSwitches({ openedMs: 10, followedMs: 12_000 });
  const at = (now: number) => ({ plaintextClients: true, now });
  stages.turn(policyOf(['PERMISSIVE']), at(0));
  let last: TrafficPolicy | undefined;
  for (let now = 0; now <= 70_000; now += 5_000) last = stages.turn(policyOf(['STRICT', { [now + 1]: 'PERMISSIVE' }]), at(now));
  assert.equal(last?.inbound.mode, 'STRICT');
});

test('as many as a mesh has', () => {
  const stages = new StagedSwitches();
  const at = { plaintextClients: false, now: 0 };
  for (let index = 0; index < 150_000; index++) {
    const workload = `w${index}`;
    stages.turn({ ...policyOf(['DISABLE']), workload }, at);
    stages.turn({ ...policyOf(['STRICT']), workload }, at);
  }
  assert.equal(stages.nextAt, 2_000);
});

test('a workload that is gone and comes again is new', () => {
  const stages = new StagedSwitches();
  const now = { plaintextClients: false, now: 0 };
  stages.turn(policyOf(['DISABLE']), now);
  stages.turn(policyOf(['STRICT']), now);
  stages.forget('w');
  assert.equal(stages.nextAt, undefined);
  assert.deepEqual(words([stages.turn(policyOf(['STRICT']), now)]), ['STRICT']);
});

describe('nobody is refused on the way, from anything to anything', () => {
  /** How clients dial by a switch: automatic ones, and those that are told DISABLE. */
  const dials = { automatic: (mode: MutualTlsMode) => mode !== 'DISABLE', plain: (mode: MutualTlsMode) => mode === 'STRICT' };
  const takes = (mode: MutualTlsMode, mtls: boolean) => mode === 'PERMISSIVE' || (mode === 'STRICT') === mtls;
  for (const from of mutualTlsModes)
    for (const port of mutualTlsModes)
      for (const to of mutualTlsModes)
        for (const toPort of mutualTlsModes)
          for (const [kind, dial] of Object.entries(dials))
            test(`${from}/${port} to ${to}/${toPort}, ${kind} clients`, () => {
              const published = way([from, { 80: port }], [to, { 80: toPort }], kind === 'plain');
              for (const at of [80, 81])
                for (const [index, stage] of published.entries())
                  for (const heard of [published[index - 1], stage, published[index + 1]]) {
                    if (heard === undefined) continue;
                    const by: InboundSwitches = heard.announced ?? heard;
                    assert.ok(takes(switchFor(stage, at).mode, dial(switchFor(by, at).mode)), words(published, at).join(' '));
                  }
            });
});
