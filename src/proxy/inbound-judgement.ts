// What is decided about a connection that came in, whether redirected or through a tunnel: the switch, the verdict, and the verdict again when the mesh changes.

import type { Socket } from 'node:net';
import type { DialOptions } from '../net/dial.ts';
import { type Arrival, decideArrival, decideShadow, readsRequests, type Transport } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { switchFor, type TlsSwitch } from '../policy/model.ts';
import type { Judgement, Verdict } from '../policy/verdict.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import type { Governed, Known } from './connection.ts';
import { dialUpstream, enforce, judgeFromNowOn, judging, ownIdOf, type PipelineContext, selfIn } from './context.ts';
import type { Tracked } from './tracked.ts';

/** How a connection came in, and who proved to be at the other end. */
export interface Arrived {
  readonly transport: Transport;
  readonly peer?: VerifiedPeer;
  /** The bundles its certificate was verified by. */
  readonly verifiedBy?: TrustBundles;
}

export interface Judged extends Governed {
  readonly tlsSwitch: TlsSwitch;
}

/** The switch that holds for the destination's port. */
export function judge(tracked: Tracked, governed: Governed): Judged {
  const tlsSwitch = switchFor(governed.policy, governed.originalDestination.port);
  return tracked.note({ ...governed, tlsSwitch, upstream: governed.originalDestination, ...ownIdOf(governed) });
}

/** What is known of a connection when it is judged. */
export function arrivalOf({ downstream, originalDestination }: Judged, { transport, peer }: Arrived): Arrival {
  return { transport, peer: peer?.id, sourceIp: downstream.address, destination: originalDestination };
}

/** Our verdict, before the application hears a byte; and the same verdict again whenever the mesh changes. Throws the verdict's code. */
export function settle(tracked: Tracked, judged: Judged, arrived: Arrived, context: PipelineContext): void {
  const arrival = arrivalOf(judged, arrived);
  const { mesh, self, policy } = judged;
  const authorizations = mesh.authorizations.of(self);
  const shadow = decideShadow(arrival, { policy, authorizations });
  const verdict = decideArrival(arrival, { switches: policy, authorizations });
  noteArrival(tracked, { judged, arrived, verdict, shadow }, context);
  enforce(verdict);
  judgeFromNowOn(tracked, {
    context,
    judgedBy: mesh,
    ...(arrived.verifiedBy === undefined ? {} : { verifiedBy: arrived.verifiedBy }),
    judge: (next) => rejudge(next, { arrival, context }),
  });
}

/** For the record, and the ledger: who it is, and what was decided. */
export function noteArrival(
  tracked: Tracked,
  of: { judged: Judged; arrived: Arrived; verdict: Verdict; shadow: Verdict },
  context: PipelineContext,
): void {
  const { judged, shadow } = of;
  const { transport, peer } = of.arrived;
  const caller = nameCaller(judged, { isAllowed: of.verdict.allowed, isProven: peer !== undefined, context });
  const known: Known = { ...judged, transport, ...(shadow.allowed ? {} : { shadow }), ...caller };
  tracked.note(peer === undefined ? known : { ...known, peer });
}

/** Who is at the caller's address. No verdict depends on it: it is asked for beside everything else, and for those who are refused only where their name is all that is known of them, and seldom. */
function nameCaller(
  { downstream: { address }, mesh }: Judged,
  of: { isAllowed: boolean; isProven: boolean; context: PipelineContext },
): Pick<Known, 'registered' | 'isUnasked'> {
  const { interests, refusedCallers } = of.context;
  const isKnown = mesh.knows(address);
  const isAsked = of.isAllowed || (!of.isProven && !isKnown && refusedCallers.take() === 0);
  if (isAsked) interests.ask(address);
  const registered = mesh.registry.workloadAt(address);
  if (registered !== undefined) return { registered };
  return isAsked && !isKnown ? { isUnasked: true } : {};
}

function rejudge(mesh: MeshSnapshot, of: { arrival: Arrival; context: PipelineContext }): Judgement {
  return judging(() => {
    const { self, policy } = selfIn(mesh, of.context);
    // Whoever reads requests says who calls; what has come before could say it itself.
    if (readsRequests(policy, of.arrival))
      return { allowed: 'drain', code: 'TRANSPORT_CHANGED', reason: `requests to port ${of.arrival.destination.port} are read now` };
    return decideArrival(of.arrival, { switches: policy, authorizations: mesh.authorizations.of(self) });
  });
}

/** The connection to the application. `paused` as in DialOptions. */
export function dialApplication(tracked: Tracked, judged: Judged, of: { context: PipelineContext; paused?: boolean }): Promise<Socket> {
  return dialUpstream(tracked, { ...applicationOf(judged, of.context), paused: of.paused === true });
}

/** How the application is reached: from the source address that the redirection knows. */
export function applicationOf({ originalDestination: { address, port } }: Judged, { settings }: PipelineContext): DialOptions {
  const { v4, v6 } = settings.passthroughSource;
  return { host: address, port, timeoutMs: settings.dialTimeoutMs, localAddress: address.includes(':') ? v6 : v4, keepAlive: false };
}
