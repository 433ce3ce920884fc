// The application's side of secrets: what is answered, what is refused before anything is looked at, and bounds.

import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { ReceiptBook } from '../../src/discovery/receipt-book.ts';
import type { SecretAnswer, SecretFeed } from '../../src/discovery/secret-feed.ts';
import { encodeWorkloadSecret } from '../../src/discovery/workload-secret-codec.ts';
import { HeldSecrets } from '../../src/identity-api/held-secrets.ts';
import { SecretRequests } from '../../src/identity-api/secret-requests.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { GUARD, sayRaw } from '../support/identity-api.ts';
import { SecretSidecar, SecretsDir } from '../support/secrets.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const BINARY = Buffer.from([0, 255, 10, 13, 34, 0]);

describe('requests', () => {
  let plane: ControlPlane;
  let a: SecretSidecar;
  beforeEach(async () => {
    plane = await ControlPlane.create(new RecordingLog().log);
    const secrets = await SecretsDir.create(join(plane.dir, 'secrets'));
    await secrets.write(
      'db.yaml',
      `${JSON.stringify({
        apiVersion: 'handfast.io/v1alpha1',
        kind: 'WorkloadSecret',
        metadata: { name: 'db', namespace: 'foo' },
        spec: {
          current: '8',
          versions: [
            { version: '7', stringData: { key: 'old' } },
            { version: '8', data: { 'key.bin': BINARY.toString('base64') }, stringData: { key: 'new' } },
          ],
        },
      })}\n`,
    );
    await secrets.policy('a', { secrets: ['db'], recipients: { serviceAccounts: ['foo/a'] } });
    await plane.start({ control: { secrets: { from: { folder: secrets.path } } } });
    a = await SecretSidecar.open(plane, 'a');
  });
  afterEach(async () => {
    await a[Symbol.asyncDispose]();
    await plane[Symbol.asyncDispose]();
  });

  const raw = async (rest: string, headers = 'workload.spiffe.io: true') =>
    sayRaw(a.port, `GET /v1/secrets/${rest} HTTP/1.1\r\nHost: 127.0.0.1:${a.port}\r\n${headers}\r\nConnection: close\r\n\r\n`);

  it('one-value-as-it-is-of-any-version', async () => {
    await a.ask('foo/db');
    const binary = await raw('foo/db/data/key.bin');
    assert.match(binary, /^HTTP\/1\.1 200 /);
    assert.match(binary, /content-type: application\/octet-stream\r\n/);
    assert.match(binary, /cache-control: no-store\r\n/);
    assert.match(binary, /handfast-secret-version: 8\r\n/);
    assert.match(binary, /content-length: 6\r\n/i);
    assert.match(await raw('foo/db/data/key?version=7'), /\r\n\r\nold$/);
    assert.match(await raw('foo/db/data/key'), /\r\n\r\nnew$/);
    assert.match(await raw('foo/db/data/key.bin?version=7'), /^HTTP\/1\.1 404 /);
  });

  it('nobody-who-cannot-choose-his-headers-is-answered', async () => {
    assert.equal((await a.ask('foo/db')).status, 200);
    const { 'workload.spiffe.io': _, ...none } = GUARD;
    for (const [headers, code] of [
      [none, 'HEADER_MISSING'],
      [{ ...GUARD, origin: 'http://evil.example' }, 'FROM_A_PAGE'],
      [{ ...GUARD, 'x-forwarded-for': '10.0.0.1' }, 'FORWARDED'],
      [{ ...GUARD, host: 'evil.example' }, 'HOST_REFUSED'],
    ] as const) {
      const { status, body } = await a.ask('foo/db', { headers });
      assert.deepEqual([status, body.code], [403, code]);
    }
    assert.equal((await a.ask('foo/db/receipt', { headers: none, body: { version: '8' } })).status, 403);
  });

  it('only-names-as-they-are', async () => {
    for (const rest of [
      'foo',
      'foo/',
      '../foo/db',
      'foo/../foo/db',
      'foo/%64b',
      'foo/db/',
      'foo/db/data',
      'foo/db/data/',
      'foo/db/data/../key',
      'foo/db/more',
      'foo/db?x=1',
      'foo/db?after=7&version=7',
      'foo/db?wait=1',
      'foo/db?after=7&wait=99',
      'foo/db?after=%0a',
      'foo/db?version=7?x',
      'FOO/db',
    ])
      assert.match(await raw(rest), /^HTTP\/1\.1 400 /, rest);
    assert.match(await raw('foo/db?version=9'), /^HTTP\/1\.1 404 /);
    assert.match(await raw('foo/db?version=__proto__'), /^HTTP\/1\.1 404 /);
    assert.match(await raw('foo/db/data/constructor'), /^HTTP\/1\.1 404 /);
  });

  it('receipts-of-versions-that-are-there', async () => {
    assert.equal((await a.confirm('foo/db', '7')).status, 204);
    assert.equal((await a.confirm('foo/db', '9')).status, 409);
    assert.equal((await a.confirm('foo/other', '7')).status, 404);
    for (const body of [{}, { version: 7 }, { version: 'a/b' }, { version: '7', more: 1 }, 'no'])
      assert.equal((await a.ask('foo/db/receipt', { body })).status, 400);
    assert.equal((await a.ask('foo/db/receipt', { method: 'GET' })).status, 405);
    assert.equal((await a.ask('foo/db', { method: 'DELETE' })).status, 405);
  });

  it('names-that-there-are-not-do-not-fill-anything', async () => {
    assert.equal((await a.ask('foo/db')).status, 200);
    const answers = new Map<number, number>();
    for (let index = 0; index < 200; index++) {
      const { status } = await a.ask(`foo/nothing-${index}`);
      answers.set(status, (answers.get(status) ?? 0) + 1);
    }
    assert.deepEqual([...answers.keys()].sort(), [404, 429]);
    assert.ok((answers.get(404) ?? 0) >= 99);
    assert.equal((await a.ask('foo/db')).status, 200);
  });
});

