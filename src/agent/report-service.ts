// What sidecars report to their agent: whom they are connected to now, whom they have been, and what their applications do with secrets.

import type { Server } from '@grpc/grpc-js';
import { believedReceipt, type ReceiptBook } from '../discovery/receipt-book.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import { type ReportServiceServer, ReportServiceService, type SecretReceipts } from '../wire/gen/handfast/report/v1/report.ts';
import type { Ledgers } from './ledgers.ts';
import type { LivePeers } from './live-peers.ts';
import type { Reporter, ReportStream } from './report-stream.ts';
import type { StreamSessions } from './stream-session.ts';

interface ReportServiceDeps {
  readonly livePeers: LivePeers;
  readonly ledgers: Ledgers;
  readonly receipts: ReceiptBook;
}

export function addReportService(server: Server, deps: ReportServiceDeps & { opener: StreamSessions }): void {
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
    confirm: (call) =>
      opener.open(call, ({ identity, connection, stillProven }) =>
        followReceipts(call, { spiffeId: identity.svid.id.uri, connection, stillProven }, deps.receipts),
      ),
  };
  server.addService(ReportServiceService, service);
}

/** A sidecar sends twice a second at most, and few of these. */
const RECEIPTS = { burst: 20, perSecond: 4 };
const MAX_RECEIPTS = 1_000;

/** What was delivered the agent sees itself, by the answers of its streams: a sidecar also tells of what its agent was not there to see. */
function followReceipts(call: ReportStream<SecretReceipts>, { spiffeId, stillProven }: Reporter, book: ReceiptBook): () => void {
  const limit = requestLimit(RECEIPTS);
  let over = false;
  let pod: string | undefined;
  call.on('data', ({ receipts }) => {
    if (over || !stillProven()) return;
    try {
      limit();
    } catch (error) {
      call.emit('error', error);
      return;
    }
    for (const receipt of receipts.slice(0, MAX_RECEIPTS)) {
      const believed = believedReceipt(receipt, spiffeId);
      if (believed === undefined) continue;
      // One stream is one sidecar's.
      pod ??= believed.pod;
      if (believed.pod === pod) book.told(believed);
    }
  });
  call.on('end', () => call.end());
  return () => {
    over = true;
  };
}
