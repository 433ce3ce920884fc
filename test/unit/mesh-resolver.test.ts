// Resolved again and again: a sequence of changes leads to what resolving everything at once gives, whatever the changes were; and a change costs what it changes.

import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { describe, test } from 'node:test';
import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { ObjectParser } from '../../src/control/objects/parse-objects.ts';
import { type Changed, MeshResolver, type ResolvedChange } from '../../src/control/resolve/mesh-resolver.ts';
import { resolveMesh } from '../../src/control/resolve/resolve.ts';
import type { Selections } from '../../src/policy/policy-object.ts';

const trustDomain = 'cluster.local';
const ROOT = 'istio-system';

/** Numerical Recipes' generator: the same test every time. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

type Next = (below: number) => number;
const pick = <T>(next: Next, values: readonly T[]): T => values[next(values.length)] ?? assert.fail('nothing to pick');
const namespaces = ['a', 'b', 'c', ROOT] as const;
const apps = ['web', 'api', 'db'] as const;
const document = (head: object, spec: object) => JSON.stringify({ ...head, spec });
const meta = (name: string, namespace: string, more: object = {}) => ({ name, namespace, ...more });

const specs: Readonly<Record<string, (next: Next, namespace: string) => [apiVersion: string, spec: object]>> = {
  PeerAuthentication: (next, namespace) => [
    'security.istio.io/v1',
    {
      mtls: { mode: pick(next, ['STRICT', 'PERMISSIVE', 'DISABLE', 'UNSET']) },
      ...(namespace === ROOT || next(2) === 0
        ? {}
        : { selector: { matchLabels: { app: pick(next, apps) } }, portLevelMtls: { 80: { mode: 'DISABLE' } } }),
    },
  ],
  AuthorizationPolicy: (next) => [
    'security.istio.io/v1',
    {
      ...(next(2) === 0 ? {} : { selector: { matchLabels: { app: pick(next, apps) } } }),
      action: pick(next, ['ALLOW', 'DENY']),
      rules: [{ from: [{ source: { principals: [`cluster.local/ns/${pick(next, namespaces)}/sa/x`] } }] }],
    },
  ],
  DestinationRule: (next) => [
    'networking.istio.io/v1',
    {
      host: pick(next, ['s0', '*.b.svc.cluster.local', '*', 's1.a.svc.cluster.local', 'ext0.example']),
      ...(next(4) === 0 ? {} : { trafficPolicy: { tls: { mode: pick(next, ['DISABLE', 'ISTIO_MUTUAL', 'SIMPLE']) } } }),
      exportTo: [pick(next, ['.', '*'])],
    },
  ],
};

/** One file with one object. Its name tells which it is, so another one with the name is a change of it. */
function randomFile(next: Next): { name: string; text: string } {
  const namespace = pick(next, namespaces);
  const number = next(4);
  const dryRun = next(4) === 0;
  const file = (kind: string, text: string, of: string = namespace) => ({ name: `${kind}-${of}-${number}.json`, text });
  switch (next(8)) {
    case 0:
    case 1: {
      const labels = { app: pick(next, apps), 'topology.kubernetes.io/zone': pick(next, ['z1', 'z2']) };
      const status = { podIP: `10.${namespaces.indexOf(namespace)}.0.${number}` };
      return file('Pod', JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: meta(`p${number}`, namespace, { labels }), status }));
    }
    case 2: {
      const annotations = next(3) === 0 ? { 'handfast.io/client-tls': pick(next, ['AUTO', 'DISABLE']) } : {};
      const head = { apiVersion: 'v1', kind: 'Service', metadata: meta(`s${number}`, namespace, { annotations }) };
      return file('Service', document(head, { selector: { app: pick(next, apps) }, ports: [{ port: 80 }] }));
    }
    case 3: {
      const head = { apiVersion: 'networking.istio.io/v1', kind: 'ServiceEntry', metadata: meta(`e${number}`, namespace) };
      const address = `192.0.${namespaces.indexOf(namespace)}.${number}`;
      const endpoint = { address, labels: { app: pick(next, apps) } };
      const ports = [{ number: 80, name: 'http' }];
      return file('ServiceEntry', document(head, { hosts: [`ext${number}.example`], resolution: 'STATIC', ports, endpoints: [endpoint] }));
    }
    case 4:
    case 5: {
      const kind = pick(next, Object.keys(specs));
      const [apiVersion, spec] = specs[kind]?.(next, namespace) ?? assert.fail(kind);
      const annotations = kind !== 'DestinationRule' && dryRun ? { 'handfast.io/shadow': 'true' } : {};
      return file(kind, document({ apiVersion, kind, metadata: meta(`o${number}`, namespace, { annotations }) }, spec));
    }
    case 6: {
      const kind = pick(next, Object.keys(specs));
      const [apiVersion, spec] = specs[kind]?.(next, namespace) ?? assert.fail(kind);
      const selector = pick(next, [
        {},
        { matchLabels: { app: pick(next, apps) } },
        { matchLabels: { 'handfast.io/pod-name': `p${next(4)}` } },
        { matchExpressions: [{ key: 'handfast.io/zone', operator: 'NotIn', values: ['z1'] }] },
      ]);
      const annotations = kind !== 'DestinationRule' && dryRun ? { 'handfast.io/shadow': 'true' } : {};
      const rollout = { steps: [{ pods: 1 }, { percent: 100 }], intervalSeconds: 10 };
      const head = { apiVersion: 'handfast.io/v1alpha1', kind: 'ScopeConfig', metadata: meta(`x${number}`, namespace, { annotations }) };
      const object = { apiVersion, kind, metadata: { name: `o${next(4)}` }, spec };
      return file('ScopeConfig', document(head, { selector, priority: next(3), object, ...(next(2) === 0 ? {} : { rollout }) }));
    }
    default: {
      const head = { apiVersion: 'handfast.io/v1alpha1', kind: 'MeshConfig', metadata: meta('mesh', ROOT) };
      return { name: 'mesh.json', text: document(head, { trustDomainAliases: next(2) === 0 ? [] : ['old.example'] }) };
    }
  }
}

