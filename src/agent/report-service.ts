// What sidecars report to their agent: whom they are connected to now, and whom they have been.

import type { Server } from '@grpc/grpc-js';
import { type ReportServiceServer, ReportServiceService } from '../wire/gen/handfast/report/v1/report.ts';
import type { Ledgers } from './ledgers.ts';
import type { LivePeers } from './live-peers.ts';
import type { StreamSessions } from './stream-session.ts';

export function addReportService(server: Server, deps: { opener: StreamSessions; livePeers: LivePeers; ledgers: Ledgers }): void {
  const { opener, livePeers, ledgers } = deps;
  const service: ReportServiceServer = {
    report: (call) =>
      opener.open(call, ({ identity, connection, stillProven }) =>
        livePeers.follow(call, { spiffeId: identity.svid.id.uri, connection, stillProven }),
      ),
    record: (call) =>
      opener.open(call, ({ identity, connection, stillProven }) =>
        ledgers.follow(call, { spiffeId: identity.svid.id.uri, connection, stillProven }),
      ),
  };
  server.addService(ReportServiceService, service);
}
