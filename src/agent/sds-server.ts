// SDS v3 StreamSecrets on the agent's socket: a stream proves itself by its token and gets the certificate of that identity, nothing else.

import { randomUUID } from 'node:crypto';
import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { secretNames } from '../discovery/identity-source.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { Log } from '../observe/log.ts';
import type { Identity } from '../spiffe/identity.ts';
import { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError } from '../wire/grpc.ts';
import { StreamSession } from './stream-session.ts';
import type { WorkloadSessions } from './workload-sessions.ts';

type SdsStream = ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>;

export function addSdsService(server: Server, deps: { sessions: WorkloadSessions; log: Log }): void {
  const service: SecretDiscoveryServiceServer = { streamSecrets: (call: SdsStream) => serveSds(call, deps) };
  server.addService(SecretDiscoveryServiceService, service);
}

function serveSds(call: SdsStream, deps: { sessions: WorkloadSessions; log: Log }): void {
  const session = StreamSession.open(call, { sessions: deps.sessions, onEnd: () => unsubscribe() });
  if (session === undefined) return;
  const { rotator } = session;
  let names: readonly string[] = [];
  let nonce = '';

  const push = (identity: Identity) => {
    if (names.length === 0) return;
    nonce = randomUUID();
    call.write({
      versionInfo: identity.svid.serial,
      typeUrl: typeUrls.secret,
      nonce,
      resources: names.map((name) => secretFor(name, identity)),
    });
  };
  const unsubscribe = rotator.identity.subscribe(push);
  const answer = (request: DiscoveryRequest, identity: Identity) => {
    const { id } = identity.svid;
    if (request.errorDetail !== undefined) {
      deps.log.warn(
        { spiffeId: id.uri, version: request.versionInfo, reason: request.errorDetail.message },
        'secret refused by the workload (NACK)',
      );
      return;
    }
    // An answer to an older response says nothing about the latest one.
    if (request.responseNonce !== '' && request.responseNonce !== nonce) return;
    const asked = request.resourceNames;
    const foreign = asked.find((name) => name !== secretNames.svid && name !== secretNames.bundle && name !== id.uri);
    if (foreign !== undefined) {
      deps.log.warn({ spiffeId: id.uri, asked: foreign }, 'a stream asked for an identity its token does not prove');
      const details = `${JSON.stringify(foreign)}: this token proves ${id.uri}; ask for default, ROOTCA or that ID`;
      call.emit('error', statusError(status.PERMISSION_DENIED, details));
      return;
    }
    if (sameNames(asked, names)) return;
    names = [...asked];
    push(identity);
  };

  call.on('data', (request: DiscoveryRequest) => {
    rotator.ready.then(
      (first) => {
        if (!session.ended) answer(request, rotator.identity.current ?? first);
      },
      () => undefined,
    );
  });
  call.on('end', () => call.end());
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name));
}

function secretFor(name: string, { svid, bundle }: Identity): { typeUrl: string; value: Buffer } {
  const bytes = (pem: string) => ({ specifier: { $case: 'inlineBytes' as const, value: Buffer.from(pem) } });
  const secret: Secret = {
    name,
    type:
      name === secretNames.bundle
        ? { $case: 'validationContext', value: { trustedCa: bytes(bundle.pem) } }
        : {
            $case: 'tlsCertificate',
            value: { certificateChain: bytes(svid.chainPem), privateKey: bytes(svid.keyPem), password: undefined },
          },
  };
  return { typeUrl: typeUrls.secret, value: Buffer.from(Secret.encode(secret).finish()) };
}
