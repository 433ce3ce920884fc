// The plain data that decisions are made of: who is registered where, and which TLS switches were resolved for whom.

import type { SpiffeId } from '../spiffe/spiffe-id.ts';

export const mutualTlsModes = ['DISABLE', 'PERMISSIVE', 'STRICT'] as const;
export type MutualTlsMode = (typeof mutualTlsModes)[number];

export const outboundTrafficPolicies = ['ALLOW_ANY', 'REGISTRY_ONLY'] as const;
export type OutboundTrafficPolicy = (typeof outboundTrafficPolicies)[number];

/** An IP address in canonical text (RFC 5952 for IPv6, IPv4-mapped as IPv4) and a TCP port. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/** One pod. `meshed` says that a sidecar in front of it speaks mTLS; `identity` is whom it must prove to be. */
export interface Workload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly identity: SpiffeId;
  readonly addresses: readonly string[];
  readonly meshed: boolean;
  readonly healthy: boolean;
  /** By service key (`namespace/hostname`): the ports under which the service reaches this workload. */
  readonly services: ReadonlyMap<string, readonly ServicePort[]>;
}

export interface ServicePort {
  readonly servicePort: number;
  readonly targetPort: number;
}

/** `addresses` is empty for a headless service. `subjectAltNames`: SPIFFE IDs allowed beside the endpoints' own. */
export interface Service {
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly string[];
  readonly ports: readonly ServicePort[];
  readonly subjectAltNames: readonly string[];
}

/** A mode and the object that set it, such as `PeerAuthentication bar/strict`, or `default`. */
export interface TlsSwitch {
  readonly mode: MutualTlsMode;
  readonly source: string;
}

/** What control resolved for one workload. */
export interface TrafficPolicy {
  readonly workload: string;
  readonly inbound: TlsSwitch;
  readonly inboundPorts: ReadonlyMap<number, TlsSwitch>;
  readonly outbound: OutboundTrafficPolicy;
}

export function serviceKey(of: { namespace: string; hostname: string }): string {
  return `${of.namespace}/${of.hostname}`;
}

/** The switch for a port: the port's own, or else the workload's. */
export function switchFor(policy: TrafficPolicy, port: number): TlsSwitch {
  return policy.inboundPorts.get(port) ?? policy.inbound;
}
