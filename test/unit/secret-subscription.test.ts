// The asking side of secrets against a server of ours: what is held while the server is away, what is asked again, what is wiped, and what is refused.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { AskedSecrets } from '../../src/discovery/asked-secrets.ts';
import { type DeltaStream, serveDeltaStream } from '../../src/discovery/delta-server.ts';
import type { HeldSecret, SecretAnswer, SecretFeed } from '../../src/discovery/secret-feed.ts';
import { SecretSubscription } from '../../src/discovery/secret-subscription.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { encodeWorkloadSecret } from '../../src/discovery/workload-secret-codec.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { newServer, stopServer, whenOver } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

/** Whoever offers, as a test wants it. */
class Offer implements SecretFeed {
  readonly answers = new Map<string, SecretAnswer>();
  /** All that was ever asked for, in order. */
  readonly asked: string[] = [];
  readonly #subscribers = new Set<(keys: readonly string[]) => void>();

  hold(key: string) {
    this.asked.push(key);
    return () => undefined;
  }
  answer(key: string): SecretAnswer {
    return this.answers.has(key) ? this.answers.get(key) : 'none';
  }
  subscribe(onChange: (keys: readonly string[]) => void) {
    this.#subscribers.add(onChange);
    return () => this.#subscribers.delete(onChange);
  }
  say(key: string, answer: SecretAnswer): void {
    this.answers.set(key, answer);
    for (const subscriber of [...this.#subscribers]) subscriber([key]);
  }
}

const secret = (key: string, current: string, text = `${key} ${current}`): HeldSecret => {
  const of = { key, current, versions: new Map([[current, new Map([['key', Buffer.from(text)]])]]) };
  return { secret: of, resource: encodeWorkloadSecret(of) };
};

let dir: string;
let offer: Offer;
let records: RecordingLog;
let stopping: AbortController;
let stop: (() => Promise<void>) | undefined;
let subscription: SecretSubscription;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-subscription-'));
  offer = new Offer();
  records = new RecordingLog();
  stopping = new AbortController();
  await serve();
  const target = unixTarget(`unix:${join(dir, 'sds.sock')}`);
  subscription = new SecretSubscription({
    target: () => target,
    nodeId: 'test',
    token: undefined,
    lingerMs: 0,
    log: records.log,
    signal: stopping.signal,
  });
});
afterEach(async () => {
  stopping.abort();
  await subscription.ended();
  await stop?.();
  await rm(dir, { recursive: true });
});

async function serve(): Promise<void> {
  const server = newServer();
  const service: SecretDiscoveryServiceServer = {
    streamSecrets: (call) => void call.end(),
    deltaSecrets: (call: DeltaStream) => {
      const view = new AskedSecrets({ feed: offer, saysGone: false });
      serveDeltaStream(call, { view, peer: 'test', log: records.log, typeUrl: typeUrls.secret });
      whenOver(call, () => view.end());
    },
  };
  server.addService(SecretDiscoveryServiceService, service);
  const listener = await listenUnix({ server, path: join(dir, 'sds.sock'), mode: 0o600, takeOver: true, onRefused: () => undefined });
  stop = async () => {
    stop = undefined;
    await listener.close();
    await stopServer(server, 0);
  };
}

const currentOf = (key: string) => {
  const answer = subscription.answer(key);
  return typeof answer === 'object' ? answer.secret.current : answer;
};
const becomes = (key: string, wanted: string | undefined) => eventually(() => currentOf(key) === wanted);

describe('names', () => {
  it('come-and-go-on-one-stream-and-nothing-is-asked-without-one', async () => {
    offer.answers.set('foo/a', secret('foo/a', '1'));
    const release = subscription.hold('foo/a');
    await becomes('foo/a', '1');
    subscription.hold('foo/b');
    await becomes('foo/b', 'none');
    offer.say('foo/b', secret('foo/b', '1'));
    await becomes('foo/b', '1');
    release();
    assert.equal(currentOf('foo/a'), undefined);
    offer.say('foo/b', secret('foo/b', '2'));
    await becomes('foo/b', '2');
    assert.deepEqual(offer.asked, ['foo/a', 'foo/b']);
  });

  it('that-are-let-go-of-and-wanted-again-at-once-are-not-answered-by-what-was-under-way', async () => {
    offer.answers.set('foo/a', secret('foo/a', '1')).set('foo/b', secret('foo/b', '1'));
    subscription.hold('foo/b');
    for (let turn = 0; turn < 50; turn++) {
      const release = subscription.hold('foo/a');
      const seen: unknown[] = [];
      const unsubscribe = subscription.subscribe((keys) => keys.includes('foo/a') && seen.push(currentOf('foo/a')));
      if (turn % 2 === 0) await becomes('foo/a', '1');
      release();
      const again = subscription.hold('foo/a');
      await becomes('foo/a', '1');
      assert.ok(!seen.includes('none'), `turn ${turn}: ${seen.join()}`);
      unsubscribe();
      if (turn % 3 === 0) offer.say('foo/a', secret('foo/a', '1'));
      again();
    }
  });
});

