// The CA's RPCs for workloads: certificates (istio.v1.auth.IstioCertificateService) and JWT-SVIDs. Whoever holds a workload's token may have
// them for that workload, no other.

import { type Metadata, type Server, type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { readCsr } from '../spiffe/csr.ts';
import { type SpiffeId, workloadSpiffeId } from '../spiffe/spiffe-id.ts';
import { type JwtSvidServiceServer, JwtSvidServiceService } from '../wire/gen/handfast/ca/v1/ca.ts';
import {
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  type IstioCertificateServiceServer,
  IstioCertificateServiceService,
} from '../wire/gen/istio/v1/auth/citadel.ts';
import { bearerToken, statusError } from '../wire/grpc.ts';
import { AttemptLimits } from './attempt-limits.ts';
import type { Authority, IssuedSvid } from './authority.ts';
import { caCaller, LOCAL_NODE } from './callers.ts';
import type { TokenProver } from './local-token.ts';
import { RefusalLog } from './refusal-log.ts';

export interface WorkloadServiceDeps {
  readonly authority: Authority;
  readonly prover: TokenProver;
  /** Whether a workload's token suffices (Istio's agents and ztunnel have nothing else), or a node must ask for it. */
  readonly tokensAlone: boolean;
  readonly log: Log;
  readonly now: () => number;
  /** Shared by all servers of one CA: nobody gets a share on each. */
  readonly attempts?: AttemptLimits;
  readonly refusals?: RefusalLog;
}

type Deps = WorkloadServiceDeps & Required<Pick<WorkloadServiceDeps, 'attempts' | 'refusals'>>;

/** What it takes to prove whose a token is. */
export type ProvingDeps = Pick<Deps, 'prover' | 'authority' | 'attempts' | 'now'>;

export function addWorkloadServices(server: Server, options: WorkloadServiceDeps): void {
  const { log } = options;
  const deps: Deps = { attempts: new AttemptLimits(), refusals: new RefusalLog(log), ...options };
  const certificates: IstioCertificateServiceServer = {
    createCertificate: (call: CertificateCall, callback: sendUnaryData<IstioCertificateResponse>) =>
      reply(
        sign(call, deps).then(({ chain }) => ({ certChain: [...chain] })),
        { callback, refused: deps.refusals.of(call, 'certificate refused') },
      ),
  };
  server.addService(IstioCertificateServiceService, certificates);
  const jwtSvids: JwtSvidServiceServer = {
    signJwtSvid: (call, callback) => {
      const signing = async () => {
        const { node } = whoAsks(call, deps);
        const id = await proveWorkload(call, deps);
        const { token, issuedAt, expiresAt } = await deps.authority.signJwtSvid({ id, audience: call.request.audience, node });
        log.info(
          { spiffeId: id.uri, audience: call.request.audience, expiresAt: new Date(expiresAt * 1000).toISOString() },
          'JWT-SVID issued',
        );
        return { spiffeId: id.uri, token, issuedAt, expiresAt };
      };
      reply(signing(), { callback, refused: deps.refusals.of(call, 'JWT-SVID refused') });
    },
  };
  server.addService(JwtSvidServiceService, jwtSvids);
}

type CertificateCall = ServerUnaryCall<IstioCertificateRequest, IstioCertificateResponse>;

async function sign(call: CertificateCall, deps: Deps): Promise<IssuedSvid> {
  const { request } = call;
  const asking = whoAsks(call, deps);
  const id = await proveWorkload(call, deps);
  const csr = readCsr(request.csr);
  // The token decides. A CSR that asks for anybody else is an attack or a mistake; neither gets a certificate.
  const foreign = csr.uris.find((uri) => uri !== id.uri);
  if (foreign !== undefined) {
    throw new HandfastError('IDENTITY_MISMATCH', `the CSR asks for ${JSON.stringify(foreign)}, the token proves ${id.uri}`);
  }
  const ttlMs = request.validityDuration * 1000;
  const issued = await deps.authority.issue({ id, publicKey: csr.publicKey, ttlMs, ...asking });
  const notAfter = new Date(issued.notAfter).toISOString();
  deps.log.info({ spiffeId: id.uri, serial: issued.serial, notAfter, ...asking }, 'certificate issued');
  return issued;
}

/** Who asks, for ledger and limits: a node for its workloads, or somebody with a token, who follows no bundle of ours. */
function whoAsks(call: { getPeer(): string }, { tokensAlone, authority, now }: Deps): { node: string; purpose: string } {
  const caller = caCaller(call, { trustDomain: authority.trustDomain, now: now() });
  if (caller.kind === 'agent') return { node: caller.name, purpose: 'workload' };
  if (caller.kind === 'anonymous' && tokensAlone) return { node: caller.name, purpose: 'token-alone' };
  throw statusError(status.PERMISSION_DENIED, 'certificates are given to agents: join as a node (or start the CA with --tokens-alone)');
}

/** Throws TOKEN_REFUSED, RATE_LIMITED or UNAVAILABLE. */
export async function proveWorkload(call: { metadata: Metadata; getPeer(): string }, deps: ProvingDeps): Promise<SpiffeId> {
  const { prover, authority, attempts, now } = deps;
  const token = bearerToken(call.metadata);
  if (token === undefined) throw new HandfastError('TOKEN_REFUSED', 'no bearer token came with the request');
  attempts.take(call);
  const { namespace, serviceAccount, nodeName } = await prover.prove(token);
  const caller = caCaller(call, { trustDomain: authority.trustDomain, now: now() });
  // A token that was stolen from another node's pod is worth nothing to this node.
  if (nodeName !== undefined && caller.kind === 'agent' && caller.name !== LOCAL_NODE && caller.name !== nodeName)
    throw new HandfastError('TOKEN_REFUSED', `the token is of a pod on node ${nodeName}, and node ${caller.name} brought it`);
  return workloadSpiffeId({ trustDomain: authority.trustDomain, namespace, serviceAccount });
}

function reply<T>(making: Promise<T>, to: { callback: sendUnaryData<T>; refused: (error: unknown) => void }): void {
  making.then(
    (answer) => to.callback(null, answer),
    (error) => {
      to.refused(error);
      to.callback(statusOf(error));
    },
  );
}

/** The caller learns what it got wrong; the details stay in our log. */
export function statusOf(error: unknown) {
  // Made for the caller as it is.
  if (!(error instanceof HandfastError)) {
    const { code, details } = Object(error);
    return typeof code === 'number' && typeof details === 'string'
      ? statusError(code, details)
      : statusError(status.INTERNAL, 'the certificate could not be issued');
  }
  switch (error.code) {
    case 'TOKEN_REFUSED':
      return statusError(status.UNAUTHENTICATED, 'the token was refused');
    case 'JOIN_TOKEN_REFUSED':
      return statusError(status.UNAUTHENTICATED, error.message);
    case 'IDENTITY_MISMATCH':
      return statusError(status.PERMISSION_DENIED, 'the CSR asks for an identity that the token does not prove');
    case 'IDENTITY_BLOCKED':
      return statusError(status.FAILED_PRECONDITION, error.message);
    case 'CSR_REFUSED':
    case 'JWT_INVALID':
      return statusError(status.INVALID_ARGUMENT, error.message);
    case 'RATE_LIMITED':
      return statusError(status.RESOURCE_EXHAUSTED, error.message);
    case 'UNAVAILABLE':
      return statusError(status.UNAVAILABLE, 'the token could not be checked now');
    default:
      return statusError(status.INTERNAL, 'the certificate could not be issued');
  }
}
