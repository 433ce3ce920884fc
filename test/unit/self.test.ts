// Whom a sidecar takes for its own pod: the workload with its uid, whoever else has its name.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TrafficPolicy } from '../../src/policy/model.ts';
import { Registry } from '../../src/policy/registry.ts';
import { selfIn } from '../../src/proxy/context.ts';
import { changesForPod } from '../../src/proxy/standing.ts';
import { isWholeFor } from '../../src/proxy/whole-mesh.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { type MeshSpec, meshOf, uidOf } from '../support/sidecar-harness.ts';

const uid = uidOf('foo/db-0');
const settings = {
  ...{ podNamespace: 'foo', podName: 'db-0', workloadUid: uid },
  ...{ dialTimeoutMs: 1, handshakeTimeoutMs: 1, sniffSilenceMs: 1, halfCloseTimeoutMs: 1, passthroughSource: { v4: '', v6: '' } },
  forwardClientCert: 'SANITIZE_SET' as const,
};
const context = { settings, identity: new Snapshot<Identity>() };

/** With others of the pod's name: a WorkloadEntry, and a pod of another cluster. */
function meshWithOthers(spec: MeshSpec) {
  const mesh = meshOf(spec);
  const [pod] = mesh.registry.workloads();
  assert.ok(pod !== undefined);
  const others = ['0/networking.istio.io/WorkloadEntry/foo/db-0', 'another//Pod/foo/db-0'].map((each) => ({
    ...pod,
    uid: each,
    addresses: ['10.0.0.9'],
    authorizationPolicies: ['foo/not-here'],
  }));
  const registry = mesh.registry.changed({ workloads: { upserts: others, removed: [] }, services: { upserts: [], removed: [] } });
  const policyOf = (each: string): TrafficPolicy | undefined => {
    const own = mesh.policies.get(uid);
    return own === undefined || each === uid ? own : { ...own, workload: each, inbound: { mode: 'DISABLE', source: each } };
  };
  return { ...mesh, registry, policies: { get: policyOf } };
}

test('it-is-the-workload-with-its-uid-whoever-has-its-name', () => {
  const mesh = meshWithOthers({ workloads: [{ namespace: 'foo', name: 'db-0' }] });
  const { self, policy } = selfIn(mesh, context);
  assert.deepEqual([self.uid, policy.inbound.mode], [uid, 'STRICT']);
  assert.equal(isWholeFor(settings)(mesh), true);
  const [other] = [...mesh.registry.workloads()].filter((workload) => workload.uid !== uid);
  assert.ok(other !== undefined);
  const change = { workloads: { upserts: [{ ...other, healthy: false }], removed: [] }, services: { upserts: [], removed: [] } };
  const next = { ...mesh, registry: mesh.registry.changed(change) };
  assert.deepEqual(changesForPod(next, mesh, context), { changed: false, policyChanged: false });
});

test('without-it-there-is-no-policy-though-others-have-its-name', () => {
  const mesh = meshWithOthers({ workloads: [{ namespace: 'foo', name: 'db-0' }] });
  const registry = mesh.registry.changed({ workloads: { upserts: [], removed: [uid] }, services: { upserts: [], removed: [] } });
  assert.throws(() => selfIn({ ...mesh, registry }, context), { code: 'NO_POLICY', message: 'pod foo/db-0 is not in the registry' });
  assert.throws(() => selfIn({ ...mesh, registry: new Registry({ workloads: [], services: [] }) }, context), { code: 'NO_POLICY' });
});
