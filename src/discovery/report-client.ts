// Upwards: who is connected to whom now, from the sidecar to its agent and from the agent to control. Sent when it changed, at most once a second.

import type { Snapshot } from '../snapshot.ts';
import {
  type ConnectionReport,
  type HeldPolicies,
  type LivePeer,
  ReportServiceClient,
  type ReportSummary,
} from '../wire/gen/handfast/report/v1/report.ts';
import { channelOptions } from '../wire/grpc.ts';
import { type GrpcTarget, openStream } from '../wire/grpc-target.ts';
import { fitReport } from './fit-report.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';

const EVERY_MS = 1_000;

type ReportedPeer = Omit<LivePeer, 'reporter'> & Partial<Pick<LivePeer, 'reporter'>>;

export interface ReportClientOptions {
  readonly target: GrpcTarget;
  readonly token: Snapshot<string> | undefined;
  /** All of it, each time; a sidecar leaves it to its agent to say who it is. The first come first, where it is too much for one message. */
  readonly peers: () => readonly ReportedPeer[];
  /** Whether there is more than `peers` says. */
  readonly truncated?: () => boolean;
  /** What this node's sidecars have confirmed. */
  readonly held?: () => readonly HeldPolicies[];
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export async function runReportClient(options: ReportClientOptions): Promise<void> {
  const { signal } = options;
  let report: (() => void) | undefined;
  const timer = setInterval(() => report?.(), EVERY_MS);
  timer.unref();
  await maintainStream<ConnectionReport, ReportSummary>({
    name: 'report',
    open: (metadata) =>
      openStream(ReportServiceClient, { target: options.target, options: channelOptions }, (client) => client.report(metadata)),
    token: options.token,
    onOpen: (send) => {
      let last: string | undefined;
      report = () => {
        const whole = { peers: options.peers().map((peer) => ({ reporter: '', ...peer })), truncated: options.truncated?.() ?? false };
        const held = [...(options.held?.() ?? [])];
        const text = JSON.stringify([whole, held]);
        if (text === last) return;
        last = text;
        send({ ...fitReport(whole), held });
      };
      report();
    },
    onMessage: () => undefined,
    log: options.log,
    signal,
  });
  clearInterval(timer);
}
