// Services that choose nobody by labels: their EndpointSlices, as an API server says them, and what sidecars are told of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeSource } from '../../src/control/objects/kube-source.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { resolveMesh } from '../../src/control/resolve/resolve.ts';
import { openLog } from '../../src/observe/log.ts';
import { Registry } from '../../src/policy/registry.ts';
import { FakeKubeApi } from '../support/fake-kube-api.ts';
import { refusal } from '../support/refusal.ts';

const PODS = '/api/v1/pods';
const SERVICES = '/api/v1/services';
const SLICES = '/apis/discovery.k8s.io/v1/endpointslices';
const SERVICE_ENTRIES = '/apis/networking.istio.io/v1/serviceentries';
const VIP = '10.96.0.9';

type Named = { readonly namespace?: string; readonly createdAt?: string; readonly labels?: object };
const meta = (name: string, { namespace = 'foo', createdAt = '2026-01-02T03:04:05Z', labels = {} }: Named = {}) => ({
  name,
  namespace,
  labels,
  uid: `uid-${name}`,
  creationTimestamp: createdAt,
  managedFields: [{ manager: 'kubectl' }],
});
const service = (name: string, spec: object, of: Named = {}) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: meta(name, of),
  spec: { type: 'ClusterIP', clusterIP: VIP, clusterIPs: [VIP], ports: [{ name: 'db', port: 5432 }], ...spec },
});
const slice = (name: string, of: object, { service: owner = 'db', ...named }: Named & { service?: string } = {}) => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: meta(name, { ...named, labels: { 'kubernetes.io/service-name': owner, ...named.labels } }),
  addressType: 'IPv4',
  ports: [{ name: 'db', port: 15432, protocol: 'TCP', appProtocol: 'postgres' }],
  ...of,
});
const at = (address: string, conditions: object = { ready: true, serving: true, terminating: false }) => ({
  addresses: [address],
  conditions,
  nodeName: 'node-1',
  targetRef: { kind: 'Pod', name: 'any' },
});
const pod = (name: string, ip: string, { labels = { app: name }, spec = {}, ...of }: Named & { spec?: object } = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: meta(name, { ...of, labels: { 'security.istio.io/tlsMode': 'istio', ...labels } }),
  spec: { serviceAccountName: name, containers: [{ name: 'app', ports: [{ name: 'sql', containerPort: 7000 }] }], ...spec },
  status: { phase: 'Running', podIP: ip, podIPs: [{ ip }], conditions: [{ type: 'Ready', status: 'True' }] },
});

/** What is registered of what an API server holds, and why not all of it. */
async function follow(fill: (api: FakeKubeApi) => void) {
  const api = new FakeKubeApi();
  fill(api);
  const { log, close } = openLog({ role: 'test', level: 'silent' });
  const source = new KubeSource({ api, log, now: Date.now });
  const ending = new AbortController();
  await source.start(ending.signal);
  const registry = () => {
    const { current } = source.objects;
    assert.ok(current !== undefined);
    return new Registry(resolveMesh(current, { trustDomain: 'cluster.local', selections: new Map() }));
  };
  return {
    api,
    source,
    registry,
    /** `address:port identity` of each. */
    endpoints: (address = VIP, port = 5432) => endpointsAt(registry(), { address, port }),
    async until(holds: () => boolean): Promise<void> {
      while (!holds())
        await new Promise<void>((resolve) => {
          const stop = source.objects.subscribe(() => {
            stop();
            resolve();
          });
        });
    },
    async [Symbol.asyncDispose]() {
      ending.abort();
      await source.ended();
      close();
    },
  };
}

function endpointsAt(registry: Registry, destination: { address: string; port: number }): string[] {
  const found = registry.resolve(destination);
  assert.equal(found.kind, 'service');
  return found.endpoints
    .map(({ address, port, workload: { meshed, identity } }) => `${address}:${port} ${meshed ? 'mesh' : 'outside'} ${identity?.uri ?? '-'}`)
    .sort();
}

test('endpoints of several slices stand behind a Service without a selector, outside the mesh and nobody', async () => {
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', {}));
    api.put(SLICES, slice('db-1', { endpoints: [at('192.0.2.1'), at('192.0.2.2')] }));
    api.put(SLICES, slice('db-2', { endpoints: [at('192.0.2.3')], ports: [{ name: 'db', port: 9999 }] }));
    api.put(SLICES, slice('db-3', { endpoints: [at('192.0.2.4')] }, { service: 'other' }));
  });
  assert.deepEqual(following.endpoints(), ['192.0.2.1:15432 outside -', '192.0.2.2:15432 outside -', '192.0.2.3:9999 outside -']);
  assert.deepEqual([...following.source.refusals], []);
  following.api.put(SLICES, slice('db-1', { endpoints: [] }));
  await following.until(() => following.endpoints().length === 1);
  following.api.remove(SLICES, 'foo/db-2');
  await following.until(() => following.endpoints().length === 0);
});

