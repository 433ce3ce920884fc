// The identity API on a socket of the agent, secrets included, for programs without a sidecar: who they are the kernel says, as for the Workload API.

import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import { isPassedOn } from '../identity-api/guard.ts';
import { httpOf } from '../identity-api/identity-http.ts';
import { IdentityRequests } from '../identity-api/identity-requests.ts';
import { type Reply, refused, unavailable } from '../identity-api/reply.ts';
import { isAboutSecrets, SecretRequests } from '../identity-api/secret-requests.ts';
import { type PeerCredentials, peerCredentials } from '../net/peer-credentials.ts';
import type { Log } from '../observe/log.ts';
import { TokenBucket } from '../rate-limit.ts';
import type { JwtTrust } from '../spiffe/jwt-trust.ts';
import { ConnectionCounts } from '../wire/connection-counts.ts';
import { holdPath } from '../wire/socket-path.ts';
import type { Attestor } from './attestor.ts';
import type { JwtSvid, JwtSvidRequest, JwtSvidSigner } from './jwt-svid-cache.ts';
import type { SocketSecrets } from './socket-secrets.ts';
import { defaultWorkloadApiLimits, WorkloadGate } from './workload-gate.ts';
import type { Registration } from './workload-registrations.ts';

export interface IdentitySocketOptions {
  readonly path: string;
  readonly attestor: Attestor;
  /** The CA, behind a cache. */
  readonly signer: JwtSvidSigner;
  readonly trust: () => JwtTrust | undefined;
  readonly secrets: SocketSecrets;
  readonly log: Log;
  readonly now: () => number;
}

/** As the Workload API has them. */
const CONNECTIONS = { maxPerCaller: 32, maxPerUser: 512 };

/** Everybody may open it; a socket that is served already is taken over. */
export async function serveIdentitySocket(options: IdentitySocketOptions): Promise<{ close(): Promise<void> }> {
  const { log, attestor, path } = options;
  const gate = new WorkloadGate({ attestor, log, limits: defaultWorkloadApiLimits });
  const callers = new WeakMap<Socket, Caller>();
  const complaints = new TokenBucket({ burst: 1, perSecond: 1 });
  const http = httpOf({
    log,
    answer: (request) => {
      const caller = callers.get(request.socket);
      if (caller === undefined) return refused(403, 'UNKNOWN', 'the caller is not known');
      return objectionTo(request, { peer: caller.peer, gate }) ?? answerStill(request, caller);
    },
  });
  const counts = new ConnectionCounts(CONNECTIONS);
  http.on('connection', (socket) => {
    try {
      const caller = { kind: 'unix', peer: peerCredentials(socket) } as const;
      const full = counts.fullFor(caller);
      if (full !== undefined) throw new HandfastError('RATE_LIMITED', full);
      counts.add(caller);
      socket.once('close', () => counts.remove(caller));
      callers.set(socket, { peer: caller.peer, ...requestsOf(caller.peer, { ...options, gate }) });
    } catch (error) {
      socket.destroy();
      if (complaints.take() === 0) log.warn({ reason: messageOf(error) }, 'identity socket: connection refused');
    }
  });
  const held = await holdPath(http, { path, mode: 0o666, takeOver: true });
  http.on('error', (error) => log.error({ reason: messageOf(error) }, 'identity socket'));
  return {
    close: async () => {
      held.release();
      options.secrets.close();
      await new Promise<void>((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      });
    },
  };
}

interface Caller {
  readonly peer: PeerCredentials;
  /** What the process is registered for now. Throws IDENTITY_MISMATCH. */
  readonly own: () => Registration | undefined;
  readonly requests: IdentityRequests;
}

/** One connection's: its process may be one workload, and that one's token is what the CA is asked with. */
function requestsOf(
  peer: PeerCredentials,
  { gate, signer, trust, secrets, log, now }: IdentitySocketOptions & { gate: WorkloadGate },
): Pick<Caller, 'own' | 'requests'> {
  const own = () => {
    try {
      return only(gate.attest(peer));
    } catch (cause) {
      throw new HandfastError('IDENTITY_MISMATCH', messageOf(cause), { cause });
    }
  };
  const requests = new IdentityRequests({
    token: () => own()?.token.current,
    signer: { signJwtSvid: (request) => sign(request, { signer, own }) },
    trust,
    secrets: new SecretRequests({
      secrets: async () => {
        const registration = own();
        return registration === undefined ? undefined : secrets.of(registration);
      },
    }),
    log,
    now,
  });
  return { own, requests };
}

/** A secret may be waited for, and the process have ended or lost its registration meanwhile. */
async function answerStill(request: IncomingMessage, { own, requests }: Caller): Promise<Reply> {
  if (!isAboutSecrets(request.url)) return requests.answer(request);
  try {
    const before = own();
    const reply = await requests.answer(request);
    return before === own() ? reply : refused(403, 'NOT_REGISTERED', 'the registration of this process has changed: come again');
  } catch (error) {
    if (!(error instanceof HandfastError)) throw error;
    return error.code === 'IDENTITY_MISMATCH'
      ? refused(403, 'NOT_REGISTERED', error.message)
      : unavailable('no secret can be had at the moment');
  }
}

async function sign(
  request: JwtSvidRequest,
  { signer, own }: { signer: JwtSvidSigner; own: () => Registration | undefined },
): Promise<JwtSvid> {
  const svid = await signer.signJwtSvid(request);
  // The caller may have ended, and its registration been withdrawn, while the CA signed.
  if (own()?.spiffeId.uri === svid.spiffeId) return svid;
  throw new HandfastError('IDENTITY_MISMATCH', `the token proves ${svid.spiffeId}, for which this process is not registered`);
}

function only(workloads: readonly Registration[]): Registration | undefined {
  return workloads.length === 1 ? workloads[0] : undefined;
}

function objectionTo(request: IncomingMessage, { peer, gate }: { peer: PeerCredentials; gate: WorkloadGate }): Reply | undefined {
  const passedOn = isPassedOn(request.headers);
  if (passedOn !== undefined) return passedOn;
  try {
    const { workloads } = gate.admitPeer(peer);
    if (workloads.length === 1) return undefined;
    return refused(403, 'SEVERAL_IDENTITIES', `this process is registered for ${workloads.length} workloads: use the Workload API`);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === status.RESOURCE_EXHAUSTED) return refused(429, 'RATE_LIMITED', messageOf(error), { 'retry-after': '1' });
    if (code === status.PERMISSION_DENIED) return refused(403, 'NOT_REGISTERED', messageOf(error));
    throw error;
  }
}
