// What an original destination means: a service's address, a pod's address, or nobody's.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Service, Workload } from '../../src/policy/model.ts';
import { Registry } from '../../src/policy/registry.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

const KEY = 'foo/web.foo.svc.cluster.local';
const http = [{ servicePort: 80, targetPort: 8080 }];

function workload(name: string, fields: Partial<Workload> = {}): Workload {
  return {
    uid: `local//Pod/foo/${name}`,
    name,
    namespace: 'foo',
    identity: parseSpiffeId(`spiffe://cluster.local/ns/foo/sa/${name}`),
    addresses: ['10.0.0.1'],
    meshed: true,
    hbone: false,
    healthy: true,
    services: new Map([[KEY, http]]),
    authorizationPolicies: [],
    ...fields,
  };
}
function service(fields: Partial<Service> = {}): Service {
  return {
    key: KEY,
    name: 'web',
    namespace: 'foo',
    hostname: 'web.foo.svc.cluster.local',
    addresses: ['10.96.0.1', 'fd00:96::1'],
    ports: http,
    subjectAltNames: [],
    clientTls: undefined,
    ...fields,
  };
}
const vip = { address: '10.96.0.1', port: 80 };
const endpoints = (registry: Registry, destination = vip) => {
  const resolution = registry.resolve(destination);
  assert.ok(resolution.kind === 'service');
  return resolution.endpoints.map(({ address, port, workload: { name } }) => `${name} ${address} ${port}`);
};

describe("a service's address", () => {
  test('becomes its endpoints on their target ports, each with the service it is dialled for', () => {
    const registry = new Registry({ workloads: [workload('a'), workload('b', { addresses: ['10.0.0.2'] })], services: [service()] });
    assert.deepEqual(endpoints(registry), ['a 10.0.0.1 8080', 'b 10.0.0.2 8080']);
    const resolution = registry.resolve(vip);
    assert.ok(resolution.kind === 'service');
    assert.ok(resolution.endpoints.every((endpoint) => endpoint.service?.key === KEY));
  });

  test('each endpoint has a target port of its own, as named ports allow', () => {
    const registry = new Registry({
      workloads: [
        workload('a'),
        workload('b', { addresses: ['10.0.0.2'], services: new Map([[KEY, [{ servicePort: 80, targetPort: 9090 }]]]) }),
      ],
      services: [service()],
    });
    assert.deepEqual(endpoints(registry), ['a 10.0.0.1 8080', 'b 10.0.0.2 9090']);
  });

  test('on a port that an endpoint does not have leaves that endpoint out', () => {
    const registry = new Registry({
      workloads: [workload('a'), workload('b', { addresses: ['10.0.0.2'], services: new Map([[KEY, []]]) })],
      services: [service()],
    });
    assert.deepEqual(endpoints(registry), ['a 10.0.0.1 8080']);
  });

  test('on a port that the service does not have is still the service, with nobody behind it: never an unknown address', () => {
    const registry = new Registry({ workloads: [workload('a')], services: [service()] });
    assert.deepEqual(endpoints(registry, { ...vip, port: 81 }), []);
    assert.equal(registry.resolve({ ...vip, port: 8080 }).kind, 'service');
  });

  test('leaves unhealthy endpoints out, also when none is left', () => {
    const registry = new Registry({
      workloads: [workload('a'), workload('b', { addresses: ['10.0.0.2'], healthy: false })],
      services: [service()],
    });
    assert.deepEqual(endpoints(registry), ['a 10.0.0.1 8080']);
    assert.deepEqual(endpoints(new Registry({ workloads: [workload('a', { healthy: false })], services: [service()] })), []);
  });

  test("prefers the caller's address family and takes what there is", () => {
    const registry = new Registry({
      workloads: [
        workload('dual', { addresses: ['10.0.0.1', 'fd00::1'] }),
        workload('six', { addresses: ['fd00::2'] }),
        workload('four', { addresses: ['10.0.0.3'] }),
      ],
      services: [service()],
    });
    assert.deepEqual(endpoints(registry), ['dual 10.0.0.1 8080', 'six fd00::2 8080', 'four 10.0.0.3 8080']);
    assert.deepEqual(endpoints(registry, { address: 'fd00:96::1', port: 80 }), [
      'dual fd00::1 8080',
      'six fd00::2 8080',
      'four 10.0.0.3 8080',
    ]);
  });

  test('leaves out a pod that has no address yet', () => {
    assert.deepEqual(endpoints(new Registry({ workloads: [workload('a', { addresses: [] })], services: [service()] })), []);
  });

  test('does not take in the endpoints of a service of the same name in another namespace', () => {
    const other = service({
      key: 'bar/web.bar.svc.cluster.local',
      namespace: 'bar',
      hostname: 'web.bar.svc.cluster.local',
      addresses: ['10.96.0.2'],
    });
    const registry = new Registry({ workloads: [workload('a')], services: [service(), other] });
    assert.deepEqual(endpoints(registry, { address: '10.96.0.2', port: 80 }), []);
  });
});

