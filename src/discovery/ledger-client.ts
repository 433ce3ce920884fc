// Upwards: who spoke to whom, from the sidecar to its agent and from the agent to control. At first all of it, then what has changed, at most once a second.

import type { Snapshot } from '../snapshot.ts';
import {
  LedgerEntry,
  type LedgerReport,
  ReportServiceClient,
  type ReportSummary,
  type Totals,
} from '../wire/gen/handfast/report/v1/report.ts';
import { channelOptions } from '../wire/grpc.ts';
import { type GrpcTarget, openStream } from '../wire/grpc-target.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';

const EVERY_MS = 1_000;
/** Well below what our servers take in one message. */
const MAX_BYTES = 1024 * 1024;
/** Tag and length of one entry. */
const OVERHEAD_BYTES = 6;
/** In one go: what is left goes a second later, so that a whole node's ledgers never wait in memory at once. */
const MAX_MESSAGES = 16;

/** One sidecar's ledger. `revision` grows with each change of anything; `ended`: nothing more will come. */
export interface ReportedLedger extends Pick<LedgerReport, 'pod' | 'reporter' | 'ended'> {
  readonly ledger: {
    readonly instance: string;
    readonly observedSince: number;
    readonly dropped: number;
    readonly forgotten: number;
    readonly inboundTotals: Totals;
    readonly outboundTotals: Totals;
    readonly revision: number;
    /** All entries after -1. */
    changedAfter(revision: number): readonly LedgerEntry[];
  };
}

export interface LedgerClientOptions {
  readonly target: GrpcTarget;
  readonly token: Snapshot<string> | undefined;
  /** A sidecar leaves `reporter` empty: its agent says who it is. */
  readonly ledgers: () => Iterable<ReportedLedger>;
  /** One that has ended was sent, and the other side says that it has it: once on each stream. */
  readonly onEndedTaken?: (ledger: ReportedLedger) => void;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export async function runLedgerClient(options: LedgerClientOptions): Promise<void> {
  const { signal } = options;
  let report: (() => void) | undefined;
  let sender: LedgerSender | undefined;
  const timer = setInterval(() => report?.(), EVERY_MS);
  timer.unref();
  await maintainStream<LedgerReport, ReportSummary>({
    name: 'ledger',
    open: (metadata) =>
      openStream(ReportServiceClient, { target: options.target, options: channelOptions }, (client) => client.record(metadata)),
    token: options.token,
    onOpen: (send) => {
      // Whoever is at the other end of a new stream knows nothing of what the old one was told.
      const fresh = new LedgerSender(send);
      sender = fresh;
      report = () => fresh.sendChanges(options.ledgers());
      report();
    },
    onMessage: ({ taken }) => {
      for (const ended of sender?.taken(taken) ?? []) options.onEndedTaken?.(ended);
    },
    log: options.log,
    signal,
  });
  clearInterval(timer);
}

/** What one stream has been told. */
export class LedgerSender {
  readonly #send: (report: LedgerReport) => void;
  /** Up to which revision, and when in the order of all that was sent. */
  readonly #sent = new WeakMap<ReportedLedger['ledger'], { revision: number; turn: number; ended: boolean }>();
  /** Ended ones, and how many messages must be taken until the other side has all of each. */
  readonly #awaited = new Map<ReportedLedger['ledger'], { reported: ReportedLedger; messages: number }>();
  #messages = 0;
  #turn = 0;

  constructor(send: (report: LedgerReport) => void) {
    this.#send = send;
  }

  /** Sends what has changed, as far as it goes; whoever was sent longest ago is first, so that a busy ledger holds up no other. */
  sendChanges(ledgers: Iterable<ReportedLedger>): void {
    const turnOf = ({ ledger }: ReportedLedger) => this.#sent.get(ledger)?.turn ?? 0;
    const all = [...ledgers];
    const there = new Set(all.map(({ ledger }) => ledger));
    // It came again, or has made room for others.
    for (const ledger of this.#awaited.keys()) if (!there.has(ledger)) this.#awaited.delete(ledger);
    let messages = 0;
    for (const reported of all.sort((a, b) => turnOf(a) - turnOf(b))) {
      const { ledger } = reported;
      const { revision: last, ended } = this.#sent.get(ledger) ?? { revision: -1, ended: false };
      if (ledger.revision === last && reported.ended === ended) continue;
      if (messages >= MAX_MESSAGES) break;
      this.#sent.set(ledger, { revision: ledger.revision, turn: ++this.#turn, ended: reported.ended });
      for (const message of inMessages(reported, ledger.changedAfter(last))) {
        this.#send(message);
        messages++;
        this.#messages++;
      }
      if (reported.ended) this.#awaited.set(ledger, { reported, messages: this.#messages });
    }
  }

  /** The other side has taken so many messages: returns those that have ended and that it has now. A message that was only written may never have arrived. */
  taken(messages: number): readonly ReportedLedger[] {
    const there = [...this.#awaited.values()].filter((awaited) => awaited.messages <= messages);
    for (const { reported } of there) this.#awaited.delete(reported.ledger);
    return there.map(({ reported }) => reported);
  }
}

/** As many messages as the entries need, and one where there are none: that somebody observes is news too. Only the last one says that it has ended. */
export function inMessages(reported: ReportedLedger, entries: readonly LedgerEntry[], maxBytes = MAX_BYTES): LedgerReport[] {
  const { pod, reporter, ended, ledger } = reported;
  const { instance, observedSince, dropped, forgotten, inboundTotals, outboundTotals } = ledger;
  const chunks: LedgerEntry[][] = [[]];
  let bytes = 0;
  for (const entry of entries) {
    const size = LedgerEntry.encode(entry).finish().length + OVERHEAD_BYTES;
    if (bytes > 0 && bytes + size > maxBytes) {
      chunks.push([]);
      bytes = 0;
    }
    bytes += size;
    chunks.at(-1)?.push(entry);
  }
  return chunks.map((chunk, index) => ({
    pod,
    reporter,
    instance,
    observedSince,
    entries: chunk,
    dropped,
    forgotten,
    inboundTotals,
    outboundTotals,
    ended: ended && index === chunks.length - 1,
  }));
}
