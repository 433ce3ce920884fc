// Delta ADS, both sides, over a real unix socket: what travels, what does not, and what a refusal leaves in force.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import type { DeltaStream } from '../../src/discovery/delta-server.ts';
import { ResourceCache, type ResourceChange } from '../../src/discovery/resource-cache.ts';
import { AggregatedDiscoveryServiceService } from '../../src/wire/gen/envoy/service/discovery/v3/ads.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { newServer, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { A, B, cleanups, Events, names, rawClient, recordingLog, resources, serve, startClient } from '../support/ads-rig.ts';

const opts = { timeout: 10_000 };

describe('client and server together', opts, () => {
  test('all of a type comes first, then changes alone, then removals', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1', y: '2' }));
    const { applied } = startClient(rig);
    await applied.count(1);
    rig.cache.apply(A, { upserts: resources({ y: '3' }), removed: [] });
    await applied.count(2);
    rig.cache.apply(A, { upserts: new Map(), removed: ['x'] });
    await applied.count(3);
    assert.deepEqual(applied.all, [
      { typeUrl: A, upserts: { x: '1', y: '2' }, removed: [] },
      { typeUrl: A, upserts: { y: '3' }, removed: [] },
      { typeUrl: A, upserts: {}, removed: ['x'] },
    ]);
  });

  test('the first request is a wildcard subscription with our node', opts, async () => {
    const rig = await serve();
    startClient(rig);
    const [first] = await rig.requests.count(1);
    assert.equal(first?.typeUrl, A);
    assert.equal(first?.node?.id, 'node-1');
    assert.equal(first?.node?.userAgentName, 'handfast');
    assert.deepEqual(first?.resourceNamesSubscribe, []);
    assert.deepEqual(first?.initialResourceVersions, {});
  });

  test("the workload's token goes along as a bearer token", opts, async () => {
    const rig = await serve();
    startClient(rig);
    const [call] = await rig.streams.count(1);
    assert.deepEqual(call?.metadata.get('authorization'), ['Bearer first']);
  });

  test('a type not filled yet is not answered; an empty one is, so that the client knows', opts, async () => {
    const rig = await serve();
    const { applied } = startClient(rig, { typeUrls: [A, B] });
    await rig.requests.count(2);
    rig.cache.replace(B, new Map());
    await applied.count(1);
    assert.deepEqual(applied.all, [{ typeUrl: B, upserts: {}, removed: [] }]);
    rig.cache.replace(A, resources({ x: '1' }));
    await applied.count(2);
    assert.deepEqual(applied.all[1], { typeUrl: A, upserts: { x: '1' }, removed: [] });
  });

  test('equal bytes put in again are not sent again', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1', y: '2' }));
    const { applied } = startClient(rig);
    await applied.count(1);
    rig.cache.replace(A, resources({ x: '1', y: '2' }));
    rig.cache.replace(A, resources({ x: '1', y: 'new' }));
    await applied.count(2);
    assert.deepEqual(applied.all[1], { typeUrl: A, upserts: { y: 'new' }, removed: [] });
  });

  test('a new stream names what is held: the unchanged is not resent, the changed is, the vanished is removed', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ same: '1', changed: '2', gone: '3' }));
    const { applied, token } = startClient(rig);
    await applied.count(1);
    // The ACK, so that the stream is at rest.
    await rig.requests.count(2);
    // One change that the client has not heard of, made between its streams.
    const [firstStream] = rig.streams.all;
    const ended = new Promise((resolve) => firstStream?.once('cancelled', resolve));
    token.replace('second');
    await ended;
    rig.cache.replace(A, resources({ same: '1', changed: 'new', added: '4' }));
    const all = await applied.until((events) => events.some(({ removed }) => removed.includes('gone')));
    const later = all.slice(1);
    assert.deepEqual(Object.assign({}, ...later.map(({ upserts }) => upserts)), { changed: 'new', added: '4' });
    const hello = rig.requests.all.find(({ initialResourceVersions }) => Object.keys(initialResourceVersions).length > 0);
    assert.deepEqual(Object.keys(hello?.initialResourceVersions ?? {}).sort(), ['changed', 'gone', 'same']);
    assert.deepEqual(rig.streams.all[1]?.metadata.get('authorization'), ['Bearer second']);
  });

  test('a server that restarted with other resources: the client ends with those, and keeps the old until then', opts, async () => {
    const first = await serve();
    first.cache.replace(A, resources({ same: '1', gone: '2' }));
    const { applied, clientLog } = startClient(first);
    await applied.count(1);
    await first.requests.count(2);
    await first.stop();
    await clientLog.until((lines) => lines.some(({ message }) => message.includes('discovery stream ended')));
    assert.equal(applied.all.length, 1);
    const second = await serve(first.path);
    second.cache.replace(A, resources({ same: '1', added: '3' }));
    await applied.count(2);
    assert.deepEqual(applied.all[1], { typeUrl: A, upserts: { added: '3' }, removed: ['gone'] });
  });

  test('a client that starts before its server waits for it', opts, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'handfast-ads-'));
    cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
    const path = join(dir, 'late.sock');
    const { applied, clientLog } = startClient({ address: `unix:${path}` });
    await clientLog.count(1);
    const rig = await serve(path);
    rig.cache.replace(A, resources({ x: '1' }));
    await applied.count(1);
    assert.deepEqual(applied.all[0]?.upserts, { x: '1' });
  });

  test('a NACK keeps the last good one, tells why, and is not answered with the same again', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: 'good' }));
    const refuse = (change: ResourceChange) =>
      [...change.upserts.values()].some((value) => Buffer.from(value).includes('bad')) ? 'x is bad' : undefined;
    const { applied, clientLog } = startClient(rig, { refuse });
    await applied.count(1);
    rig.cache.replace(A, resources({ x: 'bad' }));
    const log = await rig.serverLog.count(1);
    assert.match(log[0]?.message ?? '', /NACK/);
    assert.equal(log[0]?.fields.reason, 'x is bad');
    assert.match(clientLog.all[0]?.message ?? '', /the last good ones stay in force/);
    const nack = rig.requests.all.at(-1);
    assert.equal(nack?.errorDetail?.message, 'x is bad');
    assert.equal(nack?.responseNonce, rig.responses.all[1]?.nonce);
    // The next thing that the server sends is the mended one: nothing was resent in between.
    rig.cache.replace(A, resources({ x: 'mended' }));
    await applied.count(2);
    assert.deepEqual(
      rig.responses.all.map((response) => Buffer.from(response.resources[0]?.resource?.value ?? []).toString()),
      ['good', 'bad', 'mended'],
    );
    assert.deepEqual(
      applied.all.map(({ upserts }) => upserts.x),
      ['good', 'mended'],
    );
  });

  test('what was refused is not named as held on a new stream, so it comes again', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: 'bad' }));
    let attempts = 0;
    const { token, applied } = startClient(rig, { refuse: () => (attempts++ === 0 ? 'not now' : undefined) });
    await rig.serverLog.count(1);
    token.replace('second');
    await applied.count(1);
    assert.deepEqual(applied.all[0]?.upserts, { x: 'bad' });
  });

  test('what was good in a refused response comes again with the next change', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ policy: 'PERMISSIVE' }));
    const refuse = (change: ResourceChange) => (change.upserts.get('other')?.toString() === 'bad' ? 'other is bad' : undefined);
    const { applied } = startClient(rig, { refuse });
    await applied.count(1);
    rig.cache.replace(A, resources({ policy: 'STRICT', other: 'bad' }));
    await rig.serverLog.count(1);
    rig.cache.replace(A, resources({ policy: 'STRICT', other: 'mended' }));
    await applied.count(2);
    assert.deepEqual(applied.all[1]?.upserts, { policy: 'STRICT', other: 'mended' });
  });

  test('what was good in a refused response is not forgotten over a change of something else', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1', y: '1', z: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const responses = async (count: number) => (await received.count(count))[count - 1];
    const ack = async (count: number) => send({ responseNonce: (await responses(count))?.nonce ?? '' });
    await ack(1);
    rig.cache.apply(A, { upserts: resources({ x: 'STRICT', y: 'bad' }), removed: ['z'] });
    const no = { code: 3, message: 'y is bad', details: [] };
    send({ responseNonce: (await responses(2))?.nonce ?? '', errorDetail: no });
    await rig.serverLog.count(1);
    // Asked for again: not what was refused, which waits for a change.
    send({ resourceNamesSubscribe: ['*', 'other'] });
    rig.cache.apply(A, { upserts: resources({ other: '1' }), removed: [] });
    const third = await responses(3);
    assert.deepEqual(names(third), { resources: ['other', 'x', 'y'], removed: ['z'] });
    send({ responseNonce: third?.nonce ?? '', errorDetail: no });
    rig.cache.apply(A, { upserts: resources({ y: '2' }), removed: [] });
    assert.deepEqual(names(await responses(4)), { resources: ['other', 'x', 'y'], removed: ['z'] });
    await ack(4);
    rig.cache.apply(A, { upserts: resources({ y: '3' }), removed: [] });
    assert.deepEqual(names(await responses(5)), { resources: ['y'], removed: [] });
  });

  test('a name asked for while others are refused does not make the server forget them', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: 'bad', asked: '1' }));
    const { received, send } = rawClient(rig);
    send({ resourceNamesSubscribe: ['x'] });
    const [first] = await received.count(1);
    send({ responseNonce: first?.nonce ?? '', errorDetail: { code: 3, message: 'x is bad', details: [] } });
    send({ resourceNamesSubscribe: ['asked'] });
    const second = (await received.count(2))[1];
    assert.deepEqual(names(second), { resources: ['asked'], removed: [] });
    send({ responseNonce: second?.nonce ?? '' });
    await rig.requests.count(4);
    rig.cache.apply(A, { upserts: resources({ asked: '2' }), removed: [] });
    assert.deepEqual(names((await received.count(3))[2]), { resources: ['asked', 'x'], removed: [] });
  });

  test('a correction that came before the refusal goes out behind it', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: 'bad' }));
    const { received, send } = rawClient(rig);
    send({ typeUrl: A });
    const [first] = await received.count(1);
    rig.cache.replace(A, resources({ x: 'good' }));
    send({ typeUrl: A, responseNonce: first?.nonce ?? '', errorDetail: { code: 3, message: 'x is bad', details: [] } });
    const both = await received.count(2);
    assert.equal(Buffer.from(both[1]?.resources[0]?.resource?.value ?? []).toString(), 'good');
  });

  test('a refusal of one type leaves the other served', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: 'bad' }));
    rig.cache.replace(B, resources({ y: '1' }));
    const { applied } = startClient(rig, { typeUrls: [A, B], refuse: (change) => (change.upserts.has('x') ? 'no' : undefined) });
    await rig.serverLog.count(1);
    rig.cache.replace(B, resources({ y: '2' }));
    await applied.until((all) => all.some(({ upserts }) => upserts.y === '2'));
    assert.ok(applied.all.every(({ typeUrl }) => typeUrl === B));
  });

  test('when the client is told to stop, its stream ends and the server forgets it', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1' }));
    const stopping = new AbortController();
    const got = new Events<string>();
    const { log } = recordingLog();
    const running = runDeltaAdsClient({
      target: unixTarget(rig.address),
      nodeId: 'n',
      token: undefined,
      typeUrls: [A],
      apply: (typeUrl) => got.push(typeUrl),
      log,
      signal: stopping.signal,
    });
    await got.count(1);
    const [call] = rig.streams.all;
    assert.deepEqual(call?.metadata.get('authorization'), []);
    const cancelled = new Promise((resolve) => call?.once('cancelled', resolve));
    stopping.abort();
    await running;
    await cancelled;
    const sent = rig.responses.all.length;
    rig.cache.replace(A, resources({ x: '2' }));
    assert.equal(rig.responses.all.length, sent);
  });
});

