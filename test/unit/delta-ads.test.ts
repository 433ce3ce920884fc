// Delta ADS, both sides, over a real unix socket: what travels, what does not, and what a refusal leaves in force.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { type ClientDuplexStream, credentials, type Server, type ServiceError, status } from '@grpc/grpc-js';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { type DeltaServerOptions, type DeltaStream, serveDeltaStream } from '../../src/discovery/delta-server.ts';
import { ResourceCache, type ResourceChange } from '../../src/discovery/resource-cache.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { AggregatedDiscoveryServiceClient, AggregatedDiscoveryServiceService } from '../../src/wire/gen/envoy/service/discovery/v3/ads.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { newServer, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';

const [A, B] = ['type.googleapis.com/a', 'type.googleapis.com/b'] as const;
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Things that happen, in order, and a way to wait for the next of them. */
class Events<T> {
  readonly all: T[] = [];
  #wake: (() => void)[] = [];

  push(event: T): void {
    this.all.push(event);
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** The events once the condition holds; the test's own deadline bounds the wait. */
  async until(holds: (all: readonly T[]) => boolean): Promise<readonly T[]> {
    while (!holds(this.all)) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.all;
  }

  count(count: number): Promise<readonly T[]> {
    return this.until((all) => all.length >= count);
  }
}

interface Logged {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

function recordingLog(): {
  log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  lines: Events<Logged>;
} {
  const lines = new Events<Logged>();
  const write = (fields: object, message: string) => lines.push({ fields: { ...fields }, message });
  return { log: { info: write, warn: write }, lines };
}

const resources = (of: Readonly<Record<string, string>>) => new Map(Object.entries(of).map(([name, text]) => [name, Buffer.from(text)]));

interface ServerRig {
  readonly address: string;
  readonly cache: ResourceCache;
  /** As the server reads and writes them. */
  readonly requests: Events<DeltaDiscoveryRequest>;
  readonly responses: Events<DeltaDiscoveryResponse>;
  readonly streams: Events<DeltaStream>;
  readonly serverLog: Events<Logged>;
}

async function serve(
  path?: string,
  cache = new ResourceCache(),
  rules: Partial<DeltaServerOptions> & { whenLeft?: (left: () => void) => void } = {},
): Promise<ServerRig & { path: string; server: Server; stop(): Promise<void> }> {
  let socket = path;
  if (socket === undefined) {
    const dir = mkdtempSync(join(tmpdir(), 'handfast-ads-'));
    cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
    socket = join(dir, 'ads.sock');
  }
  const [requests, responses, streams] = [
    new Events<DeltaDiscoveryRequest>(),
    new Events<DeltaDiscoveryResponse>(),
    new Events<DeltaStream>(),
  ];
  const { log, lines } = recordingLog();
  const server = newServer();
  server.addService(AggregatedDiscoveryServiceService, {
    deltaAggregatedResources: (call: DeltaStream) => {
      const write = call.write.bind(call);
      // Seen before it goes out; the pipeline itself is untouched.
      call.write = (response: DeltaDiscoveryResponse, whenLeft: (error?: Error | null) => void) => {
        responses.push(response);
        return write(response, () => (rules.whenLeft ?? ((left) => left()))(whenLeft));
      };
      serveDeltaStream(call, { ...rules, view: cache, peer: 'test', log });
      call.on('data', (request: DeltaDiscoveryRequest) => requests.push(request));
      streams.push(call);
    },
  });
  const listener = await listenUnix({ server, path: socket, mode: 0o600, takeOver: false, onRefused: () => undefined });
  const stop = async () => {
    await listener.close();
    await stopServer(server, 10);
  };
  cleanups.push(stop);
  return { address: `unix:${socket}`, path: socket, server, stop, cache, requests, responses, streams, serverLog: lines };
}

interface ClientRig {
  readonly applied: Events<{ typeUrl: string; upserts: Record<string, string>; removed: readonly string[] }>;
  readonly clientLog: Events<Logged>;
  readonly token: Snapshot<string>;
}

/** Our client; `refuse` says why a change cannot be used. */
function startClient(
  rig: { address: string },
  options: { refuse?: (change: ResourceChange) => string | undefined; typeUrls?: readonly string[] } = {},
): ClientRig {
  const stopping = new AbortController();
  const applied: ClientRig['applied'] = new Events();
  const token = new Snapshot('first');
  const { log, lines } = recordingLog();
  const running = runDeltaAdsClient({
    target: unixTarget(rig.address),
    nodeId: 'node-1',
    token,
    typeUrls: options.typeUrls ?? [A],
    apply: (typeUrl, change) => {
      const reason = options.refuse?.(change);
      if (reason !== undefined) throw new Error(reason);
      const upserts = Object.fromEntries([...change.upserts].map(([name, value]) => [name, Buffer.from(value).toString()]));
      applied.push({ typeUrl, upserts, removed: change.removed });
    },
    log,
    signal: stopping.signal,
  });
  cleanups.push(async () => {
    stopping.abort();
    await running;
  });
  return { applied, clientLog: lines, token };
}

/** A client that says only what the test says. */
function rawClient(rig: { address: string }): {
  received: Events<DeltaDiscoveryResponse>;
  ended: Promise<ServiceError>;
  send(fields: Partial<DeltaDiscoveryRequest>): void;
} {
  const client = new AggregatedDiscoveryServiceClient(rig.address, credentials.createInsecure());
  const call: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = client.deltaAggregatedResources();
  const received = new Events<DeltaDiscoveryResponse>();
  call.on('data', (response: DeltaDiscoveryResponse) => received.push(response));
  const ended = new Promise<ServiceError>((resolve) => call.on('error', resolve));
  cleanups.push(() => {
    call.cancel();
    client.close();
  });
  return {
    received,
    ended,
    send: (fields) =>
      call.write({
        node: undefined,
        typeUrl: A,
        resourceNamesSubscribe: [],
        resourceNamesUnsubscribe: [],
        initialResourceVersions: {},
        responseNonce: '',
        errorDetail: undefined,
        ...fields,
      }),
  };
}

const names = (response: DeltaDiscoveryResponse | undefined) => ({
  resources: (response?.resources ?? []).map(({ name }) => name).sort(),
  removed: [...(response?.removedResources ?? [])].sort(),
});
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
  const resource = (name: string, typeUrl: string) => ({ name, version: 'v', aliases: [], resource: { typeUrl, value: Buffer.from('1') } });

  const bad: Readonly<Record<string, readonly [Partial<DeltaDiscoveryResponse>, RegExp]>> = {
    'a type that was not asked for': [{ typeUrl: B, resources: [resource('x', B)] }, /not asked for/],
    'a resource of another type inside': [{ resources: [resource('ok', A), resource('x', B)] }, /resource x is not a/],
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
