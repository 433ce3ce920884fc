// Open outbound connections, judged again by a newer snapshot: whom they go to, and how.

import { isDeepStrictEqual } from 'node:util';
import { decideOutbound, type OutboundDecision } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { type Endpoint, switchFor } from '../policy/model.ts';
import type { WorkloadEndpoint } from '../policy/registry.ts';
import { allowedIdentities, decideSecureNaming } from '../policy/secure-naming.ts';
import type { Judgement } from '../policy/verdict.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import type { Governed } from './connection.ts';
import { show } from './connection-record.ts';
import { judging, type PipelineContext, selfIn } from './context.ts';
import { unknownDestination } from './resolve.ts';

/** How this client dials an endpoint. */
export function decideFor(endpoint: WorkloadEndpoint, { mesh, policy }: Pick<Governed, 'mesh' | 'policy'>): OutboundDecision {
  return decideOutbound({ ...endpoint, client: policy, server: mesh.policies.get(endpoint.workload.uid) });
}

/** The endpoint as the newer snapshot has it; undefined for one that left the registry. */
function asOf(mesh: MeshSnapshot, endpoint: WorkloadEndpoint): WorkloadEndpoint | undefined {
  const workload = mesh.registry.workloadAt(endpoint.address);
  if (workload === undefined) return undefined;
  return { ...endpoint, workload, service: endpoint.service === undefined ? undefined : mesh.registry.service(endpoint.service.key) };
}

/** Whether a connection to an address that nobody had registered may go on: not where only the registry may be called, nor to what is a service now. */
export function rejudgeUnknown(mesh: MeshSnapshot, of: { upstream: Endpoint; context: PipelineContext }): Judgement {
  const resolution = mesh.registry.resolve(of.upstream);
  switch (resolution.kind) {
    case 'service':
      return { allowed: false, code: 'TRANSPORT_CHANGED', reason: `${show(of.upstream)} is a service of the mesh now` };
    case 'workload':
      return rejudgeUnproven(mesh, {
        endpoint: resolution.endpoint,
        decision: { transport: 'plaintext', tls: undefined },
        context: of.context,
      });
    case 'unknown':
      // Nothing is known of the address for the moment; what is comes with a later snapshot.
      if (!mesh.knows(of.upstream.address)) return { allowed: true };
      return judging(() => {
        if (selfIn(mesh, of.context).policy.outbound === 'ALLOW_ANY') return { allowed: true };
        throw unknownDestination(of.upstream);
      });
    default:
      return resolution satisfies never;
  }
}

/**
 * Whether a connection on which no member of the mesh has proven itself may go on. One that would be made in another way now is ended when it is quiet, as long as the
 * server's own side would still take it. One to a pod that left the registry is left alone: it is draining.
 */
export function rejudgeUnproven(
  mesh: MeshSnapshot,
  of: { endpoint: WorkloadEndpoint; decision: Pick<OutboundDecision, 'transport' | 'tls'>; context: PipelineContext },
): Judgement {
  const endpoint = asOf(mesh, of.endpoint);
  if (endpoint === undefined) return { allowed: true };
  return judging(() => {
    const was = of.decision.transport;
    const { transport, mode, tls } = decideFor(endpoint, { mesh, policy: selfIn(mesh, of.context).policy });
    if (transport === was && (was === 'plaintext' || isDeepStrictEqual(tls, of.decision.tls))) return { allowed: true };
    const { workload, port } = endpoint;
    const server = mesh.policies.get(workload.uid);
    const refused = was === 'plaintext' && workload.meshed && (server === undefined || switchFor(server, port).mode === 'STRICT');
    const reason = `${was} to ${show(endpoint)} ended: it is called by ${transport} now (${mode})`;
    return { allowed: refused ? false : 'drain', code: 'TRANSPORT_CHANGED', reason };
  });
}

/** Whether the server may still be who it proved to be. A pod that left the registry is left alone: it is draining. */
export function rejudgeProven(
  mesh: MeshSnapshot,
  of: { endpoint: WorkloadEndpoint; peer: VerifiedPeer; destination: string; context: PipelineContext },
): Judgement {
  const endpoint = asOf(mesh, of.endpoint);
  if (endpoint === undefined) return { allowed: true };
  return judging(() => {
    const { policy } = selfIn(mesh, of.context);
    const { tls, transport } = decideFor(endpoint, { mesh, policy });
    const server = mesh.policies.get(endpoint.workload.uid);
    // mTLS that a rule of ours would make plaintext now is let be, nothing is lost by it; where the server is about to end it, it ends in time and in peace.
    if (transport === 'plaintext' && server !== undefined && switchFor(server.announced ?? server, endpoint.port).mode === 'DISABLE')
      return { allowed: 'drain', code: 'TRANSPORT_CHANGED', reason: `mTLS to ${show(endpoint)} ended: it takes plaintext alone now` };
    return decideSecureNaming(allowedIdentities(endpoint, { tls, client: policy }), of.peer.id, of.destination);
  });
}
