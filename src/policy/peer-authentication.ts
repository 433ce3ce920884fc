// Which mTLS mode holds for a workload and port: Istio's PeerAuthentication, mesh < namespace < workload < port, the first in order wins within a scope
// (https://istio.io/latest/docs/reference/config/security/peer_authentication/).

import { type InboundSwitches, type MutualTlsMode, switchFor, type TlsSwitch } from './model.ts';
import { type PolicyObject, sourceOf } from './policy-object.ts';

/** A PeerAuthentication, parsed. No mode means UNSET: inherit. */
export interface PeerAuthentication extends PolicyObject {
  readonly mode: MutualTlsMode | undefined;
  readonly portModes: ReadonlyMap<number, MutualTlsMode | undefined>;
}

export const peerAuthenticationScopes = ['mesh', 'namespace', 'workload'] as const;
export type PeerAuthenticationScope = (typeof peerAuthenticationScopes)[number];

/** What holds for a workload, by scope, each in order of precedence. */
export type PeerAuthenticationTiers = Readonly<Record<PeerAuthenticationScope, readonly PeerAuthentication[]>>;

/** Istio's default where nobody says anything. */
const DEFAULT: TlsSwitch = Object.freeze({ mode: 'PERMISSIVE', source: 'default' });
const NO_PORTS: ReadonlyMap<number, TlsSwitch> = new Map();

/** `dryRun`: as if what is in dry-run were in force. */
export function resolvePeerAuthentication(tiers: PeerAuthenticationTiers, { dryRun = false } = {}): InboundSwitches {
  let inbound = DEFAULT;
  for (const scope of peerAuthenticationScopes) {
    const object = winnerOf(tiers[scope], { dryRun });
    if (object?.mode !== undefined) inbound = { mode: object.mode, source: sourceOf('PeerAuthentication', object) };
  }
  const workload = winnerOf(tiers.workload, { dryRun });
  if (workload === undefined || workload.portModes.size === 0) return { inbound, inboundPorts: NO_PORTS };
  const inboundPorts = new Map<number, TlsSwitch>();
  for (const [port, mode] of workload.portModes) {
    if (mode !== undefined) inboundPorts.set(port, { mode, source: `${sourceOf('PeerAuthentication', workload)} port ${port}` });
  }
  return { inbound, inboundPorts };
}

/** What would hold if dry-run objects were in force; undefined where no mode would change. */
export function resolveShadow(tiers: PeerAuthenticationTiers, live: InboundSwitches): InboundSwitches | undefined {
  if (!peerAuthenticationScopes.some((scope) => tiers[scope].some((object) => object.dryRun))) return undefined;
  const shadow = resolvePeerAuthentication(tiers, { dryRun: true });
  const ports = [...live.inboundPorts.keys(), ...shadow.inboundPorts.keys()];
  const changes =
    shadow.inbound.mode !== live.inbound.mode || ports.some((port) => switchFor(shadow, port).mode !== switchFor(live, port).mode);
  return changes ? shadow : undefined;
}

/** The one that decides within its scope. */
export function winnerOf(tier: readonly PeerAuthentication[], { dryRun = false } = {}): PeerAuthentication | undefined {
  return tier.find((object) => dryRun || !object.dryRun);
}