describe('the server, to a client of another make', opts, () => {
  test('changes gather while a response is unanswered, and go out as one', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const [first] = await received.count(1);
    rig.cache.replace(A, resources({ x: '2', y: '1' }));
    rig.cache.replace(A, resources({ x: '3', z: '1' }));
    assert.equal(rig.responses.all.length, 1);
    send({ responseNonce: first?.nonce ?? '' });
    const all = await received.count(2);
    assert.deepEqual(names(all[1]), { resources: ['x', 'z'], removed: [] });
    assert.equal(Buffer.from(all[1]?.resources[0]?.resource?.value ?? []).toString(), '3');
  });

  test('one type that is unanswered does not hold up another', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1' }));
    rig.cache.replace(B, resources({ y: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    await received.count(1);
    send({ typeUrl: B });
    const all = await received.count(2);
    assert.equal(all[1]?.typeUrl, B);
  });

  test('a nonce that is stale or made up answers nothing', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const [first] = await received.count(1);
    rig.cache.replace(A, resources({ x: '2' }));
    for (const responseNonce of ['', 'made-up', `${first?.nonce}x`]) send({ responseNonce });
    await rig.requests.count(4);
    assert.equal(rig.responses.all.length, 1);
    send({ responseNonce: first?.nonce ?? '' });
    await received.count(2);
    assert.equal(rig.responses.all.length, 2);
  });

  test('an ACK with nothing new is answered with nothing', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const [first] = await received.count(1);
    send({ responseNonce: first?.nonce ?? '' });
    send({ responseNonce: first?.nonce ?? '' });
    await rig.requests.count(3);
    assert.equal(rig.responses.all.length, 1);
  });

  test('names held from an earlier stream: equal ones are not sent, older ones are, unknown ones are taken back', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ same: '1', newer: '2' }));
    const versions = rig.cache.resources(A);
    const { received, send } = rawClient(rig);
    send({ initialResourceVersions: { same: versions?.get('same')?.version ?? '', newer: 'old', vanished: 'v' } });
    const [first] = await received.count(1);
    assert.deepEqual(names(first), { resources: ['newer'], removed: ['vanished'] });
  });

  test('everything held already: one empty response says that there is no more', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ same: '1' }));
    const { received, send } = rawClient(rig);
    send({ initialResourceVersions: { same: rig.cache.resources(A)?.get('same')?.version ?? '' } });
    const [first] = await received.count(1);
    assert.deepEqual(names(first), { resources: [], removed: [] });
  });

  test('every resource carries its version, its name and the type of its response', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ x: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const [first] = await received.count(1);
    const [resource] = first?.resources ?? [];
    assert.equal(resource?.name, 'x');
    assert.equal(resource?.version, rig.cache.resources(A)?.get('x')?.version);
    assert.equal(resource?.resource?.typeUrl, A);
    assert.notEqual(first?.nonce, '');
  });
});

