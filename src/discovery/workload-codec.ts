// Between the policy model and its wire form: istio.workload.Address and handfast.policy.v1.TrafficPolicy. The one parser for both.

import { HandfastError } from '../errors.ts';
import { ipFromBytes, ipToBytes } from '../policy/ip.ts';
import {
  type InboundHttp,
  type InboundSwitches,
  type MutualTlsMode,
  mutualTlsModes,
  type OutboundTrafficPolicy,
  outboundTrafficPolicies,
  type Service,
  type ServiceClientTls,
  type ServicePort,
  serviceKey,
  type TlsSwitch,
  type TrafficPolicy,
  type Workload,
} from '../policy/model.ts';
import { workloadOf, workloadSpiffeId } from '../spiffe/spiffe-id.ts';
import * as policyWire from '../wire/gen/handfast/policy/v1/traffic_policy.ts';
import * as workloadWire from '../wire/gen/istio/workload/workload.ts';
import { ruleFromWire, ruleToWire, settingsFromWire, settingsToWire } from './client-tls-codec.ts';
import { jwtRuleFromWire, jwtRuleToWire } from './jwt-rule-codec.ts';
import { typeUrls } from './type-urls.ts';

export type AddressObject = { readonly kind: 'workload'; readonly value: Workload } | { readonly kind: 'service'; readonly value: Service };

export function encodeWorkload(workload: Workload): Uint8Array {
  const { identity } = workload;
  return encodeAddress({
    $case: 'workload',
    value: {
      uid: workload.uid,
      name: workload.name,
      namespace: workload.namespace,
      addresses: workload.addresses.map(ipToBytes),
      trustDomain: identity?.trustDomain ?? '',
      serviceAccount: identity === undefined ? '' : (workloadOf(identity)?.serviceAccount ?? ''),
      tunnelProtocol: tunnelProtocolOf(workload),
      status: workload.healthy ? workloadWire.WorkloadStatus.HEALTHY : workloadWire.WorkloadStatus.UNHEALTHY,
      authorizationPolicies: [...workload.authorizationPolicies],
      services: Object.fromEntries([...workload.services].map(([key, ports]) => [key, { ports: [...ports] }])),
      networkMode: workload.sharesAddress === true ? workloadWire.NetworkMode.HOST_NETWORK : workloadWire.NetworkMode.STANDARD,
      network: '',
      node: '',
      clusterId: '',
      hostname: '',
    },
  });
}

export function encodeService(service: Service): Uint8Array {
  return encodeAddress({
    $case: 'service',
    value: {
      name: service.name,
      namespace: service.namespace,
      hostname: service.hostname,
      addresses: service.addresses.map((address) => ({ network: '', address: ipToBytes(address) })),
      ports: [...service.ports],
      subjectAltNames: [...service.subjectAltNames],
      extensions: service.clientTls === undefined ? [] : [servicePolicyToWire(service.clientTls)],
    },
  });
}

function encodeAddress(type: workloadWire.Address['type']): Uint8Array {
  return workloadWire.Address.encode({ type }).finish();
}

/** Throws OBJECT_INVALID (or what an ill-formed part throws) for anything a proxy could not act on. */
export function decodeAddress(bytes: Uint8Array): AddressObject {
  const { type } = workloadWire.Address.decode(bytes);
  switch (type?.$case) {
    case 'workload':
      return { kind: 'workload', value: workloadFromWire(type.value) };
    case 'service':
      return { kind: 'service', value: serviceFromWire(type.value) };
    default:
      throw new HandfastError('OBJECT_INVALID', 'an Address with neither workload nor service');
  }
}

function workloadFromWire(wire: workloadWire.Workload): Workload {
  if (wire.uid === '') throw new HandfastError('OBJECT_INVALID', `workload ${wire.namespace}/${wire.name} has no uid`);
  return Object.freeze({
    uid: wire.uid,
    name: wire.name,
    namespace: wire.namespace,
    // An endpoint outside the mesh has no service account, and is nobody; its service may say who it can be.
    identity:
      wire.serviceAccount === ''
        ? undefined
        : workloadSpiffeId({
            // Istio leaves the default trust domain out.
            trustDomain: wire.trustDomain === '' ? 'cluster.local' : wire.trustDomain,
            namespace: wire.namespace,
            serviceAccount: wire.serviceAccount,
          }),
    addresses: wire.addresses.map(ipFromBytes),
    meshed: wire.tunnelProtocol !== workloadWire.TunnelProtocol.NONE,
    hbone: wire.tunnelProtocol === workloadWire.TunnelProtocol.HBONE,
    healthy: wire.status === workloadWire.WorkloadStatus.HEALTHY,
    services: new Map(Object.entries(wire.services).map(([key, list]) => [key, portsFromWire(list.ports)])),
    authorizationPolicies: wire.authorizationPolicies,
    ...(wire.networkMode === workloadWire.NetworkMode.HOST_NETWORK ? { sharesAddress: true as const } : {}),
  });
}

function tunnelProtocolOf({ meshed, hbone }: Workload): workloadWire.TunnelProtocol {
  if (!meshed) return workloadWire.TunnelProtocol.NONE;
  return hbone ? workloadWire.TunnelProtocol.HBONE : workloadWire.TunnelProtocol.LEGACY_ISTIO_MTLS;
}

function serviceFromWire(wire: workloadWire.Service): Service {
  return Object.freeze({
    key: serviceKey(wire),
    name: wire.name,
    namespace: wire.namespace,
    hostname: wire.hostname,
    addresses: wire.addresses.map(({ address }) => ipFromBytes(address)),
    ports: portsFromWire(wire.ports),
    subjectAltNames: wire.subjectAltNames,
    clientTls: servicePolicyFromWire(wire.extensions),
  });
}

