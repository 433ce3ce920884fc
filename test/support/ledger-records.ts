// Ledger entries, runs and a small mesh for tests: sleep.foo calls httpbin-1.bar at 10.0.0.2:8080, unless a test says otherwise.

import type { LedgerInstance } from '../../src/control/ledger/ledger-instance.ts';
import type { LedgerEntry, LedgerFacts } from '../../src/observe/ledger-entry.ts';
import type { Authorization } from '../../src/policy/authorization.ts';
import { Authorizations } from '../../src/policy/authorizations.ts';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import type { InboundSwitches, MutualTlsMode, Service, TrafficPolicy, Workload } from '../../src/policy/model.ts';
import { Registry } from '../../src/policy/registry.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import type { LedgerReport } from '../../src/wire/gen/handfast/report/v1/report.ts';

/** 2026-01-01, and an hour and a day of it. */
export const T0 = 1_767_225_600_000;
export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;

export const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
export const HTTPBIN = 'spiffe://cluster.local/ns/bar/sa/httpbin';

export function facts(change: Partial<LedgerFacts> = {}): LedgerFacts {
  return {
    direction: 'inbound',
    peerAddress: '10.0.0.1',
    peerId: '',
    peerWorkload: 'foo/sleep',
    peerRegisteredId: SLEEP,
    ownAddress: '10.0.0.2',
    port: 8080,
    service: '',
    transport: 'plaintext',
    outcome: 'allowed',
    code: '',
    shadowCode: '',
    ...change,
  };
}

export function entry(change: Partial<LedgerEntry> = {}): LedgerEntry {
  return { ...facts(change), connections: 1, open: 0, firstSeen: T0, lastSeen: T0, tripwire: false, ...change };
}

/** The same by mTLS. */
export function mtls(change: Partial<LedgerEntry> = {}): LedgerEntry {
  return entry({ transport: 'mtls', peerId: SLEEP, ...change });
}

export function instance(change: Partial<LedgerInstance> = {}): LedgerInstance {
  return {
    node: 'local',
    pod: 'bar/httpbin-1',
    reporter: HTTPBIN,
    instance: '00000000-0000-4000-8000-000000000001',
    observedSince: T0 - DAY,
    heard: T0,
    live: true,
    wasBelieved: true,
    dropped: 0,
    forgotten: 0,
    entries: [],
    ...change,
  };
}

export function report(change: Partial<Omit<LedgerReport, 'entries'>> & { entries?: readonly LedgerEntry[] } = {}): LedgerReport {
  const { pod, reporter, instance: run, observedSince, dropped, forgotten } = instance();
  const totals = { inboundTotals: undefined, outboundTotals: undefined };
  return {
    pod,
    reporter,
    instance: run,
    observedSince,
    dropped,
    forgotten,
    ended: false,
    ...totals,
    ...change,
    entries: [...(change.entries ?? [])],
  };
}

export interface PodSpec {
  readonly name: string;
  readonly namespace?: string;
  readonly serviceAccount?: string;
  readonly address?: string;
  readonly meshed?: boolean;
  readonly service?: string;
  readonly mode?: MutualTlsMode;
  readonly ports?: Readonly<Record<number, MutualTlsMode>>;
  readonly clientTls?: TrafficPolicy['clientTls'];
}

/** Pods of namespace bar, unless they say otherwise. */
export function meshWith(
  specs: readonly PodSpec[],
  authorizations: readonly Authorization[] = [],
): { mesh: MeshSnapshot; pods: readonly Workload[] } {
  const keyOf = (namespace: string, service: string) => `${namespace}/${service}.${namespace}.svc.cluster.local`;
  const pods = specs.map(({ name, namespace = 'bar', serviceAccount = 'httpbin', address, meshed = true, service }): Workload => {
    return {
      uid: `local//Pod/${namespace}/${name}`,
      name,
      namespace,
      identity: parseSpiffeId(`spiffe://cluster.local/ns/${namespace}/sa/${serviceAccount}`),
      addresses: address === undefined ? [] : [address],
      meshed,
      hbone: false,
      healthy: true,
      services: new Map(service === undefined ? [] : [[keyOf(namespace, service), [{ servicePort: 80, targetPort: 8080 }]]]),
      authorizationPolicies: [],
    };
  });
  const services = specs.flatMap(({ namespace = 'bar', service }): Service[] =>
    service === undefined
      ? []
      : [
          {
            key: keyOf(namespace, service),
            name: service,
            namespace,
            hostname: `${service}.${namespace}.svc.cluster.local`,
            addresses: [],
            ports: [{ servicePort: 80, targetPort: 8080 }],
            subjectAltNames: [],
            clientTls: undefined,
          },
        ],
  );
  const policies = new Map(
    specs.map(({ name, namespace = 'bar', mode = 'PERMISSIVE', ports = {}, clientTls = [] }): [string, TrafficPolicy] => {
      const workload = `local//Pod/${namespace}/${name}`;
      const switches: InboundSwitches = {
        inbound: { mode, source: 'the test' },
        inboundPorts: new Map(Object.entries(ports).map(([port, of]) => [Number(port), { mode: of, source: `the test port ${port}` }])),
      };
      return [
        workload,
        {
          workload,
          ...switches,
          outbound: 'ALLOW_ANY',
          announced: undefined,
          shadow: undefined,
          clientTls,
          rootClientTls: [],
          trustDomainAliases: [],
        },
      ];
    }),
  );
  const unique = [...new Map(services.map((service) => [service.key, service])).values()];
  return {
    mesh: {
      knows: () => true,
      registry: new Registry({ workloads: pods, services: unique }),
      policies,
      authorizations: new Authorizations(authorizations),
    },
    pods,
  };
}
