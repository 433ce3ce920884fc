// The mesh's ledger on disk: a verdict needs days of it, and control may be started again at any time.

import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import { readStateJson, replacePrivate } from '../../store/state-file.ts';
import { LedgerReport } from '../../wire/gen/handfast/report/v1/report.ts';
import type { LedgerInstance } from './ledger-instance.ts';
import type { MeshLedger, SavedLedger } from './mesh-ledger.ts';

const FILE = 'mesh-ledger.json';
const EVERY_MS = 10_000;
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

export class LedgerStore {
  readonly #file: string;
  readonly #ledger: MeshLedger;
  readonly #log: Log;
  readonly #now: () => number;
  #savedRevision: number;
  #nextAt = 0;
  #saving: Promise<void> | undefined;
  #failed = '';
  #timer: NodeJS.Timeout | undefined;

  constructor(options: { stateDir: string; ledger: MeshLedger; log: Log; now: () => number }) {
    this.#file = join(options.stateDir, FILE);
    this.#ledger = options.ledger;
    this.#log = options.log;
    this.#now = options.now;
    this.#savedRevision = options.ledger.revision;
  }

  /** Reads what there is into the ledger, and from now on saves what changes. A file that cannot be read is set aside: control serves all the same. */
  async start(): Promise<void> {
    try {
      const saved = await readStateJson(this.#file, parse);
      if (saved !== undefined) this.#ledger.restore(saved);
    } catch (error) {
      const aside = `${this.#file}.broken-${this.#now()}`;
      const kept = await rename(this.#file, aside).then(
        () => aside,
        (cause) => `nowhere: ${messageOf(cause)}`,
      );
      this.#log.error({ file: this.#file, setAside: kept, reason: messageOf(error) }, 'the saved ledger cannot be used, a new one begins');
    }
    this.#savedRevision = this.#ledger.revision;
    this.#timer = setInterval(() => void this.#save(), EVERY_MS);
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
    const { revision } = this.#ledger;
    if (this.#saving !== undefined || revision === this.#savedRevision || performance.now() < this.#nextAt) return;
    const began = performance.now();
    this.#saving = replacePrivate(this.#file, JSON.stringify(written(this.#ledger.saved)));
    try {
      await this.#saving;
      this.#savedRevision = revision;
      this.#failed = '';
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#failed) this.#log.error({ file: this.#file, reason }, 'the ledger cannot be saved');
      this.#failed = reason;
    } finally {
      this.#saving = undefined;
      const ended = performance.now();
      this.#nextAt = ended + (ended - began) / MAX_SHARE;
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