function randomSelections(next: Next): Selections {
  const pods = () => new Set(namespaces.flatMap((namespace) => [0, 1, 2, 3].map((n) => `${namespace}/p${n}`)).filter(() => next(2) === 0));
  return new Map(namespaces.flatMap((namespace) => [0, 1, 2, 3].map((n) => [`${namespace}/x${n}`, pods()] as const)));
}

/** A rollout that goes back for one pod. */
function withoutOne(next: Next, selections: Selections): Selections {
  const chosen = [...selections].filter(([, pods]) => pods.size > 0);
  if (chosen.length === 0) return selections;
  const [key, pods] = pick(next, chosen);
  const gone = pick(next, [...pods]);
  return new Map(selections).set(key, new Set([...pods].filter((pod) => pod !== gone)));
}

type State = { [K in keyof ResolvedChange]: Map<string, unknown> };

function apply(state: State, change: ResolvedChange): void {
  const one = <T>(all: Map<string, unknown>, { upserts, removed }: Changed<T>) => {
    for (const key of removed) assert.ok(all.delete(key), `${key} was removed and never there`);
    for (const [key, value] of upserts) all.set(key, value);
  };
  for (const kind of ['workloads', 'services', 'policies', 'authorizations'] as const) one<unknown>(state[kind], change[kind]);
}

const byKey = (all: Iterable<unknown>) => new Set(all);

