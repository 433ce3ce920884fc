// Whom some client is told to call in plaintext, by whichever object, and for how long that counts when it is told no more.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isCalledInPlaintext, plaintextHosts, ToldInPlaintext } from '../../src/control/plaintext-clients.ts';
import { snapshotOf } from '../../src/control/resolve/snapshot-of.ts';
import { objectText, parseTexts, podText, scopeText } from '../support/policy-yaml.ts';

const pod = podText('web', { labels: '{app: web}', ip: '10.0.0.1' });
const service = (annotations = '{}') =>
  objectText('Service', '{clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}', {
    name: 'web',
    annotations,
    apiVersion: 'v1',
  });
const rule = (mode: string, host = 'web') => `{host: "${host}", trafficPolicy: {tls: {mode: ${mode}}}}`;

describe('a workload is called in plaintext', () => {
  const cases: readonly (readonly [name: string, objects: readonly string[], wanted: boolean])[] = [
    ['by a rule for its service', [objectText('DestinationRule', rule('DISABLE')), service()], true],
    ['by one for a wildcard', [objectText('DestinationRule', rule('DISABLE', '*.foo.svc.cluster.local')), service()], true],
    [
      'by one for a port',
      [
        objectText('DestinationRule', '{host: web, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}}'),
        service(),
      ],
      true,
    ],
    ['by one in a ScopeConfig', [scopeText({ kind: 'DestinationRule', spec: rule('DISABLE') }), service()], true],
    ["by its service's annotation", [service('{handfast.io/client-tls: DISABLE}')], true],
    ['by nobody: the rule is for another', [objectText('DestinationRule', rule('DISABLE', 'other')), service()], false],
    [
      'by nobody: the rule says mTLS',
      [objectText('DestinationRule', rule('ISTIO_MUTUAL')), service('{handfast.io/client-tls: ISTIO_MUTUAL}')],
      false,
    ],
  ];
  for (const [name, texts, wanted] of cases)
    test(name, () => {
      const objects = parseTexts(pod, ...texts);
      const workload = snapshotOf(objects, { trustDomain: 'cluster.local', selections: new Map() }).registry.workload('foo', 'web');
      assert.equal(isCalledInPlaintext(workload, plaintextHosts(objects)), wanted);
    });
});

test('a rule that goes away counts until what was dialled by it has drained, however long ago it was told', () => {
  const told = new ToldInPlaintext(100);
  const at = (hosts: string[], now: number) => [...told.at(new Set(hosts), now)];
  assert.deepEqual(at(['web'], 0), ['web']);
  assert.deepEqual(at([], 5_000), ['web'], 'in the change that takes it away');
  assert.deepEqual(at([], 5_050), ['web'], 'and in others that follow');
  assert.deepEqual(at([], 5_100), ['web']);
  assert.deepEqual(at([], 5_101), []);
});
