// The asking side of the CA: certificates and JWT-SVIDs for workloads by their tokens, and a node's own certificate.

import { type ServiceError, status } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import { JwtSvidServiceClient, type NodeCertificate, NodeServiceClient, type SignJwtSvidResponse } from '../wire/gen/handfast/ca/v1/ca.ts';
import { type IstioCertificateResponse, IstioCertificateServiceClient } from '../wire/gen/istio/v1/auth/citadel.ts';
import { bearerMetadata } from '../wire/grpc.ts';
import type { GrpcTarget } from '../wire/grpc-target.ts';
import { UnaryClient } from '../wire/unary-client.ts';

const DEADLINE_MS = 10_000;

/** Chain without the root, and the trust bundle: PEM. */
export interface SignedChain {
  readonly chain: string;
  readonly bundle: string;
}

export class CaClient {
  readonly #client: UnaryClient;

  constructor(target: GrpcTarget) {
    this.#client = new UnaryClient(target);
  }

  /** Throws TOKEN_REFUSED, IDENTITY_MISMATCH or CSR_REFUSED when asking again is useless, RATE_LIMITED or UNAVAILABLE otherwise. */
  async sign(request: { csr: string; token: string; ttlS?: number }): Promise<SignedChain> {
    const message = { csr: request.csr, validityDuration: request.ttlS ?? 0, metadata: undefined };
    const { certChain } = await coded(
      this.#client.call<IstioCertificateServiceClient, IstioCertificateResponse>(IstioCertificateServiceClient, (client, callback) =>
        client.createCertificate(message, bearerMetadata(request.token), deadline(), callback),
      ),
    );
    const bundle = certChain.at(-1);
    if (bundle === undefined || certChain.length < 2) {
      const count = `${certChain.length} certificates; a leaf and a root at least are needed`;
      throw new HandfastError('UNAVAILABLE', `the CA answered with ${count}`);
    }
    return { chain: certChain.slice(0, -1).join(''), bundle };
  }

  /** Throws as `sign` does. Times in Unix seconds. */
  signJwtSvid(request: { token: string; audience: readonly string[] }): Promise<SignJwtSvidResponse> {
    return coded(
      this.#client.call<JwtSvidServiceClient, SignJwtSvidResponse>(JwtSvidServiceClient, (client, callback) =>
        client.signJwtSvid({ audience: [...request.audience] }, bearerMetadata(request.token), deadline(), callback),
      ),
    );
  }

  /** A node's first certificate. Throws JOIN_TOKEN_REFUSED when the token is wrong, used or over. */
  async join(request: { joinToken: string; csr: string }): Promise<NodeCertificate> {
    return coded(
      this.#client.call<NodeServiceClient, NodeCertificate>(NodeServiceClient, (client, callback) =>
        client.join(request, bearerMetadata(undefined), deadline(), callback),
      ),
      { [status.UNAUTHENTICATED]: 'JOIN_TOKEN_REFUSED' },
    );
  }

  /** A node's next certificate, proven by the one it has. */
  renew(request: { csr: string }): Promise<NodeCertificate> {
    return coded(
      this.#client.call<NodeServiceClient, NodeCertificate>(NodeServiceClient, (client, callback) =>
        client.renew(request, bearerMetadata(undefined), deadline(), callback),
      ),
    );
  }

  close(): void {
    this.#client.close();
  }
}

function deadline() {
  return { deadline: Date.now() + DEADLINE_MS };
}

const CODES = {
  [status.UNAUTHENTICATED]: 'TOKEN_REFUSED',
  [status.PERMISSION_DENIED]: 'IDENTITY_MISMATCH',
  [status.FAILED_PRECONDITION]: 'IDENTITY_BLOCKED',
  [status.INVALID_ARGUMENT]: 'CSR_REFUSED',
  [status.RESOURCE_EXHAUSTED]: 'RATE_LIMITED',
} as const;

async function coded<T>(call: Promise<T>, codes: Readonly<Record<number, HandfastError['code']>> = CODES): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    if (!isServiceError(cause)) throw cause;
    throw new HandfastError(codes[cause.code] ?? 'UNAVAILABLE', `the CA: ${cause.details}`, { cause });
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error;
}
