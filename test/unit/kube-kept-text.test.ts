// A text in ControlState objects: whole or not at all, in parts where it must be, and never over another writer's.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { HandfastError } from '../../src/errors.ts';
import { KeptText } from '../../src/kube/kept-text.ts';
import { FakeKubeApi } from './injector/fake-kube-api.ts';

const COLLECTION = '/apis/handfast.io/v1alpha1/namespaces/handfast-system/controlstates';
const long = () => randomBytes(4_000).toString('hex');

function writer(api: FakeKubeApi, partBytes = 1_000) {
  return new KeptText({ api, namespace: 'handfast-system', name: 'ledger', partBytes });
}

test('nothing is there at first; what was written is read by another, and replaced whole', async () => {
  const api = new FakeKubeApi();
  const first = writer(api);
  assert.equal(await first.read(), undefined);
  await first.write('one');
  assert.equal(await writer(api).read(), 'one');
  await first.write('two');
  assert.equal(await writer(api).read(), 'two');
  assert.deepEqual([...api.objects.keys()], [`${COLLECTION}/ledger`]);
});

test('one that has not read before it writes replaces what is there', async () => {
  const api = new FakeKubeApi();
  await writer(api).write('one');
  await writer(api).write('two');
  assert.equal(await writer(api).read(), 'two');
});

test('a long one lies in parts, and those of the one before it are removed', async () => {
  const api = new FakeKubeApi();
  const kept = writer(api);
  const [first, second] = [long(), long()];
  await kept.write(first);
  assert.equal(await writer(api).read(), first);
  const parts = [...api.objects.keys()].filter((path) => path !== `${COLLECTION}/ledger`);
  assert.ok(parts.length > 1, 'more than one part');
  await kept.write(second);
  assert.equal(await writer(api).read(), second);
  assert.ok(parts.every((path) => !api.objects.has(path)));
  await kept.write('short');
  assert.deepEqual([...api.objects.keys()], [`${COLLECTION}/ledger`]);
});

test('who was not the last to write is refused, in whatever size, and leaves nothing behind', async () => {
  const api = new FakeKubeApi();
  const [ours, theirs] = [writer(api), writer(api)];
  await ours.write('ours');
  await theirs.write('theirs');
  const before = [...api.objects.keys()];
  for (const text of ['ours again', long()]) {
    await ours.read();
    await theirs.write('theirs again');
    await assert.rejects(ours.write(text), { code: 'KUBE_CONFLICT' });
  }
  assert.deepEqual([...api.objects.keys()], before);
  assert.equal(await writer(api).read(), 'theirs again');
  await ours.read();
  await ours.write('ours, read first');
  assert.equal(await theirs.read(), 'ours, read first');
});

test('two that begin at once: one is refused', async () => {
  const api = new FakeKubeApi();
  const [ours, theirs] = [writer(api), writer(api)];
  assert.deepEqual([await ours.read(), await theirs.read()], [undefined, undefined]);
  await theirs.write('theirs');
  await assert.rejects(ours.write('ours'), { code: 'KUBE_CONFLICT' });
});

test('one that somebody has deleted is another writer’s doing; read again, it is written anew', async () => {
  const api = new FakeKubeApi();
  const kept = writer(api);
  await kept.write('one');
  api.objects.clear();
  await assert.rejects(kept.write('two'), { code: 'KUBE_CONFLICT' });
  assert.equal(await kept.read(), undefined);
  await kept.write('three');
  assert.equal(await writer(api).read(), 'three');
});

test('while it is read a newer one takes its place: the newer one is read', async () => {
  const api = new FakeKubeApi();
  const kept = writer(api);
  const [first, second] = [long(), long()];
  await kept.write(first);
  const reader = writer(api);
  const request = api.request.bind(api);
  let asked = 0;
  api.request = async (of) => {
    if (++asked === 3) {
      api.request = request;
      await kept.write(second);
    }
    return request(of);
  };
  assert.equal(await reader.read(), second);
});

test('what lacks a part, or is no text of ours, is refused by name, and may be written over', async () => {
  const api = new FakeKubeApi();
  const kept = writer(api);
  await kept.write(long());
  const part = [...api.objects.keys()].find((path) => path !== `${COLLECTION}/ledger`) ?? '';
  api.objects.delete(part);
  const refusal = { code: 'STATE_INVALID', message: /^ControlState handfast-system\/ledger: parts of it are missing; delete it/ };
  await assert.rejects(writer(api).read(), refusal);
  api.put(`${COLLECTION}/ledger`, { metadata: { name: 'ledger' }, spec: { data: 'bm8gZ3ppcA==' } });
  const other = writer(api);
  await assert.rejects(other.read(), { code: 'STATE_INVALID' });
  await other.write('good');
  assert.equal(await writer(api).read(), 'good');
});

test('a write of which nobody knows whether it came is not followed by one over somebody else’s', async () => {
  const api = new FakeKubeApi();
  const [ours, theirs] = [writer(api), writer(api)];
  await ours.write('one');
  const request = api.request.bind(api);
  api.request = async (of) => {
    await request(of);
    api.request = request;
    throw new HandfastError('UNAVAILABLE', 'the answer was lost');
  };
  await assert.rejects(ours.write('two'), { code: 'UNAVAILABLE' });
  await theirs.write('theirs');
  await assert.rejects(ours.write('three'), { code: 'KUBE_CONFLICT' });
  await assert.rejects(ours.write('three'), { code: 'KUBE_CONFLICT' }, 'until it has been read');
  assert.equal(await ours.read(), 'theirs');
  await ours.write('three');
  assert.equal(await theirs.read(), 'three');
});

test('where the kind is not installed that is said, and nothing else', async () => {
  const api = new FakeKubeApi();
  api.request = async () => {
    throw new HandfastError('KUBE_NOT_FOUND', 'the server could not find the requested resource');
  };
  await assert.rejects(writer(api).write('one'), { code: 'KUBE_NOT_FOUND' });
});

test('an API server that is away is said as it says it, and the next write finds what is there', async () => {
  const api = new FakeKubeApi();
  const kept = writer(api);
  await kept.write('one');
  api.away = true;
  await assert.rejects(kept.write('two'), { code: 'UNAVAILABLE' });
  api.away = false;
  await kept.write('three');
  assert.equal(await writer(api).read(), 'three');
});

test('parts that a writer has left are removed once they are old; newer ones may be somebody’s', async () => {
  const api = new FakeKubeApi();
  const left = (name: string, ageMs: number) =>
    api.put(`${COLLECTION}/${name}`, {
      metadata: { name, labels: { 'handfast.io/part-of': 'ledger' }, creationTimestamp: new Date(Date.now() - ageMs).toISOString() },
      spec: { data: '' },
    });
  left('ledger-old-0', 11 * 60_000);
  left('ledger-new-0', 9 * 60_000);
  await writer(api).write('one');
  assert.deepEqual([...api.objects.keys()].sort(), [`${COLLECTION}/ledger`, `${COLLECTION}/ledger-new-0`]);
});

test('one that lies in parts is not set aside, and that is said', async () => {
  const api = new FakeKubeApi();
  const kept = writer(api);
  await kept.write(long());
  assert.equal(await kept.setAside(1), 'nowhere: it lies in parts');
});
