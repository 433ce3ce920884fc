// The decisions on what comes in and on how to go out, every combination.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Authorization, AuthorizationSet } from '../../src/policy/authorization.ts';
import {
  type Arrival,
  decideArrival,
  decideInbound,
  decideOutbound,
  decideShadow,
  type OutboundTransport,
  type Transport,
} from '../../src/policy/decide.ts';
import {
  type ClientTls,
  type ClientTlsMode,
  type ClientTlsRule,
  clientTls,
  type MutualTlsMode,
  mutualTlsModes,
  type Service,
  type ServiceClientTls,
  type TrafficPolicy,
  type Workload,
} from '../../src/policy/model.ts';
import type { Verdict } from '../../src/policy/verdict.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

const transports: readonly Transport[] = ['mtls', 'plaintext', 'passthrough-tls'];

describe('inbound', () => {
  const allowed: Readonly<Record<MutualTlsMode, readonly Transport[]>> = {
    STRICT: ['mtls'],
    PERMISSIVE: ['mtls', 'plaintext', 'passthrough-tls'],
    DISABLE: ['plaintext', 'passthrough-tls'],
  };
  for (const mode of mutualTlsModes) {
    for (const transport of transports) {
      const wanted = allowed[mode].includes(transport);
      test(`${mode}: ${transport} is ${wanted ? 'allowed' : 'refused'}`, () => {
        const verdict = decideInbound({ mode, source: 'PeerAuthentication foo/x' }, transport);
        assert.equal(verdict.allowed, wanted);
        if (!verdict.allowed) assert.match(verdict.reason, /PeerAuthentication foo\/x/);
      });
    }
  }

  test('a refusal under STRICT says which of the two it was', () => {
    const strict = { mode: 'STRICT', source: 'x' } as const;
    const [plain, tls] = [decideInbound(strict, 'plaintext'), decideInbound(strict, 'passthrough-tls')];
    assert.ok(!plain.allowed && !tls.allowed);
    assert.deepEqual([plain.code, tls.code], ['PLAINTEXT_UNDER_STRICT', 'PLAINTEXT_UNDER_STRICT']);
    assert.match(plain.reason, /^plaintext refused/);
    assert.match(tls.reason, /not the mesh's own/);
  });

  test('a mode that is none of the three refuses everything', () => {
    for (const mode of ['', 'strict', 'UNSET', 'toString', undefined, null, 3]) {
      for (const transport of transports) {
        const verdict = decideInbound({ mode: mode as MutualTlsMode, source: 'x' }, transport);
        assert.ok(!verdict.allowed && verdict.code === 'NO_POLICY', `${String(mode)} ${transport}`);
      }
    }
  });
});

const policyOf = (mode: MutualTlsMode, ports: Readonly<Record<number, MutualTlsMode>> = {}): TrafficPolicy => ({
  workload: 'u',
  inbound: { mode, source: 'x' },
  inboundPorts: new Map(Object.entries(ports).map(([port, of]) => [Number(port), { mode: of, source: 'x' }])),
  outbound: 'ALLOW_ANY',
  announced: undefined,
  shadow: undefined,
  clientTls: [],
  rootClientTls: [],
  trustDomainAliases: [],
});

describe('outbound', () => {
  const workload: Workload = {
    uid: 'u',
    name: 'w',
    namespace: 'foo',
    identity: parseSpiffeId('spiffe://cluster.local/ns/foo/sa/w'),
    addresses: ['10.0.0.1'],
    meshed: true,
    hbone: false,
    healthy: true,
    services: new Map(),
    authorizationPolicies: [],
  };
  const service: Service = {
    key: 'foo/w.foo.svc.cluster.local',
    name: 'w',
    namespace: 'foo',
    hostname: 'w.foo.svc.cluster.local',
    addresses: [],
    ports: [{ servicePort: 8000, targetPort: 80 }],
    subjectAltNames: [],
    clientTls: undefined,
  };
  const departure = { workload, port: 80, service, servicePort: 8000, client: policyOf('STRICT') };

  describe('auto-mTLS', () => {
    const cases: readonly (readonly [
      name: string,
      meshed: boolean,
      server: TrafficPolicy | undefined,
      transport: 'mtls' | 'plaintext',
      mode: string,
    ])[] = [
      ['a meshed workload under STRICT', true, policyOf('STRICT'), 'mtls', 'STRICT'],
      ['a meshed workload under PERMISSIVE', true, policyOf('PERMISSIVE'), 'mtls', 'PERMISSIVE'],
      ['a meshed workload under DISABLE', true, policyOf('DISABLE'), 'plaintext', 'DISABLE'],
      ['a meshed workload whose policy has not come', true, undefined, 'mtls', 'no policy yet'],
      ['a port under DISABLE', true, policyOf('STRICT', { 80: 'DISABLE' }), 'plaintext', 'DISABLE'],
      ['a port under STRICT in a workload under DISABLE', true, policyOf('DISABLE', { 80: 'STRICT' }), 'mtls', 'STRICT'],
      ['another port under DISABLE does not matter', true, policyOf('STRICT', { 81: 'DISABLE' }), 'mtls', 'STRICT'],
      ['a workload outside the mesh', false, undefined, 'plaintext', 'not in the mesh'],
      [
        'a workload outside the mesh under STRICT: there is nobody to speak mTLS',
        false,
        policyOf('STRICT'),
        'plaintext',
        'not in the mesh',
      ],
      ['DISABLE that is announced', true, { ...policyOf('PERMISSIVE'), announced: policyOf('DISABLE') }, 'plaintext', 'DISABLE'],
      ['DISABLE that ends, which is announced', true, { ...policyOf('PERMISSIVE'), announced: policyOf('STRICT') }, 'mtls', 'STRICT'],
    ];
    for (const [name, meshed, server, transport, mode] of cases) {
      test(`${name}: ${transport}`, () => {
        const decided = decideOutbound({ ...departure, workload: { ...workload, meshed }, server });
        assert.deepEqual(decided, { transport, mode, tls: undefined });
      });
    }
  });

  const tls = (mode: ClientTlsMode, source = 'DestinationRule foo/w') => clientTls(mode, source);

  describe("a rule of the client's side", () => {
    const cases: readonly (readonly [
      name: string,
      mode: ClientTlsMode,
      meshed: boolean,
      server: TrafficPolicy | undefined,
      transport: OutboundTransport,
    ])[] = [
      ['DISABLE, where both are taken', 'DISABLE', true, policyOf('PERMISSIVE'), 'plaintext'],
      ['DISABLE, where plaintext is taken alone', 'DISABLE', true, policyOf('DISABLE'), 'plaintext'],
      ['DISABLE, where plaintext is known to be refused', 'DISABLE', true, policyOf('STRICT'), 'mtls'],
      [
        'DISABLE, where it will be refused in a moment',
        'DISABLE',
        true,
        { ...policyOf('PERMISSIVE'), announced: policyOf('STRICT') },
        'mtls',
      ],
      [
        'DISABLE, where it is not refused yet',
        'DISABLE',
        true,
        { ...policyOf('PERMISSIVE'), announced: policyOf('STRICT', { 80: 'PERMISSIVE' }) },
        'plaintext',
      ],
      ['DISABLE, where nobody knows', 'DISABLE', true, undefined, 'mtls'],
      ['DISABLE, outside the mesh', 'DISABLE', false, policyOf('STRICT'), 'plaintext'],
      ['ISTIO_MUTUAL, where both are taken', 'ISTIO_MUTUAL', true, policyOf('PERMISSIVE'), 'mtls'],
      ['ISTIO_MUTUAL never becomes plaintext, whatever the server wants', 'ISTIO_MUTUAL', true, policyOf('DISABLE'), 'mtls'],
      ['ISTIO_MUTUAL, outside the mesh', 'ISTIO_MUTUAL', false, undefined, 'mtls'],
      ['SIMPLE', 'SIMPLE', false, undefined, 'tls'],
      ['MUTUAL', 'MUTUAL', false, undefined, 'tls'],
      ['SIMPLE in the mesh', 'SIMPLE', true, policyOf('STRICT'), 'tls'],
    ];
    for (const [name, mode, meshed, server, transport] of cases) {
      test(`${name}: ${transport}`, () => {
        const client = { ...departure.client, clientTls: [{ host: service.hostname, tls: tls(mode), ports: new Map() }] };
        const decided = decideOutbound({ ...departure, workload: { ...workload, meshed }, client, server });
        assert.equal(decided.transport, transport);
        assert.match(decided.mode, /DestinationRule foo\/w|STRICT|nobody/);
        assert.equal(decided.tls?.mode, mode);
      });
    }

    test('the most specific host holds, the own side before the service, a port before the whole, and a port without a mode is left to auto-mTLS', () => {
      const sourceFor = (rules: ClientTlsRule[], of: Partial<Service> = {}, servicePort = 8000) =>
        decideOutbound({
          ...departure,
          service: { ...service, ...of },
          servicePort,
          client: { ...departure.client, clientTls: rules },
          server: policyOf('STRICT'),
        }).tls?.source;
      const rule = (host: string, ports: ReadonlyMap<number, ClientTls | undefined> = new Map()) => ({
        host,
        tls: tls('ISTIO_MUTUAL', host),
        ports,
      });
      const all = [rule('*'), rule('*.local'), rule('*.foo.svc.cluster.local'), rule('w.foo.svc.cluster.local')];
      assert.equal(sourceFor(all), 'w.foo.svc.cluster.local');
      assert.equal(sourceFor(all.slice(0, 3)), '*.foo.svc.cluster.local');
      assert.equal(sourceFor(all.slice(0, 2)), '*.local');
      assert.equal(sourceFor(all.slice(0, 1)), '*');
      assert.equal(sourceFor([rule('*.w.foo.svc.cluster.local'), rule('*oo.svc.cluster.local')]), undefined);
      const own = { tls: tls('ISTIO_MUTUAL', 'the service'), ports: new Map([[8000, tls('ISTIO_MUTUAL', 'its port')]]), fromRoot: false };
      assert.equal(sourceFor([], { clientTls: own }), 'its port');
      assert.equal(sourceFor([], { clientTls: own }, 8001), 'the service');
      assert.equal(sourceFor([rule('*')], { clientTls: own }), '*');
      assert.equal(sourceFor([rule('*', new Map([[8000, undefined]]))], { clientTls: own }), undefined);
    });

    test('the root namespace comes last, its rules for this client before its rules for all', () => {
      const sourceFor = (told: Partial<ServiceClientTls> | undefined, rootClientTls: ClientTlsRule[]) =>
        decideOutbound({
          ...departure,
          service: {
            ...service,
            clientTls: told === undefined ? undefined : { tls: tls('ISTIO_MUTUAL', 'told'), ports: new Map(), fromRoot: false, ...told },
          },
          client: { ...departure.client, rootClientTls },
          server: policyOf('PERMISSIVE'),
        }).tls?.source;
      const scoped = [{ host: '*', tls: tls('DISABLE', 'scoped'), ports: new Map() }];
      assert.equal(sourceFor(undefined, scoped), 'scoped');
      assert.equal(sourceFor({ fromRoot: true }, scoped), 'scoped');
      assert.equal(sourceFor({ fromRoot: false }, scoped), 'told');
      assert.equal(sourceFor({ fromRoot: true }, []), 'told');
    });

    test('a call to the pod itself is left to auto-mTLS', () => {
      const client = { ...departure.client, clientTls: [{ host: '*', tls: tls('DISABLE'), ports: new Map() }] };
      assert.equal(decideOutbound({ ...departure, service: undefined, client, server: policyOf('PERMISSIVE') }).transport, 'mtls');
    });
  });
});

describe('what comes in', () => {
  const denyAll: Authorization = { name: 'd', namespace: 'foo', scope: 'NAMESPACE', action: 'DENY', rules: [[]], dryRun: false };
  const arrival: Arrival = { transport: 'mtls', peer: undefined, sourceIp: '10.0.0.2', destination: { address: '10.0.0.1', port: 80 } };
  const codeOf = (verdict: Verdict) => (verdict.allowed ? 'allowed' : verdict.code);

  test('must pass both: the transport first, then who it is', () => {
    const set = (...policies: Authorization[]): AuthorizationSet => ({ policies, missing: [] });
    const decide = (transport: Transport, authorizations: AuthorizationSet) =>
      codeOf(decideArrival({ ...arrival, transport }, { switches: policyOf('STRICT'), authorizations }));
    assert.equal(decide('mtls', set()), 'allowed');
    assert.equal(decide('plaintext', set()), 'PLAINTEXT_UNDER_STRICT');
    assert.equal(decide('mtls', set(denyAll)), 'AUTHORIZATION_DENIED');
    assert.equal(decide('plaintext', set(denyAll)), 'PLAINTEXT_UNDER_STRICT');
  });

  test('what is in dry-run is judged in the shadow alone', () => {
    const authorizations: AuthorizationSet = { policies: [{ ...denyAll, dryRun: true }], missing: [] };
    const policy: TrafficPolicy = { ...policyOf('PERMISSIVE'), shadow: policyOf('STRICT') };
    assert.equal(codeOf(decideArrival(arrival, { switches: policy, authorizations })), 'allowed');
    assert.equal(codeOf(decideShadow(arrival, { policy, authorizations })), 'AUTHORIZATION_DENIED');
    assert.equal(codeOf(decideShadow({ ...arrival, transport: 'plaintext' }, { policy, authorizations })), 'PLAINTEXT_UNDER_STRICT');
    assert.equal(
      codeOf(decideShadow(arrival, { policy: policyOf('PERMISSIVE'), authorizations: { policies: [], missing: [] } })),
      'allowed',
    );
  });
});
