// Control's SDS for secrets, by itself: what it hands out while it cannot know whether it still may.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { HandedVersions } from '../../src/control/secrets/handed-versions.ts';
import { SecretAudit } from '../../src/control/secrets/secret-audit.ts';
import { addSecretService } from '../../src/control/secrets/secret-service.ts';
import { type SecretWorld, secretWorld } from '../../src/control/secrets/secret-world.ts';
import { WORKLOAD_METADATA } from '../../src/discovery/secret-feed.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { bearerMetadata, channelOptions, newServer, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { openStream, unixTarget } from '../../src/wire/grpc-target.ts';
import { cleanups } from '../support/ads-rig.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const A = 'spiffe://cluster.local/ns/foo/sa/a';

async function serve() {
  const dir = mkdtempSync(join(tmpdir(), 'handfast-secrets-'));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  const records = new RecordingLog();
  const secret = (name: string) => ({
    key: `foo/${name}`,
    current: '7',
    versions: new Map([['7', new Map([['key', Buffer.from('sesame')]])]]),
  });
  const policy = { namespace: 'foo', name: 'a', secrets: new Set(['db', 'other']), ids: new Set([A]), prefixes: [], recipients: ['foo/a'] };
  const source = {
    world: new Snapshot<SecretWorld>(secretWorld({ secrets: [secret('db'), secret('other')], policies: [policy] })),
    start: () => Promise.resolve(),
    isInTouch: true,
  };
  const server = newServer();
  addSecretService(server, {
    secrets: { source, audit: new SecretAudit({ log: records.log, file: undefined, now: () => 0 }), handed: new HandedVersions() },
    isInTouch: () => true,
    trustDomain: 'cluster.local',
    log: records.log,
    now: () => 0,
  });
  const path = join(dir, 'control.sock');
  const listener = await listenUnix({ server, path, mode: 0o600, takeOver: false, onRefused: () => undefined });
  cleanups.push(async () => {
    await listener.close();
    await stopServer(server, 10);
  });
  const target = unixTarget(`unix:${path}`);
  const ask = () => {
    const metadata = bearerMetadata(undefined);
    metadata.set(WORKLOAD_METADATA, A);
    const call = openStream(SecretDiscoveryServiceClient, { target, options: channelOptions }, (client) => client.deltaSecrets(metadata));
    cleanups.push(() => call.cancel());
    const refused = new Promise<unknown>((resolve) => call.on('error', (error) => resolve(Object(error).code)));
    const next = () => new Promise<DeltaDiscoveryResponse>((resolve) => call.once('data', resolve));
    const send = (fields: Partial<DeltaDiscoveryRequest>) =>
      call.write({
        ...{ node: undefined, typeUrl: typeUrls.secret, resourceNamesSubscribe: [], resourceNamesUnsubscribe: [] },
        ...{ initialResourceVersions: {}, responseNonce: '', errorDetail: undefined },
        ...fields,
      });
    return { refused, next, send };
  };
  return { source, ask, records };
}

test('out-of-touch-nothing-is-handed-out-anew-though-there-is-nobody-else-to-ask', { timeout: 20_000 }, async () => {
  const { source, ask } = await serve();
  const before = ask();
  const said = before.next();
  before.send({ resourceNamesSubscribe: ['secret:foo/db'] });
  const { resources, nonce } = await said;
  assert.equal(resources.length, 1);
  before.send({ responseNonce: nonce });
  source.isInTouch = false;
  const newcomer = ask();
  newcomer.send({ resourceNamesSubscribe: ['secret:foo/db'] });
  assert.equal(await newcomer.refused, status.UNAVAILABLE);
  // Nor on a stream that was there before.
  before.send({ resourceNamesSubscribe: ['secret:foo/other'] });
  assert.equal(await before.refused, status.UNAVAILABLE);
  source.isInTouch = true;
  const again = ask();
  const answer = again.next();
  again.send({ resourceNamesSubscribe: ['secret:foo/db'] });
  assert.equal((await answer).resources.length, 1);
});
