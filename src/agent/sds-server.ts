// SDS v3 on the agent's socket, state of the world and delta: a stream gets the certificate of the workload it has proven to be, nothing else.

import { type Server, status } from '@grpc/grpc-js';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import { type StateOfTheWorldStream, serveStateOfTheWorldStream } from '../discovery/state-of-the-world-server.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { Log } from '../observe/log.ts';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError } from '../wire/grpc.ts';
import type { SdsStreams } from './sds-streams.ts';
import type { ServedWorkload, StreamSessions } from './stream-session.ts';

/** On one stream: an answer to each rotation and a change of names now and then are far below this. */
const REQUESTS: Rate = { burst: 100, perSecond: 20 };

export function addSdsService(server: Server, deps: { opener: StreamSessions; streams: SdsStreams; log: Log }): void {
  const { opener, log } = deps;
  const service: SecretDiscoveryServiceServer = {
    streamSecrets: (call: StateOfTheWorldStream) =>
      opener.open(call, (workload) => {
        const { common, end } = prepare(workload, { ...deps, protocol: 'state-of-the-world' });
        const admit = admission(workload, log);
        serveStateOfTheWorldStream(call, { ...common, typeUrl: typeUrls.secret, admit: (request) => admit(request.resourceNames) });
        return end;
      }),
    deltaSecrets: (call: DeltaStream) =>
      opener.open(call, (workload) => {
        const { common, end } = prepare(workload, { ...deps, protocol: 'delta' });
        const admit = admission(workload, log);
        serveDeltaStream(call, {
          ...common,
          admit: (request) => {
            if (request.typeUrl !== '' && request.typeUrl !== typeUrls.secret)
              throw statusError(status.INVALID_ARGUMENT, `${request.typeUrl} is not served here, only ${typeUrls.secret}`);
            admit(request.resourceNamesSubscribe.filter((name) => name !== '*'));
          },
        });
        return end;
      }),
  };
  server.addService(SecretDiscoveryServiceService, service);
}

/** What both protocols are given: the workload's secrets, and a place in the registry of streams that hears of ACK and NACK. */
function prepare(
  { session, identity, peer }: ServedWorkload,
  deps: { streams: SdsStreams; log: Log; protocol: 'state-of-the-world' | 'delta' },
) {
  const spiffeId = identity.svid.id.uri;
  const entry = deps.streams.open({ spiffeId, peer, protocol: deps.protocol, view: session.secrets });
  const answers = {
    acked: ({ versions }: { versions: ReadonlyMap<string, string> }) => entry.acked(versions),
    nacked: ({ versions, reason }: { versions: ReadonlyMap<string, string>; reason: string }) => entry.nacked(versions, reason),
  };
  return { common: { view: session.secrets, peer: spiffeId, log: deps.log, answers }, end: () => entry.end() };
}

/** Ends a stream that asks too often, or for what its proof does not cover. */
function admission({ session, identity }: ServedWorkload, log: Log): (names: readonly string[]) => void {
  const requests = new TokenBucket(REQUESTS);
  const { uri } = identity.svid.id;
  return (names) => {
    if (requests.take() > 0)
      throw statusError(status.RESOURCE_EXHAUSTED, `more than ${REQUESTS.perSecond} requests a second on one stream`);
    const known = session.secrets.resources(typeUrls.secret);
    const foreign = names.find((name) => known?.has(name) !== true);
    if (foreign === undefined) return;
    log.warn({ spiffeId: uri, asked: foreign }, 'a stream asked for a secret that its workload does not have');
    const details = `${JSON.stringify(foreign)}: this stream proves ${uri}; there are ${[...(known?.keys() ?? [])].join(', ')}`;
    throw statusError(status.PERMISSION_DENIED, details);
  };
}
