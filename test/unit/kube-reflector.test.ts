import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HandfastError } from '../../src/errors.ts';
import { Reflector, type ReflectorOptions } from '../../src/kube/reflector.ts';
import { FakeKubeApi } from '../support/fake-kube-api.ts';

const PODS = '/api/v1/pods';
const WATCH = `watch ${PODS}`;
const LIST = `list ${PODS}`;
const pod = (name: string, value = '') => ({ kind: 'Pod', metadata: { namespace: 'foo', name, labels: { value } } });

/** Runs one, and ends it with the test. `changed(n)` resolves at the n-th change. */
function follow(api: FakeKubeApi, options: Partial<ReflectorOptions<string>> = {}) {
  const waiting = new Set<() => void>();
  let changes = 0;
  const warnings: string[] = [];
  const reflector = new Reflector<string>({
    api,
    paths: [PODS],
    read: ({ metadata }) => {
      const { name, labels } = metadata as { name: string; labels: { value: string } };
      return name === 'nothing' ? undefined : `${name}=${labels.value}`;
    },
    onChange: () => {
      changes++;
      for (const wake of waiting) wake();
      waiting.clear();
    },
    log: { warn: (fields) => warnings.push(String((fields as { reason: string }).reason)) },
    ...options,
  });
  const ending = new AbortController();
  const running = reflector.run(ending.signal);
  return {
    reflector,
    warnings,
    get changes() {
      return changes;
    },
    async holds(...expected: string[]) {
      while ([...reflector.values()].sort().join() !== expected.join()) await new Promise<void>((resolve) => waiting.add(resolve));
    },
    async [Symbol.asyncDispose]() {
      ending.abort();
      await running;
    },
  };
}

test('a list in pages, then every event of the watch', async () => {
  const api = new FakeKubeApi();
  for (let i = 0; i < 1_200; i++) api.put(PODS, pod(`p${i}`));
  api.put(PODS, pod('nothing'));
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  assert.equal(following.reflector.synced, true);
  assert.equal([...following.reflector.values()].length, 1_200);
  assert.equal(api.asked.filter((one) => one === LIST).length, 3);
  for (let i = 1; i < 1_200; i++) api.remove(PODS, `foo/p${i}`);
  api.put(PODS, pod('p0', 'new'));
  await following.holds('p0=new');
});

test('a watch that ends goes on from where it was, without a new list', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('a'));
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  api.put(PODS, pod('b'));
  await following.holds('a=', 'b=');
  api.endWatches();
  api.put(PODS, pod('c'));
  await following.holds('a=', 'b=', 'c=');
  assert.equal(api.asked.filter((one) => one === LIST).length, 1);
});

test('history that is gone (410) means a new list: what was deleted meanwhile is gone, what stayed is not read again', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('a'));
  api.put(PODS, pod('b'));
  let reads = 0;
  await using following = follow(api, {
    read: ({ metadata }) => {
      reads++;
      return String((metadata as { name: string }).name);
    },
  });
  await api.askedTimes(WATCH, 1);
  api.away = new HandfastError('UNAVAILABLE', 'restarting');
  api.endWatches();
  await api.askedTimes(WATCH, 2);
  api.remove(PODS, 'foo/b');
  api.put(PODS, pod('c'));
  api.oldest = 100;
  api.away = undefined;
  await following.holds('a', 'c');
  assert.equal(reads, 3);
  assert.deepEqual(following.warnings.slice(0, 1), ['restarting']);
});

test('what is known stays known while the API server is away, and each reason is said once', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('a'));
  await using following = follow(api);
  await following.holds('a=');
  await api.askedTimes(WATCH, 1);
  api.away = new HandfastError('UNAVAILABLE', 'no route');
  api.endWatches();
  await api.askedTimes(WATCH, 4);
  assert.deepEqual([...following.reflector.values()], ['a=']);
  assert.deepEqual(following.warnings, ['no route']);
});

test('while it cannot be followed it says for how long, and no longer than that', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('a'));
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  const { reflector } = following;
  assert.equal(reflector.lostMs, 0);
  api.away = new HandfastError('UNAVAILABLE', 'no route');
  api.endWatches();
  await api.askedTimes(WATCH, 3);
  const first = reflector.lostMs;
  assert.ok(first > 0, String(first));
  await api.askedTimes(WATCH, 4);
  assert.ok(reflector.lostMs > first, 'from the first failure, not from the last');
  api.away = undefined;
  api.put(PODS, pod('b'));
  await following.holds('a=', 'b=');
  assert.equal(reflector.lostMs, 0);
});

test('a watch that says nothing is taken for dead', async () => {
  const api = new FakeKubeApi();
  await using following = follow(api, { stallMs: 20 });
  await api.askedTimes(WATCH, 3);
  api.put(PODS, pod('a'));
  await following.holds('a=');
});

