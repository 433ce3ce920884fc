// What the two pipelines work with, and the first steps they share: where a connection was going, and which policy governs it.

import type { Socket } from 'node:net';
import { HandfastError, messageOf } from '../errors.ts';
import type { TunnelPool } from '../hbone/tunnel-pool.ts';
import type { RequestServer } from '../http/request-server.ts';
import { type DialOptions, DialTimeout, dial } from '../net/dial.ts';
import type { LocalAddresses } from '../net/local-addresses.ts';
import { decideRevocation, decideTrust } from '../policy/decide.ts';
import type { ForwardClientCertMode } from '../policy/forward-client-cert.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint, TrafficPolicy, Workload } from '../policy/model.ts';
import type { Judgement, Verdict } from '../policy/verdict.ts';
import type { TokenBucket } from '../rate-limit.ts';
import type { Snapshot } from '../snapshot.ts';
import { type RevocationList, revocationOf } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import type { Terminator } from '../tls/terminate.ts';
import type { Governed, Located } from './connection.ts';
import { show } from './connection-record.ts';
import type { KnownAddresses } from './known-addresses.ts';
import type { Tracked } from './tracked.ts';
import type { ConnectionTracker } from './tracker.ts';

export interface PipelineSettings {
  readonly podName: string;
  readonly podNamespace: string;
  /** The pod's in the registry. Others may have its name. */
  readonly workloadUid: string;
  readonly dialTimeoutMs: number;
  readonly handshakeTimeoutMs: number;
  readonly sniffSilenceMs: number;
  readonly halfCloseTimeoutMs: number;
  /** Source address for connections to the application, by which the redirection knows them (`127.0.0.6`, `::6`). */
  readonly passthroughSource: { readonly v4: string; readonly v6: string };
  /** What the application hears of who called it. */
  readonly forwardClientCert: ForwardClientCertMode;
}

/** Which addresses the agent is asked about; what it answers is in a later snapshot of the mesh. */
export interface AddressInterests {
  /** The address is in use until the returned function is called: it is asked for, and what is known of it is kept up to date. */
  hold(address: string): () => void;
  /** Asks for it, without keeping it for longer than others need it. */
  ask(address: string): void;
}

export interface PipelineContext {
  readonly settings: PipelineSettings;
  readonly originalDestination: (socket: Socket) => Endpoint | undefined;
  readonly local: Pick<LocalAddresses, 'has'>;
  /** The ports this process listens on: never a destination. */
  readonly ownPorts: ReadonlySet<number>;
  readonly mesh: Snapshot<MeshSnapshot>;
  readonly interests: AddressInterests;
  readonly known: KnownAddresses;
  /** How often a caller that was refused is asked about: anybody can be one. */
  readonly refusedCallers: TokenBucket;
  readonly identity: Snapshot<Identity>;
  /** Undefined until the first list has come: nobody can be trusted to be unrevoked before. */
  readonly revocations: Snapshot<RevocationList>;
  readonly terminator: Terminator;
  readonly tunnels: TunnelPool;
  readonly tracker: ConnectionTracker;
  /** Where requests are read. */
  readonly requests: RequestServer;
  readonly now: () => number;
}

/** Where a redirected connection was going. Throws NO_ORIGINAL_DESTINATION, or SELF_LOOP for a direct dial of the sidecar. */
export function locate(tracked: Tracked, socket: Socket, context: PipelineContext): Located {
  const destination = context.originalDestination(socket);
  if (destination === undefined) {
    throw new HandfastError(
      'NO_ORIGINAL_DESTINATION',
      'the connection was not redirected here by iptables, so nobody knows where it was going',
    );
  }
  return locateAt(tracked, destination, context);
}

/** The same for a destination that was asked for by name. */
export function locateAt(tracked: Tracked, destination: Endpoint, context: PipelineContext): Located {
  const located: Located = tracked.note({ ...tracked.known, originalDestination: destination });
  // Without a redirection to undo, the kernel may answer with the listener's own address.
  if (context.ownPorts.has(destination.port) && context.local.has(destination.address)) {
    throw new HandfastError('SELF_LOOP', `${show(destination)} is the sidecar itself`);
  }
  return located;
}

/** Takes the policy snapshot. Throws NO_IDENTITY, NO_POLICY or IDENTITY_MISMATCH while it is unknown who this pod is and what holds for it. */
export function govern(located: Located, context: PipelineContext): Governed {
  usableIdentity(context);
  const mesh = context.mesh.current;
  if (mesh === undefined) throw new HandfastError('NO_POLICY', 'no policy has arrived from the agent yet');
  const { self, policy } = selfIn(mesh, context);
  return { ...located, mesh, self, policy };
}

