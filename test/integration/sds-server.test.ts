// The agent's SDS as any sidecar may use it: which names there are and whose, what is sent again and what is not, what is kept of a refusal, and
// who is turned away.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type ClientDuplexStream, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { bearerMetadata } from '../../src/wire/grpc.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { SECRET_TYPE } from '../support/sds-server.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
const UID = process.getuid?.() ?? 0;
const REFUSED = { code: 3, message: 'no good', details: [] };

let records: RecordingLog;
let plane: ControlPlane;
let cleanups: (() => unknown)[];

beforeEach(async () => {
  cleanups = [];
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
});

afterEach(async () => {
  for (const clean of cleanups.reverse()) await clean();
  await plane[Symbol.asyncDispose]();
});

/** What a stream says, one by one; `refused` is how it ended. */
class Stream<Request, Response> {
  readonly call: ClientDuplexStream<Request, Response>;
  readonly #answers: AsyncIterator<Response>;
  readonly refused: Promise<ServiceError>;
  seen = 0;

  constructor(call: ClientDuplexStream<Request, Response>) {
    this.call = call;
    const queue: Response[] = [];
    let wake: () => void = () => undefined;
    call.on('data', (response: Response) => {
      this.seen++;
      queue.push(response);
      wake();
    });
    this.refused = new Promise((resolve) => call.on('error', (error) => resolve(error as ServiceError)));
    this.#answers = (async function* () {
      for (;;) {
        const next = queue.shift();
        if (next !== undefined) yield next;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    })();
    cleanups.push(() => call.cancel());
  }

  async next(): Promise<Response> {
    return Promise.race([this.#answers.next().then(({ value }) => value), this.refused.then((error) => assert.fail(error.message))]);
  }
}

const sds = () => {
  const client = new SecretDiscoveryServiceClient(plane.address('agent'), credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  cleanups.push(() => client.close());
  return client;
};

async function open(token: string | undefined) {
  const stream = new Stream<DiscoveryRequest, DiscoveryResponse>(sds().streamSecrets(bearerMetadata(token)));
  const send = (fields: Partial<DiscoveryRequest>) =>
    stream.call.write({
      versionInfo: '',
      node: undefined,
      resourceNames: [],
      typeUrl: SECRET_TYPE,
      responseNonce: '',
      errorDetail: undefined,
      ...fields,
    });
  return { stream, send };
}

async function openDelta(token: string | undefined) {
  const stream = new Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>(sds().deltaSecrets(bearerMetadata(token)));
  const send = (fields: Partial<DeltaDiscoveryRequest>) =>
    stream.call.write({
      node: undefined,
      typeUrl: SECRET_TYPE,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: {},
      responseNonce: '',
      errorDetail: undefined,
      ...fields,
    });
  return { stream, send };
}

const namesOf = ({ resources }: DiscoveryResponse) => resources.map(({ value }) => Secret.decode(value).name);
const deltaNames = ({ resources }: DeltaDiscoveryResponse) => resources.map(({ name }) => name);
const ALL = ['default', ID, 'ROOTCA', 'ALL', 'spiffe://cluster.local', 'CRL', 'JWT'];
/** Until the agent has the first list of the CA. */
const listed = () => records.find((record) => record.msg === 'revocation list in force');
const streams = async (): Promise<readonly { refusal?: { reason: string }; acked: object; spiffeId: string }[]> =>
  Object(await plane.ask('agent', 'GET', '/status')).streams;

async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('names', () => {
  beforeEach(async () => {
    await plane.start();
    await listed();
  });

  it('each-of-them-in-both-protocols', async () => {
    const token = await plane.token('sleep');
    for (const name of ALL) {
      const { stream, send } = await open(token);
      send({ resourceNames: [name] });
      assert.deepEqual(namesOf(await stream.next()), [name]);
      const delta = await openDelta(token);
      delta.send({ resourceNamesSubscribe: [name] });
      assert.deepEqual(deltaNames(await delta.stream.next()), [name]);
    }
  });

  it('none-and-a-star-are-everything', async () => {
    const token = await plane.token('sleep');
    const { stream, send } = await open(token);
    send({});
    assert.deepEqual(namesOf(await stream.next()).sort(), [...ALL].sort());
    for (const resourceNamesSubscribe of [[], ['*']]) {
      const delta = await openDelta(token);
      delta.send({ resourceNamesSubscribe });
      assert.deepEqual(deltaNames(await delta.stream.next()).sort(), [...ALL].sort());
    }
  });

  it("somebody-else's-ends-the-stream-at-once-and-later", async () => {
    const token = await plane.token('sleep');
    for (const foreign of ['spiffe://cluster.local/ns/foo/sa/admin', 'JWKS', 'nobody', 'spiffe://cluster.local/', '']) {
      const { stream, send } = await open(token);
      send({ resourceNames: ['default', foreign] });
      const error = await stream.refused;
      assert.equal(error.code, status.PERMISSION_DENIED);
      assert.match(error.details, /proves spiffe:\/\/cluster\.local\/ns\/foo\/sa\/sleep; there are default/);
      const delta = await openDelta(token);
      delta.send({ resourceNamesSubscribe: ['default'] });
      assert.deepEqual(deltaNames(await delta.stream.next()), ['default']);
      delta.send({ resourceNamesSubscribe: [foreign] });
      assert.equal((await delta.stream.refused).code, status.PERMISSION_DENIED);
    }
    const { stream, send } = await open(token);
    send({ resourceNames: ['x'.repeat(1_000_000)] });
    assert.ok((await stream.refused).details.length < 3_000, 'a huge name is not thrown back');
  });

  it('a-trust-domain-that-is-not-known-yet-is-waited-for', async () => {
    const { stream, send } = await open(await plane.token('sleep'));
    send({ resourceNames: ['default', 'spiffe://other.example'] });
    assert.deepEqual(namesOf(await stream.next()), ['default']);
    const many = await open(await plane.token('sleep'));
    many.send({ resourceNames: Array.from({ length: 101 }, (_, index) => `spiffe://td${index}`) });
    assert.equal((await many.stream.refused).code, status.RESOURCE_EXHAUSTED);
  });

  it('another-type-is-refused-and-none-means-secrets', async () => {
    const token = await plane.token('sleep');
    const typeUrl = 'type.googleapis.com/envoy.config.cluster.v3.Cluster';
    const wrong = await open(token);
    wrong.send({ typeUrl });
    assert.equal((await wrong.stream.refused).code, status.INVALID_ARGUMENT);
    const wrongDelta = await openDelta(token);
    wrongDelta.send({ typeUrl });
    assert.equal((await wrongDelta.stream.refused).code, status.INVALID_ARGUMENT);
    const { stream, send } = await open(token);
    send({ typeUrl: '', resourceNames: ['ROOTCA'] });
    assert.deepEqual(namesOf(await stream.next()), ['ROOTCA']);
    const delta = await openDelta(token);
    delta.send({ typeUrl: '', resourceNamesSubscribe: ['ROOTCA'] });
    assert.deepEqual(deltaNames(await delta.stream.next()), ['ROOTCA']);
  });
});

describe('a live stream', () => {
  beforeEach(async () => {
    await plane.start();
    await listed();
  });

  it('takes-other-names-with-the-latest-nonce-or-none', async () => {
    const { stream, send } = await open(await plane.token('sleep'));
    send({ resourceNames: ['default'] });
    const first = await stream.next();
    send({ resourceNames: ['default'], responseNonce: first.nonce, versionInfo: first.versionInfo });
    // As Envoy does it: the nonce it has answered already, once more.
    send({ resourceNames: ['default', 'ROOTCA'], responseNonce: first.nonce, versionInfo: first.versionInfo });
    const second = await stream.next();
    assert.deepEqual(namesOf(second), ['ROOTCA'], 'only what is new');
    send({ resourceNames: ['ROOTCA'], responseNonce: second.nonce });
    send({ resourceNames: ['ROOTCA', 'default'] });
    assert.deepEqual(namesOf(await stream.next()), ['default'], 'dropped and asked for again: sent again');
  });

  it('ignores-stale-and-unknown-nonces-but-not-that-of-a-server-before-it', async () => {
    const { stream, send } = await open(await plane.token('sleep'));
    send({ resourceNames: ['default'], responseNonce: 'of another server', versionInfo: 'of another server' });
    const first = await stream.next();
    send({ resourceNames: ['ALL'], responseNonce: 'made up' });
    send({ resourceNames: ['default'], responseNonce: first.nonce });
    send({ resourceNames: ['default', 'CRL'], responseNonce: first.nonce });
    const second = await stream.next();
    assert.deepEqual(namesOf(second), ['CRL']);
    send({ resourceNames: ['ALL'], responseNonce: first.nonce });
    send({ resourceNames: ['default', 'CRL', 'ROOTCA'], responseNonce: second.nonce });
    assert.deepEqual(namesOf(await stream.next()), ['ROOTCA']);
  });

  it('delta: unsubscribed-and-subscribed-again-is-sent-again-also-beside-a-nack', async () => {
    const { stream, send } = await openDelta(await plane.token('sleep'));
    send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
    const first = await stream.next();
    send({ responseNonce: first.nonce });
    send({ resourceNamesUnsubscribe: ['ROOTCA'] });
    send({ resourceNamesSubscribe: ['ROOTCA'] });
    const second = await stream.next();
    assert.deepEqual(deltaNames(second), ['ROOTCA']);
    send({ responseNonce: second.nonce, errorDetail: REFUSED, resourceNamesSubscribe: ['ALL'] });
    assert.deepEqual(deltaNames(await stream.next()), ['ALL'], 'what was refused is not sent again for the asking');
  });

  it('delta: what-is-held-is-not-sent-again-on-a-new-stream', async () => {
    const { stream, send } = await openDelta(await plane.token('sleep'));
    send({ resourceNamesSubscribe: ['ROOTCA', 'CRL'] });
    const { resources } = await stream.next();
    const initialResourceVersions = Object.fromEntries(resources.map(({ name, version }) => [name, version]));
    const again = await openDelta(await plane.token('sleep'));
    again.send({ resourceNamesSubscribe: ['ROOTCA', 'CRL'], initialResourceVersions });
    const nothing = await again.stream.next();
    assert.deepEqual([nothing.resources, nothing.removedResources], [[], []]);
    const older = await openDelta(await plane.token('sleep'));
    older.send({ resourceNamesSubscribe: ['ROOTCA', 'CRL'], initialResourceVersions: { ...initialResourceVersions, ROOTCA: 'older' } });
    assert.deepEqual(deltaNames(await older.stream.next()), ['ROOTCA']);
  });

  it('too-many-requests-end-it', async () => {
    const { stream, send } = await open(await plane.token('sleep'));
    for (let i = 0; i < 200; i++) send({ resourceNames: ['default'] });
    const error = await stream.refused;
    assert.equal(error.code, status.RESOURCE_EXHAUSTED);
    assert.match(error.details, /requests a second/);
    const delta = await openDelta(await plane.token('sleep'));
    for (let i = 0; i < 200; i++) delta.send({ resourceNamesSubscribe: ['default'] });
    assert.equal((await delta.stream.refused).code, status.RESOURCE_EXHAUSTED);
  });
});

describe('refusals', () => {
  it('are-kept-with-their-reason-and-go-with-the-next-ack-in-both-protocols', async () => {
    await plane.start({ agent: { rotateEveryMs: 300 } });
    const token = await plane.token('sleep');
    const plain = await open(token);
    const delta = await openDelta(token);
    plain.send({ resourceNames: ['default', 'ROOTCA'] });
    delta.send({ resourceNamesSubscribe: ['default', 'ROOTCA'] });
    const [first, firstDelta] = [await plain.stream.next(), await delta.stream.next()];
    plain.send({
      resourceNames: ['default', 'ROOTCA'],
      responseNonce: first.nonce,
      errorDetail: { ...REFUSED, message: 'y'.repeat(100_000) },
    });
    delta.send({ responseNonce: firstDelta.nonce, errorDetail: REFUSED });
    await eventually('both refusals shown', async () => (await streams()).every(({ refusal }) => refusal !== undefined));
    const reasons = (await streams()).map(({ refusal }) => refusal?.reason ?? '');
    assert.ok(reasons.includes('no good'));
    assert.ok(
      reasons.every((reason) => reason.length <= 1_001),
      'kept, but not at any length',
    );
    const [next, nextDelta] = [await plain.stream.next(), await delta.stream.next()];
    assert.deepEqual(
      namesOf(next),
      ['default', 'ROOTCA'],
      'the bundle was refused for its company, and comes again with the next certificate',
    );
    assert.deepEqual(deltaNames(nextDelta), ['default', 'ROOTCA']);
    plain.send({ resourceNames: ['default', 'ROOTCA'], responseNonce: next.nonce });
    delta.send({ responseNonce: nextDelta.nonce });
    await eventually('both refusals gone', async () => (await streams()).every(({ refusal }) => refusal === undefined));
  });

  it('of-a-response-that-was-overtaken-bring-the-rest-of-it-again', async () => {
    await plane.start({ agent: { rotateEveryMs: 300 } });
    const { stream, send } = await open(await plane.token('sleep'));
    send({ resourceNames: ['default', 'ROOTCA'] });
    const first = await stream.next();
    const overtaking = await stream.next();
    assert.deepEqual(namesOf(overtaking), ['default']);
    send({ resourceNames: ['default', 'ROOTCA'], responseNonce: first.nonce, errorDetail: REFUSED });
    for (;;) {
      const next = await stream.next();
      if (namesOf(next).includes('ROOTCA')) break;
    }
  });

  it('a-client-that-never-answers-is-held-after-sixteen-responses-and-goes-on-when-it-does', async () => {
    await plane.start({ agent: { rotateEveryMs: 20 } });
    const token = await plane.token('sleep');
    const mute = await open(token);
    const delta = await openDelta(token);
    mute.send({ resourceNames: ['default'] });
    delta.send({ resourceNamesSubscribe: ['default'] });
    const responses = [];
    for (let i = 0; i < 16; i++) responses.push(await mute.stream.next());
    const renewed = () => records.records.filter(({ msg }) => msg === 'certificate renewed').length;
    const then = renewed();
    await records.quiet(() => renewed() > then + 10);
    assert.equal(mute.stream.seen, 16);
    assert.equal(delta.stream.seen, 1, 'delta waits for each answer');
    mute.send({ resourceNames: ['default'], responseNonce: responses.at(-1)?.nonce ?? '' });
    assert.deepEqual(namesOf(await mute.stream.next()), ['default']);
  });
});

describe('proofs', () => {
  const registrationsFile = () => join(plane.dir, 'workloads.yaml');
  const register = async (entries: readonly { name: string; uid?: number }[]) => {
    const lines: string[] = [];
    for (const { name, uid = UID } of entries) {
      const file = join(plane.dir, `${name}.token`);
      // Another token would be a change of its own.
      if (!existsSync(file)) await writeFile(file, await plane.token(name));
      lines.push(`  - { spiffeId: "spiffe://cluster.local/ns/foo/sa/${name}", tokenFile: ${file}, selectors: { uid: ${uid} } }\n`);
    }
    await writeFile(`${registrationsFile()}.new`, lines.length === 0 ? 'workloads: []\n' : `workloads:\n${lines.join('')}`);
    await rename(`${registrationsFile()}.new`, registrationsFile());
  };
  const start = async (...entries: Parameters<typeof register>[0]) => {
    await plane.startControl();
    await plane.startCa();
    await register(entries);
    await plane.startAgent({ workloadsFile: registrationsFile() });
  };

  it('no-token-and-no-registrations-is-refused', async () => {
    await plane.start();
    const { stream } = await open(undefined);
    assert.equal((await stream.refused).code, status.UNAUTHENTICATED);
  });

  it('no-token-is-served-when-one-registration-matches', async () => {
    await start({ name: 'sleep' }, { name: 'other', uid: UID + 1 });
    const { stream, send } = await open(undefined);
    send({ resourceNames: [ID] });
    assert.deepEqual(namesOf(await stream.next()), [ID]);
  });

  it('no-token-is-refused-when-several-match-or-none', async () => {
    await start({ name: 'sleep' }, { name: 'other' });
    const { stream } = await open(undefined);
    const error = await stream.refused;
    assert.equal(error.code, status.UNAUTHENTICATED);
    assert.match(error.details, /registered for 2 workloads/);
    await plane.stopAgent();
    await register([{ name: 'sleep', uid: UID + 1 }]);
    await plane.startAgent({ workloadsFile: registrationsFile() });
    assert.equal((await (await open(undefined)).stream.refused).code, status.UNAUTHENTICATED);
  });

  it('a-token-of-a-workload-that-the-process-is-not-registered-for-is-refused', async () => {
    await start({ name: 'sleep' });
    const stolen = await open(await plane.token('admin'));
    stolen.send({ resourceNames: ['default'] });
    const error = await stolen.stream.refused;
    assert.equal(error.code, status.PERMISSION_DENIED);
    assert.equal(stolen.stream.seen, 0);
    const own = await open(await plane.token('sleep'));
    own.send({ resourceNames: ['default'] });
    assert.deepEqual(namesOf(await own.stream.next()), ['default']);
  });

  it('a-registration-that-goes-ends-its-streams-and-one-that-stays-keeps-them', async () => {
    await start({ name: 'sleep' });
    const tokenless = await open(undefined);
    const withToken = await open(await plane.token('sleep'));
    for (const { stream, send } of [tokenless, withToken]) {
      send({ resourceNames: ['default'] });
      await stream.next();
    }
    await register([{ name: 'sleep' }, { name: 'other', uid: UID + 1 }]);
    const reloads = () => records.records.filter(({ msg }) => msg === 'workload registrations in force').length;
    await records.quiet(() => reloads() === 1);
    await register([{ name: 'other', uid: UID + 1 }]);
    assert.equal((await withToken.stream.refused).code, status.PERMISSION_DENIED);
    assert.equal((await tokenless.stream.refused).code, status.PERMISSION_DENIED);
  });

  it('a-new-token-in-the-registered-file-opens-the-stream-anew-before-the-old-one-expires', async () => {
    await start({ name: 'sleep' });
    const { stream, send } = await open(undefined);
    send({ resourceNames: ['default'] });
    await stream.next();
    await writeFile(join(plane.dir, 'sleep.token'), await plane.token('sleep', { ttlS: 900 }));
    assert.equal((await stream.refused).code, status.UNAVAILABLE);
    const again = await open(undefined);
    again.send({ resourceNames: ['default'] });
    assert.deepEqual(namesOf(await again.stream.next()), ['default']);
  });

  it('a-workload-has-its-share-of-streams-and-another-has-its-own', async () => {
    await plane.start({ agent: { streamCounts: { ofWorkload: 2 } } });
    for (const name of ['sleep', 'sleep', 'other']) {
      const { stream, send } = await open(await plane.token(name));
      send({ resourceNames: ['default'] });
      assert.deepEqual(namesOf(await stream.next()), ['default']);
    }
    const { stream } = await open(await plane.token('sleep'));
    const error = await stream.refused;
    assert.equal(error.code, status.RESOURCE_EXHAUSTED);
    assert.match(error.details, /2 streams of spiffe:.*sleep are open/);
    assert.equal((await streams()).length, 3, 'and the others stay');
  });

  it('whoever-presents-many-refused-tokens-is-turned-away-before-the-ca-is-asked', async () => {
    await plane.start();
    const codes: number[] = [];
    for (let i = 0; i < 25; i++) codes.push((await (await open(`garbage-${i}`)).stream.refused).code);
    assert.equal(codes[0], status.UNAUTHENTICATED);
    assert.equal(codes.at(-1), status.RESOURCE_EXHAUSTED);
    const asked = records.records.filter(({ msg }) => msg === 'certificate refused').length;
    assert.ok(asked >= 20 && asked <= 23, `the CA was asked ${asked} times`);
    assert.ok(records.records.some(({ msg }) => msg?.startsWith('many refused tokens') === true));
  });
});
