// Outbound: listener -> original destination -> who is there -> resolve -> policy -> originate TLS -> secure naming -> splice.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { HandfastError } from '../errors.ts';
import type { OutboundDecision } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { WorkloadEndpoint } from '../policy/registry.ts';
import { allowedIdentities } from '../policy/secure-naming.ts';
import { originate } from '../tls/originate.ts';
import { originateOutside } from '../tls/originate-outside.ts';
import type { Governed, Known } from './connection.ts';
import { show } from './connection-record.ts';
import { dialUpstream, govern, judgeFromNowOn, locate, ownIdOf, type PipelineContext, usableIdentity } from './context.ts';
import { FirstWords } from './first-words.ts';
import { governKnown } from './known-destination.ts';
import { decideFor, rejudgeProven, rejudgeUnknown, rejudgeUnproven } from './outbound-judgement.ts';
import { reachByTunnel } from './outbound-tunnel.ts';
import { route } from './resolve.ts';
import type { Side, Tracked } from './tracked.ts';

/** A service with many dead endpoints must not hold a client for long. */
const MAX_ATTEMPTS = 3;

interface Reached {
  readonly stream: Side;
  release(): void;
}

/** Takes one redirected connection from accept to its record. Never rejects. */
export async function outbound(socket: Socket, context: PipelineContext): Promise<void> {
  const tracked = context.tracker.open('outbound', socket);
  tracked.own(socket);
  let reached: Reached | undefined;
  let release: (() => void) | undefined;
  try {
    const located = locate(tracked, socket, context);
    const { address } = located.originalDestination;
    release = context.interests.hold(address);
    let governed = govern(located, context);
    // Nothing is dialled before it is known who is there: a server of the mesh must not be taken for a stranger.
    if (!governed.mesh.knows(address)) governed = await governKnown(located, { socket, context });
    const chosen = route(governed, (endpoint) => context.tracker.load(endpoint));
    reached =
      chosen.kind === 'passthrough'
        ? await passThrough(tracked, governed, context)
        : await reachMesh(tracked, governed, { socket, candidates: chosen.candidates, context });
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
    release?.();
  }
}

async function passThrough(tracked: Tracked, governed: Governed, context: PipelineContext): Promise<Reached> {
  const { address, port } = governed.originalDestination;
  tracked.note({
    ...governed,
    mode: 'ALLOW_ANY',
    transport: 'plaintext',
    upstream: governed.originalDestination,
    ...ownIdOf(governed),
  });
  const stream = await dialUpstream(tracked, { host: address, port, timeoutMs: context.settings.dialTimeoutMs });
  judgeFromNowOn(tracked, {
    context,
    judgedBy: governed.mesh,
    judge: (mesh) => rejudgeUnknown(mesh, { upstream: governed.originalDestination, context }),
  });
  return { stream, release: () => undefined };
}

/** Another endpoint is tried when one cannot be dialled; one that proves to be the wrong server ends the attempt. */
async function reachMesh(
  tracked: Tracked,
  governed: Governed,
  to: { socket: Socket; candidates: readonly WorkloadEndpoint[]; context: PipelineContext },
): Promise<Reached> {
  let failure: unknown;
  const words = new FirstWords(to.socket);
  for (const endpoint of to.candidates.slice(0, MAX_ATTEMPTS)) {
    const release = occupy(endpoint, to.context);
    try {
      return { stream: await reachEndpoint(tracked, governed, { ...to, words, endpoint }), release };
    } catch (error) {
      release();
      failure = error;
      const tryNext = error instanceof HandfastError && (error.code === 'DIAL_FAILED' || error.code === 'DIAL_TIMEOUT');
      if (!tryNext || to.socket.destroyed) break;
    }
  }
  throw failure;
}

/** Counted, and kept up to date also when it is no endpoint of its service any more. */
function occupy(endpoint: WorkloadEndpoint, { tracker, interests }: PipelineContext): () => void {
  const vacate = tracker.occupy(endpoint);
  const release = interests.hold(endpoint.address);
  return () => {
    vacate();
    release();
  };
}

async function reachEndpoint(
  tracked: Tracked,
  governed: Governed,
  to: { socket: Socket; words: FirstWords; endpoint: WorkloadEndpoint; context: PipelineContext },
): Promise<Side> {
  const { endpoint, context, words } = to;
  const { workload, service, address, port } = endpoint;
  const decision = decideFor(endpoint, governed);
  const upstream = { address, port };
  const known: Known = tracked.note({
    ...governed,
    mode: decision.mode,
    transport: decision.transport,
    upstream,
    registered: workload,
    ...ownIdOf(governed),
    ...(service === undefined ? {} : { service: service.key }),
  });
  const usable = decision.transport === 'mtls' ? usableIdentity(context) : undefined;
  const destination = service === undefined ? show(upstream) : `${service.hostname} at ${show(upstream)}`;
  if (usable !== undefined && workload.hbone && context.tunnels.takes(address)) {
    const allowed = allowedIdentities(endpoint, { tls: decision.tls, client: governed.policy });
    const stream = await reachByTunnel(tracked, known, { ...to, governed, usable, allowed, destination });
    if (stream !== undefined) return stream;
  }
  const raw = await dialUpstream(tracked, { host: address, port, timeoutMs: context.settings.dialTimeoutMs });
  if (usable === undefined) {
    const stream = decision.transport === 'tls' ? await reachOutside(tracked, raw, { endpoint, decision, destination, context }) : raw;
    const judge = (mesh: MeshSnapshot) => rejudgeUnproven(mesh, { endpoint, decision, context });
    judgeFromNowOn(tracked, { context, judgedBy: governed.mesh, judge });
    words.putBack();
    return stream;
  }
  const { socket, peer } = await originate(raw, {
    ...usable,
    allowed: allowedIdentities(endpoint, { tls: decision.tls, client: governed.policy }),
    destination,
    serverName: decision.tls?.sni ?? (service === undefined ? undefined : `outbound_.${endpoint.servicePort}_._.${service.hostname}`),
    handshakeTimeoutMs: context.settings.handshakeTimeoutMs,
    now: context.now,
  });
  tracked.own(socket, raw);
  tracked.note({ ...known, peer });
  judgeFromNowOn(tracked, {
    context,
    judgedBy: governed.mesh,
    verifiedBy: usable.identity.bundles,
    judge: (mesh) => rejudgeProven(mesh, { endpoint, peer, destination, context }),
  });
  words.putBack();
  return socket;
}

async function reachOutside(
  tracked: Tracked,
  raw: Socket,
  of: { endpoint: WorkloadEndpoint; decision: OutboundDecision; destination: string; context: PipelineContext },
): Promise<Duplex> {
  const { tls } = of.decision;
  if (tls === undefined) throw new HandfastError('NO_POLICY', `${of.destination}: TLS without a rule that says which`);
  const hostname = of.endpoint.service?.hostname ?? of.endpoint.address;
  const { handshakeTimeoutMs } = of.context.settings;
  return tracked.own(await originateOutside(raw, { tls, hostname, destination: of.destination, handshakeTimeoutMs }), raw);
}
