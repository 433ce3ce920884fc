// The receipts of all nodes, as control keeps them: in memory, told again by every agent that comes back.

import { status } from '@grpc/grpc-js';
import { believedReceipt, ReceiptBook } from '../../discovery/receipt-book.ts';
import { requestLimit } from '../../discovery/request-limit.ts';
import { parseSpiffeId, workloadOf } from '../../spiffe/spiffe-id.ts';
import type { SecretReceipt, SecretReceipts } from '../../wire/gen/handfast/report/v1/report.ts';
import { statusError } from '../../wire/grpc.ts';
import type { SecretAudit } from './secret-audit.ts';

/** A receipt, and which node's agent brought it. */
export interface NodeReceipt extends SecretReceipt {
  readonly node: string;
}

/** Of one agent: 110 pods with some secrets each. */
const MAX_OF_NODE = 20_000;
/** Workloads without an agent are a node each. */
const MAX_NODES = 10_000;
const REPORTS = { burst: 100, perSecond: 20 };

export class NodeReceipts {
  readonly #audit: SecretAudit | undefined;
  readonly #now: () => number;
  /** By node, and how many streams each has open. */
  readonly #books = new Map<string, { readonly book: ReceiptBook; streams: number }>();

  constructor({ audit, now }: { audit: SecretAudit | undefined; now: () => number }) {
    this.#audit = audit;
    this.#now = now;
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
        for (const receipt of receipts) {
          const believed = plausible(receipt, reporter);
          if (believed !== undefined) this.#audit?.receipt(node, book.take(believed));
        }
      },
      // What its workloads do with what they have nobody tells us any more, until it comes back and says it all anew.
      end: () => {
        if (over) return;
        over = true;
        of.streams--;
        if (of.streams === 0) for (const { reporter, pod } of book.all) book.leaves({ reporter, pod }, this.#now());
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

/** Throws the status for what no agent of ours says. */
function plausible(receipt: SecretReceipt, reporter: string | undefined): SecretReceipt | undefined {
  const said = reporter ?? receipt.reporter;
  if (said.length > 640) throw statusError(status.INVALID_ARGUMENT, 'a receipt of nobody');
  try {
    if (workloadOf(parseSpiffeId(said)) === undefined) return undefined;
  } catch {
    return undefined;
  }
  return believedReceipt(receipt, said);
}