describe('changes add up to the whole', () => {
  for (let seed = 1; seed <= 12; seed++) {
    test(`seed ${seed}`, () => {
      const next = random(seed);
      const files = new Map<string, { name: string; text: string }>();
      const parser = new ObjectParser();
      const resolver = new MeshResolver({ trustDomain });
      const state: State = { workloads: new Map(), services: new Map(), policies: new Map(), authorizations: new Map() };
      let selections: Selections = new Map();
      for (let step = 0; step < 120; step++) {
        const what = next(10);
        if (what === 0) selections = next(4) === 0 ? randomSelections(next) : withoutOne(next, selections);
        else if (what === 1 && files.size > 0) files.delete(pick(next, [...files.keys()]));
        else
          for (let count = next(3); count >= 0; count--) {
            const file = randomFile(next);
            files.set(file.name, file);
          }
        const objects = parser.parse([...files.values()]);
        apply(state, resolver.replace(objects, selections));
        const whole = resolveMesh(objects, { trustDomain, selections });
        for (const kind of ['workloads', 'services', 'policies', 'authorizations'] as const)
          assert.deepEqual(byKey(state[kind].values()), byKey(whole[kind]), `${kind} at step ${step}`);
      }
    });
  }
});

/** Made as parsing makes them, without the time that parsing takes. */
function bigMesh(of: { namespaces: number; pods: number; policies: number }): MeshObjects {
  const sample = new ObjectParser().parse([
    {
      name: 'a.yaml',
      text: `apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: n}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n---
apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: n}\nspec: {selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}\n---
apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: n}\nspec: {selector: {matchLabels: {app: a}}, rules: [{from: [{source: {principals: ["cluster.local/ns/n/sa/a"]}}]}]}\n`,
    },
  ]);
  const [pod, service, peer, authorization] = [
    sample.pods[0],
    sample.services[0],
    sample.peerAuthentications[0],
    sample.authorizationPolicies[0],
  ];
  assert.ok(pod && service && peer && authorization);
  const spread = <T>(count: number, make: (namespace: string, index: number) => T) =>
    Array.from({ length: count }, (_, index) => make(`ns-${index % of.namespaces}`, index));
  return {
    ...sample,
    pods: spread(of.pods, (namespace, index) => ({
      ...pod,
      metadata: {
        ...pod.metadata,
        namespace,
        name: `p-${index}`,
        labels: { app: `app-${index % 10}`, version: 'v1', 'security.istio.io/tlsMode': 'istio' },
      },
      status: { ...pod.status, podIP: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}` },
    })),
    services: spread(of.namespaces * 5, (namespace, index) => ({
      ...service,
      metadata: { ...service.metadata, namespace, name: `s-${index}` },
      spec: { ...service.spec, selector: { app: `app-${index % 10}` } },
    })),
    peerAuthentications: spread(of.policies / 2, (namespace, index) => ({
      ...peer,
      namespace,
      name: `pa-${index}`,
      selector: new Map([['app', `app-${index % 10}`]]),
    })),
    authorizationPolicies: spread(of.policies / 2, (namespace, index) => ({
      ...authorization,
      namespace,
      name: `ap-${index}`,
      selector: new Map([['app', `app-${index % 10}`]]),
    })),
  };
}

test('a mesh of 100,000 pods: all of it in seconds, a change of one namespace in milliseconds', () => {
  const objects = bigMesh({ namespaces: 1000, pods: 100_000, policies: 10_000 });
  const resolver = new MeshResolver({ trustDomain });
  const started = performance.now();
  assert.equal(resolver.replace(objects, new Map()).workloads.upserts.size, 100_000);
  const wholeMs = performance.now() - started;
  const changes = [0, 1, 2].map((n) => {
    const [first, ...others] = objects.pods;
    assert.ok(first);
    const changed = { ...objects, pods: [{ ...first, status: { ...first.status, podIP: `192.0.2.${n}` } }, ...others] };
    const before = performance.now();
    assert.equal(resolver.replace(changed, new Map()).workloads.upserts.size, 1);
    return performance.now() - before;
  });
  // Bounds with room for a busy machine; what is usual is a tenth.
  assert.ok(wholeMs < 20_000, `all of it took ${wholeMs} ms`);
  assert.ok(Math.min(...changes) < 500, `one pod took ${changes} ms`);
  if (process.env.HANDFAST_TIMINGS !== undefined) console.error({ wholeMs, changes });
});
