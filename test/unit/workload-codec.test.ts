// Between model and wire: everything comes back as it went, and what a proxy could not act on is refused, never read as the laxer thing.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  decodeAddress,
  decodeTrafficPolicy,
  encodeService,
  encodeTrafficPolicy,
  encodeWorkload,
} from '../../src/discovery/workload-codec.ts';
import type { ClientTls, InboundSwitches, Service, TrafficPolicy, Workload } from '../../src/policy/model.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import * as policyWire from '../../src/wire/gen/handfast/policy/v1/traffic_policy.ts';
import * as workloadWire from '../../src/wire/gen/istio/workload/workload.ts';
import { refusal } from '../support/refusal.ts';

const workload: Workload = {
  uid: 'local//Pod/foo/sleep-1',
  name: 'sleep-1',
  namespace: 'foo',
  identity: parseSpiffeId('spiffe://cluster.local/ns/foo/sa/sleep'),
  addresses: ['10.0.0.1', 'fd00::1'],
  meshed: true,
  hbone: false,
  healthy: true,
  services: new Map([
    [
      'foo/sleep.foo.svc.cluster.local',
      [
        { servicePort: 80, targetPort: 8080 },
        { servicePort: 443, targetPort: 8443 },
      ],
    ],
    ['foo/other.foo.svc.cluster.local', []],
  ]),
  authorizationPolicies: ['foo/canary~allow'],
};
const service: Service = {
  key: 'foo/sleep.foo.svc.cluster.local',
  name: 'sleep',
  namespace: 'foo',
  hostname: 'sleep.foo.svc.cluster.local',
  addresses: ['10.96.0.1', 'fd00:96::1'],
  ports: [{ servicePort: 80, targetPort: 8080 }],
  subjectAltNames: ['spiffe://cluster.local/ns/foo/sa/other'],
  clientTls: undefined,
};
const simple: ClientTls = {
  mode: 'SIMPLE',
  subjectAltNames: ['api.example.com'],
  sni: 'api.example.com',
  clientCertificate: undefined,
  privateKey: undefined,
  caCertificates: '/etc/ca.pem',
  source: 'DestinationRule foo/api',
};
const mutual: ClientTls = { ...simple, mode: 'MUTUAL', clientCertificate: '/c.pem', privateKey: '/k.pem', sni: undefined };
const policy: TrafficPolicy = {
  workload: workload.uid,
  inbound: { mode: 'STRICT', source: 'PeerAuthentication foo/strict' },
  inboundPorts: new Map([
    [80, { mode: 'DISABLE', source: 'PeerAuthentication foo/strict port 80' }],
    [65535, { mode: 'PERMISSIVE', source: 'x' }],
  ]),
  outbound: 'REGISTRY_ONLY',
  announced: undefined,
  shadow: undefined,
  clientTls: [],
  rootClientTls: [],
  trustDomainAliases: [],
};

describe('round trips of the client side', () => {
  const settings = {
    tls: simple,
    ports: new Map([
      [443, mutual],
      [80, undefined],
    ]),
  };
  test("a service's settings", () => {
    for (const fromRoot of [false, true]) {
      const { value } = decodeAddress(encodeService({ ...service, clientTls: { ...settings, fromRoot } }));
      assert.deepEqual(value, { ...service, clientTls: { ...settings, fromRoot } });
    }
  });
  test("a workload's rules, what is announced, what is in dry-run, and aliases", () => {
    const strict: InboundSwitches = {
      inbound: { mode: 'STRICT', source: 'x' },
      inboundPorts: new Map([[80, { mode: 'DISABLE', source: 'y' }]]),
    };
    const whole: TrafficPolicy = {
      ...policy,
      announced: strict,
      shadow: strict,
      clientTls: [
        { host: '*.foo', ...settings },
        { host: 'api', tls: undefined, ports: new Map() },
      ],
      rootClientTls: [{ host: '*', ...settings }],
      trustDomainAliases: ['old.example'],
    };
    assert.deepEqual(decodeTrafficPolicy(encodeTrafficPolicy(whole)), whole);
  });
  test('a mode that this build does not know is refused, wherever it stands', () => {
    const odd = { ...policyWire.ClientTls.decode(Buffer.alloc(0)), mode: 9 as policyWire.ClientTlsMode, source: 'DestinationRule foo/x' };
    const bytes = (settings: Partial<policyWire.ClientTlsSettings>) =>
      policyWire.TrafficPolicy.encode({
        ...policyWire.TrafficPolicy.decode(encodeTrafficPolicy(policy)),
        clientTls: [{ host: 'h', settings: { tls: undefined, ports: [], ...settings } }],
      }).finish();
    for (const bad of [{ tls: odd }, { ports: [{ port: 1, tls: odd }] }])
      assert.throws(() => decodeTrafficPolicy(bytes(bad)), {
        code: 'OBJECT_INVALID',
        message: /DestinationRule foo\/x: unknown client TLS mode/,
      });
    assert.deepEqual(decodeTrafficPolicy(bytes({})).clientTls, [{ host: 'h', tls: undefined, ports: new Map() }]);
  });
});