describe("a pod's address", () => {
  const registry = new Registry({ workloads: [workload('a', { addresses: ['10.0.0.1', 'fd00::1'] })], services: [service()] });
  const resolve = (destination: { address: string; port: number }, of = registry) => {
    const resolution = of.resolve(destination);
    assert.ok(resolution.kind === 'workload');
    return resolution.endpoint;
  };

  test('is that pod, on the very port that was asked for', () => {
    for (const address of ['10.0.0.1', 'fd00::1']) {
      const endpoint = resolve({ address, port: 1234 });
      assert.deepEqual([endpoint.address, endpoint.port, endpoint.workload.name], [address, 1234, 'a']);
    }
  });

  test('belongs to the service whose target port it is, not whose service port', () => {
    assert.equal(resolve({ address: '10.0.0.1', port: 8080 }).service?.key, KEY);
    assert.equal(resolve({ address: '10.0.0.1', port: 80 }).service, undefined);
  });

  test('is that pod though it is unhealthy: who dials it by address means it', () => {
    const of = new Registry({ workloads: [workload('a', { healthy: false })], services: [] });
    assert.equal(resolve({ address: '10.0.0.1', port: 80 }, of).workload.name, 'a');
  });

  test('of a headless service is that pod, with the service named', () => {
    const headless = new Registry({ workloads: [workload('a')], services: [service({ addresses: [] })] });
    assert.equal(resolve({ address: '10.0.0.1', port: 8080 }, headless).service?.key, KEY);
  });

  test('of a service that is not registered is that pod without a service', () => {
    assert.equal(
      resolve({ address: '10.0.0.1', port: 8080 }, new Registry({ workloads: [workload('a')], services: [] })).service,
      undefined,
    );
  });
});

describe('other addresses', () => {
  const registry = new Registry({ workloads: [workload('a')], services: [service()] });
  for (const address of ['10.0.0.2', '::1', '127.0.0.1', '::ffff:10.0.0.1', '10.0.0.01', '', 'web.foo.svc.cluster.local']) {
    test(`${JSON.stringify(address)} is unknown`, () => assert.deepEqual(registry.resolve({ address, port: 80 }), { kind: 'unknown' }));
  }
  test('an address that others may have too leads to nobody, and is not taken from whom it is', () => {
    const host = workload('host', { addresses: ['10.0.0.1'], meshed: false, identity: undefined, sharesAddress: true });
    const shared = new Registry({ workloads: [workload('a'), host], services: [service()] });
    const found = shared.resolve({ address: '10.0.0.1', port: 8080 });
    assert.ok(found.kind === 'workload' && found.endpoint.workload.name === 'a');
    assert.equal(endpoints(shared).length, 2);
    const alone = new Registry({ workloads: [host], services: [service()] });
    assert.equal(alone.resolve({ address: '10.0.0.1', port: 8080 }).kind, 'unknown');
    assert.deepEqual(endpoints(alone), ['host 10.0.0.1 8080']);
  });
  test('an empty registry knows nobody', () => assert.equal(new Registry({ workloads: [], services: [] }).resolve(vip).kind, 'unknown'));
});

