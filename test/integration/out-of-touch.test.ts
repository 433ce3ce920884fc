// Of two controls one has lost the API server: nothing that it has not heard of is taken back on a node, and a node that knows nothing still learns what it knows.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MeshLedger } from '../../src/control/ledger/mesh-ledger.ts';
import { addControlServices } from '../../src/control/server.ts';
import { encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { meshTypeUrls } from '../../src/discovery/mesh-source.ts';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { newServer, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

const deny = (name: string) =>
  encodeAuthorization({ name, namespace: 'foo', scope: 'NAMESPACE', action: 'DENY', dryRun: false, rules: [] });

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'handfast-'));
});
after(() => rm(dir, { recursive: true }));

/** Serves these DENYs of the namespace foo. */
async function replica(name: string, { inTouch, denies }: { inTouch: boolean; denies: readonly string[] }) {
  const state = { inTouch };
  const cache = new ResourceCache();
  for (const typeUrl of meshTypeUrls) cache.apply(typeUrl, { upserts: new Map(), removed: [] });
  const say = (name: string) => cache.apply(typeUrls.authorization, { upserts: new Map([[`foo/${name}`, deny(name)]]), removed: [] });
  for (const name of denies) say(name);
  const server = newServer({});
  addControlServices(server, {
    cache,
    ledger: new MeshLedger({ now: Date.now, registeredId: () => undefined }),
    trustDomain: 'cluster.local',
    servesSidecars: false,
    isInTouch: () => state.inTouch,
    log: new RecordingLog().log,
    now: Date.now,
  });
  const path = join(dir, name);
  const listener = await listenUnix({ server, path, mode: 0o600, takeOver: false, onRefused: () => undefined });
  return {
    path,
    state,
    say,
    cut: () => listener.cut(() => true),
    [Symbol.asyncDispose]: async () => {
      await listener.close();
      await stopServer(server);
    },
  };
}

/** Follows them in turns. */
function agent(...controls: readonly { path: string }[]) {
  const cache = new ResourceCache();
  const log = new RecordingLog();
  const stop = new AbortController();
  const turns: string[] = [];
  const running = runDeltaAdsClient({
    target: () => {
      const { path } = controls[turns.length % controls.length] ?? { path: '' };
      turns.push(path);
      return unixTarget(`unix:${path}`);
    },
    nodeId: 'agent',
    token: undefined,
    typeUrls: meshTypeUrls,
    apply: (typeUrl, change) => cache.apply(typeUrl, change),
    log: log.log,
    signal: stop.signal,
  });
  return {
    turns,
    log,
    denies: () => [...(cache.resources(typeUrls.authorization)?.keys() ?? [])].sort(),
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await running;
    },
  };
}

test('a DENY is not taken back by a replica that has not heard of it', async () => {
  await using informed = await replica('informed', { inTouch: true, denies: ['known'] });
  await using cutOff = await replica('cut-off', { inTouch: false, denies: [] });
  await using following = agent(informed, cutOff);
  await eventually(() => following.denies().length === 1);
  informed.cut();
  await eventually(() => following.turns.filter((path) => path === informed.path).length === 2);
  assert.deepEqual(following.denies(), ['foo/known']);
  assert.ok(following.turns.includes(cutOff.path), 'it has been asked');
  informed.say('next');
  await eventually(() => following.denies().length === 2);
});

test('who holds nothing is served what is known there', async () => {
  await using cutOff = await replica('alone', { inTouch: false, denies: ['old'] });
  await using following = agent(cutOff);
  await eventually(() => following.denies().length === 1);
  await delay(200);
  assert.equal(following.turns.length, 1, 'and not sent away at once');
});

test('who follows one that loses the API server is sent to another', async () => {
  await using losing = await replica('losing', { inTouch: true, denies: ['old'] });
  await using informed = await replica('informed-2', { inTouch: true, denies: ['old', 'new'] });
  await using following = agent(losing, informed);
  await eventually(() => following.denies().length === 1);
  losing.state.inTouch = false;
  // Looked at every 10 s.
  for (let waited = 0; waited < 15_000 && following.denies().length < 2; waited += 100) await delay(100);
  assert.deepEqual(following.denies(), ['foo/new', 'foo/old']);
});
