// Objects with anything in the place of anything: each is either an object or a refusal that names its file, never another error; and what parses resolves.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { resolveMesh } from '../../src/control/resolve/resolve.ts';
import { HandfastError } from '../../src/errors.ts';

const labels = { matchLabels: { app: 'web' } };
const peer = { selector: labels, mtls: { mode: 'STRICT' }, portLevelMtls: { 80: { mode: 'UNSET' } } };
const authorization = {
  selector: labels,
  action: 'DENY',
  rules: [
    {
      from: [
        { source: { principals: ['cluster.local/ns/a/sa/b', '*'], notIpBlocks: ['10.0.0.0/8'] } },
        { source: { serviceAccounts: ['a', 'b/c'] } },
      ],
      to: [{ operation: { ports: ['80'], notPorts: ['81'] } }],
      when: [
        { key: 'destination.port', values: ['80'], notValues: ['81'] },
        { key: 'source.ip', values: ['10.0.0.1'] },
      ],
    },
  ],
};
const rule = {
  host: 'a',
  exportTo: ['.'],
  workloadSelector: labels,
  trafficPolicy: { tls: { mode: 'SIMPLE', sni: 'a.example' }, portLevelSettings: [{ port: { number: 80 }, tls: { mode: 'DISABLE' } }] },
};
const entry = {
  hosts: ['a.example'],
  addresses: ['192.0.2.1'],
  ports: [{ number: 80, name: 'http', protocol: 'HTTP', targetPort: 8080 }],
  resolution: 'STATIC',
  location: 'MESH_INTERNAL',
  endpoints: [{ address: '192.0.2.2', ports: { http: 81 }, labels: { app: 'web' }, serviceAccount: 'x' }],
  subjectAltNames: ['spiffe://cluster.local/ns/a/sa/b'],
};
const metadata = { name: 'a', namespace: 'foo', annotations: { 'handfast.io/shadow': 'true' }, creationTimestamp: '2020-01-01T00:00:00Z' };
const scope = {
  selector: { ...labels, matchExpressions: [{ key: 'handfast.io/pod-ip', operator: 'In', values: ['10.0.0.1'] }] },
  priority: 1,
  rollout: {
    steps: [{ pods: 1 }, { percent: 100 }],
    intervalSeconds: 1,
    paused: false,
    failureBudget: { maxFailureRatio: 0.1, windowSeconds: 1, minConnections: 2 },
  },
};
const wrap = (apiVersion: string, kind: string, spec: object) => ({
  apiVersion: 'handfast.io/v1alpha1',
  kind: 'ScopeConfig',
  metadata: { ...metadata, annotations: {} },
  spec: { ...scope, object: { apiVersion, kind, metadata: { name: 'b' }, spec } },
});
const objects: readonly object[] = [
  { apiVersion: 'security.istio.io/v1', kind: 'PeerAuthentication', metadata, spec: peer },
  {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { ...metadata, annotations: { 'istio.io/dry-run': 'true' } },
    spec: authorization,
  },
  { apiVersion: 'networking.istio.io/v1', kind: 'DestinationRule', metadata: { ...metadata, annotations: {} }, spec: rule },
  { apiVersion: 'networking.istio.io/v1', kind: 'ServiceEntry', metadata: { ...metadata, annotations: {} }, spec: entry },
  wrap('security.istio.io/v1', 'PeerAuthentication', peer),
  wrap('security.istio.io/v1', 'AuthorizationPolicy', authorization),
  wrap('networking.istio.io/v1', 'DestinationRule', rule),
];
const junk: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e21,
  '',
  '*',
  'a',
  '\u0000',
  '10.0.0.0/8',
  [],
  [null],
  [[]],
  {},
  { a: 1 },
  { constructor: {} },
  [{}],
  ['', '*'],
];

function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A copy with one thing in it replaced, taken away, or added. */
function mutated(value: unknown, next: (below: number) => number): unknown {
  if (typeof value !== 'object' || value === null || next(5) === 0) return junk[next(junk.length)];
  const entries = Object.entries(value);
  const chosen = next(entries.length + 1);
  const [key] = entries[chosen] ?? [undefined];
  if (Array.isArray(value))
    return key === undefined
      ? [...value, junk[next(junk.length)]]
      : value.map((one, index) => (index === chosen ? mutated(one, next) : one));
  if (key === undefined) return { ...value, [['extra', 'toString', 'spec', 'mode'][next(4)] ?? 'x']: junk[next(junk.length)] };
  if (next(6) === 0) return Object.fromEntries(entries.filter(([name]) => name !== key));
  return Object.fromEntries(entries.map(([name, one]) => [name, name === key ? mutated(one, next) : one]));
}

test('the objects themselves are good', () => {
  for (const object of objects) parseObjects([{ name: 'a.json', text: JSON.stringify(object) }]);
});

test('4,000 objects that something was done to', () => {
  const next = random(7);
  let refused = 0;
  for (let round = 0; round < 4000; round++) {
    let object: unknown = objects[next(objects.length)];
    for (let times = next(2); times >= 0; times--) object = mutated(object, next);
    const text = JSON.stringify(object) ?? 'null';
    try {
      resolveMesh(parseObjects([{ name: 'a.json', text }]), { trustDomain: 'cluster.local', selections: new Map() });
    } catch (error) {
      assert.ok(
        error instanceof HandfastError && error.code === 'OBJECT_INVALID',
        `${text}: ${error instanceof Error ? error.stack : error}`,
      );
      for (const line of error.message.split('\n')) assert.match(line, /^a\.json:\d+: /, text);
      refused++;
    }
  }
  assert.ok(refused > 1000 && refused < 4000, `${refused} refused`);
});
