// Control as its agents have it, in one replica or several: one of them is followed, another takes its place when its stream ends; all of them are told what happens here.

import type { ConfirmedPolicies } from '../discovery/confirmed-policies.ts';
import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import { runLedgerClient } from '../discovery/ledger-client.ts';
import { meshTypeUrls } from '../discovery/mesh-source.ts';
import type { ReceiptBook } from '../discovery/receipt-book.ts';
import { runReceiptClient } from '../discovery/receipt-client.ts';
import { runReportClient } from '../discovery/report-client.ts';
import type { ResourceChange } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import type { GrpcTarget } from '../wire/grpc-target.ts';
import type { Ledgers } from './ledgers.ts';
import type { LivePeers } from './live-peers.ts';

export interface ControlsOptions {
  /** At least one. */
  readonly controls: readonly GrpcTarget[];
  /** Takes what is followed; without it nothing is, and control is only told what happens. */
  readonly mesh: { apply(typeUrl: string, change: ResourceChange): void } | undefined;
  readonly livePeers: LivePeers;
  readonly held: ConfirmedPolicies;
  readonly ledgers: Ledgers;
  readonly receipts: ReceiptBook;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export async function followControls({ controls, mesh, livePeers, held, ledgers, receipts, log, signal }: ControlsOptions): Promise<void> {
  const common = { token: undefined, log, signal };
  await Promise.all([
    mesh === undefined
      ? undefined
      : runDeltaAdsClient({
          ...common,
          target: inTurns(controls),
          nodeId: 'agent',
          typeUrls: meshTypeUrls,
          apply: (typeUrl, change) => mesh.apply(typeUrl, change),
        }),
    ...controls.flatMap((target, index) => [
      runReportClient({
        ...common,
        target,
        peers: () => livePeers.together.peers,
        truncated: () => livePeers.together.truncated,
        held: () => held.all,
      }),
      runReceiptClient({ ...common, target, receipts }),
      runLedgerClient({
        ...common,
        target,
        ledgers: () => ledgers.reported,
        onEndedTaken: (ledger) => ledgers.taken(ledger, { control: index, controls: controls.length }),
      }),
    ]),
  ]);
}

/** Another one each time, from anyone: so that a cluster's agents spread over them. */
export function inTurns(controls: readonly GrpcTarget[]): () => GrpcTarget {
  let next = Math.floor(Math.random() * controls.length);
  return () => {
    const target = controls[next++ % controls.length];
    if (target === undefined) throw new Error('no control');
    return target;
  };
}
