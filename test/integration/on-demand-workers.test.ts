// Several workers and one stream: what one of them asks for all of them know, also those that come later.

import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { it } from 'node:test';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { type InterestLimits, Interests } from '../../src/discovery/interests.ts';
import { sidecarSubscriptions } from '../../src/discovery/sidecar-subscriptions.ts';
import { podUid } from '../../src/policy/model.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { cleanups } from '../support/ads-rig.ts';
import { DiscoveryRig } from '../support/on-demand.ts';
import { TestCa } from '../support/pki.ts';
import { Application, uidOf } from '../support/sidecar-harness.ts';
import { eventually, RunningWorkers } from '../support/workers-pair.ts';

const ca = await TestCa.create();

interface Rig {
  readonly running: RunningWorkers;
  readonly discovery: DiscoveryRig;
  readonly interests: Interests;
  readonly address: string;
  /** What the application says, or that the connection was ended. */
  dial(): Promise<string>;
}

/** A client of two workers that asks an agent for the one application there is. */
async function start(limits: Partial<InterestLimits>): Promise<Rig> {
  const application = await Application.start();
  cleanups.push(() => application[Symbol.asyncDispose]());
  const { address, port } = application.endpoint;
  const discovery = await DiscoveryRig.start({
    workloads: [
      { namespace: 'foo', name: 'sleep', outbound: 'REGISTRY_ONLY' },
      { namespace: 'bar', name: 'web', addresses: [address], meshed: false },
    ],
  });
  const stop = new AbortController();
  const quiet = { info: () => undefined, warn: () => undefined };
  const self = uidOf('foo/sleep');
  assert.notEqual(self, podUid('foo/sleep'));
  const interests = new Interests({ self, log: quiet, signal: stop.signal, limits });
  const running = await RunningWorkers.start({
    namespace: 'foo',
    name: 'sleep',
    identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
    interests,
    test: { destination: { address, port }, tunnelPort: 0 },
  });
  const client = runDeltaAdsClient({
    ...sidecarSubscriptions(self, interests),
    target: unixTarget(discovery.server.address),
    nodeId: 'sleep',
    token: undefined,
    apply: (typeUrl, change) => running.workers.apply(typeUrl, change),
    log: quiet,
    signal: stop.signal,
  });
  cleanups.push(async () => {
    await running[Symbol.asyncDispose]();
    stop.abort();
    await client;
  });
  await running.ready();
  const dial = () =>
    new Promise<string>((resolve) => {
      const socket = connect({ port: running.workers.ports.outbound, host: '127.0.0.1' });
      cleanups.push(() => socket.destroy());
      socket.on('error', () => undefined);
      socket.once('close', () => resolve('closed'));
      socket.once('data', (data) => resolve(String(data)));
      socket.write('hello');
    });
  return { running, discovery, interests, address, dial };
}

it('asks-once-for-all-workers-and-a-new-one-knows-it-too', async () => {
  const { running, discovery, address, dial } = await start({ idleMs: 0, sweepMs: 50 });
  // They stay open, and with them the address is in use.
  assert.deepEqual(await Promise.all(Array.from({ length: 40 }, dial)), Array(40).fill('hello'));
  running.kill({ worker: 1, how: 'throw' });
  await running.records.find(({ msg }) => msg === 'another worker took its place');
  await running.ready();
  await eventually(async () => (await dial()) === 'hello');
  assert.equal(discovery.asked.filter((each) => each === address).length, 1);
});

it('asks-for-what-a-worker-s-connection-uses-as-soon-as-there-is-room', async () => {
  const { discovery, interests, address, dial } = await start({ most: 1, makeRoomFor: 1, idleMs: 0, sweepMs: 20 });
  const release = interests.hold('10.9.9.9');
  await eventually(() => discovery.asked.includes('10.9.9.9'));
  const answer = dial();
  const others = [dial(), dial()];
  await eventually(() => interests.waiting === 1);
  assert.equal(discovery.asked.includes(address), false);
  release();
  assert.deepEqual(await Promise.all([answer, ...others]), ['hello', 'hello', 'hello']);
});