/** Of a source that says what a test wants it to. */
class Said implements SecretFeed {
  readonly answers = new Map<string, SecretAnswer>();
  readonly held: string[] = [];
  readonly #subscribers = new Set<(keys: readonly string[]) => void>();

  hold(key: string) {
    this.held.push(key);
    return () => void this.held.splice(this.held.indexOf(key), 1);
  }
  answer(key: string) {
    return this.answers.get(key);
  }
  subscribe(onChange: (keys: readonly string[]) => void) {
    this.#subscribers.add(onChange);
    return () => this.#subscribers.delete(onChange);
  }
  say(key: string, answer: SecretAnswer): void {
    this.answers.set(key, answer);
    for (const subscriber of this.#subscribers) subscriber([key]);
  }
}

describe('what is held', () => {
  const secret = (key: string) => {
    const of = { key, current: '1', versions: new Map([['1', new Map([['a', Buffer.from('b')]])]]) };
    return { secret: of, resource: encodeWorkloadSecret(of) };
  };
  const held = (feed: SecretFeed, bounds: { names?: number; waiting?: number } = {}, preload: readonly string[] = []) =>
    new HeldSecrets({
      feed,
      receipts: new ReceiptBook(),
      instance: { reporter: '', pod: '' },
      preload,
      isCurrent: () => true,
      now: () => 1,
      bounds,
    });

  it('is-not-given-to-whoever-waited-past-the-end-of-our-certificate', async () => {
    const feed = new Said();
    feed.answers.set('foo/a', secret('foo/a'));
    const receipts = new ReceiptBook();
    let isCurrent = true;
    const instance = { reporter: 'a', pod: '' };
    const secrets = new HeldSecrets({ feed, receipts, instance, preload: ['foo/late'], isCurrent: () => isCurrent, now: () => 1 });
    const requests = new SecretRequests({ secrets: () => Promise.resolve(secrets) });
    const ask = (url: string, body?: object) =>
      requests.answer(
        Object.assign(Readable.from(body === undefined ? [] : [Buffer.from(JSON.stringify(body))]), {
          ...{ url, method: body === undefined ? 'GET' : 'POST', headers: {} },
        }) as unknown as IncomingMessage,
      );
    assert.equal((await ask('/v1/secrets/foo/a')).status, 200);
    const before = receipts.revision;
    const [waiting, confirming] = [ask('/v1/secrets/foo/a?after=1&wait=20'), ask('/v1/secrets/foo/late/receipt', { version: '1' })];
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    isCurrent = false;
    feed.say('foo/a', { ...secret('foo/a'), secret: { ...secret('foo/a').secret, current: '2' } });
    feed.say('foo/late', secret('foo/late'));
    assert.deepEqual([(await waiting).status, (await confirming).status], [503, 503]);
    assert.ok(receipts.changedAfter(before).every(({ confirmed, loaded }) => confirmed === 0 && loaded <= 1));
    assert.ok(receipts.all.every(({ secret, loaded }) => loaded === 0 || secret === 'foo/a'));
    secrets.close();
  });

  it('is-not-dropped-because-nothing-is-known-of-it-for-a-while', async () => {
    const feed = new Said();
    feed.answers.set('foo/a', secret('foo/a'));
    const receipts = new ReceiptBook();
    const instance = { reporter: 'a', pod: '' };
    const secrets = new HeldSecrets({ feed, receipts, instance, preload: [], isCurrent: () => true, now: () => 1 });
    await secrets.answer('foo/a', { waitMs: 0 });
    feed.say('foo/a', undefined);
    assert.equal(receipts.all[0]?.dropped, 0);
    feed.say('foo/a', 'none');
    assert.equal(receipts.all[0]?.dropped, 1);
    secrets.close();
  });

  it('makes-room-for-what-there-is-by-what-there-is-not-and-then-refuses', async () => {
    const feed = new Said();
    feed.answers
      .set('foo/first', secret('foo/first'))
      .set('foo/none', 'none')
      .set('foo/none2', 'none')
      .set('foo/second', secret('foo/second'));
    const secrets = held(feed, { names: 3 }, ['foo/late']);
    for (const key of ['foo/first', 'foo/none', 'foo/none2', 'foo/second']) await secrets.answer(key, { waitMs: 0 });
    assert.deepEqual(feed.held, ['foo/late', 'foo/first', 'foo/second']);
    await assert.rejects(secrets.answer('foo/third', { waitMs: 0 }), { code: 'RATE_LIMITED' });
    assert.equal(typeof (await secrets.answer('foo/first', { waitMs: 0 })), 'object');
    secrets.close();
    assert.deepEqual(feed.held, []);
  });

  it('wakes-those-who-wait-for-it-and-no-more-than-so-many-wait', async () => {
    const feed = new Said();
    const secrets = held(feed, { waiting: 2 });
    const waiting = [secrets.answer('foo/a', { waitMs: 60_000 }), secrets.answer('foo/b', { waitMs: 60_000 })];
    await assert.rejects(secrets.answer('foo/c', { waitMs: 60_000 }), { code: 'RATE_LIMITED' });
    feed.say('foo/b', 'none');
    assert.equal(await waiting[1], 'none');
    const third = secrets.answer('foo/c', { waitMs: 60_000 });
    feed.say('foo/a', secret('foo/a'));
    assert.equal(typeof (await waiting[0]), 'object');
    // Whoever closes wakes everybody.
    secrets.close();
    assert.equal(await third, undefined);
  });
});