test('an endpoint that is called by its own address is not taken by anybody’s slice', async () => {
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', {}));
    api.put(SLICES, slice('db-1', { endpoints: [at('192.0.2.1')] }));
  });
  assert.equal(following.registry().resolve({ address: '192.0.2.1', port: 15432 }).kind, 'unknown');
});

for (const [what, endpoints, expected] of [
  ['nothing said is ready', [{ addresses: ['192.0.2.1'] }], ['192.0.2.1']],
  ['null is ready', [at('192.0.2.1', { ready: null })], ['192.0.2.1']],
  ['who is not ready is not called', [at('192.0.2.1'), at('192.0.2.2', { ready: false })], ['192.0.2.1']],
  [
    'who is ending is called only where nobody is ready',
    [at('192.0.2.1'), at('192.0.2.2', { ready: false, serving: true, terminating: true })],
    ['192.0.2.1'],
  ],
  [
    'who is ending, and serves, is called then',
    [
      at('192.0.2.1', { ready: false, serving: false, terminating: true }),
      at('192.0.2.2', { ready: false, serving: true, terminating: true }),
    ],
    ['192.0.2.2'],
  ],
  ['of an endpoint’s addresses the first is called', [{ addresses: ['192.0.2.1', '192.0.2.2'] }], ['192.0.2.1']],
] as const)
  test(`readiness: ${what}`, async () => {
    await using following = await follow((api) => {
      api.put(SERVICES, service('db', {}));
      api.put(SLICES, slice('db-1', { endpoints }));
    });
    assert.deepEqual(
      following.endpoints(),
      expected.map((address) => `${address}:15432 outside -`),
    );
  });

test('ports are found by their names; one that a slice does not name, names as UDP, or leaves open leads nowhere', async () => {
  await using following = await follow((api) => {
    api.put(
      SERVICES,
      service('db', {
        ports: [
          { name: 'db', port: 5432 },
          { name: 'admin', port: 8080 },
          { name: 'dns', port: 53, protocol: 'TCP' },
          { name: 'open', port: 90 },
        ],
      }),
    );
    api.put(
      SLICES,
      slice('db-1', {
        endpoints: [at('192.0.2.1')],
        ports: [{ name: 'db', port: 15432 }, { name: 'dns', port: 53, protocol: 'UDP' }, { name: 'open' }],
      }),
    );
  });
  assert.deepEqual(following.endpoints(VIP, 5432), ['192.0.2.1:15432 outside -']);
  for (const port of [8080, 53, 90]) assert.deepEqual(following.endpoints(VIP, port), [], String(port));
});

test('each family calls its own: slices of IPv4 and IPv6 are endpoints of one dual-stack service', async () => {
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', { clusterIPs: [VIP, 'fd00:96::9'] }));
    api.put(SLICES, slice('db-1', { endpoints: [at('192.0.2.1')] }));
    api.put(SLICES, slice('db-2', { addressType: 'IPv6', endpoints: [at('2001:db8::1')] }));
    api.put(SLICES, slice('db-3', { addressType: 'FQDN', endpoints: [{ addresses: ['db.example'] }] }));
  });
  assert.deepEqual(following.endpoints(), ['192.0.2.1:15432 outside -']);
  assert.deepEqual(following.endpoints('fd00:96::9'), ['2001:db8::1:15432 outside -']);
  assert.match(following.source.refusals.get('EndpointSlice foo/db-3') ?? '', /addressType/);
});

test('slices of a service that selects pods change nothing, and those that the cluster’s controller makes are not even asked for', async () => {
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', { selector: { app: 'db' } }));
    api.put(PODS, pod('db', '10.0.0.1'));
    const managed = { labels: { 'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io' } };
    api.put(SLICES, slice('db-1', { endpoints: [at('10.0.0.1')] }, managed));
    api.put(SLICES, slice('by-hand', { endpoints: [at('10.0.0.1'), at('192.0.2.1')] }));
  });
  assert.deepEqual(following.endpoints(), ['10.0.0.1:5432 mesh spiffe://cluster.local/ns/foo/sa/db']);
  assert.deepEqual(following.source.objects.current?.endpointSlices, []);
});

