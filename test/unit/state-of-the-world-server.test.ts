// State of the world, the serving side: what goes out while the client does not read, and what once it may have nothing any more.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import type { ResponseRules } from '../../src/discovery/response-writer.ts';
import { type StateOfTheWorldStream, serveStateOfTheWorldStream } from '../../src/discovery/state-of-the-world-server.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import type { DiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient, SecretDiscoveryServiceService } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { newServer, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const quiet = { info: () => undefined, warn: () => undefined };

/** One stream with everything subscribed. `said` resolves with what the client was told, once there is that much. */
async function serve(rules: ResponseRules & { whenLeft?: (left: () => void) => void } = {}) {
  const cache = new ResourceCache();
  const publish = (text: string) => cache.replace(typeUrls.secret, new Map([['x', Buffer.from(text)]]));
  publish('1');
  const dir = mkdtempSync(join(tmpdir(), 'handfast-sotw-'));
  const server = newServer();
  let written = 0;
  server.addService(SecretDiscoveryServiceService, {
    streamSecrets: (call: StateOfTheWorldStream) => {
      const write = call.write.bind(call);
      call.write = (response: DiscoveryResponse, whenLeft: (error?: Error | null) => void) => {
        written++;
        return write(response, () => (rules.whenLeft ?? ((left) => left()))(whenLeft));
      };
      serveStateOfTheWorldStream(call, { ...rules, typeUrl: typeUrls.secret, view: cache, peer: 'test', log: quiet });
    },
  });
  const listener = await listenUnix({ server, path: join(dir, 's'), mode: 0o600, takeOver: false, onRefused: () => undefined });
  const client = new SecretDiscoveryServiceClient(`unix:${join(dir, 's')}`, credentials.createInsecure());
  const call = client.streamSecrets();
  const all: string[] = [];
  let wake: () => void = () => undefined;
  call.on('data', ({ resources }: DiscoveryResponse) => {
    all.push(Buffer.from(resources[0]?.value ?? []).toString());
    wake();
  });
  call.on('error', () => undefined);
  call.write({ versionInfo: '', node: undefined, resourceNames: [], typeUrl: typeUrls.secret, responseNonce: '', errorDetail: undefined });
  cleanups.push(async () => {
    call.cancel();
    client.close();
    await listener.close();
    await stopServer(server, 10);
    rmSync(dir, { recursive: true, force: true });
  });
  const said = async (count: number) => {
    while (all.length < count)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    return all;
  };
  return { publish, said, written: () => written };
}

describe('a state-of-the-world stream', { timeout: 20_000 }, () => {
  test('queues nothing behind a response that has not left, and then says what is newest', async () => {
    const held: (() => void)[] = [];
    const { publish, said, written } = await serve({ whenLeft: (left) => held.push(left) });
    await said(1);
    for (const text of ['2', '3', '4']) publish(text);
    assert.equal(written(), 1);
    while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
    held.shift()?.();
    assert.deepEqual(await said(2), ['1', '4']);
  });

  test('tells a client nothing that may have nothing any more, and one that may everything', async () => {
    let proven = true;
    const { publish, said, written } = await serve({ mayPush: () => proven });
    await said(1);
    proven = false;
    publish('2');
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(written(), 1);
    proven = true;
    publish('3');
    assert.deepEqual(await said(2), ['1', '3']);
  });
});
