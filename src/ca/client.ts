// The agent's side of the CA: a CSR and the workload's token go out, a chain comes back.

import { credentials, type ServiceError, status } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import { IstioCertificateServiceClient } from '../wire/gen/istio/v1/auth/citadel.ts';
import { bearerMetadata, channelOptions } from '../wire/grpc.ts';

const DEADLINE_MS = 10_000;

/** Chain without the root, and the root as the trust bundle: PEM. */
export interface SignedChain {
  readonly chain: string;
  readonly bundle: string;
}

export class CaClient {
  readonly #client: IstioCertificateServiceClient;

  /** `address` as gRPC has it: `unix:/run/handfast/ca.sock`. */
  constructor(address: string) {
    this.#client = new IstioCertificateServiceClient(address, credentials.createInsecure(), channelOptions);
  }

  /** Throws TOKEN_REFUSED, IDENTITY_MISMATCH or CSR_REFUSED when asking again is useless, UNAVAILABLE otherwise. */
  async sign(request: { csr: string; token: string; ttlS?: number }): Promise<SignedChain> {
    const response = await new Promise<{ certChain: string[] }>((resolve, reject) => {
      this.#client.createCertificate(
        { csr: request.csr, validityDuration: request.ttlS ?? 0, metadata: undefined },
        bearerMetadata(request.token),
        { deadline: Date.now() + DEADLINE_MS },
        (error, answer) => (error === null ? resolve(answer) : reject(refusal(error))),
      );
    });
    const bundle = response.certChain.at(-1);
    if (bundle === undefined || response.certChain.length < 2) {
      throw new HandfastError(
        'UNAVAILABLE',
        `the CA answered with ${response.certChain.length} certificates; a leaf and a root at least are needed`,
      );
    }
    return { chain: response.certChain.slice(0, -1).join(''), bundle };
  }

  close(): void {
    this.#client.close();
  }
}

function refusal(error: ServiceError): HandfastError {
  const codes = {
    [status.UNAUTHENTICATED]: 'TOKEN_REFUSED',
    [status.PERMISSION_DENIED]: 'IDENTITY_MISMATCH',
    [status.INVALID_ARGUMENT]: 'CSR_REFUSED',
  } as const;
  const code = Object.entries(codes).find(([grpcCode]) => Number(grpcCode) === error.code)?.[1] ?? 'UNAVAILABLE';
  return new HandfastError(code, `the CA: ${error.details}`, { cause: error });
}
