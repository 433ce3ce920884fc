import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeSource } from '../../src/control/objects/kube-source.ts';
import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { openLog } from '../../src/observe/log.ts';
import { FakeKubeApi } from '../support/fake-kube-api.ts';

const PODS = '/api/v1/pods';
const SERVICES = '/api/v1/services';
const PEER_AUTHENTICATIONS = '/apis/security.istio.io/v1/peerauthentications';
const AUTHORIZATION_POLICIES = '/apis/security.istio.io/v1/authorizationpolicies';
const SERVICE_ENTRIES = '/apis/networking.istio.io/v1/serviceentries';
const SCOPE_CONFIGS = '/apis/handfast.io/v1alpha1/scopeconfigs';
const MESH_CONFIGS = '/apis/handfast.io/v1alpha1/meshconfigs';

/** As an API server says them: with much that is nothing to a registry. */
const meta = (name: string, more: object = {}) => ({
  name,
  namespace: 'foo',
  uid: `uid-${name}`,
  generation: 3,
  creationTimestamp: '2026-01-02T03:04:05Z',
  managedFields: [{ manager: 'kubectl', fieldsV1: { 'f:spec': {} } }],
  ...more,
});
const pod = (
  name: string,
  ip: string,
  { spec = {}, metadata = {}, status = {} }: { spec?: object; metadata?: object; status?: object } = {},
) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: meta(name, { labels: { app: name, 'pod-template-hash': 'abc' }, ownerReferences: [{ kind: 'ReplicaSet' }], ...metadata }),
  spec: {
    serviceAccountName: name,
    nodeName: 'node-1',
    dnsPolicy: 'ClusterFirst',
    tolerations: [{ effect: 'NoExecute' }],
    containers: [
      {
        name: 'app',
        image: 'app:1',
        imagePullPolicy: 'Always',
        resources: {},
        ports: [{ containerPort: 80, name: 'http', protocol: 'TCP' }],
      },
    ],
    ...spec,
  },
  status: {
    phase: 'Running',
    qosClass: 'Burstable',
    podIP: ip,
    podIPs: [{ ip }],
    conditions: [
      { type: 'Ready', status: 'True', lastProbeTime: null },
      { type: 'PodScheduled', status: 'True' },
    ],
    ...status,
  },
});
const service = (name: string, ip: string, spec: object = {}, metadata: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: meta(name, metadata),
  spec: {
    type: 'ClusterIP',
    clusterIP: ip,
    clusterIPs: [ip],
    internalTrafficPolicy: 'Cluster',
    sessionAffinity: 'None',
    ipFamilies: ['IPv4'],
    ipFamilyPolicy: 'SingleStack',
    selector: { app: name },
    ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 'http' }],
    ...spec,
  },
  status: { loadBalancer: {} },
});
const policy = (kind: string, name: string, spec: object, metadata: object = {}) => ({
  apiVersion: 'security.istio.io/v1',
  kind,
  metadata: meta(name, metadata),
  spec,
});

async function follow(api: FakeKubeApi) {
  const { log, close } = openLog({ role: 'test', level: 'silent' });
  const source = new KubeSource({ api, log, now: Date.now });
  const ending = new AbortController();
  await source.start(ending.signal);
  return {
    source,
    async until(holds: (objects: MeshObjects) => boolean): Promise<MeshObjects> {
      for (;;) {
        const { current } = source.objects;
        if (current !== undefined && holds(current)) return current;
        await new Promise<void>((resolve) => {
          const stop = source.objects.subscribe(() => {
            stop();
            resolve();
          });
        });
      }
    },
    async [Symbol.asyncDispose]() {
      ending.abort();
      await source.ended();
      close();
    },
  };
}

const names = (all: readonly { readonly metadata: { readonly name: string } }[]) => all.map(({ metadata }) => metadata.name).sort();