test('an event that cannot be read ends that watch alone', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('a'));
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  api.say(PODS, '{"type":"SURPRISE","object":{}}\n');
  await api.askedTimes(WATCH, 2);
  api.put(PODS, pod('b'));
  await following.holds('a=', 'b=');
});

test('a bookmark moves the place from which the next watch begins', async () => {
  const api = new FakeKubeApi();
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  api.say(PODS, '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"50"}}}\n');
  api.put(PODS, pod('a'));
  await following.holds('a=');
  assert.equal(following.changes, 2, 'the empty list, and the pod');
});

test('a kind that is not installed is empty; one that was there is not believed to be gone at the first word', async () => {
  const api = new FakeKubeApi();
  api.absent.add(PODS);
  {
    await using following = follow(api, { optional: true });
    await api.askedTimes(LIST, 1);
    while (!following.reflector.synced) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([...following.reflector.values()], []);
  }
  api.absent.clear();
  api.put(PODS, pod('a'));
  await using following = follow(api, { optional: true, absentRetryMs: 1 });
  await following.holds('a=');
  await api.askedTimes(WATCH, 1);
  api.absent.add(PODS);
  api.endWatches();
  const lists = api.asked.filter((one) => one === LIST).length;
  await api.askedTimes(LIST, lists + 3);
  assert.deepEqual([...following.reflector.values()], ['a=']);
  await api.askedTimes(LIST, lists + 8);
  assert.deepEqual([...following.reflector.values()], [], 'uninstalled, and its objects with it');
});

test('a kind that must be there is waited for', async () => {
  const api = new FakeKubeApi();
  api.absent.add(PODS);
  await using following = follow(api);
  await api.askedTimes(LIST, 2);
  assert.equal(following.reflector.synced, false);
  api.absent.clear();
  await api.askedTimes(WATCH, 1);
  assert.equal(following.reflector.synced, true);
});

test('what came in the same piece before an error has happened', async () => {
  const api = new FakeKubeApi();
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  const event = (type: string, object: object) => `${JSON.stringify({ type, object })}\n`;
  const added = { ...pod('a'), metadata: { ...pod('a').metadata, resourceVersion: '2' } };
  const changes = following.changes;
  api.say(PODS, event('ADDED', added) + event('ERROR', { kind: 'Status', code: 500, message: 'etcd is away' }));
  await following.holds('a=');
  assert.equal(following.changes, changes + 1);
});

test('of several versions the one that is served is followed', async () => {
  const api = new FakeKubeApi();
  const beta = '/apis/security.istio.io/v1beta1/peerauthentications';
  api.absent.add(PODS);
  api.put(beta, pod('a'));
  await using following = follow(api, { paths: [PODS, beta], optional: true });
  await following.holds('a=');
  await api.askedTimes(`watch ${beta}`, 1);
});

test('at the start one word of absence is not believed: an API server that has just come up may not know its kinds yet', async () => {
  const api = new FakeKubeApi();
  api.absent.add(PODS);
  await using following = follow(api, { optional: true });
  await api.askedTimes(LIST, 1);
  assert.equal(following.reflector.synced, false);
  api.absent.clear();
  api.put(PODS, pod('a'));
  await following.holds('a=');
  assert.equal(following.changes, 1, 'nothing was published before');
});

test('a page that is too long is asked for in halves', async () => {
  const api = new FakeKubeApi();
  for (let i = 0; i < 300; i++) api.put(PODS, pod(`p${i}`));
  const request = api.request.bind(api);
  const limits: number[] = [];
  api.request = async (of) => {
    const limit = Number(new URL(of.path, 'https://kube').searchParams.get('limit'));
    limits.push(limit);
    if (limit > 100) throw new HandfastError('KUBE_TOO_LONG', 'too long');
    return request(of);
  };
  await using following = follow(api);
  await api.askedTimes(WATCH, 1);
  assert.equal([...following.reflector.values()].length, 300);
  assert.deepEqual(limits, [500, 250, 125, 63, 63, 63, 63, 63]);
});

test('watches that end at once, and bookmarks alone, do not make a tight loop', async () => {
  const api = new FakeKubeApi();
  const open = api.open.bind(api);
  api.open = async (path, signal) => {
    const body = await open(path, signal);
    setImmediate(() => {
      api.say(PODS, '{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}\n');
      api.endWatches();
    });
    return body;
  };
  const started = performance.now();
  await using following = follow(api);
  await api.askedTimes(WATCH, 4);
  // At least the halves of 200, 400 and 800 ms: a timer is never early.
  assert.ok(performance.now() - started >= 690);
  assert.equal(following.reflector.synced, true);
});