it('the-last-name-that-goes-and-the-next-that-comes-in-one-turn-do-not-end-what-comes-after', async () => {
  const release = subscription.hold('foo/a');
  await becomes('foo/a', 'none');
  release();
  offer.answers.set('foo/b', secret('foo/b', '1')).set('foo/c', secret('foo/c', '1'));
  subscription.hold('foo/b');
  await becomes('foo/b', '1');
  subscription.hold('foo/c');
  await becomes('foo/c', '1');
});

describe('the server', () => {
  it('may-be-away-and-what-changed-meanwhile-is-known-when-it-is-back', async () => {
    offer.answers.set('foo/a', secret('foo/a', '1')).set('foo/b', secret('foo/b', '1')).set('foo/c', secret('foo/c', '1'));
    for (const key of ['foo/a', 'foo/b', 'foo/c']) subscription.hold(key);
    await becomes('foo/c', '1');
    await stop?.();
    offer.answers.set('foo/b', secret('foo/b', '2')).delete('foo/c');
    assert.deepEqual(['foo/a', 'foo/b', 'foo/c'].map(currentOf), ['1', '1', '1']);
    const changed: string[] = [];
    subscription.subscribe((keys) => changed.push(...keys));
    await serve();
    await becomes('foo/b', '2');
    await becomes('foo/c', 'none');
    assert.equal(currentOf('foo/a'), '1');
    // What is the same is no change.
    assert.deepEqual(changed.sort(), ['foo/b', 'foo/c']);
  });

  it('that-does-not-know-yet-takes-nothing-back-and-nothing-else-waits-for-it', async () => {
    offer.answers.set('foo/a', secret('foo/a', '1'));
    subscription.hold('foo/a');
    await becomes('foo/a', '1');
    await stop?.();
    offer.answers.set('foo/a', undefined);
    await serve();
    await eventually(() => offer.asked.length === 2);
    subscription.hold('foo/b');
    offer.answers.set('foo/b', secret('foo/b', '1'));
    await becomes('foo/b', '1');
    offer.say('foo/b', secret('foo/b', '2'));
    await becomes('foo/b', '2');
    offer.say('foo/b', 'none');
    await becomes('foo/b', 'none');
    assert.equal(currentOf('foo/a'), '1');
    offer.say('foo/a', 'none');
    await becomes('foo/a', 'none');
  });

  it('that-does-not-know-yet-says-that-there-is-none-when-it-does', async () => {
    offer.answers.set('foo/a', undefined).set('foo/b', secret('foo/b', '1'));
    for (const key of ['foo/a', 'foo/b']) subscription.hold(key);
    await becomes('foo/b', '1');
    assert.equal(currentOf('foo/a'), undefined);
    offer.say('foo/a', 'none');
    await becomes('foo/a', 'none');
  });

  it('that-sends-what-is-none-is-refused-and-the-last-good-one-stays', async () => {
    offer.answers.set('foo/a', secret('foo/a', '1'));
    subscription.hold('foo/a');
    await becomes('foo/a', '1');
    offer.say('foo/a', { ...secret('foo/a', '2'), resource: secret('foo/b', '2', 'sesame').resource });
    const { reason } = await records.find(({ msg }) => msg === 'resources refused (NACK), the last good ones stay in force');
    assert.ok(!String(reason).includes('sesame'));
    assert.equal(currentOf('foo/a'), '1');
    offer.say('foo/a', secret('foo/a', '3'));
    await becomes('foo/a', '3');
  });
});

it('what-is-replaced-or-taken-back-or-let-go-of-is-wiped', async () => {
  offer.answers.set('foo/a', secret('foo/a', '1', 'sesame'));
  const release = subscription.hold('foo/a');
  await becomes('foo/a', '1');
  const held = () => {
    const answer = subscription.answer('foo/a');
    assert.ok(typeof answer === 'object');
    return { value: answer.secret.versions.get(answer.secret.current)?.get('key') ?? Buffer.alloc(0), wire: answer.resource.value };
  };
  const isZero = (bytes: Uint8Array) => bytes.length > 0 && bytes.every((byte) => byte === 0);
  const first = held();
  assert.equal(first.value.toString(), 'sesame');
  offer.say('foo/a', secret('foo/a', '2', 'sesame-2'));
  await becomes('foo/a', '2');
  assert.ok(isZero(first.value) && isZero(first.wire));
  const second = held();
  assert.equal(second.value.toString(), 'sesame-2');
  release();
  assert.ok(isZero(second.value) && isZero(second.wire));
});
