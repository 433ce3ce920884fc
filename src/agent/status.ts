// What an operator may know of an agent: its workloads, their streams with what each has taken or refused, and their connections. No keys, no tokens.

import type { MeshNode } from '../node/mesh-node.ts';
import type { LedgerSummary, Ledgers } from './ledgers.ts';
import type { LivePeers, ReportedPeers } from './live-peers.ts';
import type { BehindStream, SdsStreamState, SdsStreams } from './sds-streams.ts';
import type { WorkloadSessions } from './workload-sessions.ts';

/** Times are ISO 8601. */
export interface AgentStatus {
  readonly node: string | undefined;
  readonly trust:
    | { readonly authorities: readonly string[]; readonly revokedSerials: number; readonly blockedIds: readonly string[] }
    | undefined;
  readonly workloads: readonly {
    readonly spiffeId: string;
    readonly serial: string;
    readonly notAfter: string;
    readonly expiresInS: number;
  }[];
  readonly streams: readonly SdsStreamState[];
  /** Streams that have not confirmed the latest trust bundle. */
  readonly behind: readonly BehindStream[];
  readonly connections: readonly ReportedPeers[];
  readonly ledgers: readonly LedgerSummary[];
}

export function agentStatus(of: {
  node: MeshNode;
  sessions: WorkloadSessions;
  streams: SdsStreams;
  livePeers: LivePeers;
  ledgers: Ledgers;
  now: () => number;
}): AgentStatus {
  const trust = of.node.trust.trust.current;
  return {
    node: of.node.identity.current?.svid.id.uri,
    trust:
      trust === undefined
        ? undefined
        : {
            authorities: trust.bundles.own.authorities.map(({ fingerprint256 }) => fingerprint256),
            revokedSerials: trust.crl.serials.size,
            blockedIds: [...trust.crl.blockedIds],
          },
    workloads: of.sessions.identities.map(({ svid }) => ({
      spiffeId: svid.id.uri,
      serial: svid.serial,
      notAfter: new Date(svid.notAfter).toISOString(),
      expiresInS: Math.round((svid.notAfter - of.now()) / 1000),
    })),
    streams: of.streams.states,
    behind: of.streams.behind(),
    connections: of.livePeers.reports,
    ledgers: of.ledgers.summaries,
  };
}
