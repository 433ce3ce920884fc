// A namespace's labels: asked once for many pods, again after five seconds, and never guessed.

import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { KubeNamespaceLabels } from '../../../src/injector/namespace-labels.ts';
import { refusal } from '../../support/refusal.ts';
import { FakeKubeApi } from './fake-kube-api.ts';

const PATH = '/api/v1/namespaces/shop';

let api: FakeKubeApi;
let now: number;
let labels: KubeNamespaceLabels;

beforeEach(() => {
  api = new FakeKubeApi();
  now = 1_000;
  labels = new KubeNamespaceLabels({ api, now: () => now });
  api.put(PATH, { kind: 'Namespace', metadata: { name: 'shop', labels: { 'istio-injection': 'enabled' } } });
});

describe('the labels of a namespace', () => {
  test('are-asked-once-for-pods-that-come-together', async () => {
    const all = await Promise.all([labels.labelsOf('shop'), labels.labelsOf('shop'), labels.labelsOf('shop')]);
    assert.deepEqual(all[2], { 'istio-injection': 'enabled' });
    assert.deepEqual(api.asked, [`GET ${PATH}`]);
  });

  test('are-asked-again-after-five-seconds-and-not-before', async () => {
    await labels.labelsOf('shop');
    api.put(PATH, { kind: 'Namespace', metadata: { name: 'shop', labels: {} } });
    now += 4_999;
    assert.deepEqual(await labels.labelsOf('shop'), { 'istio-injection': 'enabled' });
    now += 1;
    assert.deepEqual(await labels.labelsOf('shop'), {});
  });

  test('are-not-guessed-when-nobody-answers-and-a-failure-is-not-remembered', async () => {
    api.away = true;
    await assert.rejects(labels.labelsOf('shop'), refusal('UNAVAILABLE', 'namespace shop', 'nobody answers'));
    api.away = false;
    assert.deepEqual(await labels.labelsOf('shop'), { 'istio-injection': 'enabled' });
  });

  test('of-a-namespace-that-is-not-there-are-not-empty-but-unknown', async () => {
    await assert.rejects(labels.labelsOf('gone'), refusal('UNAVAILABLE', 'namespace gone'));
  });

  test('of-something-that-is-no-namespace-are-unknown', async () => {
    api.put(PATH, { kind: 'Status', metadata: {} });
    await assert.rejects(labels.labelsOf('shop'), refusal('UNAVAILABLE', 'no Namespace'));
  });

  test('may-be-none-at-all', async () => {
    api.put(PATH, { kind: 'Namespace', metadata: { name: 'shop' } });
    assert.deepEqual(await labels.labelsOf('shop'), {});
  });

  test('are-asked-of-that-path-alone-whatever-the-name-is', async () => {
    await assert.rejects(labels.labelsOf('../secrets/x'), refusal('UNAVAILABLE'));
    assert.deepEqual(api.asked, ['GET /api/v1/namespaces/..%2Fsecrets%2Fx']);
  });
});