describe('what a stream may have', opts, () => {
  test('a client that may have nothing any more is told nothing, and one that may is', opts, async () => {
    let proven = true;
    const rig = await serve(undefined, new ResourceCache(), { mayPush: () => proven });
    rig.cache.replace(A, resources({ x: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const [first] = await received.count(1);
    send({ responseNonce: first?.nonce ?? '' });
    await rig.requests.count(2);
    proven = false;
    rig.cache.replace(A, resources({ x: '2' }));
    assert.equal(rig.responses.all.length, 1);
    proven = true;
    rig.cache.replace(A, resources({ x: '3' }));
    assert.deepEqual(names((await received.count(2))[1]), { resources: ['x'], removed: [] });
  });

  test('while a response has not left nothing follows it, and then what is newest', opts, async () => {
    const held: (() => void)[] = [];
    const rig = await serve(undefined, new ResourceCache(), { whenLeft: (left) => held.push(left) });
    rig.cache.replace(A, resources({ x: '1' }));
    rig.cache.replace(B, resources({ y: '1' }));
    const { received, send } = rawClient(rig);
    send({});
    const [first] = await received.count(1);
    send({ typeUrl: B });
    send({ responseNonce: first?.nonce ?? '' });
    await rig.requests.count(3);
    for (const text of ['2', '3', '4']) {
      rig.cache.replace(A, resources({ x: text }));
      rig.cache.replace(B, resources({ y: text }));
    }
    assert.equal(rig.responses.all.length, 1, 'nothing is queued');
    held.shift()?.();
    await received.count(2);
    assert.equal(rig.responses.all.length, 2);
    held.shift()?.();
    const [, ...later] = await received.count(3);
    const said = later.map(({ typeUrl, resources: [resource] }) => [typeUrl, Buffer.from(resource?.resource?.value ?? []).toString()]);
    assert.deepEqual(said.sort(), [
      [A, '4'],
      [B, '4'],
    ]);
  });

  test('a response without an answer ends the stream in time, and one with an answer does not', opts, async () => {
    const rig = await serve(undefined, new ResourceCache(), { answerTimeoutMs: 200 });
    rig.cache.replace(A, resources({ x: '1' }));
    const [silent, healthy] = [rawClient(rig), rawClient(rig)];
    healthy.send({});
    const [first] = await healthy.received.count(1);
    healthy.send({ responseNonce: first?.nonce ?? '' });
    silent.send({});
    assert.equal((await silent.ended).code, status.DEADLINE_EXCEEDED);
    rig.cache.replace(A, resources({ x: '2' }));
    assert.deepEqual(names((await healthy.received.count(2))[1]), { resources: ['x'], removed: [] });
  });

  test('too many names are refused with the first request too, and many are not', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, resources({ n1: '1' }));
    const many = Array.from({ length: 100_001 }, (_, index) => `n${index}`);
    const { ended, send } = rawClient(rig);
    send({ resourceNamesSubscribe: many });
    assert.equal((await ended).code, status.RESOURCE_EXHAUSTED);
    const allowed = rawClient(rig);
    allowed.send({ resourceNamesSubscribe: many.slice(1) });
    assert.deepEqual(names((await allowed.received.count(1))[0]), { resources: ['n1'], removed: [] });
  });
});

describe('the client, from a server of another make', opts, () => {
  /** Serves one stream by hand. */
  async function byHand(): Promise<{ address: string; calls: Events<DeltaStream>; requests: Events<DeltaDiscoveryRequest> }> {
    const dir = mkdtempSync(join(tmpdir(), 'handfast-ads-'));
    const [calls, requests] = [new Events<DeltaStream>(), new Events<DeltaDiscoveryRequest>()];
    const server = newServer();
    server.addService(AggregatedDiscoveryServiceService, {
      deltaAggregatedResources: (call: DeltaStream) => {
        call.on('data', (request: DeltaDiscoveryRequest) => requests.push(request));
        call.on('error', () => undefined);
        calls.push(call);
      },
    });
    const listener = await listenUnix({ server, path: join(dir, 'ads.sock'), mode: 0o600, takeOver: false, onRefused: () => undefined });
    cleanups.push(async () => {
      await listener.close();
      await stopServer(server, 10);
      rmSync(dir, { recursive: true, force: true });
    });
    return { address: `unix:${join(dir, 'ads.sock')}`, calls, requests };
  }
  const response = (fields: Partial<DeltaDiscoveryResponse>): DeltaDiscoveryResponse => ({
    systemVersionInfo: '',
    typeUrl: A,
    nonce: 'n',
    resources: [],
    removedResources: [],
    ...fields,
  });
  const resource = (name: string, typeUrl: string, value = '1') => ({
    ...{ name, version: 'v', aliases: [] },
    resource: { typeUrl, value: Buffer.from(value) },
  });

  const bad: Readonly<Record<string, readonly [Partial<DeltaDiscoveryResponse>, RegExp]>> = {
    'a type that was not asked for': [{ typeUrl: B, resources: [resource('x', B)] }, /not asked for/],
    'a resource of another type inside': [{ resources: [resource('ok', A), resource('x', B)] }, /resource x is not a/],
    'one name twice with different contents': [{ resources: [resource('x', A), resource('x', A, '2')] }, /resource x stands twice/],
    'a resource without a body': [{ resources: [{ name: 'x', version: 'v', aliases: [], resource: undefined }] }, /resource x/],
  };
  for (const [name, [fields, says]] of Object.entries(bad)) {
    test(`${name} is a NACK for the whole response, and the next good one is taken`, opts, async () => {
      const rig = await byHand();
      const { applied } = startClient(rig);
      const [call] = await rig.calls.count(1);
      await rig.requests.count(1);
      call?.write(response({ nonce: 'bad', ...fields }));
      const requests = await rig.requests.count(2);
      assert.equal(requests[1]?.responseNonce, 'bad');
      assert.match(requests[1]?.errorDetail?.message ?? '', says);
      assert.deepEqual(applied.all, []);
      call?.write(response({ nonce: 'good', resources: [resource('x', A)] }));
      await applied.count(1);
      const ack = (await rig.requests.count(3))[2];
      assert.equal(ack?.responseNonce, 'good');
      assert.equal(ack?.errorDetail, undefined);
    });
  }

  test('one name twice with the same contents is one', opts, async () => {
    const rig = await byHand();
    const { applied } = startClient(rig);
    const [call] = await rig.calls.count(1);
    call?.write(response({ resources: [resource('x', A), resource('x', A)] }));
    assert.deepEqual(await applied.count(1), [{ typeUrl: A, upserts: { x: '1' }, removed: [] }]);
  });

  test('a stream that the server ends is opened again, and what was applied is not taken back', opts, async () => {
    const rig = await byHand();
    const { applied } = startClient(rig);
    const [call] = await rig.calls.count(1);
    call?.write(response({ resources: [resource('x', A)] }));
    await applied.count(1);
    await rig.requests.count(2);
    call?.end();
    await rig.calls.count(2);
    const again = (await rig.requests.count(3))[2];
    assert.deepEqual(again?.initialResourceVersions, { x: 'v' });
    assert.equal(applied.all.length, 1);
  });
});
