// A key of a ConfigMap that is kept: made, written only when it differs, put back, and never over what somebody else has written meanwhile.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeptConfigMap } from '../../src/kube/kept-config-map.ts';
import { isJsonObject } from '../../src/spiffe/strict-json.ts';
import { FakeKubeApi } from './injector/fake-kube-api.ts';

const PATH = '/api/v1/namespaces/handfast-system/configmaps/handfast-ca-root';
const { signal } = new AbortController();

function keep(value: string) {
  const api = new FakeKubeApi();
  const said: string[] = [];
  let heard: () => void = () => undefined;
  const say = (words: string) => {
    said.push(words);
    heard();
  };
  const kept = new KeptConfigMap({
    api,
    namespace: 'handfast-system',
    name: 'handfast-ca-root',
    key: 'root.pem',
    value,
    onFailed: (reason) => say(reason),
    onWritten: () => say('written'),
  });
  const until = async (times: number) => {
    while (said.length < times)
      await new Promise<void>((resolve) => {
        heard = resolve;
      });
  };
  return { api, kept, said, until, data: () => api.objects.get(PATH)?.data };
}

test('it is made where it is missing, and a second look writes nothing', async () => {
  const { api, kept, data } = keep('roots');
  assert.equal(await kept.write(signal), 'written');
  assert.deepEqual(data(), { 'root.pem': 'roots' });
  assert.equal(await kept.write(signal), 'unchanged');
  assert.deepEqual(
    api.asked.map((asked) => asked.split(' ')[0]),
    ['GET', 'POST', 'GET'],
  );
});

test('one that is there keeps its labels and its other keys', async () => {
  const { api, kept, data } = keep('new');
  api.put(PATH, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'handfast-ca-root', labels: { a: 'b' } },
    data: { other: 'x', 'root.pem': 'old' },
  });
  await kept.write(signal);
  assert.deepEqual(data(), { other: 'x', 'root.pem': 'new' });
  const metadata = api.objects.get(PATH)?.metadata;
  assert.deepEqual(isJsonObject(metadata) ? metadata.labels : undefined, { a: 'b' });
});

test('what somebody else has written meanwhile is read before it is written again', async () => {
  const { api, kept, data } = keep('new');
  api.put(PATH, { metadata: { name: 'handfast-ca-root' } });
  api.beforeWrite = () => api.put(PATH, { metadata: { name: 'handfast-ca-root' }, data: { other: 'y' } });
  await assert.rejects(kept.write(signal), { code: 'KUBE_CONFLICT' });
  await kept.write(signal);
  assert.deepEqual(data(), { other: 'y', 'root.pem': 'new' });
});

test('a rotation is written at once; an API server that is away is said once, and asked until it is back', async () => {
  const { api, kept, said, until, data } = keep('one');
  const ending = new AbortController();
  const running = kept.run(ending.signal);
  await until(1);
  kept.replace('one\ntwo');
  await until(2);
  assert.deepEqual(data(), { 'root.pem': 'one\ntwo' });
  api.away = true;
  kept.replace('two');
  await until(3);
  api.away = false;
  await until(4);
  assert.deepEqual(data(), { 'root.pem': 'two' });
  assert.equal(said.filter((words) => words === 'written').length, 3);
  ending.abort();
  await running;
});