test('an endpoint that is a pod of the mesh is that pod, with its identity, by whatever slice', async () => {
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', {}));
    api.put(SERVICES, service('headless', { clusterIP: 'None', clusterIPs: ['None'] }));
    api.put(PODS, pod('db', '10.0.0.1'));
    api.put(SLICES, slice('db-1', { endpoints: [at('10.0.0.1'), at('192.0.2.1')] }));
    api.put(SLICES, slice('headless-1', { endpoints: [at('10.0.0.1')] }, { service: 'headless' }));
  });
  assert.deepEqual(following.endpoints(), ['10.0.0.1:15432 mesh spiffe://cluster.local/ns/foo/sa/db', '192.0.2.1:15432 outside -']);
  // Called directly it is the same pod, and only one.
  const direct = following.registry().resolve({ address: '10.0.0.1', port: 15432 });
  assert.ok(direct.kind === 'workload' && direct.endpoint.workload.meshed);
  assert.equal([...following.registry().workloads()].filter(({ addresses }) => addresses.includes('10.0.0.1')).length, 1);
});

test('a slice cannot lead to another namespace’s pod, to a service, or to the mesh’s own endpoints; its neighbours are not touched', async () => {
  const entry = (name: string, address: string, of: object) => ({
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: meta(name, { namespace: 'bar', createdAt: '2020-01-01T00:00:00Z' }),
    spec: {
      hosts: [`${name}.example`],
      addresses: [`10.97.0.${name.length}`],
      ports: [{ number: 80, name: 'tcp' }],
      resolution: 'STATIC',
      location: 'MESH_INTERNAL',
      endpoints: [{ address, ...of }],
    },
  });
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', {}));
    api.put(
      SERVICES,
      service('bank', { clusterIP: '10.96.0.7', clusterIPs: ['10.96.0.7'], selector: { app: 'bank' } }, { namespace: 'bar' }),
    );
    api.put(PODS, pod('bank', '10.0.0.7', { namespace: 'bar' }));
    api.put(SERVICE_ENTRIES, entry('machine', '203.0.113.1', { labels: { 'security.istio.io/tlsMode': 'istio' }, serviceAccount: 'vm' }));
    api.put(SERVICE_ENTRIES, entry('plain', '203.0.113.2', {}));
    for (const [name, address] of [
      ['pod', '10.0.0.7'],
      ['service', '10.96.0.7'],
      ['machine', '203.0.113.1'],
      ['credentials', '169.254.169.254'],
      ['loopback', '127.0.0.1'],
      ['mapped', '::ffff:127.0.0.1'],
    ] as const)
      api.put(SLICES, slice(name, { ...(name === 'mapped' ? { addressType: 'IPv6' } : {}), endpoints: [at(address)] }));
    api.put(SLICES, slice('honest', { endpoints: [at('192.0.2.1')] }));
    api.put(SLICES, slice('shared', { endpoints: [at('203.0.113.2')] }));
  });
  const { refusals } = following.source;
  assert.deepEqual(following.endpoints(), ['192.0.2.1:15432 outside -', '203.0.113.2:15432 outside -'], [...refusals].join('\n'));
  assert.match(refusals.get('EndpointSlice foo/pod') ?? '', /endpoint 10\.0\.0\.7 is Pod bar\/bank's: an EndpointSlice may name/);
  assert.match(refusals.get('EndpointSlice foo/service') ?? '', /10\.96\.0\.7 is Service bar\/bank's/);
  assert.match(refusals.get('EndpointSlice foo/machine') ?? '', /203\.0\.113\.1 is ServiceEntry bar\/machine's/);
  for (const name of ['credentials', 'loopback', 'mapped'])
    assert.match(refusals.get(`EndpointSlice foo/${name}`) ?? '', /is no address of a server/);
  assert.deepEqual(following.endpoints('10.96.0.7'), ['10.0.0.7:5432 mesh spiffe://cluster.local/ns/bar/sa/bank']);
});

test('of a slice and a ServiceEntry that makes its endpoint one of the mesh, whoever came first is believed', async () => {
  const entry = (createdAt: string) => ({
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: meta('thief', { namespace: 'bar', createdAt }),
    spec: {
      hosts: ['thief.example'],
      addresses: ['10.97.0.1'],
      ports: [{ number: 80, name: 'tcp' }],
      resolution: 'STATIC',
      location: 'MESH_INTERNAL',
      endpoints: [{ address: '192.0.2.1', labels: { 'security.istio.io/tlsMode': 'istio' } }],
    },
  });
  for (const [createdAt, endpoints, refused] of [
    ['2026-02-01T00:00:00Z', ['192.0.2.1:15432 outside -'], 'ServiceEntry bar/thief'],
    ['2025-02-01T00:00:00Z', [], 'EndpointSlice foo/db-1'],
  ] as const) {
    await using following = await follow((api) => {
      api.put(SERVICES, service('db', {}));
      api.put(SLICES, slice('db-1', { endpoints: [at('192.0.2.1')] }));
      api.put(SERVICE_ENTRIES, entry(createdAt));
    });
    assert.deepEqual(following.endpoints(), endpoints);
    assert.deepEqual([...following.source.refusals.keys()], [refused]);
  }
});

test('the API server’s own service leads to the API server, though that is a pod on its node’s network', async () => {
  await using following = await follow((api) => {
    api.put(SERVICES, service('kubernetes', { ports: [{ name: 'https', port: 443 }] }, { namespace: 'default' }));
    api.put(
      SLICES,
      slice(
        'kubernetes',
        { endpoints: [at('192.168.0.1')], ports: [{ name: 'https', port: 6443 }] },
        { namespace: 'default', service: 'kubernetes' },
      ),
    );
    api.put(PODS, pod('kube-apiserver', '192.168.0.1', { namespace: 'kube-system', spec: { hostNetwork: true } }));
    // Whose labels cannot be read takes no node's address away either.
    const odd = { 'security.istio.io/tlsMode': 'odd' };
    api.put(PODS, pod('odd', '192.168.0.1', { namespace: 'bar', labels: odd, spec: { hostNetwork: true } }));
  });
  assert.deepEqual(following.endpoints(VIP, 443), ['192.168.0.1:6443 outside -']);
});

test('a service whose servers are all on their nodes’ network has them as endpoints, on their named ports; a pod of the mesh stands alone', async () => {
  const onHost = (name: string, ip: string, port: number) =>
    pod(name, ip, {
      labels: { app: 'db' },
      spec: { hostNetwork: true, containers: [{ name: 'app', ports: [{ name: 'sql', containerPort: port }] }] },
    });
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', { selector: { app: 'db' }, ports: [{ name: 'db', port: 5432, targetPort: 'sql' }] }));
    api.put(PODS, onHost('a', '192.168.0.1', 7001));
    api.put(PODS, onHost('b', '192.168.0.2', 7002));
    api.put(PODS, {
      ...onHost('c', '192.168.0.3', 7003),
      status: { ...onHost('c', '192.168.0.3', 7003).status, conditions: [{ type: 'Ready', status: 'False' }] },
    });
  });
  assert.deepEqual(following.endpoints(), ['192.168.0.1:7001 outside -', '192.168.0.2:7002 outside -']);
  const before = following.source.objects.current?.endpointSlices;
  following.api.put(PODS, pod('other', '10.0.0.8'));
  await following.until(() => following.source.objects.current?.pods.length === 1);
  assert.deepEqual(
    following.source.objects.current?.endpointSlices.map((one, index) => one === before?.[index]),
    [true, true, true],
  );
  following.api.put(PODS, pod('db', '10.0.0.9', { labels: { app: 'db' } }));
  await following.until(() => following.source.objects.current?.pods.length === 2);
  assert.deepEqual(following.endpoints(), ['10.0.0.9:7000 mesh spiffe://cluster.local/ns/foo/sa/db']);
});