describe('round trips', () => {
  const workloads: Readonly<Record<string, Workload>> = {
    'a whole workload': workload,
    'one outside the mesh': { ...workload, meshed: false },
    'one that shares its address': { ...workload, meshed: false, identity: undefined, sharesAddress: true },
    'an unhealthy one': { ...workload, healthy: false },
    'one without addresses or services': { ...workload, addresses: [], services: new Map() },
    'one of another trust domain': { ...workload, identity: parseSpiffeId('spiffe://prod.example/ns/foo/sa/sleep') },
    'one with a service account of dots': { ...workload, identity: parseSpiffeId('spiffe://cluster.local/ns/foo/sa/a.b.c') },
  };
  for (const [name, value] of Object.entries(workloads)) {
    test(name, () => assert.deepEqual(decodeAddress(encodeWorkload(value)), { kind: 'workload', value }));
  }
  const services: Readonly<Record<string, Service>> = {
    'a whole service': service,
    'a headless one': { ...service, addresses: [] },
    'one without ports or names': { ...service, ports: [], subjectAltNames: [] },
  };
  for (const [name, value] of Object.entries(services)) {
    test(name, () => assert.deepEqual(decodeAddress(encodeService(value)), { kind: 'service', value }));
  }
  for (const mode of ['DISABLE', 'PERMISSIVE', 'STRICT'] as const) {
    for (const outbound of ['ALLOW_ANY', 'REGISTRY_ONLY'] as const) {
      test(`a policy ${mode}, ${outbound}`, () => {
        const value: TrafficPolicy = { ...policy, inbound: { mode, source: 'default' }, outbound };
        assert.deepEqual(decodeTrafficPolicy(encodeTrafficPolicy(value)), value);
      });
    }
  }

  test('equal objects have equal bytes: a cache compares by them', () => {
    assert.deepEqual(encodeWorkload(workload), encodeWorkload({ ...workload }));
    assert.deepEqual(encodeTrafficPolicy(policy), encodeTrafficPolicy({ ...policy, inboundPorts: new Map([...policy.inboundPorts]) }));
  });
});

