// Secure naming: whom a destination may prove to be. An IP address or a DNS answer can be forged; this list comes from the registry.

import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { ClientTls, TrafficPolicy } from './model.ts';
import type { WorkloadEndpoint } from './registry.ts';
import type { Verdict } from './verdict.ts';

/** The SPIFFE IDs allowed at an endpoint: those of the client's own rule, or else the workload's own, under each of the mesh's names, and what its service adds. */
export function allowedIdentities(
  { workload, service }: Pick<WorkloadEndpoint, 'workload' | 'service'>,
  by: { tls: ClientTls | undefined; client: TrafficPolicy },
): readonly string[] {
  if (by.tls !== undefined && by.tls.subjectAltNames.length > 0) return by.tls.subjectAltNames;
  const { identity } = workload;
  const aliases = identity === undefined ? [] : by.client.trustDomainAliases.map((alias) => `spiffe://${alias}${identity.path}`);
  return [...new Set([...(identity === undefined ? [] : [identity.uri]), ...aliases, ...(service?.subjectAltNames ?? [])])];
}

/** An empty list allows nobody. */
export function decideSecureNaming(allowed: readonly string[], peer: SpiffeId, destination: string): Verdict {
  if (allowed.includes(peer.uri)) return { allowed: true };
  return {
    allowed: false,
    code: 'SECURE_NAMING_MISMATCH',
    reason: `${destination} must be ${allowed.join(' or ') || 'nobody'}, but the server proved to be ${peer.uri}`,
  };
}
