// Pods that run without the sidecar that they should have: found by the injector's own rules, said once, counted, and forgotten when they are made anew.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { scriptArguments } from '../../../src/commands/iptables.ts';
import { HandfastError } from '../../../src/errors.ts';
import { candidateOf, type UnmeshedPod, unmeshedOf } from '../../../src/injector/unmeshed.ts';
import { UnmeshedPods } from '../../../src/injector/unmeshed-pods.ts';
import { metricsText } from '../../../src/observe/metrics-text.ts';
import { isJsonObject } from '../../../src/spiffe/strict-json.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { configOf, IMAGE, injectIn } from './injecting.ts';

const ENABLED = { 'istio-injection': 'enabled' };

interface Of {
  readonly name?: string;
  readonly metadata?: object;
  readonly spec?: object;
  readonly status?: object;
}
const podOf = ({ name = 'web', metadata = {}, spec = {}, status = {} }: Of = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'shop', uid: `uid-${name}`, labels: {}, ...metadata },
  spec: {
    containers: [{ name: 'app', image: 'app:1', env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }] }],
    ...spec,
  },
  status: { phase: 'Running', ...status },
});
const injected = (of: Of = {}) => {
  const outcome = injectIn().inject(podOf(of));
  assert.equal(outcome.kind, 'injected');
  return outcome.pod as ReturnType<typeof podOf>;
};
const owned = (kind: string, name: string, labels: object = {}) => ({
  metadata: { labels, ownerReferences: [{ kind, name, controller: true }] },
});

function judge(pod: object, { settings = {}, labels = ENABLED }: { settings?: object; labels?: Readonly<Record<string, string>> } = {}) {
  const config = configOf({ ...settings });
  assert.ok(isJsonObject(pod));
  const candidate = candidateOf(pod, config);
  return candidate && unmeshedOf(candidate, { config, captureArguments: scriptArguments, namespaceLabels: labels });
}

describe('not listed', () => {
  for (const [what, pod, of] of [
    ['a pod with its sidecar', injected()],
    [
      'a pod with a sidecar of another tag of the same image',
      JSON.parse(JSON.stringify(injected()).replaceAll(IMAGE, 'registry.example/handfast:0.9')),
    ],
    ['a pod with a sidecar that other settings made', injected(), { settings: { tokenExpirationSeconds: 7200 } }],
    ['a pod with a classic sidecar', injected({ metadata: { annotations: { 'sidecar.istio.io/nativeSidecar': 'false' } } })],
    ['one that nobody asked for', podOf(), { labels: {} }],
    ['one that opted out by label', podOf({ metadata: { labels: { 'sidecar.istio.io/inject': 'false' } } })],
    ['one that opted out by annotation', podOf({ metadata: { annotations: { 'sidecar.istio.io/inject': 'false' } } })],
    [
      'one in a namespace that is disabled',
      podOf({ metadata: { labels: { 'sidecar.istio.io/inject': 'true' } } }),
      { labels: { 'istio-injection': 'disabled' } },
    ],
    ['one of the system’s namespaces', podOf({ metadata: { namespace: 'kube-system' } })],
    ['one of the mesh’s own', podOf({ metadata: { namespace: 'handfast-system' } })],
    ['one that has succeeded', podOf({ status: { phase: 'Succeeded' } })],
    ['one that has failed', podOf({ status: { phase: 'Failed' } })],
    ['one that is going', podOf({ metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } })],
  ] as const)
    test(what, () => assert.equal(judge(pod, of), undefined));
});

