// The mesh's ledger as it is kept: a verdict needs days of it, and control may be started again at any time.

import { z } from 'zod';
import { HandfastError, messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import { LedgerReport } from '../../wire/gen/handfast/report/v1/report.ts';
import { type KeptState, readState } from '../kept-state.ts';
import type { LedgerInstance } from './ledger-instance.ts';
import type { MeshLedger, SavedLedger } from './mesh-ledger.ts';

/** A big ledger takes a while to write: never more than this share of the time. */
const MAX_SHARE = 1 / 20;

const count = z.int().min(0);
const totals = z.strictObject({ connections: count, failures: count });
const byDirection = z.strictObject({ inbound: totals, outbound: totals });
const schema = z.strictObject({
  version: z.literal(2),
  runs: z.array(z.strictObject({ node: z.string(), heard: count, wasBelieved: z.boolean(), report: z.base64() })),
  totals: z.array(
    z.strictObject({
      pod: z.string(),
      reporter: z.string(),
      wasBelieved: z.boolean(),
      heard: count,
      earlier: byDirection,
      runs: z.array(byDirection.extend({ instance: z.string(), zero: byDirection.optional() })),
    }),
  ),
});

/** They stand beside the runs, because they outlive them. */
const NO_TOTALS = { inboundTotals: undefined, outboundTotals: undefined };

export interface LedgerStoreOptions {
  readonly kept: KeptState;
  /** How often it is looked whether there is something to save. */
  readonly everyMs: number;
  /** Of several controls, each of which hears everything, one saves it. */
  readonly isOurs: () => boolean;
  readonly ledger: MeshLedger;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
}

export class LedgerStore {
  readonly #options: LedgerStoreOptions;
  #savedRevision: number;
  #nextAt = 0;
  #saving: Promise<void> | undefined;
  #failed = '';
  #timer: NodeJS.Timeout | undefined;

  constructor(options: LedgerStoreOptions) {
    this.#options = options;
    this.#savedRevision = options.ledger.revision;
  }

  /** Reads what there is into the ledger, and from now on saves what changes. What cannot be read is set aside: control serves all the same. */
  async start(): Promise<void> {
    const { kept, ledger, log, now, everyMs } = this.#options;
    try {
      const saved = await readState(kept, parse);
      if (saved !== undefined) ledger.restore(saved);
    } catch (error) {
      const setAside = await (kept.setAside?.(now()) ?? Promise.resolve('nowhere')).catch((cause) => `nowhere: ${messageOf(cause)}`);
      log.error({ file: kept.place, setAside, reason: messageOf(error) }, 'the saved ledger cannot be used, a new one begins');
    }
    this.#savedRevision = ledger.revision;
    this.#timer = setInterval(() => void this.#save(), everyMs);
    this.#timer.unref();
  }

  /** Saves what has changed, once more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#saving;
    this.#nextAt = 0;
    await this.#save();
  }

  async #save(): Promise<void> {
    const { kept, ledger, log, isOurs } = this.#options;
    const { revision } = ledger;
    if (this.#saving !== undefined || revision === this.#savedRevision || performance.now() < this.#nextAt || !isOurs()) return;
    const began = performance.now();
    this.#saving = replace(kept, JSON.stringify(written(ledger.saved)));
    try {
      await this.#saving;
      this.#savedRevision = revision;
      this.#failed = '';
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#failed) log.error({ file: kept.place, reason }, 'the ledger cannot be saved');
      this.#failed = reason;
    } finally {
      this.#saving = undefined;
      const ended = performance.now();
      this.#nextAt = ended + (ended - began) / MAX_SHARE;
    }
  }
}

/** Whoever saves has heard everything, whatever another control has saved before. */
async function replace(kept: KeptState, text: string): Promise<void> {
  try {
    await kept.write(text);
  } catch (error) {
    if (!(error instanceof HandfastError && error.code === 'KUBE_CONFLICT')) throw error;
    await kept.read().catch(() => undefined);
    await kept.write(text);
  }
}

function written(saved: SavedLedger): z.infer<typeof schema> {
  const runs = saved.instances.map(({ node, heard, wasBelieved, live: _, entries, ...run }) => ({
    node,
    heard,
    wasBelieved,
    // As it came: the entries of many runs are many, and this is a quarter of their JSON.
    report: Buffer.from(LedgerReport.encode({ ...run, ...NO_TOTALS, entries: [...entries], ended: true }).finish()).toString('base64'),
  }));
  return { version: 2, runs, totals: saved.totals.map(({ runs: of, ...told }) => ({ ...told, runs: [...of] })) };
}

function parse(fields: Readonly<Record<string, unknown>>): SavedLedger {
  const saved = schema.parse(fields);
  const instances = saved.runs.map(({ report, ...of }): LedgerInstance => {
    const { ended: _, inboundTotals: __, outboundTotals: ___, ...run } = LedgerReport.decode(Buffer.from(report, 'base64'));
    return { ...run, ...of, live: false };
  });
  return { instances, totals: saved.totals };
}
