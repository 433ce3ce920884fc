// The CA's RPC: istio.v1.auth.IstioCertificateService. Whoever holds a workload's token may have a certificate for that workload, no other.

import { type Server, type ServerUnaryCall, type sendUnaryData, status } from '@grpc/grpc-js';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { readCsr } from '../spiffe/csr.ts';
import { workloadSpiffeId } from '../spiffe/spiffe-id.ts';
import {
  type IstioCertificateRequest,
  type IstioCertificateResponse,
  type IstioCertificateServiceServer,
  IstioCertificateServiceService,
} from '../wire/gen/istio/v1/auth/citadel.ts';
import { bearerToken, statusError } from '../wire/grpc.ts';
import type { Authority, IssuedSvid } from './authority.ts';
import type { TokenProver } from './local-token.ts';

export function addCaService(server: Server, deps: { authority: Authority; prover: TokenProver; log: Log }): void {
  const service: IstioCertificateServiceServer = {
    createCertificate: (call: Call, callback: sendUnaryData<IstioCertificateResponse>) => {
      sign(call, deps).then(
        (issued) => callback(null, { certChain: [...issued.chain] }),
        (error) => {
          deps.log.warn(
            { code: error instanceof HandfastError ? error.code : 'INTERNAL', reason: messageOf(error) },
            'certificate refused',
          );
          callback(statusOf(error));
        },
      );
    },
  };
  server.addService(IstioCertificateServiceService, service);
}

type Call = ServerUnaryCall<IstioCertificateRequest, IstioCertificateResponse>;

async function sign({ metadata, request }: Call, deps: { authority: Authority; prover: TokenProver; log: Log }): Promise<IssuedSvid> {
  const token = bearerToken(metadata);
  if (token === undefined) throw new HandfastError('TOKEN_REFUSED', 'no bearer token came with the CSR');
  const workload = await deps.prover.prove(token);
  const id = workloadSpiffeId({ trustDomain: deps.authority.trustDomain, ...workload });
  const csr = readCsr(request.csr);
  // The token decides. A CSR that asks for anybody else is an attack or a mistake; neither gets a certificate.
  const foreign = csr.uris.find((uri) => uri !== id.uri);
  if (foreign !== undefined) {
    throw new HandfastError('IDENTITY_MISMATCH', `the CSR asks for ${JSON.stringify(foreign)}, the token proves ${id.uri}`);
  }
  const issued = await deps.authority.issue({ id, publicKey: csr.publicKey, ttlMs: request.validityDuration * 1000 });
  deps.log.info({ spiffeId: id.uri, serial: issued.serial, notAfter: new Date(issued.notAfter).toISOString() }, 'certificate issued');
  return issued;
}

/** The caller learns which of the three it got wrong; the details stay in our log. */
function statusOf(error: unknown) {
  if (error instanceof HandfastError) {
    if (error.code === 'TOKEN_REFUSED') return statusError(status.UNAUTHENTICATED, 'the token was refused');
    if (error.code === 'IDENTITY_MISMATCH')
      return statusError(status.PERMISSION_DENIED, 'the CSR asks for an identity that the token does not prove');
    if (error.code === 'CSR_REFUSED') return statusError(status.INVALID_ARGUMENT, error.message);
  }
  return statusError(status.INTERNAL, 'the certificate could not be issued');
}
