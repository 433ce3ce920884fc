// One sidecar's ledger as its agent keeps it: what of it is believed, in bounded memory, and what of it is new.

import { isPlausibleEntry } from '../discovery/believed-ledger.ts';
import { BoundedEntries } from '../observe/bounded-entries.ts';
import { entryKey, isUnproven, tierOf } from '../observe/ledger-entry.ts';
import { NO_TOTALS, type Totals } from '../observe/totals.ts';
import type { LedgerEntry, LedgerReport } from '../wire/gen/handfast/report/v1/report.ts';

interface Kept {
  readonly entry: LedgerEntry;
  readonly revision: number;
}

export class SidecarLedger {
  readonly instance: string;
  readonly observedSince: number;
  readonly #entries: BoundedEntries<Kept>;
  #lost = { dropped: 0, forgotten: 0 };
  #said = { dropped: 0, forgotten: 0 };
  #totals = { inbound: NO_TOTALS, outbound: NO_TOTALS };
  #revision = 0;

  constructor(of: Pick<LedgerReport, 'instance' | 'observedSince'>, maxEntries: number) {
    this.instance = of.instance;
    this.observedSince = of.observedSince;
    this.#entries = new BoundedEntries(maxEntries, ({ entry }) => this.#lose(entry));
  }

  get size(): number {
    return this.#entries.size;
  }

  get dropped(): number {
    return this.#said.dropped + this.#lost.dropped;
  }

  get forgotten(): number {
    return this.#said.forgotten + this.#lost.forgotten;
  }

  get inboundTotals(): Totals {
    return this.#totals.inbound;
  }

  get outboundTotals(): Totals {
    return this.#totals.outbound;
  }

  get revision(): number {
    return this.#revision;
  }

  take({ entries, dropped, forgotten, inboundTotals, outboundTotals }: LedgerReport, of: { now: number; maxEntries: number }): void {
    this.#revision++;
    this.#totals = { inbound: inboundTotals ?? this.#totals.inbound, outbound: outboundTotals ?? this.#totals.outbound };
    this.#said = { dropped, forgotten };
    this.#entries.max = of.maxEntries;
    for (const entry of entries) {
      // Whoever says what cannot be so may be hiding somebody behind it.
      if (!isPlausibleEntry(entry, of.now)) this.#lost.dropped++;
      else if (!this.#entries.put(entryKey(entry), { entry, revision: this.#revision }, tierOf(entry))) this.#lose(entry);
    }
  }

  changedAfter(revision: number): readonly LedgerEntry[] {
    const changed: LedgerEntry[] = [];
    for (const kept of this.#entries.values()) if (kept.revision > revision) changed.push(kept.entry);
    return changed;
  }

  /** What is lost with it where it is not handed on: connections that nobody else knows of. */
  get unproven(): number {
    let connections = this.dropped;
    for (const { entry } of this.#entries.values()) if (isUnproven(entry)) connections += entry.connections;
    return connections;
  }

  /** Another run of its pod could not be handed on. */
  lacks(connections: number): void {
    this.#lost.dropped += connections;
    this.#revision++;
  }

  #lose(entry: LedgerEntry): void {
    if (isUnproven(entry)) this.#lost.dropped += entry.connections;
    else this.#lost.forgotten += entry.connections;
  }
}