/** A target port of 0 is the service's own: protobuf leaves it out. */
function portsFromWire(ports: readonly workloadWire.Port[]): ServicePort[] {
  return ports.map(({ servicePort, targetPort }) => {
    const resolved = { servicePort, targetPort: targetPort === 0 ? servicePort : targetPort };
    if (Object.values(resolved).some((port) => port < 1 || port > 65535)) {
      throw new HandfastError('OBJECT_INVALID', `port ${servicePort} to ${targetPort}: from 1 to 65535 is accepted`);
    }
    return resolved;
  });
}

export function encodeTrafficPolicy(policy: TrafficPolicy): Uint8Array {
  return policyWire.TrafficPolicy.encode({
    workload: policy.workload,
    ...switchesToWire(policy),
    outboundTrafficPolicy: policyWire.OutboundTrafficPolicy[policy.outbound],
    clientTls: policy.clientTls.map(ruleToWire),
    rootClientTls: policy.rootClientTls.map(ruleToWire),
    announced: policy.announced === undefined ? undefined : switchesToWire(policy.announced),
    shadow: policy.shadow === undefined ? undefined : switchesToWire(policy.shadow),
    trustDomainAliases: [...policy.trustDomainAliases],
    http: policy.http === undefined ? undefined : httpToWire(policy.http),
  }).finish();
}

/** Throws OBJECT_INVALID for a mode this build does not know: an unknown switch is refused, never read as the laxer one. */
export function decodeTrafficPolicy(bytes: Uint8Array): TrafficPolicy {
  const wire = policyWire.TrafficPolicy.decode(bytes);
  return Object.freeze({
    workload: wire.workload,
    ...switchesFromWire(wire, wire.workload),
    outbound: outboundFromWire(wire.outboundTrafficPolicy, wire.workload),
    clientTls: wire.clientTls.map(ruleFromWire),
    rootClientTls: wire.rootClientTls.map(ruleFromWire),
    announced: wire.announced === undefined ? undefined : switchesFromWire(wire.announced, wire.workload),
    shadow: wire.shadow === undefined ? undefined : switchesFromWire(wire.shadow, wire.workload),
    trustDomainAliases: wire.trustDomainAliases,
    ...(wire.http === undefined ? {} : { http: httpFromWire(wire.http) }),
  });
}

function httpToWire({ ports, jwtRules }: InboundHttp): policyWire.InboundHttp {
  return { ports: [...ports], jwtRules: jwtRules.map(jwtRuleToWire) };
}

function httpFromWire({ ports, jwtRules }: policyWire.InboundHttp): InboundHttp {
  return { ports, jwtRules: jwtRules.map(jwtRuleFromWire) };
}

function switchesToWire({ inbound, inboundPorts }: InboundSwitches): policyWire.InboundSwitches {
  return {
    inbound: switchToWire(inbound),
    inboundPorts: Object.fromEntries([...inboundPorts].map(([port, tlsSwitch]) => [port, switchToWire(tlsSwitch)])),
  };
}

function switchesFromWire(wire: policyWire.InboundSwitches, workload: string): InboundSwitches {
  return {
    inbound: switchFromWire(wire.inbound, workload),
    inboundPorts: new Map(
      Object.entries(wire.inboundPorts).map(([port, tlsSwitch]) => [Number(port), switchFromWire(tlsSwitch, workload)]),
    ),
  };
}

const SERVICE_POLICY = 'handfast.policy.v1.ServicePolicy';

function servicePolicyToWire({ fromRoot, ...clientTls }: ServiceClientTls): workloadWire.Extension {
  const value = policyWire.ServicePolicy.encode({ clientTls: settingsToWire(clientTls), fromRootNamespace: fromRoot }).finish();
  return { name: SERVICE_POLICY, config: { typeUrl: typeUrls.servicePolicy, value: Buffer.from(value) } };
}

/** Extensions of others are theirs. */
function servicePolicyFromWire(extensions: readonly workloadWire.Extension[]): ServiceClientTls | undefined {
  const config = extensions.find(({ config }) => config?.typeUrl === typeUrls.servicePolicy)?.config;
  const told = config === undefined ? undefined : policyWire.ServicePolicy.decode(config.value);
  return told?.clientTls === undefined ? undefined : { ...settingsFromWire(told.clientTls), fromRoot: told.fromRootNamespace };
}

function switchToWire(tlsSwitch: TlsSwitch): policyWire.TlsSwitch {
  return { mode: policyWire.MutualTlsMode[tlsSwitch.mode], source: tlsSwitch.source };
}

function switchFromWire(wire: policyWire.TlsSwitch | undefined, workload: string): TlsSwitch {
  const mode: MutualTlsMode | undefined = mutualTlsModes.find((name) => policyWire.MutualTlsMode[name] === wire?.mode);
  if (wire === undefined || mode === undefined) throw new HandfastError('OBJECT_INVALID', `TrafficPolicy ${workload}: unknown mTLS mode`);
  return Object.freeze({ mode, source: wire.source });
}

function outboundFromWire(wire: policyWire.OutboundTrafficPolicy, workload: string): OutboundTrafficPolicy {
  const policy = outboundTrafficPolicies.find((name) => policyWire.OutboundTrafficPolicy[name] === wire);
  if (policy === undefined) throw new HandfastError('OBJECT_INVALID', `TrafficPolicy ${workload}: unknown outbound traffic policy`);
  return policy;
}