/** This pod in a snapshot, and what holds for it. */
export function selfIn(
  mesh: MeshSnapshot,
  { settings, identity }: Pick<PipelineContext, 'settings' | 'identity'>,
): { self: Workload; policy: TrafficPolicy } {
  const { podNamespace, podName, workloadUid } = settings;
  const self = mesh.registry.workloadOf(workloadUid);
  if (self === undefined) throw new HandfastError('NO_POLICY', `pod ${podNamespace}/${podName} is not in the registry`);
  const policy = mesh.policies.get(self.uid);
  if (policy === undefined) throw new HandfastError('NO_POLICY', `no policy for pod ${podNamespace}/${podName} yet`);
  const own = identity.current?.svid.id.uri;
  if (own !== undefined && own !== self.identity?.uri) {
    throw new HandfastError(
      'IDENTITY_MISMATCH',
      `the registry has pod ${podNamespace}/${podName} as ${self.identity?.uri ?? 'nobody'}, but its token proves ${own}`,
    );
  }
  return { self, policy };
}

/** Whom the sidecar speaks for, as records have it. */
export function ownIdOf({ self }: Pick<Governed, 'self'>): { ownId?: string } {
  return self.identity === undefined ? {} : { ownId: self.identity.uri };
}

/** Identity and revocation list for a handshake now. Throws NO_IDENTITY when one has not arrived, or the certificate has expired or is revoked itself. */
export function usableIdentity(context: Pick<PipelineContext, 'identity' | 'revocations' | 'now'>): {
  identity: Identity;
  revocations: RevocationList;
} {
  const { now } = context;
  const { current } = context.identity;
  const revocations = context.revocations.current;
  if (current === undefined) throw new HandfastError('NO_IDENTITY', 'no certificate has arrived yet');
  if (now() > current.svid.notAfter) {
    throw new HandfastError(
      'NO_IDENTITY',
      `our certificate expired at ${new Date(current.svid.notAfter).toISOString()} and no new one has arrived`,
    );
  }
  if (revocations === undefined) throw new HandfastError('NO_IDENTITY', 'no revocation list has arrived from the SDS server yet');
  const revoked = revocationOf(current.svid, revocations);
  if (revoked !== undefined) throw new HandfastError('NO_IDENTITY', `our own certificate is of no use: ${revoked}`);
  return { identity: current, revocations };
}

/** A dial whose failure is coded and says to whom. */
export async function dialUpstream(tracked: Tracked, options: DialOptions): Promise<Socket> {
  try {
    return await dial({ ...options, onSocket: (socket) => tracked.own(socket) });
  } catch (cause) {
    throw dialError(cause, { address: options.host, port: options.port });
  }
}

/** What a dial failed with, coded, and to whom it went. */
export function dialError(cause: unknown, to: Endpoint): HandfastError {
  if (cause instanceof DialTimeout) return new HandfastError('DIAL_TIMEOUT', cause.message, { cause });
  return new HandfastError('DIAL_FAILED', `${show(to)}: ${messageOf(cause)}`, { cause });
}

/** Throws what a verdict refuses. */
export function enforce(verdict: Verdict): void {
  if (!verdict.allowed) throw new HandfastError(verdict.code, verdict.reason);
}

/** A verdict on an open connection, also where the way to it throws. */
export function judging(judge: () => Judgement): Judgement {
  try {
    return judge();
  } catch (error) {
    if (!(error instanceof HandfastError)) throw error;
    // A pod that left the registry is draining: what is open was allowed, and no switch says otherwise. New connections are refused.
    return error.code === 'NO_POLICY' ? { allowed: true } : { allowed: false, code: error.code, reason: error.message };
  }
}

/** Has the connection judged by every later snapshot, beginning with what came while it was still on its way. */
export function judgeFromNowOn(
  tracked: Tracked,
  of: { context: PipelineContext; judgedBy: MeshSnapshot; verifiedBy?: TrustBundles; judge: (mesh: MeshSnapshot) => Judgement },
): void {
  tracked.rejudge = of.judge;
  const latest = of.context.mesh.current;
  const { peer } = tracked.known;
  const { revocations, identity } = of.context;
  if (peer !== undefined && revocations.current !== undefined) enforce(decideRevocation(peer, revocations.current));
  if (peer !== undefined && identity.current !== undefined && identity.current.bundles !== of.verifiedBy)
    enforce(decideTrust(peer, identity.current.bundles));
  if (latest === undefined || latest === of.judgedBy) return;
  const judgement = of.judge(latest);
  if (judgement.allowed === false) throw new HandfastError(judgement.code, judgement.reason);
  // It was begun in good faith and is still taken: it drains like the others.
  if (judgement.allowed === 'drain') tracked.judgeAgain(latest);
}