describe('listed, with who asks for a sidecar and what is known of why there is none', () => {
  const { spec, metadata } = injected();
  const without = (list: unknown, name: string) => (list as { name: string }[]).filter((one) => one.name !== name);
  for (const [what, pod, of, why] of [
    ['namespace label', podOf(), {}, /^namespace shop is labelled istio-injection=enabled; it has not come past the injector/],
    [
      'pod label',
      podOf({ metadata: { labels: { 'sidecar.istio.io/inject': 'true' } } }),
      { labels: {} },
      /^the pod's label sidecar\.istio\.io\/inject is "true"/,
    ],
    [
      'pod annotation, which no webhook sees',
      podOf({ metadata: { annotations: { 'sidecar.istio.io/inject': 'true' } } }),
      { labels: {} },
      /^the pod's annotation sidecar/,
    ],
    ['default', podOf(), { labels: {}, settings: { injectByDefault: true } }, /^the injector is set to injectByDefault/],
    ['a label that says neither', podOf({ metadata: { labels: { 'sidecar.istio.io/inject': 'maybe' } } }), {}, /"maybe" is not accepted/],
    [
      'opted out, but claims a sidecar',
      podOf({ metadata: { labels: { 'sidecar.istio.io/inject': 'false', 'security.istio.io/tlsMode': 'istio' } } }),
      {},
      /claims a sidecar/,
    ],
    [
      'sidecar taken out again',
      podOf({
        metadata,
        spec: { ...spec, initContainers: without((spec as { initContainers?: unknown }).initContainers, 'handfast-proxy') },
      }),
      {},
      /it lacks container handfast-proxy: something took that out/,
    ],
    [
      'label taken off again',
      podOf({ metadata: { ...metadata, labels: { 'networking.istio.io/tunnel': 'http' } }, spec }),
      {},
      /it lacks label security\.istio\.io\/tlsMode: istio/,
    ],
    [
      'a sidecar of somebody else’s image',
      JSON.parse(JSON.stringify(injected()).replaceAll(IMAGE, 'evil.example/handfast:1')),
      {},
      /an image that is not the injector's/,
    ],
  ] as const)
    test(what, () => assert.match(judge(pod, of)?.why ?? 'not listed', why));
});

