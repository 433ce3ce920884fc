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

export interface NodeReceiptsOptions {
  readonly audit: SecretAudit | undefined;
  /** Whether somebody may have a secret now: others are not believed to have it, unless it was known before. */
  readonly isEntitled: (of: { key: string; id: SpiffeId }) => boolean;
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
        for (const receipt of receipts) {
          const { receipt: believed, id } = plausible(receipt, reporter) ?? {};
          if (believed === undefined || id === undefined) continue;
          if (book.has(believed) || this.#options.isEntitled({ key: believed.secret, id }))
            this.#options.audit?.receipt(node, book.take(believed));
        }
      },
      // What its workloads do with what they have nobody tells us any more, until it comes back and says it all anew.
      end: () => {
        if (over) return;
        over = true;
        of.streams--;
        if (of.streams === 0) for (const { reporter, pod } of book.all) book.leaves({ reporter, pod }, this.#options.now());
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
function plausible(receipt: SecretReceipt, reporter: string | undefined): { receipt: SecretReceipt; id: SpiffeId } | undefined {
  const said = reporter ?? receipt.reporter;
  if (said.length > MAX_ID_LENGTH) throw statusError(status.INVALID_ARGUMENT, 'a receipt of nobody');
  const believed = believedReceipt(receipt, said);
  return believed === undefined ? undefined : { receipt: believed, id: parseSpiffeId(said) };
}
