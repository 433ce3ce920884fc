// A new root of trust, stage by stage, under load: nobody is asked to believe what they have not been told, and no request fails.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { runSdsClient } from '../../src/discovery/sds-client.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { type MeshedPair, startMeshedPair } from '../support/meshed-pair.ts';
import { RecordingLog, type RunningSidecar } from '../support/sidecar-harness.ts';

interface Stage {
  readonly rotation: {
    readonly stage: string;
    readonly rootKeyIds: readonly string[];
    readonly liveBelowOld: number;
    readonly behind: readonly string[];
  };
}

let records: RecordingLog;
let plane: ControlPlane;
let pair: MeshedPair;
let client: RunningSidecar;
let server: RunningSidecar;

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  await plane.start({ ca: { svidTtlMs: 10_000 } });
  pair = await startMeshedPair(plane, { server: { protocol: 'delta', names: { svid: 'default', bundle: 'ALL' } } });
  ({ client, server } = pair);
});

afterEach(async () => {
  await pair[Symbol.asyncDispose]();
  await plane[Symbol.asyncDispose]();
});

const stage = async (): Promise<Stage['rotation']> => Object(await plane.ask('ca', 'GET', '/status')).rotation;
const order = (verb: string, body: object = {}) => plane.ask('ca', 'POST', `/root/${verb}`, body);

const ask = async () => (await pair.ask()).text === 'hello';

async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 40_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what} did not happen within 40 s`);
    await delay(50);
  }
}

describe('root rotation', () => {
  it('through-every-stage-under-load-without-a-failed-request', async () => {
    let running = true;
    let requests = 0;
    let failed = 0;
    const load = (async () => {
      while (running) {
        if (!(await ask())) failed++;
        requests++;
      }
    })();
    const [first] = (await stage()).rootKeyIds;
    await order('prepare');
    assert.equal((await stage()).rootKeyIds.length, 2);
    await eventually('every node to confirm the bundle', async () => (await stage()).behind.length === 0);
    assert.equal(client.identity.current?.bundles.own.authorities.length, 2);
    assert.equal(server.identity.current?.bundles.own.authorities.length, 2);
    await order('activate');
    const activated = await stage();
    assert.notEqual(activated.rootKeyIds[0], first);
    await assert.rejects(order('retire'), { code: 'STAGE_REFUSED' });
    await eventually('the last certificate below the old root to end', async () => (await stage()).liveBelowOld === 0);
    await order('retire');
    assert.equal((await stage()).rootKeyIds.length, 1);
    await eventually('the sidecars to have one root', async () =>
      [client, server].every(({ identity }) => identity.current?.bundles.own.authorities.length === 1),
    );
    assert.ok(await ask());
    running = false;
    await load;
    assert.equal(failed, 0, `${failed} of ${requests} requests failed`);
    console.log(`# ${requests} requests through a root rotation, 0 failed`);
  });

  it('waits-for-a-workload-that-has-not-taken-the-bundle-and-names-the-node', async () => {
    // Takes its first secrets, then never answers again.
    let seen = 0;
    const stop = new AbortController();
    const stuck = runSdsClient({
      target: unixTarget(plane.address('agent')),
      nodeId: 'stuck',
      token: new Snapshot(await plane.token('stuck')),
      resourceNames: ['default', 'ROOTCA'],
      accept: () => (++seen === 1 ? undefined : new Promise<void>(() => undefined)),
      log: records.log,
      signal: stop.signal,
    });
    await eventually('the first secrets', async () => seen > 0);
    await order('prepare');
    await eventually('the sidecars to have both roots', async () => client.identity.current?.bundles.own.authorities.length === 2);
    assert.deepEqual((await stage()).behind, ['local']);
    await assert.rejects(order('activate'), (error: Error) => /local/.test(error.message) && /1/.test(error.message));
    const { streams, behind } = Object(await plane.ask('agent', 'GET', '/status'));
    assert.equal(behind.length, 1);
    assert.equal(behind[0].spiffeId, 'spiffe://cluster.local/ns/foo/sa/stuck');
    assert.deepEqual(behind[0].secrets, ['ROOTCA']);
    assert.match(behind[0].peer, /^uid \d+/);
    assert.ok(Math.abs(Date.now() - behind[0].since) < 60_000);
    assert.deepEqual(streams.filter(({ spiffeId }: { spiffeId: string }) => spiffeId.endsWith('stuck')).length, 1);
    stop.abort();
    await stuck;
    await eventually('the node to confirm', async () => (await stage()).behind.length === 0);
    await order('activate');
    assert.ok(await ask());
  });

  it('a-workload-that-never-answers-again-is-ended-and-holds-nobody-up', async () => {
    await plane.stopAgent();
    await plane.startAgent({ answerTimeoutMs: 1_500 });
    let seen = 0;
    const stop = new AbortController();
    const stuck = runSdsClient({
      target: unixTarget(plane.address('agent')),
      nodeId: 'stuck',
      token: new Snapshot(await plane.token('stuck')),
      resourceNames: ['default', 'ROOTCA'],
      accept: () => (++seen === 1 ? undefined : new Promise<void>(() => undefined)),
      log: records.log,
      signal: stop.signal,
    });
    await eventually('the first secrets', async () => seen > 0);
    await order('prepare');
    await eventually('the node to be behind', async () => (await stage()).behind.length === 1);
    await eventually('the silent stream to end, and the node to confirm', async () => (await stage()).behind.length === 0);
    assert.ok(records.records.some(({ reason }) => /DEADLINE_EXCEEDED/.test(String(reason))));
    await order('activate');
    assert.ok(await ask());
    stop.abort();
    await stuck;
  });

  it('an-agent-that-is-away-is-behind-until-it-is-back', async () => {
    await order('prepare');
    await eventually('the node to confirm', async () => (await stage()).behind.length === 0);
    await order('abort');
    await plane.stopAgent();
    await order('prepare');
    await assert.rejects(order('activate'), /local/);
    assert.ok(await ask(), 'the data path needs no agent');
    await plane.startAgent();
    await eventually('the node to confirm', async () => (await stage()).behind.length === 0);
    await order('activate');
  });

  it('what-else-the-ca-publishes-does-not-put-a-node-behind', async () => {
    await order('prepare');
    await eventually('the node to confirm', async () => (await stage()).behind.length === 0);
    const { keys } = JSON.parse(await readFile(join(plane.dir, 'ca/jwt-keys.json'), 'utf8'));
    await plane.ask('ca', 'POST', '/jwt-keys/withdraw', { kid: keys[0].kid });
    await eventually(
      'the node to have the new keys',
      async () => records.records.filter(({ msg }) => msg === 'JWT keys in force').length >= 2,
    );
    await order('activate');
  });

  it('force-does-not-wait', async () => {
    await plane.stopAgent();
    await order('prepare');
    await order('activate', { force: true });
    assert.equal((await stage()).stage, 'active');
  });
});
