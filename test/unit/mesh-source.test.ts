// What a sidecar makes of resources that its agent sends: one under a name that is not its own governs nobody.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshSource } from '../../src/discovery/mesh-source.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { encodeTrafficPolicy } from '../../src/discovery/workload-codec.ts';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import type { MutualTlsMode, TrafficPolicy } from '../../src/policy/model.ts';
import { Snapshot } from '../../src/snapshot.ts';

const policy = (workload: string, mode: MutualTlsMode): TrafficPolicy => ({
  workload,
  inbound: { mode, source: 'the test' },
  inboundPorts: new Map(),
  outbound: 'ALLOW_ANY',
  announced: undefined,
  shadow: undefined,
  clientTls: [],
  rootClientTls: [],
  trustDomainAliases: [],
});

test('a TrafficPolicy under the name of another workload is refused, and nothing that came with it is in force', async () => {
  const mesh = new Snapshot<MeshSnapshot>();
  const source = new MeshSource(mesh);
  const apply = (policies: Readonly<Record<string, TrafficPolicy>>) =>
    source.apply(typeUrls.trafficPolicy, {
      upserts: new Map(Object.entries(policies).map(([name, each]) => [name, encodeTrafficPolicy(each)])),
      removed: [],
    });
  const modes = async () => {
    // What was published was scheduled in the same way, before this.
    await new Promise((resolve) => setImmediate(resolve));
    return ['web', 'api'].map((uid) => mesh.current?.policies.get(uid)?.inbound.mode);
  };
  for (const typeUrl of [typeUrls.address, typeUrls.authorization]) source.apply(typeUrl, { upserts: new Map(), removed: [] });
  apply({ web: policy('web', 'STRICT'), api: policy('api', 'STRICT') });
  assert.deepEqual(await modes(), ['STRICT', 'STRICT']);
  assert.throws(() => apply({ api: policy('api', 'PERMISSIVE'), web: policy('api', 'DISABLE') }), {
    code: 'OBJECT_INVALID',
    message: 'the TrafficPolicy named web is for api',
  });
  assert.deepEqual(await modes(), ['STRICT', 'STRICT']);
});
