// Secure naming: whom a destination may prove to be. An IP address or a DNS answer can be forged; this list comes from the registry.

import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { Verdict } from './decide.ts';
import type { WorkloadEndpoint } from './registry.ts';

/** The SPIFFE IDs allowed at an endpoint: the workload's own, and what its service adds. Never empty for a registered workload. */
export function allowedIdentities(endpoint: WorkloadEndpoint): readonly string[] {
  return [...new Set([endpoint.workload.identity.uri, ...(endpoint.service?.subjectAltNames ?? [])])];
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