test('pods and services as an API server says them become a registry', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('web', '10.0.0.1', { metadata: { deletionTimestamp: '2026-01-02T03:04:06Z' } }));
  api.put(SERVICES, service('web', '10.96.0.1'));
  await using following = await follow(api);
  const { current } = following.source.objects;
  assert.deepEqual(current?.pods[0]?.spec, {
    serviceAccountName: 'web',
    nodeName: 'node-1',
    containers: [{ name: 'app', ports: [{ name: 'http', containerPort: 80, protocol: 'TCP' }] }],
  });
  assert.equal(current?.pods[0]?.metadata.deletionTimestamp, '2026-01-02T03:04:06Z');
  assert.deepEqual(current?.pods[0]?.status, {
    podIP: '10.0.0.1',
    podIPs: [{ ip: '10.0.0.1' }],
    phase: 'Running',
    conditions: [{ type: 'Ready', status: 'True' }],
  });
  assert.deepEqual(current?.services[0]?.spec.clusterIPs, ['10.96.0.1']);
});

test('an object that did not change keeps its identity while others come and go', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('a', '10.0.0.1'));
  await using following = await follow(api);
  const first = following.source.objects.current?.pods[0];
  api.put(PODS, pod('b', '10.0.0.2'));
  const { pods } = await following.until((objects) => objects.pods.length === 2);
  assert.ok(pods.includes(first as never));
});

test('nothing is published before everything has been listed: half a set of policies lets in whom the other half keeps out', async () => {
  const api = new FakeKubeApi();
  api.absent.add(SERVICES);
  api.put(PODS, pod('a', '10.0.0.1'));
  const { log, close } = openLog({ role: 'test', level: 'silent' });
  const source = new KubeSource({ api, log, now: Date.now });
  const ending = new AbortController();
  const starting = source.start(ending.signal);
  await api.askedTimes(`list ${SERVICES}`, 3);
  const before: unknown = source.objects.current;
  assert.equal(before, undefined);
  api.absent.delete(SERVICES);
  await starting;
  assert.equal(source.objects.current?.pods.length, 1);
  ending.abort();
  await source.ended();
  close();
});

test('pods that have ended, and those on their node’s network, are no workloads', async () => {
  const api = new FakeKubeApi();
  api.put(PODS, pod('done', '10.0.0.1', { status: { phase: 'Succeeded' } }));
  api.put(PODS, pod('failed', '10.0.0.1', { status: { phase: 'Failed' } }));
  api.put(PODS, pod('host', '192.168.0.1', { spec: { hostNetwork: true } }));
  api.put(PODS, pod('successor', '10.0.0.1'));
  await using following = await follow(api);
  assert.deepEqual(names(following.source.objects.current?.pods ?? []), ['successor']);
});

test('a name of something else is no service; one that nobody in the mesh serves is one, with its own address', async () => {
  const api = new FakeKubeApi();
  api.put(SERVICES, service('kubernetes', '10.96.0.1', { selector: undefined }));
  api.put(SERVICES, service('elsewhere', '', { type: 'ExternalName', externalName: 'example.org', selector: undefined }));
  api.put(SERVICES, service('host', '10.96.0.2'));
  api.put(SERVICES, service('both', '10.96.0.3', { selector: { 'pod-template-hash': 'abc' } }));
  api.put(SERVICES, service('idle', '10.96.0.4'));
  api.put(PODS, pod('host', '192.168.0.1', { spec: { hostNetwork: true } }));
  api.put(PODS, pod('web', '10.0.0.1'));
  await using following = await follow(api);
  assert.deepEqual(names(following.source.objects.current?.services ?? []), ['both', 'host', 'idle', 'kubernetes']);
});

