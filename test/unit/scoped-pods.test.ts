// Whom a rollout is counted of: the pods in the mesh that its ScopeConfig and its policy select, wherever it stands.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scopedPods } from '../../src/control/resolve/scoped-pods.ts';
import { parseTexts, podText, scopeText } from '../support/policy-yaml.ts';

const pods = [
  podText('web', { labels: '{app: web, security.istio.io/tlsMode: istio}' }),
  podText('api', { labels: '{app: api, security.istio.io/tlsMode: istio}' }),
  podText('outside', { labels: '{app: web}' }),
  podText('web', { namespace: 'bar', labels: '{app: web, security.istio.io/tlsMode: istio}' }),
];

function scoped(of: Parameters<typeof scopeText>[1], own = ''): string[] {
  const more = 'rollout: {steps: [{percent: 100}], intervalSeconds: 1}';
  const objects = parseTexts(...pods, scopeText({ kind: 'AuthorizationPolicy', spec: `{${own}}` }, { more, ...of }));
  const [scope] = objects.scopeConfigs;
  assert.ok(scope);
  return scopedPods(objects, scope);
}

const cases: Readonly<Record<string, readonly [found: string[], wanted: string[]]>> = {
  'all of its namespace': [scoped({}), ['foo/web', 'foo/api']],
  'those with its labels': [scoped({ selector: '{matchLabels: {app: web}}' }), ['foo/web']],
  "those with the policy's labels": [scoped({}, 'selector: {matchLabels: {app: api}}'), ['foo/api']],
  'all of the mesh in the root namespace': [scoped({ namespace: 'istio-system' }), ['foo/web', 'foo/api', 'bar/web']],
};
for (const [title, [found, wanted]] of Object.entries(cases)) test(title, () => assert.deepEqual(found, wanted));
