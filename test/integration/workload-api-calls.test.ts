// The SPIFFE Workload API as its clients meet it: what every call must bring, and who may make it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { Client, credentials, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { rememberedCallers } from '../../src/wire/caller.ts';
import { nodeTrust } from '../support/jwt.ts';
import { TestCa } from '../support/pki.ts';
import {
  client,
  fetchJwt,
  header,
  ID,
  path,
  reading,
  register,
  serve,
  token,
  UID,
  unlimited,
  useWorkloadApi,
  validate,
  world,
} from '../support/workload-api.ts';
import { WorkloadCaller } from '../support/workload-caller.ts';

useWorkloadApi();

describe('every call', () => {
  const calls: readonly [string, (metadata: Metadata) => Promise<unknown>][] = [
    ['FetchX509SVID', (metadata) => reading(client().fetchX509Svid({}, metadata)).next()],
    ['FetchX509Bundles', (metadata) => reading(client().fetchX509Bundles({}, metadata)).next()],
    ['FetchJWTBundles', (metadata) => reading(client().fetchJwtBundles({}, metadata)).next()],
    ['FetchJWTSVID', (metadata) => fetchJwt(['them'], '', metadata)],
    ['ValidateJWTSVID', (metadata) => validate(token(), 'them', metadata)],
  ];
  const twice = () => {
    const metadata = header();
    metadata.add('workload.spiffe.io', 'true');
    return metadata;
  };

  for (const [name, call] of calls) {
    it(`${name}: refused without the header or with another value, answered with it`, async () => {
      await register({ id: ID });
      await serve();
      for (const metadata of [new Metadata(), header('false'), header('True'), header(''), twice()]) {
        await assert.rejects(call(metadata), { code: status.INVALID_ARGUMENT });
      }
      await call(header());
    });

    it(`${name}: refused to a process that is not registered`, async () => {
      await register({ id: ID, selectors: '{ cgroup: /nobody }' });
      await serve();
      await assert.rejects(call(header()), { code: status.PERMISSION_DENIED });
    });

    it(`${name}: refused when it comes too often, and answered later`, async () => {
      let clock = 0;
      await register({ id: ID });
      await serve({ limits: { calls: { burst: 1, perSecond: 1 }, streams: 10 }, clock: () => clock });
      await call(header());
      await assert.rejects(call(header()), { code: status.RESOURCE_EXHAUSTED, details: /1000 ms/ });
      clock += 1000;
      await call(header());
    });
  }

  it('refused: garbage instead of a message, on a connection that goes on', async () => {
    await register({ id: ID });
    await serve();
    const api = new Client(`unix:${path()}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
    world.stops.push(() => api.close());
    const bytes = (value: Buffer) => value;
    const send = (value: Buffer) =>
      new Promise<Buffer | undefined>((resolve, reject) => {
        api.makeUnaryRequest('/SpiffeWorkloadAPI/ValidateJWTSVID', bytes, bytes, value, header(), (error, response) =>
          error === null ? resolve(response) : reject(error),
        );
      });
    // Field 1 says it has more bytes than there are.
    await assert.rejects(send(Buffer.of(0x0a, 0xff, 0x01, 0x41)), ({ code }: ServiceError) => code !== status.OK);
    await assert.rejects(send(Buffer.alloc(0)), { code: status.INVALID_ARGUMENT });
  });

  it('refusals-of-one-peer-do-not-fill-the-log', async () => {
    await register();
    await serve({ limits: { calls: { burst: 100, perSecond: 100 }, streams: 10 }, clock: () => 0 });
    for (let i = 0; i < 8; i++) await assert.rejects(fetchJwt(['them']), { code: status.PERMISSION_DENIED });
    assert.equal(world.log.records.filter(({ msg }) => msg?.includes('matches no registration')).length, 5);
  });

  it('a-mistake-of-ours-tells-the-caller-nothing', async () => {
    await register({ id: ID });
    await serve({
      signer: {
        signJwtSvid: () => {
          throw new TypeError('a secret detail');
        },
      },
      now: () => {
        throw new TypeError('a secret detail');
      },
    });
    for (const call of [() => reading(client().fetchX509Svid({}, header())).next(), () => validate(token())]) {
      await assert.rejects(call(), { code: status.INTERNAL, details: 'internal error' });
    }
    await world.log.find(({ reason }) => reason === 'a secret detail');
  });

  it('streams-at-once-are-limited', async () => {
    await register({ id: ID });
    await serve({ limits: { ...unlimited, streams: 2 } });
    const first = client().fetchX509Bundles({}, header());
    first.on('error', () => undefined);
    await once(first, 'data');
    await reading(client().fetchX509Svid({}, header())).next();
    assert.equal((await reading(client().fetchJwtBundles({}, header())).refused()).code, status.RESOURCE_EXHAUSTED);
    first.cancel();
    await once(first, 'end').catch(() => undefined);
    const again = () =>
      reading(client().fetchJwtBundles({}, header()))
        .next()
        .then(
          () => true,
          () => false,
        );
    while (!(await again()));
  });
});

describe('another process', { skip: UID === 0 ? false : 'needs root' }, () => {
  it('is-served-by-its-user-and-another-user-is-refused', async () => {
    await register({ id: ID, selectors: '{ uid: 12345 }' });
    await serve();
    await using registered = WorkloadCaller.spawn(path(), { uid: 12_345 });
    assert.match(await registered.line(), /^data/);
    await using stranger = WorkloadCaller.spawn(path(), { uid: 12_346 });
    assert.match(await stranger.line(), /^status 7 /);
    const refused = await world.log.find(({ msg }) => msg?.includes('matches no registration') === true);
    assert.deepEqual([refused.pid, refused.uid, refused.alive], [stranger.child.pid, 12_346, true]);
  });

  it('that-holds-the-connection-of-one-that-has-ended-gets-nothing-more', async () => {
    await register({ id: ID });
    await serve();
    await using caller = WorkloadCaller.spawn(path(), { handOn: true });
    assert.match(await caller.line(), /^data/);
    const [, holder] = (await caller.line()).split(' ');
    await caller.exited();
    assert.equal(rememberedCallers(), 1, 'the connection is still open');
    world.trust.replace(nodeTrust([world.ca, await TestCa.create('other.example')], [world.key]));
    const { pid, alive } = await world.log.find(({ msg }) => msg?.includes('matches no registration') === true);
    assert.deepEqual([pid, alive], [caller.child.pid, false]);
    process.kill(Number(holder), 'SIGKILL');
  });

  it('that-lives-on-is-told-of-the-same-change', async () => {
    await register({ id: ID });
    await serve();
    await using caller = WorkloadCaller.spawn(path());
    assert.match(await caller.line(), /^data/);
    world.trust.replace(nodeTrust([world.ca, await TestCa.create('other.example')], [world.key]));
    assert.match(await caller.line(), /^data/);
  });
});
