// SDS v3 on the agent's socket, state of the world and delta: a stream gets the certificate of the workload it has proven to be, nothing else.

import { type Server, status } from '@grpc/grpc-js';
import { shortened } from '../discovery/answer.ts';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import { secretNames } from '../discovery/identity-source.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import { type StateOfTheWorldStream, serveStateOfTheWorldStream } from '../discovery/state-of-the-world-server.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { Log } from '../observe/log.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError } from '../wire/grpc.ts';
import type { SdsStreams } from './sds-streams.ts';
import type { ServedWorkload, StreamSessions } from './stream-session.ts';
import type { WorkloadSession } from './workload-sessions.ts';

const { jwks: _notServed, ...ownNames } = secretNames;
const TRUST_DOMAIN_ID = /^spiffe:\/\/[a-z0-9._-]{1,255}$/;
const MAX_TRUST_DOMAINS = 100;

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
        serveDeltaStream(call, { ...common, typeUrl: typeUrls.secret, admit: (request) => admit(request.resourceNamesSubscribe) });
        return end;
      }),
  };
  server.addService(SecretDiscoveryServiceService, service);
}

/** What both protocols are given: the workload's secrets, and a place in the registry of streams that hears of ACK and NACK. */
function prepare(
  { session, identity, peer, rules }: ServedWorkload,
  deps: { streams: SdsStreams; log: Log; protocol: 'state-of-the-world' | 'delta' },
) {
  const spiffeId = identity.svid.id.uri;
  const entry = deps.streams.open({ spiffeId, peer, protocol: deps.protocol, view: session.secrets });
  const answers = {
    acked: ({ versions }: { versions: ReadonlyMap<string, string> }) => entry.acked(versions),
    nacked: ({ versions, reason }: { versions: ReadonlyMap<string, string>; reason: string }) => entry.nacked(versions, reason),
    dropped: ({ names }: { names: readonly string[] }) => entry.dropped(names),
  };
  return { common: { ...rules, view: session.secrets, peer: spiffeId, log: deps.log, answers }, end: () => entry.end() };
}

/** Ends a stream that asks too often, or for what its proof does not cover. What it may have, but is not there yet, comes when it is known. */
function admission({ session, identity }: ServedWorkload, log: Log): (names: readonly string[]) => void {
  const limit = requestLimit();
  const { uri } = identity.svid.id;
  const own: ReadonlySet<string> = new Set(['*', uri, ...Object.values(ownNames)]);
  /** Bundles of other trust domains are nobody's secret; they are counted because they need not exist. */
  const trustDomains = new Set<string>();
  return (names) => {
    limit();
    for (const name of names) {
      if (own.has(name)) continue;
      if (!TRUST_DOMAIN_ID.test(name)) throw foreign(name, { session, uri, log });
      if (trustDomains.add(name).size > MAX_TRUST_DOMAINS)
        throw statusError(status.RESOURCE_EXHAUSTED, `more than ${MAX_TRUST_DOMAINS} trust domains on one stream`);
    }
  };
}

function foreign(name: string, { session, uri, log }: { session: WorkloadSession; uri: string; log: Log }): Error {
  const asked = shortened(name);
  log.warn({ spiffeId: uri, asked }, 'a stream asked for a secret that its workload does not have');
  const known = [...(session.secrets.resources(typeUrls.secret)?.keys() ?? [])].join(', ');
  return statusError(status.PERMISSION_DENIED, `${JSON.stringify(asked)}: this stream proves ${uri}; there are ${shortened(known)}`);
}
