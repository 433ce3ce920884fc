// The receipts of all nodes, as control keeps them: in memory, told again by every agent that comes back.

import { status } from '@grpc/grpc-js';
import { believedReceipt, ReceiptBook } from '../../discovery/receipt-book.ts';
import { requestLimit } from '../../discovery/request-limit.ts';
import { parseSpiffeId, type SpiffeId } from '../../spiffe/spiffe-id.ts';
import type { SecretReceipt, SecretReceipts } from '../../wire/gen/handfast/report/v1/report.ts';
import { statusError } from '../../wire/grpc.ts';
import type { SecretAudit } from './secret-audit.ts';

/** A receipt, and which node's agent brought it. */
export interface NodeReceipt extends SecretReceipt {
  readonly node: string;
}

/** None that we issue has more. */
const MAX_ID_LENGTH = 640;
/** Of one agent: 110 pods with some secrets each. */
const MAX_OF_NODE = 20_000;
/** Workloads without an agent are a node each. */
const MAX_NODES = 10_000;
const REPORTS = { burst: 100, perSecond: 20 };
/** Of one message: no agent of ours sends more. */
const MAX_RECEIPTS = 1_000;
const TIMES = ['delivered', 'loaded', 'confirmed', 'dropped', 'left'] as const;
/** No pod is older. */
const OLDEST_MS = 5 * 365 * 24 * 3_600_000;

export interface NodeReceiptsOptions {
  readonly audit: SecretAudit | undefined;
  /** Whether somebody can have this version: others are not believed to have it, unless it was known before. */
  readonly canHave: (of: { key: string; version: string; id: SpiffeId }) => boolean;
  readonly now: () => number;
}

export class NodeReceipts {
  readonly #options: NodeReceiptsOptions;
  /** By node, and how many streams each has open. */
  readonly #books = new Map<string, { readonly book: ReceiptBook; streams: number }>();

  constructor(options: NodeReceiptsOptions) {
    this.#options = options;
  }

  /** One stream of a node's agent, or of a workload that has none: `reporter` is whom it has proven to be then. */
  open({ node, reporter }: { node: string; reporter: string | undefined }): { take(report: SecretReceipts): void; end(): void } {
    const limit = requestLimit(REPORTS);
    const of = this.#books.get(node) ?? { book: new ReceiptBook({ receipts: MAX_OF_NODE }), streams: 0 };
    of.streams++;
    // The longest not heard of go first.
    this.#books.delete(node);
    this.#books.set(node, of);
    this.#makeRoom();
    const { book } = of;
    let over = false;
    return {
      take: ({ receipts }) => {
        if (over) return;
        limit();
        const { audit, canHave, now } = this.#options;
        for (const receipt of receipts.slice(0, MAX_RECEIPTS)) {
          const { receipt: believed, id } = plausible(receipt, { reporter, now: now() }) ?? {};
          if (believed === undefined || id === undefined) continue;
          if (book.has(believed) || canHave({ key: believed.secret, version: believed.version, id }))
            audit?.receipt(node, book.take(believed));
        }
      },
      // What its workloads do with what they have nobody tells us any more, until it comes back and says it all anew.
      end: () => {
        if (over) return;
        over = true;
        of.streams--;
        if (of.streams === 0) for (const { reporter, pod } of book.all) book.leaves({ reporter, pod }, { at: this.#options.now() });
      },
    };
  }

  get all(): readonly NodeReceipt[] {
    return [...this.#books].flatMap(([node, { book }]) => book.all.map((receipt) => ({ ...receipt, node })));
  }

  #makeRoom(): void {
    for (const [node, { streams }] of this.#books) {
      if (this.#books.size <= MAX_NODES) return;
      if (streams === 0) this.#books.delete(node);
    }
  }
}

/** Throws the status for what no agent of ours says. Undefined for what cannot be. */
function plausible(
  receipt: SecretReceipt,
  { reporter, now }: { reporter: string | undefined; now: number },
): { receipt: SecretReceipt; id: SpiffeId } | undefined {
  const said = reporter ?? receipt.reporter;
  if (said.length > MAX_ID_LENGTH) throw statusError(status.INVALID_ARGUMENT, 'a receipt of nobody');
  const believed = believedReceipt(receipt, said);
  return believed === undefined ? undefined : { receipt: timely(believed, now), id: parseSpiffeId(said) };
}

/** Nothing has happened after now, nor before there was a mesh: a record must not say so because a node did. */
function timely(receipt: SecretReceipt, now: number): SecretReceipt {
  const next = { ...receipt };
  for (const time of TIMES) if (next[time] !== 0) next[time] = Math.min(Math.max(next[time], now - OLDEST_MS), now);
  return next;
}