describe('the way out', () => {
  for (const [what, pod, way] of [
    [
      'a Deployment',
      podOf({ name: 'web-5d4-x', ...owned('ReplicaSet', 'web-5d4', { 'pod-template-hash': '5d4' }) }),
      /^kubectl rollout restart deployment\/web -n shop$/,
    ],
    [
      'a ReplicaSet of its own',
      podOf({ name: 'rs-x', ...owned('ReplicaSet', 'rs') }),
      /^kubectl delete pod rs-x -n shop \(its ReplicaSet rs makes another\)$/,
    ],
    ['a StatefulSet', podOf(owned('StatefulSet', 'db')), /^kubectl rollout restart statefulset\/db -n shop$/],
    ['a DaemonSet', podOf(owned('DaemonSet', 'ds')), /^kubectl rollout restart daemonset\/ds -n shop$/],
    ['a Job', podOf(owned('Job', 'job')), /^kubectl delete pod web -n shop \(its Job job makes another\)$/],
    ['nobody', podOf(), /^kubectl delete pod web -n shop, and make it anew/],
    ['a node', podOf(owned('Node', 'node-1')), /a static pod passes no injector/],
    [
      'one that would be refused',
      podOf({ spec: { hostNetwork: true } }),
      /^it would be refused now \(spec\.hostNetwork: true is the node's network.*or label the pod.*then kubectl delete/,
    ],
  ] as const)
    test(`of a pod of ${what}`, () => assert.match(judge(pod)?.wayOut ?? 'not listed', way));

  test('of one whose namespace’s Pod Security would refuse it', () => {
    const labels = { ...ENABLED, 'pod-security.kubernetes.io/enforce': 'restricted' };
    assert.match(
      judge(podOf(), { labels })?.wayOut ?? '',
      /it would be refused now \(the namespace enforces the Pod Security level restricted/,
    );
  });
});

test('a pod of a million characters is judged by what decides, and keeps none of them', () => {
  const huge = podOf({ metadata: { annotations: { 'sidecar.istio.io/proxyImage': 'x'.repeat(1_000_000) } } });
  const config = configOf();
  const candidate = candidateOf(huge, config);
  assert.ok(candidate !== undefined && JSON.stringify(candidate).length < 2_000);
  assert.match(
    unmeshedOf(candidate, { config, captureArguments: scriptArguments, namespaceLabels: ENABLED })?.why ?? '',
    /istio-injection=enabled/,
  );
  const out = podOf({ metadata: { labels: { 'sidecar.istio.io/inject': 'false' }, annotations: { x: 'x'.repeat(1_000_000) } } });
  assert.equal(judge(out), undefined);
});

describe('a cluster, followed', () => {
  const PODS = '/api/v1/pods';
  const NAMESPACES = '/api/v1/namespaces';
  const namespace = (name: string, labels: object = {}) => ({ kind: 'Namespace', metadata: { name, labels } });

  async function follow(api: FakeKubeApi) {
    const said: unknown[] = [];
    const log = {
      warn: (fields: object, message: string) => {
        if (message === 'a pod runs unmeshed') said.push(fields);
      },
    };
    const unmeshed = new UnmeshedPods({ api, config: configOf(), captureArguments: scriptArguments, log });
    const ending = new AbortController();
    const running = unmeshed.run(ending.signal);
    const names = () => unmeshed.current?.map(({ namespace: of, name }) => `${of}/${name}`);
    return {
      unmeshed,
      said,
      names,
      async until(...expected: readonly string[]) {
        const deadline = performance.now() + 20_000;
        while (JSON.stringify(names()) !== JSON.stringify(expected)) {
          assert.ok(performance.now() < deadline, `${JSON.stringify(names())}, not ${JSON.stringify(expected)}`);
          await delay(10);
        }
      },
      async [Symbol.asyncDispose]() {
        ending.abort();
        await running;
      },
    };
  }

  test('a namespace that is labelled later lists its pods; each is said once; one that is made anew is forgotten', async () => {
    const api = new FakeKubeApi();
    api.put(NAMESPACES, namespace('shop'));
    api.put(PODS, podOf({ name: 'a' }));
    api.put(PODS, podOf({ name: 'b' }));
    await using following = await follow(api);
    await following.unmeshed.first;
    assert.deepEqual(following.names(), []);
    api.put(NAMESPACES, namespace('shop', ENABLED));
    await following.until('shop/a', 'shop/b');
    api.put(PODS, podOf({ name: 'a', status: { phase: 'Running', podIP: '10.0.0.1' } }));
    api.remove(PODS, 'shop/b');
    await following.until('shop/a');
    assert.match(metricsText(following.unmeshed.families()), /^handfast_unmeshed_pods\{namespace="shop"\} 1$/m);
    api.remove(PODS, 'shop/a');
    api.put(PODS, injected({ name: 'c', metadata: { namespace: 'shop', name: 'c', uid: 'uid-c' } }));
    await following.until();
    assert.deepEqual(
      following.said.map((line) => isJsonObject(line) && line.pod),
      ['a', 'b'],
    );
  });

  test('while the API server does not say, nobody is said to be meshed', async () => {
    const api = new FakeKubeApi();
    api.away = new HandfastError('KUBE_REFUSED', 'forbidden');
    await using following = await follow(api);
    await api.askedTimes(`list ${PODS}`, 1);
    assert.equal(following.unmeshed.current, undefined);
    assert.match(metricsText(following.unmeshed.families()), /^handfast_unmeshed_pods_known 0$/m);
    api.away = undefined;
    api.put(NAMESPACES, namespace('shop', ENABLED));
    api.put(PODS, podOf({ name: 'a' }));
    await following.until('shop/a');
    assert.match(metricsText(following.unmeshed.families()), /^handfast_unmeshed_pods_known 1$/m);
  });

  test('series have an end, and what finds no room is counted together', async () => {
    const api = new FakeKubeApi();
    for (let index = 0; index < 250; index++) {
      api.put(NAMESPACES, namespace(`n-${index}`, ENABLED));
      api.put(PODS, podOf({ name: 'a', metadata: { name: 'a', namespace: `n-${index}`, uid: `uid-${index}` } }));
    }
    await using following = await follow(api);
    const found: readonly UnmeshedPod[] = await following.unmeshed.first;
    assert.equal(found.length, 250);
    const text = metricsText(following.unmeshed.families());
    assert.equal(text.match(/^handfast_unmeshed_pods\{/gm)?.length, 201);
    assert.match(text, /^handfast_unmeshed_pods\{namespace=""\} 50$/m);
    assert.equal(following.said.length, 100);
  });
});