test('a pod that is going gives its address to its successor; one that is there keeps it, however new the other is', async () => {
  const api = new FakeKubeApi();
  const later = { metadata: { creationTimestamp: '2026-02-02T00:00:00Z' } };
  api.put(PODS, pod('going', '10.0.0.1', { metadata: { deletionTimestamp: '2026-02-02T00:00:00Z' } }));
  api.put(PODS, pod('successor', '10.0.0.1', later));
  api.put(PODS, pod('victim', '10.0.0.2', { status: { conditions: [{ type: 'Ready', status: 'False' }] } }));
  api.put(PODS, pod('thief', '10.0.0.2', later));
  await using following = await follow(api);
  assert.deepEqual(names(following.source.objects.current?.pods ?? []), ['successor', 'victim']);
  assert.match(following.source.refusals.get('Pod foo/thief') ?? '', /address 10\.0\.0\.2 is Pod foo\/victim's already/);
  api.remove(PODS, 'foo/victim');
  await following.until(({ pods }) => names(pods).includes('thief'));
});

test('who came first is believed, and of the same second the first by name, in whatever order they are heard of', async () => {
  for (const order of [
    ['b', 'a', 'old'],
    ['old', 'a', 'b'],
  ]) {
    const api = new FakeKubeApi();
    const entry = (name: string, address: string) => ({
      apiVersion: 'networking.istio.io/v1',
      kind: 'ServiceEntry',
      metadata: meta(name, name === 'old' ? { creationTimestamp: '2020-01-01T00:00:00Z' } : {}),
      spec: {
        hosts: [`${name}.example`],
        addresses: [address],
        ports: [{ number: 80, name: 'tcp' }],
        resolution: 'STATIC',
        endpoints: [{ address: `10.98.${name.length}.${name.charCodeAt(0)}` }],
      },
    });
    for (const name of order) api.put(SERVICE_ENTRIES, entry(name, '10.97.0.1'));
    await using following = await follow(api);
    assert.deepEqual(names(following.source.objects.current?.serviceEntries ?? []), ['old']);
    api.remove(SERVICE_ENTRIES, 'foo/old');
    const { serviceEntries } = await following.until((objects) => !names(objects.serviceEntries).includes('old'));
    assert.deepEqual(names(serviceEntries), ['a']);
  }
});

test('a ServiceEntry cannot take the address of a service or pod, however old it is', async () => {
  const api = new FakeKubeApi();
  api.put(SERVICES, service('web', '10.96.0.1', {}, { creationTimestamp: '2026-03-01T00:00:00Z' }));
  const entry = (name: string, address: string) => ({
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: meta(name, { creationTimestamp: '2020-01-01T00:00:00Z' }),
    spec: {
      hosts: [`${name}.example`],
      addresses: [address],
      ports: [{ number: 80, name: 'tcp', protocol: 'TCP' }],
      resolution: 'STATIC',
      endpoints: [{ address: `10.98.0.${name.length}` }],
    },
  });
  api.put(SERVICE_ENTRIES, entry('thief', '10.96.0.1'));
  // Registered or not, an address is the cluster's: a Service without a selector, one that cannot be read, a node's.
  api.put(SERVICES, service('kubernetes', '10.96.0.2', { selector: undefined }));
  api.put(SERVICES, service('odd', '10.96.0.3', { ports: [{ port: 0 }] }));
  api.put(PODS, pod('host', '192.168.0.1', { spec: { hostNetwork: true } }));
  for (const [name, address] of [
    ['kube', '10.96.0.2'],
    ['unread', '10.96.0.3'],
    ['node', '192.168.0.1'],
    ['credentials', '169.254.169.254'],
    ['loopback', '127.0.0.1'],
  ] as const)
    api.put(SERVICE_ENTRIES, entry(name, address));
  api.put(SERVICE_ENTRIES, entry('honest', '10.97.0.1'));
  await using following = await follow(api);
  assert.deepEqual(names(following.source.objects.current?.serviceEntries ?? []), ['honest'], [...following.source.refusals].join('\n'));
  assert.deepEqual(names(following.source.objects.current?.services ?? []), ['kubernetes', 'web']);
});

test('a policy that becomes unreadable stays as it last was; the others go on changing', async () => {
  const api = new FakeKubeApi();
  api.put(PEER_AUTHENTICATIONS, policy('PeerAuthentication', 'default', { mtls: { mode: 'STRICT' } }));
  await using following = await follow(api);
  api.put(PEER_AUTHENTICATIONS, policy('PeerAuthentication', 'default', { mtls: { mode: 'STRICKT' } }));
  api.put(
    PEER_AUTHENTICATIONS,
    policy('PeerAuthentication', 'other', { selector: { matchLabels: { app: 'x' } }, mtls: { mode: 'DISABLE' } }),
  );
  const { peerAuthentications } = await following.until((objects) => objects.peerAuthentications.length === 2);
  assert.deepEqual(peerAuthentications.map(({ name, mode }) => `${name} ${mode}`).sort(), ['default STRICT', 'other DISABLE']);
  assert.match(following.source.refusals.get('PeerAuthentication foo/default') ?? '', /spec\.mtls\.mode/);
  api.put(PEER_AUTHENTICATIONS, policy('PeerAuthentication', 'default', { mtls: { mode: 'PERMISSIVE' } }));
  await following.until((objects) => objects.peerAuthentications.some(({ mode }) => mode === 'PERMISSIVE'));
  assert.equal(following.source.refusals.size, 0);
});

test('a policy about who may call that could never be read closes whom it selects, and the namespace if its selector cannot be read either', async () => {
  const api = new FakeKubeApi();
  const selector = { matchLabels: { app: 'web' } };
  api.put(AUTHORIZATION_POLICIES, policy('AuthorizationPolicy', 'custom', { selector, action: 'CUSTOM', provider: { name: 'x' } }));
  api.put(AUTHORIZATION_POLICIES, policy('AuthorizationPolicy', 'worse', { selector: 7, action: 'CUSTOM' }));
  api.put(AUTHORIZATION_POLICIES, policy('AuthorizationPolicy', 'good', { selector, action: 'DENY', rules: [{}] }));
  await using following = await follow(api);
  const policies = new Map(following.source.objects.current?.authorizationPolicies.map((object) => [object.name, object]));
  assert.deepEqual([...policies.keys()].sort(), ['custom', 'good', 'worse']);
  // Not an ALLOW of nobody, which would be of no effect beside any other ALLOW.
  assert.equal(policies.get('custom')?.action, 'DENY');
  assert.equal(policies.get('custom')?.rules.length, 1);
  assert.deepEqual([...(policies.get('custom')?.selector ?? [])], [['app', 'web']]);
  assert.equal(policies.get('worse')?.selector, undefined);
  assert.equal(policies.get('good')?.action, 'DENY');
});

test('so does a ScopeConfig that wraps one, and a policy whose metadata cannot be read', async () => {
  const api = new FakeKubeApi();
  const scope = (name: string, object: object) => ({
    apiVersion: 'handfast.io/v1alpha1',
    kind: 'ScopeConfig',
    metadata: meta(name),
    spec: { selector: { matchLabels: { app: 'web' } }, object },
  });
  api.put(
    SCOPE_CONFIGS,
    scope('strict', {
      apiVersion: 'security.istio.io/v1',
      kind: 'PeerAuthentication',
      metadata: { name: 'x' },
      spec: { mtls: { mode: 'STRICKT' } },
    }),
  );
  api.put(SCOPE_CONFIGS, scope('other', { apiVersion: 'x/v1', kind: 'Other' }));
  api.put(
    PEER_AUTHENTICATIONS,
    policy('PeerAuthentication', 'odd', { mtls: { mode: 'PERMISSIVE' } }, { annotations: { 'handfast.io/shadow': 'perhaps' } }),
  );
  await using following = await follow(api);
  const { scopeConfigs = [], peerAuthentications = [] } = following.source.objects.current ?? {};
  assert.deepEqual(
    scopeConfigs.map(({ wrapped }) => wrapped.kind === 'PeerAuthentication' && wrapped.policy.mode),
    ['STRICT'],
  );
  assert.deepEqual(
    peerAuthentications.map(({ mode }) => mode),
    ['STRICT'],
  );
});

test('an object that is nested without an end is refused, and everybody else is followed', async () => {
  const api = new FakeKubeApi();
  let deep: object = {};
  for (let level = 0; level < 9_000; level++) deep = { deep };
  api.put(SCOPE_CONFIGS, { apiVersion: 'handfast.io/v1alpha1', kind: 'ScopeConfig', metadata: meta('deep'), spec: deep });
  api.put(PODS, pod('web', '10.0.0.1'));
  await using following = await follow(api);
  assert.equal(following.source.objects.current?.pods.length, 1);
  assert.match(following.source.refusals.get('ScopeConfig foo/deep') ?? '', /nested more than/);
});

test('of two MeshConfigs the older is in force, and the other is refused by name', async () => {
  for (const [older, newer] of [
    ['a', 'b'],
    ['b', 'a'],
  ] as const) {
    const api = new FakeKubeApi();
    const config = (name: string, year: number, mode: string) => ({
      apiVersion: 'handfast.io/v1alpha1',
      kind: 'MeshConfig',
      metadata: { name, generation: 1, creationTimestamp: `${year}-01-01T00:00:00Z` },
      spec: { outboundTrafficPolicy: { mode } },
    });
    api.put(MESH_CONFIGS, config(newer, 2026, 'ALLOW_ANY'));
    api.put(MESH_CONFIGS, config(older, 2025, 'REGISTRY_ONLY'));
    await using following = await follow(api);
    assert.equal(following.source.objects.current?.config.outboundTrafficPolicy.mode, 'REGISTRY_ONLY');
    assert.deepEqual([...following.source.refusals.keys()], [`MeshConfig ${newer}`]);
  }
});

test('each policy is told what became of it, once; others’ conditions stay, and nothing is resolved anew for it', async () => {
  const api = new FakeKubeApi();
  const foreign = { type: 'Reconciled', status: 'True' };
  api.put(PEER_AUTHENTICATIONS, {
    ...policy('PeerAuthentication', 'good', { mtls: { mode: 'STRICT' } }),
    status: { conditions: [foreign] },
  });
  api.put(PEER_AUTHENTICATIONS, policy('PeerAuthentication', 'bad', { mtls: { mode: 'STRICKT' } }));
  const conditions = async (name: string) => {
    const { items } = await api.request({ method: 'GET', path: PEER_AUTHENTICATIONS });
    const found = (items as { metadata: { name: string }; status?: { conditions: Record<string, unknown>[] } }[]).find(
      (item) => item.metadata.name === name,
    );
    return found?.status?.conditions ?? [];
  };
  const status = (name: string) => `patch /apis/security.istio.io/v1/namespaces/foo/peerauthentications/${name}/status`;
  await using following = await follow(api);
  let published = 0;
  following.source.objects.subscribe(() => published++);
  await api.askedTimes(status('good'), 1);
  await api.askedTimes(status('bad'), 1);
  const [first, second] = await conditions('good');
  assert.deepEqual(first, foreign);
  assert.equal(second?.status, 'True');
  assert.equal(second?.observedGeneration, 3);
  const [refused] = await conditions('bad');
  assert.equal(refused?.status, 'False');
  assert.match(String(refused?.message), /spec\.mtls\.mode/);
  // Something that is published, so that what was written has come back by then.
  api.put(PODS, pod('web', '10.0.0.1'));
  await following.until(({ pods }) => pods.length === 1);
  assert.equal(published, 1);
  assert.equal(api.asked.filter((one) => one.startsWith('patch')).length, 2);
  api.put(PEER_AUTHENTICATIONS, policy('PeerAuthentication', 'bad', { mtls: { mode: 'PERMISSIVE' } }));
  await api.askedTimes(status('bad'), 2);
  assert.equal((await conditions('bad'))[0]?.status, 'True');
});