describe('what istiod sends', () => {
  const wire = (fields: Partial<workloadWire.Workload>) => {
    const base = workloadWire.Address.decode(encodeWorkload(workload)).type;
    assert.ok(base?.$case === 'workload');
    return workloadWire.Address.encode({ type: { $case: 'workload', value: { ...base.value, ...fields } } }).finish();
  };
  const read = (fields: Partial<workloadWire.Workload>) => {
    const { kind, value } = decodeAddress(wire(fields));
    assert.equal(kind, 'workload');
    return value as Workload;
  };

  test('an empty trust domain is cluster.local, an empty service account is nobody', () => {
    assert.equal(read({ trustDomain: '', serviceAccount: 'default' }).identity?.uri, 'spiffe://cluster.local/ns/foo/sa/default');
    assert.equal(read({ trustDomain: '', serviceAccount: '' }).identity, undefined);
  });

  test('HBONE, the older mTLS, and a tunnel of the future are all in the mesh: never plaintext by accident', () => {
    for (const tunnelProtocol of [1, 2, 99] as workloadWire.TunnelProtocol[]) assert.equal(read({ tunnelProtocol }).meshed, true);
    assert.equal(read({ tunnelProtocol: workloadWire.TunnelProtocol.NONE }).meshed, false);
  });

  test('a status of the future is not healthy', () => {
    assert.equal(read({ status: 7 as workloadWire.WorkloadStatus }).healthy, false);
    assert.equal(read({ status: workloadWire.WorkloadStatus.HEALTHY }).healthy, true);
  });

  test('a target port of zero is the service port', () => {
    assert.deepEqual(
      [...read({ services: { k: { ports: [{ servicePort: 80, targetPort: 0 }] } } }).services],
      [['k', [{ servicePort: 80, targetPort: 80 }]]],
    );
  });

  test('an IPv4 address in IPv6 clothes is the IPv4 address', () => {
    assert.deepEqual(read({ addresses: [Buffer.from('00000000000000000000ffff0a000001', 'hex')] }).addresses, ['10.0.0.1']);
  });

  test('fields of the future are skipped', () => {
    const future = Buffer.from('fa0603616263', 'hex');
    assert.equal(decodeAddress(Buffer.concat([encodeService(service), future])).kind, 'service');
  });

  const refused: Readonly<Record<string, readonly [() => Uint8Array, ...Parameters<typeof refusal>]>> = {
    'an empty Address': [() => new Uint8Array(), 'OBJECT_INVALID', 'neither workload nor service'],
    'a workload without a uid': [() => wire({ uid: '' }), 'OBJECT_INVALID', 'foo/sleep-1 has no uid'],
    'a trust domain with a path': [() => wire({ trustDomain: 'a/ns/foo/sa/admin' }), 'SPIFFE_ID_INVALID'],
    'a namespace that climbs': [() => wire({ namespace: '..' }), 'SPIFFE_ID_INVALID'],
    'a service account that adds to the path': [() => wire({ serviceAccount: 'a/sa/admin' }), 'SPIFFE_ID_INVALID'],
    'a service account with a percent sign': [() => wire({ serviceAccount: 'a%2fb' }), 'SPIFFE_ID_INVALID'],
    'an address of five bytes': [() => wire({ addresses: [Buffer.alloc(5)] }), 'CONFIG_INVALID', '5 bytes'],
    'an address of no bytes': [() => wire({ addresses: [Buffer.alloc(0)] }), 'CONFIG_INVALID', '0 bytes'],
    'a target port that nobody can dial': [
      () => wire({ services: { k: { ports: [{ servicePort: 80, targetPort: 70_000 }] } } }),
      'OBJECT_INVALID',
      '70000',
    ],
    'a service port of zero': [() => wire({ services: { k: { ports: [{ servicePort: 0, targetPort: 0 }] } } }), 'OBJECT_INVALID'],
  };
  for (const [name, [bytes, ...says]] of Object.entries(refused)) {
    test(`${name} is refused`, () => assert.throws(() => decodeAddress(bytes()), refusal(...says)));
  }

  test('cut at any byte it throws, or is a shorter message that was meant so; nothing hangs', () => {
    const bytes = encodeWorkload(workload);
    let refusals = 0;
    for (let length = 0; length < bytes.length; length++) {
      try {
        decodeAddress(bytes.subarray(0, length));
      } catch (error) {
        assert.ok(error instanceof Error);
        refusals++;
      }
    }
    assert.equal(refusals, bytes.length);
  });
});

describe('a policy that cannot be acted on is refused', () => {
  const wire = (fields: Partial<policyWire.TrafficPolicy>) => {
    const base = policyWire.TrafficPolicy.decode(encodeTrafficPolicy(policy));
    return policyWire.TrafficPolicy.encode({ ...base, ...fields }).finish();
  };
  const unknown = (mode: number) => ({ mode: mode as policyWire.MutualTlsMode, source: 'x' });

  test('and its twin is taken', () => assert.deepEqual(decodeTrafficPolicy(wire({})), policy));

  const cases: Readonly<Record<string, readonly [Partial<policyWire.TrafficPolicy>, string]>> = {
    'without a mode': [{ inbound: undefined }, 'unknown mTLS mode'],
    'with mode zero': [{ inbound: unknown(0) }, 'unknown mTLS mode'],
    'with a mode of the future': [{ inbound: unknown(4) }, 'unknown mTLS mode'],
    'with a negative mode': [{ inbound: unknown(-1) }, 'unknown mTLS mode'],
    'with a port of mode zero': [{ inboundPorts: { 80: unknown(0) } }, 'unknown mTLS mode'],
    'with a port of a mode of the future': [{ inboundPorts: { 80: unknown(9) } }, 'unknown mTLS mode'],
    'without an outbound policy': [{ outboundTrafficPolicy: 0 as policyWire.OutboundTrafficPolicy }, 'unknown outbound'],
    'with an outbound policy of the future': [{ outboundTrafficPolicy: 3 as policyWire.OutboundTrafficPolicy }, 'unknown outbound'],
  };
  for (const [name, [fields, says]] of Object.entries(cases)) {
    test(name, () => assert.throws(() => decodeTrafficPolicy(wire(fields)), refusal('OBJECT_INVALID', workload.uid, says)));
  }

  test('an empty message', () => assert.throws(() => decodeTrafficPolicy(new Uint8Array()), refusal('OBJECT_INVALID')));
});