test('one namespace’s slices have an end: the oldest are taken, and others’ are not counted in', async () => {
  const many = (from: number) => Array.from({ length: 1_000 }, (_, index) => at(`198.${from}.${index >> 8}.${index & 255}`));
  await using following = await follow((api) => {
    api.put(SERVICES, service('db', {}));
    api.put(SERVICES, service('db', { clusterIP: '10.96.0.8', clusterIPs: ['10.96.0.8'] }, { namespace: 'bar' }));
    for (const from of [1, 2, 3, 4, 5, 6])
      api.put(SLICES, slice(`db-${from}`, { endpoints: many(from) }, { createdAt: `2026-01-0${from}T00:00:00Z` }));
    api.put(SLICES, slice('db-9', { endpoints: [at('192.0.2.1')] }, { namespace: 'bar' }));
  });
  assert.equal(following.endpoints().length, 5_000);
  assert.deepEqual(following.endpoints('10.96.0.8'), ['192.0.2.1:15432 outside -']);
  assert.match(following.source.refusals.get('EndpointSlice foo/db-6') ?? '', /more than 5000 endpoints/);
  assert.equal(following.source.refusals.size, 1);
});

test('files say it too, and are refused where a slice leads to another namespace’s pod', () => {
  const text = (address: string) => `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: foo}
spec: {clusterIP: ${VIP}, ports: [{name: db, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: foo, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [${address}], conditions: {ready: true}}]
ports: [{name: db, port: 15432}]
---
apiVersion: v1
kind: Pod
metadata: {name: bank, namespace: bar}
status: {podIP: 10.0.0.7}
`;
  const resolved = resolveMesh(parseObjects([{ name: 'a.yaml', text: text('192.0.2.1') }]), {
    trustDomain: 'cluster.local',
    selections: new Map(),
  });
  assert.deepEqual(endpointsAt(new Registry(resolved), { address: VIP, port: 5432 }), ['192.0.2.1:15432 outside -']);
  assert.throws(
    () => parseObjects([{ name: 'a.yaml', text: text('10.0.0.7') }]),
    refusal('OBJECT_INVALID', /^a\.yaml:7: endpoint 10\.0\.0\.7 is Pod bar\/bank's/),
  );
});
