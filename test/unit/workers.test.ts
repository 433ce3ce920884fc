// --workers, when to give up on workers, and what crosses to them.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { meshTypeUrls } from '../../src/discovery/mesh-source.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { encodeWorkload } from '../../src/discovery/workload-codec.ts';
import { parseProxyConfig } from '../../src/proxy/config.ts';
import { DeathCount } from '../../src/workers/death-count.ts';
import { identityFrom, textsOf } from '../../src/workers/identity-texts.ts';
import { MeshState } from '../../src/workers/mesh-state.ts';
import { WorkerSnapshots } from '../../src/workers/worker-snapshots.ts';
import { TestCa } from '../support/pki.ts';
import { meshOf } from '../support/sidecar-harness.ts';

const pod = ['--pod-name', 'a', '--pod-namespace', 'b'];

describe('--workers', () => {
  for (const given of ['0', 'x', '65', '-1', '1.5', '', ' 2', '1e1', '٣']) {
    it(`refuses ${JSON.stringify(given)}`, () => {
      assert.throws(() => parseProxyConfig([...pod, `--workers=${given}`]), {
        code: 'CONFIG_INVALID',
        message: /--workers .*(is not accepted: a number from 1 to 64|is needed)/,
      });
    });
  }

  it('takes-1-to-64-and-is-1-by-default', () => {
    assert.equal(parseProxyConfig(pod).workers, 1);
    for (const workers of [1, 2, 64]) assert.equal(parseProxyConfig([...pod, '--workers', String(workers)]).workers, workers);
  });
});

describe('deaths', () => {
  it('five-within-a-minute-are-too-many', () => {
    const deaths = new DeathCount();
    const times = [0, 20_000, 40_000, 59_000, 60_000, 61_000];
    assert.deepEqual(
      times.map((now) => deaths.add(now).isTooMany),
      [false, false, false, false, false, true],
    );
  });
});

describe('what crosses to a worker', () => {
  it('an-identity-is-the-same-on-the-other-side', async () => {
    const identity = await (await TestCa.create()).identity('spiffe://cluster.local/ns/foo/sa/sleep');
    const there = identityFrom(structuredClone(textsOf(identity)));
    assert.deepEqual(textsOf(there), textsOf(identity));
    assert.equal(there.svid.serial, identity.svid.serial);
  });

  it('a-worker-that-comes-later-has-the-mesh-as-it-is-by-then', async () => {
    const state = new MeshState();
    const { registry } = meshOf({
      workloads: [
        { namespace: 'b', name: 'a' },
        { namespace: 'b', name: 'gone' },
      ],
    });
    const encoded = new Map([...registry.workloads()].map((workload) => [workload.uid, encodeWorkload(workload)]));
    for (const typeUrl of meshTypeUrls) state.apply(typeUrl, { upserts: typeUrl === typeUrls.address ? encoded : new Map(), removed: [] });
    state.apply(typeUrls.address, { upserts: new Map(), removed: ['test//Pod/b/gone'] });
    const late = new WorkerSnapshots({ workloadUid: 'test//Pod/b/a' });
    await late.begin(structuredClone({ mesh: state.whole }), AbortSignal.timeout(5_000));
    assert.deepEqual(
      [...(late.mesh.current?.registry.workloads() ?? [])].map(({ name }) => name),
      ['a'],
    );
  });

  it('what-no-worker-could-use-is-refused-and-not-kept', () => {
    const state = new MeshState();
    const upserts = new Map([['x', Buffer.from('nonsense')]]);
    for (const typeUrl of meshTypeUrls) assert.throws(() => state.apply(typeUrl, { upserts, removed: [] }));
    assert.deepEqual(state.whole, []);
  });
});
