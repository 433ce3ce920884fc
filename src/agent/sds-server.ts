// SDS v3 on the agent's socket, state of the world and delta: a stream gets the certificate of the workload it has proven to be, nothing else.

import { type Server, status } from '@grpc/grpc-js';
import { shortened } from '../discovery/answer.ts';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import { secretNames } from '../discovery/identity-source.ts';
import type { ReceiptBook } from '../discovery/receipt-book.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import type { StreamAnswers } from '../discovery/resource-view.ts';
import { type StateOfTheWorldStream, serveStateOfTheWorldStream } from '../discovery/state-of-the-world-server.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { Log } from '../observe/log.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError } from '../wire/grpc.ts';
import { InstanceHoldings } from './instance-holdings.ts';
import type { SdsStreams } from './sds-streams.ts';
import { type AskedFor, SecretStream } from './secret-streams.ts';
import type { ServedWorkload, StreamSessions } from './stream-session.ts';
import type { WorkloadSession } from './workload-sessions.ts';

const { jwks: _notServed, ...ownNames } = secretNames;
const TRUST_DOMAIN_ID = /^spiffe:\/\/[a-z0-9._-]{1,255}$/;
const MAX_TRUST_DOMAINS = 100;
/** Of a stream of secrets: each change is answered, and many secrets may change often. */
const REQUESTS = { burst: 1_000, perSecond: 200 };

interface SdsServiceDeps {
  readonly streams: SdsStreams;
  readonly receipts: ReceiptBook;
  readonly log: Log;
  readonly now: () => number;
}

export function addSdsService(server: Server, of: SdsServiceDeps & { opener: StreamSessions }): void {
  const { opener } = of;
  const deps = { ...of, holdings: new InstanceHoldings(of) };
  const service: SecretDiscoveryServiceServer = {
    streamSecrets: (call: StateOfTheWorldStream) =>
      opener.open(call, (workload) => {
        const { common, admit, end } = prepare(workload, { ...deps, protocol: 'state-of-the-world' });
        serveStateOfTheWorldStream(call, {
          ...common,
          typeUrl: typeUrls.secret,
          admit: ({ resourceNames: names, node, versionInfo }) => admit({ names, nodeId: node?.id, holds: versionInfo !== '' }),
        });
        return end;
      }),
    deltaSecrets: (call: DeltaStream) =>
      opener.open(call, (workload) => {
        const { common, admit, end } = prepare(workload, { ...deps, protocol: 'delta' });
        serveDeltaStream(call, {
          ...common,
          typeUrl: typeUrls.secret,
          admit: ({ resourceNamesSubscribe: names, node }) => admit({ names, nodeId: node?.id, holds: false }),
        });
        return end;
      }),
  };
  server.addService(SecretDiscoveryServiceService, service);
}

/** What both protocols are given: what the workload may have, and a place in the registry of streams that hears of ACK and NACK. */
function prepare(
  workload: ServedWorkload,
  deps: SdsServiceDeps & { holdings: InstanceHoldings; protocol: 'state-of-the-world' | 'delta' },
) {
  const { identity, peer, rules } = workload;
  const { protocol, log } = deps;
  const spiffeId = identity.svid.id.uri;
  const view = new SecretStream(workload, { ...deps, saysGone: protocol === 'state-of-the-world' });
  const entry = deps.streams.open({ spiffeId, peer, protocol, view });
  const receipts = view.answers;
  const answers: StreamAnswers = {
    acked: (acked) => {
      entry.acked(acked.versions);
      receipts.acked?.(acked);
    },
    ...(receipts.settled === undefined ? {} : { settled: receipts.settled }),
    nacked: ({ versions, reason }) => entry.nacked(versions, reason),
    dropped: ({ names }) => entry.dropped(names),
  };
  const admitCertificates = admission(workload, log);
  const limit = requestLimit(REQUESTS);
  return {
    common: { ...rules, view, peer: spiffeId, log, answers },
    admit: (asked: AskedFor) => {
      if (view.admit(asked)) limit();
      else admitCertificates(asked.names);
    },
    end: () => {
      entry.end();
      view.end();
    },
  };
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
