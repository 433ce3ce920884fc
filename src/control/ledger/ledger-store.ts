// The mesh's ledger as it is kept: a verdict needs days of it, and control may be started again at any time.

import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { Backoff } from '../../backoff.ts';
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
  /** What was written last is ours, or has been read. */
  #wasOurs = true;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: LedgerStoreOptions) {
    this.#options = options;
    this.#savedRevision = options.ledger.revision;
  }

  /**
   * Reads what there is into the ledger, and from now on saves what changes. What is broken is set aside: control serves all the same. What cannot be asked for is waited for until the
   * signal aborts: whoever begins without it would save over it.
   */
  async start(signal: AbortSignal): Promise<void> {
    const { log, everyMs } = this.#options;
    const backoff = new Backoff({ baseMs: 500, maxMs: 10_000 });
    for (let said = ''; !(await this.#isRead()); ) {
      if (signal.aborted) return;
      if (said !== this.#failed) log.warn({ reason: this.#failed }, 'the saved ledger cannot be read yet');
      said = this.#failed;
      await delay(backoff.next(), undefined, { signal, ref: false }).catch(() => undefined);
    }
    this.#timer = setInterval(() => void this.#save(), everyMs);
    this.#timer.unref();
  }

  /** Another control has saved it: what it alone has heard is known here, too. */
  async readAgain(): Promise<void> {
    if (!this.#options.isOurs()) await this.#merge().catch(() => undefined);
  }

  /** Saves what has changed, once more; nothing where nothing could be read. */
  async stop(): Promise<void> {
    if (this.#timer === undefined) return;
    clearInterval(this.#timer);
    await this.#saving;
    this.#nextAt = 0;
    await this.#save();
  }

  /** False where nobody can say what there is. */
  async #isRead(): Promise<boolean> {
    const { kept, ledger, log, now } = this.#options;
    try {
      const isSaved = ledger.revision === this.#savedRevision;
      await this.#merge();
      if (isSaved) this.#savedRevision = ledger.revision;
      return true;
    } catch (error) {
      this.#failed = messageOf(error);
      if (!(error instanceof HandfastError && error.code === 'STATE_INVALID')) return false;
      const setAside = await (kept.setAside?.(now()) ?? Promise.resolve('nowhere')).catch((cause) => `nowhere: ${messageOf(cause)}`);
      log.error({ file: kept.place, setAside, reason: this.#failed }, 'the saved ledger cannot be used, a new one begins');
      return true;
    }
  }

  async #merge(): Promise<void> {
    const { kept, ledger } = this.#options;
    const saved = await readState(kept, parse);
    if (saved !== undefined) ledger.merge(saved);
  }

  async #save(): Promise<void> {
    const { ledger, isOurs } = this.#options;
    if (!isOurs()) {
      this.#wasOurs = false;
      return;
    }
    if (this.#saving !== undefined || ledger.revision === this.#savedRevision || performance.now() < this.#nextAt) return;
    const began = performance.now();
    this.#saving = this.#write();
    await this.#saving;
    this.#saving = undefined;
    const ended = performance.now();
    this.#nextAt = ended + (ended - began) / MAX_SHARE;
  }

  /** Never rejects. */
  async #write(mayBeBeaten = true): Promise<void> {
    const { kept, ledger, log } = this.#options;
    try {
      // Somebody else has led, and may have heard what we have not.
      if (!this.#wasOurs) await this.#merge();
      this.#wasOurs = true;
      const { revision } = ledger;
      await kept.write(JSON.stringify(written(ledger.saved)));
      this.#savedRevision = revision;
      this.#failed = '';
    } catch (error) {
      this.#wasOurs = false;
      if (mayBeBeaten && error instanceof HandfastError && error.code === 'KUBE_CONFLICT') return this.#write(false);
      const reason = messageOf(error);
      if (reason !== this.#failed) log.error({ file: kept.place, reason }, 'the ledger cannot be saved');
      this.#failed = reason;
    }
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
