// The unary half of the Workload API: JWT-SVIDs for the caller's workloads, and the verdict on somebody else's.

import { type ServerUnaryCall, status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import { jwtTrustOf, type NodeTrust } from '../node/node-trust.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import { isTooMuchAudience, MAX_AUDIENCE_BYTES } from '../spiffe/audiences.ts';
import { judgeJwtSvid, mayJudge } from '../spiffe/jwt-trust.ts';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import type {
  JWTSVID,
  JWTSVIDRequest,
  JWTSVIDResponse,
  ValidateJWTSVIDRequest,
  ValidateJWTSVIDResponse,
} from '../wire/gen/spiffe/workload/workload.ts';
import { statusError } from '../wire/grpc.ts';
import type { JwtSvidSigner } from './jwt-svid-cache.ts';
import { isRefusal, noIdentity } from './workload-api-errors.ts';
import { validateJwtSvidResponse } from './workload-api-messages.ts';
import type { WorkloadGate } from './workload-gate.ts';
import type { Registration } from './workload-registrations.ts';

interface JwtDeps {
  readonly gate: WorkloadGate;
  readonly signer: JwtSvidSigner;
  readonly trust: Snapshot<NodeTrust>;
  readonly log: Log;
  readonly now: () => number;
}

const MAX_AUDIENCES = 32;
const MAX_AUDIENCE_LENGTH = 1024;

/** Rejects with the status to refuse with. */
export async function fetchJwtSvids(call: ServerUnaryCall<JWTSVIDRequest, JWTSVIDResponse>, deps: JwtDeps): Promise<JWTSVIDResponse> {
  const { peer, workloads } = deps.gate.admit(call);
  const { audience, spiffeId } = call.request;
  if (audience.length === 0) throw invalid('name at least one audience');
  if (audience.length > MAX_AUDIENCES) throw invalid(`at most ${MAX_AUDIENCES} audiences`);
  for (const each of audience) checkAudience(each);
  if (isTooMuchAudience(audience)) throw invalid(`audiences of more than ${MAX_AUDIENCE_BYTES} bytes together`);
  if (spiffeId !== '') checkSpiffeId(spiffeId);
  const asked = spiffeId === '' ? workloads : workloads.filter((each) => each.spiffeId.uri === spiffeId);
  if (asked.length === 0) throw statusError(status.PERMISSION_DENIED, `this process is not registered as ${spiffeId}`);
  const signed = await Promise.allSettled(asked.map((registration) => sign(registration, audience, deps)));
  const failures = signed.flatMap((result): unknown[] => (result.status === 'rejected' ? [result.reason] : []));
  // One that is not answered for fails the call: leaving it out would make another identity the default.
  const unanswered = failures.find((failure) => !isRefusal(failure));
  if (unanswered !== undefined || failures.length === signed.length) throw noIdentity(unanswered ?? failures[0]);
  // The caller may have ended, and its registration been withdrawn, while the CA signed.
  const still = new Set(deps.gate.attest(peer).map((registration) => registration.spiffeId.uri));
  const svids = signed.flatMap((result) => (result.status === 'fulfilled' && still.has(result.value.spiffeId) ? [result.value] : []));
  if (svids.length === 0) throw statusError(status.PERMISSION_DENIED, 'no workload is registered for this process');
  return { svids };
}

async function sign(
  { spiffeId, token, tokenFile }: Registration,
  audience: readonly string[],
  { signer, trust, log }: JwtDeps,
): Promise<JWTSVID> {
  try {
    if (trust.current?.crl.blockedIds.has(spiffeId.uri) === true)
      throw new HandfastError('IDENTITY_BLOCKED', `${spiffeId.uri} has been blocked`);
    if (token.current === undefined) throw new HandfastError('NO_IDENTITY', `${tokenFile} holds no token`);
    const svid = await signer.signJwtSvid({ token: token.current, audience });
    if (svid.spiffeId !== spiffeId.uri) {
      throw new HandfastError('IDENTITY_MISMATCH', `${tokenFile} proves ${svid.spiffeId}, but is registered for ${spiffeId.uri}`);
    }
    return { spiffeId: svid.spiffeId, svid: svid.token, hint: '' };
  } catch (error) {
    log.warn({ spiffeId: spiffeId.uri, reason: messageOf(error) }, 'no JWT-SVID for a registered workload');
    throw error;
  }
}

/** Rejects with the status to refuse with; for a token that is not valid INVALID_ARGUMENT and the reason, as the standard has it. */
export async function validateJwtSvid(
  call: ServerUnaryCall<ValidateJWTSVIDRequest, ValidateJWTSVIDResponse>,
  deps: JwtDeps,
): Promise<ValidateJWTSVIDResponse> {
  deps.gate.admit(call);
  const { audience, svid } = call.request;
  checkAudience(audience);
  if (svid === '') throw invalid('send the JWT-SVID to validate');
  const trust = deps.trust.current;
  if (trust === undefined) throw statusError(status.UNAVAILABLE, 'the keys of the trust domain are not known yet');
  const jwtTrust = jwtTrustOf(trust);
  if (!mayJudge(jwtTrust, deps.now())) throw statusError(status.UNAVAILABLE, 'no list of revocations that is still good has come');
  const { id, claims } = verified(svid, { audience, trust: jwtTrust, now: deps.now() });
  return validateJwtSvidResponse(id.uri, claims);
}

function verified(token: string, options: Parameters<typeof judgeJwtSvid>[1]): ReturnType<typeof judgeJwtSvid> {
  try {
    return judgeJwtSvid(token, options);
  } catch (error) {
    throw invalid(messageOf(error));
  }
}

function checkAudience(audience: string): void {
  if (audience === '') throw invalid('an audience must not be empty');
  if (audience.length > MAX_AUDIENCE_LENGTH) throw invalid(`an audience is longer than ${MAX_AUDIENCE_LENGTH} characters`);
}

function checkSpiffeId(uri: string): void {
  try {
    parseSpiffeId(uri);
  } catch (error) {
    throw invalid(messageOf(error));
  }
}

function invalid(details: string): Error {
  return statusError(status.INVALID_ARGUMENT, details);
}