describe('several at one address', () => {
  const pod = workload('a');
  const entry = { identity: undefined, meshed: false, services: new Map() };
  const at = { address: '10.0.0.1', port: 8080 };
  const who = (registry: Registry) => {
    const found = registry.resolve(at);
    return found.kind === 'workload' ? found.endpoint.workload.uid : found.kind;
  };
  const change = (of: { set?: readonly Workload[]; gone?: readonly string[] }) => ({
    workloads: { upserts: of.set ?? [], removed: of.gone ?? [] },
    services: { upserts: [], removed: [] },
  });

  // The last is no pod's: its second part names an API group.
  for (const uid of ['0/networking.istio.io/ServiceEntry/evil/x/10.0.0.1', 'local//Service/foo/a', '0/evil//Pod/evil/x']) {
    test(`a pod answers before ${uid}, in whatever order they come, and whoever stays when the other goes`, () => {
      const other = workload('a', { ...entry, uid, meshed: true });
      const empty = new Registry({ workloads: [], services: [] });
      for (const order of [
        [pod, other],
        [other, pod],
      ]) {
        const both = order.reduce((registry, each) => registry.changed(change({ set: [each] })), empty);
        assert.equal(who(both), pod.uid);
        assert.equal(both.workload('foo', 'a'), pod);
        assert.equal(who(both.changed(change({ gone: [uid] }))), pod.uid);
        const left = both.changed(change({ gone: [pod.uid] }));
        assert.equal(who(left), uid);
        assert.equal(left.workload('foo', 'a'), other);
        assert.equal(who(left.changed(change({ gone: [uid] }))), 'unknown');
        assert.equal(who(both), pod.uid);
      }
    });
  }

  test('of others one in the mesh answers, and of equals the first by uid', () => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => workload(name, { ...entry, uid: `0/x/${name}`, meshed: name !== 'a' }));
    assert.ok(a !== undefined && b !== undefined && c !== undefined);
    assert.equal(who(new Registry({ workloads: [a, c, b], services: [] })), '0/x/b');
    assert.equal(who(new Registry({ workloads: [a], services: [] })), '0/x/a');
  });

  test('one that moves answers at its new address alone', () => {
    const moved = new Registry({ workloads: [pod], services: [] }).changed(change({ set: [{ ...pod, addresses: ['10.0.0.2'] }] }));
    assert.equal(who(moved), 'unknown');
    assert.equal(moved.workloadAt('10.0.0.2')?.uid, pod.uid);
  });

  test('a service that is given the address of a pod does not have its callers, and one at the address of another workload has', () => {
    const taken = service({ key: 'evil/x', namespace: 'evil', hostname: 'x', addresses: ['10.0.0.1'] });
    assert.equal(who(new Registry({ workloads: [pod], services: [taken] })), pod.uid);
    assert.equal(who(new Registry({ workloads: [workload('x', { ...entry, uid: '0/x/x' })], services: [taken] })), 'service');
  });
});

test('look-ups by name and key', () => {
  const registry = new Registry({ workloads: [workload('a')], services: [service()] });
  assert.equal(registry.workload('foo', 'a')?.name, 'a');
  assert.equal(registry.workload('bar', 'a'), undefined);
  assert.equal(registry.workloadOf('local//Pod/foo/a')?.name, 'a');
  assert.equal(registry.workloadOf('local//Pod/foo/b'), undefined);
  assert.equal(registry.service(KEY)?.name, 'web');
  assert.equal(registry.service('bar/web.foo.svc.cluster.local'), undefined);
  assert.ok(Object.isFrozen(registry));
});
