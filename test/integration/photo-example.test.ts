// Three services in a row: frontend may call backend, backend may call datastore, frontend may not call datastore. With files as they are written for Istio.

import assert from 'node:assert/strict';
import { after, before, it } from 'node:test';
import { LoopbackMesh } from '../support/loopback-mesh.ts';

const service = (name: string, ip: string) => `---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: photo}
spec: {clusterIP: ${ip}, selector: {app: ${name}}, ports: [{port: 80, targetPort: http}]}
`;
const allow = (to: string, from: string) => `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${to}, namespace: photo}
spec:
  selector: {matchLabels: {app: ${to}}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: ["cluster.local/ns/photo/sa/${from}"]}
`;
const VIPS = { backend: { address: '10.96.1.2', port: 80 }, datastore: { address: '10.96.1.3', port: 80 } };
const STRICT = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: photo}
spec: {mtls: {mode: STRICT}}
`;
const SERVICES = service('backend', VIPS.backend.address) + service('datastore', VIPS.datastore.address);

let mesh: LoopbackMesh;

before(async () => {
  mesh = await LoopbackMesh.start(
    ['frontend', 'backend', 'datastore'].map((name) => ({ namespace: 'photo', name })),
    STRICT + SERVICES + allow('backend', 'frontend') + allow('datastore', 'backend'),
  );
  await Promise.all(mesh.pods.map((pod) => pod.obeys(({ mode }) => mode === 'STRICT')));
});

after(() => mesh[Symbol.asyncDispose]());

it('along-the-chain-everybody-is-answered', async () => {
  assert.equal(await mesh.pod('photo/frontend').call(VIPS.backend), 'photo/backend');
  assert.equal(await mesh.pod('photo/backend').call(VIPS.datastore), 'photo/datastore');
});

it('frontend-is-refused-at-datastore-and-both-names-are-in-the-reason', async () => {
  assert.notEqual(await mesh.pod('photo/frontend').call(VIPS.datastore), 'photo/datastore');
  const record = await mesh.pod('photo/datastore').sidecar.records.find(({ code }) => code === 'AUTHORIZATION_DENIED');
  assert.match(String(record.reason), /sa\/frontend to port \d+ is allowed by none of AuthorizationPolicy photo\/datastore/);
});

it('nobody-without-a-certificate-is-answered-anywhere', async () => {
  for (const name of ['backend', 'datastore'])
    assert.match(await mesh.pod(`photo/${name}`).calledInPlaintext('127.2.0.1'), /ECONNRESET|closed/);
});

it('the-policy-is-changed-and-the-open-way-follows', async () => {
  await mesh.apply('objects.yaml', STRICT + SERVICES + allow('backend', 'frontend') + allow('datastore', 'frontend'));
  const deadline = Date.now() + 20_000;
  while ((await mesh.pod('photo/frontend').call(VIPS.datastore)) !== 'photo/datastore')
    assert.ok(Date.now() < deadline, 'it never came into force');
  assert.notEqual(await mesh.pod('photo/backend').call(VIPS.datastore), 'photo/datastore');
});
