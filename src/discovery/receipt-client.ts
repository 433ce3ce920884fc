// Upwards: who has which version of which secret, from the sidecar to its agent and from the agent to control. At first all that is kept, then what has changed.

import type { Snapshot } from '../snapshot.ts';
import { ReportServiceClient, type ReportSummary, type SecretReceipt, type SecretReceipts } from '../wire/gen/handfast/report/v1/report.ts';
import { channelOptions } from '../wire/grpc.ts';
import { type GrpcTarget, openStream } from '../wire/grpc-target.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';

const EVERY_MS = 500;
/** In one message: some 300 bytes each. */
const MAX_RECEIPTS = 1_000;

export interface ReceiptClientOptions {
  readonly target: GrpcTarget;
  readonly token: Snapshot<string> | undefined;
  readonly receipts: { readonly revision: number; changedAfter(revision: number): readonly SecretReceipt[] };
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. Nothing is opened before there is a receipt: most workloads have no secret. */
export async function runReceiptClient({ target, token, receipts, log, signal }: ReceiptClientOptions): Promise<void> {
  let tick: () => void = () => undefined;
  const timer = setInterval(() => tick(), EVERY_MS);
  timer.unref();
  await new Promise<void>((resolve) => {
    tick = () => {
      if (receipts.revision > 0) resolve();
    };
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
  tick = () => undefined;
  await maintainStream<SecretReceipts, ReportSummary>({
    name: 'receipts',
    open: (metadata) => openStream(ReportServiceClient, { target, options: channelOptions }, (client) => client.confirm(metadata)),
    token,
    onOpen: (send) => {
      let sent = -1;
      tick = () => {
        if (receipts.revision === sent) return;
        const changed = receipts.changedAfter(sent);
        sent = receipts.revision;
        for (let from = 0; from < changed.length; from += MAX_RECEIPTS) send({ receipts: changed.slice(from, from + MAX_RECEIPTS) });
      };
      tick();
    },
    onMessage: () => undefined,
    onClose: () => {
      tick = () => undefined;
    },
    log,
    signal,
  });
  clearInterval(timer);
}
