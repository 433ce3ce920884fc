// The plain data that decisions are made of: who is registered where, and which TLS switches were resolved for whom.

import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { JwtRule } from './jwt-rule.ts';

export const mutualTlsModes = ['DISABLE', 'PERMISSIVE', 'STRICT'] as const;
export type MutualTlsMode = (typeof mutualTlsModes)[number];

export const outboundTrafficPolicies = ['ALLOW_ANY', 'REGISTRY_ONLY'] as const;
export type OutboundTrafficPolicy = (typeof outboundTrafficPolicies)[number];

export const clientTlsModes = ['DISABLE', 'SIMPLE', 'MUTUAL', 'ISTIO_MUTUAL'] as const;
export type ClientTlsMode = (typeof clientTlsModes)[number];

/** An IP address in canonical text (RFC 5952 for IPv6, IPv4-mapped as IPv4) and a TCP port. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

/**
 * One pod, or an endpoint outside the mesh. `meshed` says that a sidecar in front of it speaks mTLS; `identity` is whom it must prove to be (undefined: nobody,
 * but for what its service's subjectAltNames allow). `authorizationPolicies`: keys of the Authorizations bound to it by name. `hbone` says that the sidecar takes tunnels, on port 15008, beside a TLS session for each connection.
 * `sharesAddress`: others may have its address too, so only its services lead to it (Istio's HOST_NETWORK).
 */
export interface Workload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly identity: SpiffeId | undefined;
  readonly addresses: readonly string[];
  readonly meshed: boolean;
  readonly hbone: boolean;
  readonly healthy: boolean;
  /** By service key (`namespace/hostname`): the ports under which the service reaches this workload. */
  readonly services: ReadonlyMap<string, readonly ServicePort[]>;
  readonly authorizationPolicies: readonly string[];
  readonly sharesAddress?: true;
}

export interface ServicePort {
  readonly servicePort: number;
  readonly targetPort: number;
}

/** `addresses` is empty for a headless service. `subjectAltNames`: SPIFFE IDs allowed beside the endpoints' own. `clientTls`: what holds for clients whose own policy has no rule for it. */
export interface Service {
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly string[];
  readonly ports: readonly ServicePort[];
  readonly subjectAltNames: readonly string[];
  readonly clientTls: ServiceClientTls | undefined;
}

/**
 * How a client speaks to a destination. `subjectAltNames`: whom the server must prove to be (ISTIO_MUTUAL: instead of the registry's list where not empty; SIMPLE, MUTUAL: empty means
 * the name that is dialled). File names are the sidecar's own; `caCertificates` undefined means the public roots that Node brings.
 */
export interface ClientTls {
  readonly mode: ClientTlsMode;
  readonly subjectAltNames: readonly string[];
  readonly sni: string | undefined;
  readonly clientCertificate: string | undefined;
  readonly privateKey: string | undefined;
  readonly caCertificates: string | undefined;
  /** Such as `DestinationRule bar/httpbin`. */
  readonly source: string;
}

/** Settings with a mode alone. */
export function clientTls(mode: ClientTlsMode, source: string): ClientTls {
  const nothing = { sni: undefined, clientCertificate: undefined, privateKey: undefined, caCertificates: undefined };
  return { mode, subjectAltNames: [], ...nothing, source };
}

/** By port of the service; a port that stands here with undefined, and a destination without `tls`, is left to auto-mTLS. */
export interface ClientTlsSettings {
  readonly tls: ClientTls | undefined;
  readonly ports: ReadonlyMap<number, ClientTls | undefined>;
}

/** What a service tells its clients. `fromRoot`: it is the root namespace's word, and the service's own namespace says nothing. */
export interface ServiceClientTls extends ClientTlsSettings {
  readonly fromRoot: boolean;
}

/** `host` is a whole host name, `*.suffix`, or `*`. */
export interface ClientTlsRule extends ClientTlsSettings {
  readonly host: string;
}

/** A mode and the object that set it, such as `PeerAuthentication bar/strict`, or `default`. */
export interface TlsSwitch {
  readonly mode: MutualTlsMode;
  readonly source: string;
}

/** The switch for every port that `inboundPorts` does not name, and for those it does. */
export interface InboundSwitches {
  readonly inbound: TlsSwitch;
  readonly inboundPorts: ReadonlyMap<number, TlsSwitch>;
}

/**
 * What control resolved for one workload. `announced`: switches that will hold in a moment, by which clients dial already. `shadow`: what would hold if the objects in dry-run were in force;
 * undefined where they would change nothing. `clientTls`: rules of the workload's own side, looked up before a service's; `rootClientTls`: rules of the root namespace for this workload, looked up after a service's own.
 * `trustDomainAliases`: a server may prove its identity in one of these trust domains instead of its own. `http`: undefined where no port is declared HTTP.
 */
export interface TrafficPolicy extends InboundSwitches {
  readonly workload: string;
  readonly outbound: OutboundTrafficPolicy;
  readonly announced: InboundSwitches | undefined;
  readonly shadow: InboundSwitches | undefined;
  readonly clientTls: readonly ClientTlsRule[];
  readonly rootClientTls: readonly ClientTlsRule[];
  readonly trustDomainAliases: readonly string[];
  readonly http?: InboundHttp;
}

/** Where requests are read, and whose tokens in them count: for all of a workload's HTTP ports. */
export interface InboundHttp {
  readonly ports: readonly number[];
  readonly jwtRules: readonly JwtRule[];
}

/** cluster//Pod/namespace/name: the form of Istio's workload uids. `pod` is namespace/name. */
export function podUid(pod: string): string {
  return `local//Pod/${pod}`;
}

/** Whether it is a pod of some cluster: of other objects the second part names their API group. */
export function isPod({ uid }: Pick<Workload, 'uid'>): boolean {
  return POD.test(uid);
}

const POD = /^[^/]*\/\/Pod\//;

export function serviceKey(of: { namespace: string; hostname: string }): string {
  return `${of.namespace}/${of.hostname}`;
}

/** The switch for a port: the port's own, or else the workload's. */
export function switchFor(policy: InboundSwitches, port: number): TlsSwitch {
  return policy.inboundPorts.get(port) ?? policy.inbound;
}
