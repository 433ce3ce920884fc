// JWT-SVIDs for sidecars, on the agent's socket: the token that came with the call says whose, the CA proves it, and the process must be one that may present it.

import { type Server, type ServerUnaryCall, status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { KeyedLimits } from '../rate-limit.ts';
import { callerKey, callerOf } from '../wire/caller.ts';
import {
  type JwtSvidServiceServer,
  JwtSvidServiceService,
  type SignJwtSvidRequest,
  type SignJwtSvidResponse,
} from '../wire/gen/handfast/ca/v1/ca.ts';
import { bearerToken, statusError } from '../wire/grpc.ts';
import type { JwtSvidSigner } from './jwt-svid-cache.ts';
import type { ProcessAttestor } from './stream-session.ts';

interface JwtSvidServiceDeps {
  readonly attestor: Pick<ProcessAttestor, 'objection'>;
  /** The CA: what it signs is kept and used again. */
  readonly signer: JwtSvidSigner;
  readonly log: Log;
}

/** Of one peer: all the sidecars of a node's pods are one where they share the network of the node. */
const CALLS = { burst: 1_000, perSecond: 200 };
/** Each refused token costs the CA a signature check. */
const REFUSALS = { burst: 20, perSecond: 1 };

export function addJwtSvidService(server: Server, deps: JwtSvidServiceDeps): void {
  const limits = { calls: new KeyedLimits(CALLS), refusals: new KeyedLimits(REFUSALS) };
  const service: JwtSvidServiceServer = {
    signJwtSvid: (call, callback) => {
      sign(call, { ...deps, ...limits }).then(
        (svid) => callback(null, svid),
        (error) => callback(statusOf(error)),
      );
    },
  };
  server.addService(JwtSvidServiceService, service);
}

async function sign(
  call: ServerUnaryCall<SignJwtSvidRequest, SignJwtSvidResponse>,
  { attestor, signer, log, calls, refusals }: JwtSvidServiceDeps & { calls: KeyedLimits; refusals: KeyedLimits },
): Promise<SignJwtSvidResponse> {
  const caller = callerOf(call);
  if (caller?.kind !== 'unix') throw new HandfastError('TOKEN_REFUSED', 'workloads are served on a unix socket alone');
  const { peer } = caller;
  const key = callerKey(caller);
  const token = bearerToken(call.metadata);
  if (token === undefined) throw new HandfastError('TOKEN_REFUSED', 'no bearer token came with the request');
  const waitMs = refusals.look(key) || calls.take(key);
  if (waitMs > 0) throw new HandfastError('RATE_LIMITED', `too many calls; the next one in ${Math.ceil(waitMs / 1000)} s`);
  const svid = await signer.signJwtSvid({ token, audience: call.request.audience }).catch((error: unknown) => {
    if (error instanceof HandfastError && error.code === 'TOKEN_REFUSED') refusals.take(key);
    throw error;
  });
  // After the CA: only now is it known whose token that is, and the process may have ended meanwhile.
  if (!peer.alive()) throw new HandfastError('IDENTITY_MISMATCH', 'the process that asked has ended');
  const objection = attestor.objection(peer, { spiffeId: svid.spiffeId, token });
  if (objection === undefined) return svid;
  refusals.take(key);
  const process = { pid: peer.pid, uid: peer.uid, networkNamespace: peer.networkNamespace };
  log.warn({ spiffeId: svid.spiffeId, ...process, ...objection.fields }, objection.said);
  throw new HandfastError('IDENTITY_MISMATCH', objection.told);
}

function statusOf(error: unknown) {
  const codes: Readonly<Partial<Record<HandfastError['code'], status>>> = {
    TOKEN_REFUSED: status.UNAUTHENTICATED,
    IDENTITY_MISMATCH: status.PERMISSION_DENIED,
    IDENTITY_BLOCKED: status.FAILED_PRECONDITION,
    CSR_REFUSED: status.INVALID_ARGUMENT,
    RATE_LIMITED: status.RESOURCE_EXHAUSTED,
  };
  return statusError((error instanceof HandfastError ? codes[error.code] : undefined) ?? status.UNAVAILABLE, messageOf(error));
}
