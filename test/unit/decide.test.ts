// The two decisions of peer authentication, every combination.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decideInbound, decideOutbound, type Transport } from '../../src/policy/decide.ts';
import { type MutualTlsMode, mutualTlsModes, type TrafficPolicy, type Workload } from '../../src/policy/model.ts';
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

describe('outbound', () => {
  const workload: Workload = {
    uid: 'u',
    name: 'w',
    namespace: 'foo',
    identity: parseSpiffeId('spiffe://cluster.local/ns/foo/sa/w'),
    addresses: ['10.0.0.1'],
    meshed: true,
    healthy: true,
    services: new Map(),
  };
  const policy = (mode: MutualTlsMode, ports: Readonly<Record<number, MutualTlsMode>> = {}): TrafficPolicy => ({
    workload: 'u',
    inbound: { mode, source: 'x' },
    inboundPorts: new Map(Object.entries(ports).map(([port, of]) => [Number(port), { mode: of, source: 'x' }])),
    outbound: 'ALLOW_ANY',
  });
  const cases: readonly (readonly [
    name: string,
    meshed: boolean,
    policy: TrafficPolicy | undefined,
    transport: 'mtls' | 'plaintext',
    mode: string,
  ])[] = [
    ['a meshed workload under STRICT', true, policy('STRICT'), 'mtls', 'STRICT'],
    ['a meshed workload under PERMISSIVE', true, policy('PERMISSIVE'), 'mtls', 'PERMISSIVE'],
    ['a meshed workload under DISABLE', true, policy('DISABLE'), 'plaintext', 'DISABLE'],
    ['a meshed workload whose policy has not come', true, undefined, 'mtls', 'no policy yet'],
    ['a port under DISABLE', true, policy('STRICT', { 80: 'DISABLE' }), 'plaintext', 'DISABLE'],
    ['a port under STRICT in a workload under DISABLE', true, policy('DISABLE', { 80: 'STRICT' }), 'mtls', 'STRICT'],
    ['another port under DISABLE does not matter', true, policy('STRICT', { 81: 'DISABLE' }), 'mtls', 'STRICT'],
    ['a workload outside the mesh', false, undefined, 'plaintext', 'not in the mesh'],
    ['a workload outside the mesh under STRICT: there is nobody to speak mTLS', false, policy('STRICT'), 'plaintext', 'not in the mesh'],
  ];
  for (const [name, meshed, of, transport, mode] of cases) {
    test(`${name}: ${transport}`, () => {
      assert.deepEqual(decideOutbound({ workload: { ...workload, meshed }, port: 80, policy: of }), { transport, mode });
    });
  }
});
