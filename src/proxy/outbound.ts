// Outbound: listener -> original destination -> resolve -> policy -> originate TLS -> secure naming -> splice.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { HandfastError } from '../errors.ts';
import { decideOutbound, type Verdict } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint } from '../policy/model.ts';
import type { WorkloadEndpoint } from '../policy/registry.ts';
import { allowedIdentities, decideSecureNaming } from '../policy/secure-naming.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { originate } from '../tls/originate.ts';
import type { Governed } from './connection.ts';
import { show } from './connection-record.ts';
import { dialUpstream, govern, judgeFromNowOn, judging, locate, type PipelineContext, selfIn, usableIdentity } from './context.ts';
import { route, unknownDestination } from './resolve.ts';
import type { Tracked } from './tracked.ts';

/** A service with many dead endpoints must not hold a client for long. */
const MAX_ATTEMPTS = 3;

interface Reached {
  readonly stream: Duplex;
  release(): void;
}

/** Takes one redirected connection from accept to its record. Never rejects. */
export async function outbound(socket: Socket, context: PipelineContext): Promise<void> {
  const tracked = context.tracker.open('outbound', socket);
  let reached: Reached | undefined;
  try {
    const governed = govern(locate(tracked, context), context);
    const chosen = route(governed, (endpoint) => context.tracker.load(endpoint));
    reached =
      chosen.kind === 'passthrough'
        ? await passThrough(tracked, governed, context)
        : await reachMesh(tracked, governed, { candidates: chosen.candidates, context });
    await tracked.splice({
      downstream: socket,
      upstream: reached.stream,
      application: socket,
      halfCloseTimeoutMs: context.settings.halfCloseTimeoutMs,
    });
  } catch (error) {
    tracked.refuse(error);
  } finally {
    reached?.release();
  }
}

async function passThrough(tracked: Tracked, governed: Governed, context: PipelineContext): Promise<Reached> {
  const { address, port } = governed.originalDestination;
  tracked.note({
    ...governed,
    mode: 'ALLOW_ANY',
    transport: 'plaintext',
    upstream: governed.originalDestination,
    ownId: governed.self.identity.uri,
  });
  const stream = await dialUpstream(tracked, { host: address, port, timeoutMs: context.settings.dialTimeoutMs });
  judgeFromNowOn(tracked, {
    context,
    judgedBy: governed.mesh,
    judge: (mesh) => rejudgePlaintext(mesh, { upstream: governed.originalDestination, registered: false, context }),
  });
  return { stream, release: () => undefined };
}

/** Another endpoint is tried when one cannot be dialled; one that proves to be the wrong server ends the attempt. */
async function reachMesh(
  tracked: Tracked,
  governed: Governed,
  to: { candidates: readonly WorkloadEndpoint[]; context: PipelineContext },
): Promise<Reached> {
  let failure: unknown;
  for (const endpoint of to.candidates.slice(0, MAX_ATTEMPTS)) {
    const release = to.context.tracker.occupy(endpoint);
    try {
      return { stream: await reachEndpoint(tracked, governed, { endpoint, context: to.context }), release };
    } catch (error) {
      release();
      failure = error;
      const tryNext = error instanceof HandfastError && (error.code === 'DIAL_FAILED' || error.code === 'DIAL_TIMEOUT');
      if (!tryNext || governed.socket.destroyed) break;
    }
  }
  throw failure;
}

async function reachEndpoint(
  tracked: Tracked,
  governed: Governed,
  to: { endpoint: WorkloadEndpoint; context: PipelineContext },
): Promise<Duplex> {
  const { endpoint, context } = to;
  const { workload, service, address, port } = endpoint;
  const { transport, mode } = decideOutbound({ workload, port, policy: governed.mesh.policies.get(workload.uid) });
  const upstream = { address, port };
  const known = tracked.note({
    ...governed,
    mode,
    transport,
    upstream,
    ownId: governed.self.identity.uri,
    ...(service === undefined ? {} : { service: service.key }),
  });
  const usable = transport === 'mtls' ? usableIdentity(context) : undefined;
  const raw = await dialUpstream(tracked, { host: address, port, timeoutMs: context.settings.dialTimeoutMs });
  if (usable === undefined) {
    judgeFromNowOn(tracked, {
      context,
      judgedBy: governed.mesh,
      judge: (mesh) => rejudgePlaintext(mesh, { upstream, registered: true, context }),
    });
    return raw;
  }

  const destination = service === undefined ? show(upstream) : `${service.hostname} at ${show(upstream)}`;
  const { socket, peer } = await originate(raw, {
    ...usable,
    allowed: allowedIdentities(endpoint),
    destination,
    serverName: service === undefined ? undefined : serverName(governed, endpoint),
    handshakeTimeoutMs: context.settings.handshakeTimeoutMs,
    now: context.now,
  });
  tracked.own(socket, raw);
  tracked.note({ ...known, peer });
  judgeFromNowOn(tracked, { context, judgedBy: governed.mesh, judge: (mesh) => rejudge(mesh, { upstream: endpoint, peer, destination }) });
  return socket;
}

/** Istio's SNI: `outbound_.<service port>_._.<host>`. */
function serverName(governed: Governed, { service, workload, port }: WorkloadEndpoint): string | undefined {
  if (service === undefined) return undefined;
  const ports = workload.services.get(service.key) ?? [];
  const servicePort = ports.find((candidate) => candidate.targetPort === port)?.servicePort ?? governed.originalDestination.port;
  return `outbound_.${servicePort}_._.${service.hostname}`;
}

/** Whether a destination may still be spoken to in plaintext: not once it is known to speak mTLS, nor unknown where only the registry may be called. */
function rejudgePlaintext(mesh: MeshSnapshot, of: { upstream: Endpoint; registered: boolean; context: PipelineContext }): Verdict {
  const resolution = mesh.registry.resolve(of.upstream);
  if (resolution.kind === 'service')
    return { allowed: false, code: 'TRANSPORT_CHANGED', reason: `${show(of.upstream)} is a service of the mesh now` };
  if (resolution.kind === 'workload') {
    const { workload, port } = resolution.endpoint;
    const { transport, mode } = decideOutbound({ workload, port, policy: mesh.policies.get(workload.uid) });
    if (transport === 'plaintext') return { allowed: true };
    return { allowed: false, code: 'TRANSPORT_CHANGED', reason: `plaintext to ${show(of.upstream)} ended: it speaks mTLS now (${mode})` };
  }
  // A pod that left the registry is left alone: it is draining.
  if (of.registered) return { allowed: true };
  return judging(() => {
    if (selfIn(mesh, of.context).policy.outbound === 'ALLOW_ANY') return { allowed: true };
    throw unknownDestination(of.upstream);
  });
}

/** Whether the server may still be who it proved to be. A pod that left the registry is left alone: it is draining. */
function rejudge(mesh: MeshSnapshot, of: { upstream: WorkloadEndpoint; peer: VerifiedPeer; destination: string }) {
  const resolution = mesh.registry.resolve(of.upstream);
  if (resolution.kind !== 'workload') return { allowed: true as const };
  const service = of.upstream.service === undefined ? undefined : mesh.registry.service(of.upstream.service.key);
  return decideSecureNaming(allowedIdentities({ ...resolution.endpoint, service }), of.peer.id, of.destination);
}
