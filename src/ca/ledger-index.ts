// The certificates that are alive, by everything that somebody may ask for. Expired ones are forgotten by the minute.

import type { LedgerEntry } from './ledger-entry.ts';

const MINUTE = 60_000;

export class LedgerIndex {
  readonly #bySerial = new Map<string, LedgerEntry>();
  readonly #bySpiffeId = new Map<string, Set<LedgerEntry>>();
  readonly #byKeyId = new Map<string, Set<LedgerEntry>>();
  readonly #byNode = new Map<string, Set<LedgerEntry>>();
  /** Entries by the minute in which they expire. */
  readonly #byMinute = new Map<number, LedgerEntry[]>();
  #forgottenUpTo = 0;

  get size(): number {
    return this.#bySerial.size;
  }

  has(serial: string): boolean {
    return this.#bySerial.has(serial);
  }

  add(entry: LedgerEntry): void {
    this.#bySerial.set(entry.serial, entry);
    addTo(this.#bySpiffeId, entry.spiffeId, entry);
    addTo(this.#byKeyId, entry.keyId, entry);
    addTo(this.#byNode, entry.node, entry);
    const minute = Math.floor(entry.notAfter / MINUTE);
    const expiring = this.#byMinute.get(minute);
    if (expiring === undefined) this.#byMinute.set(minute, [entry]);
    else expiring.push(entry);
  }

  delete(entry: LedgerEntry): void {
    if (!this.#bySerial.delete(entry.serial)) return;
    deleteFrom(this.#bySpiffeId, entry.spiffeId, entry);
    deleteFrom(this.#byKeyId, entry.keyId, entry);
    deleteFrom(this.#byNode, entry.node, entry);
  }

  /** Forgets what has expired. Looks at most once a minute, and then only at minutes that are over. */
  forgetExpired(now: number): void {
    const minute = Math.floor(now / MINUTE);
    if (minute === this.#forgottenUpTo) return;
    this.#forgottenUpTo = minute;
    for (const [expiry, entries] of this.#byMinute) {
      if (expiry >= minute) continue;
      for (const entry of entries) this.delete(entry);
      this.#byMinute.delete(expiry);
    }
  }

  bySerial(serial: string): LedgerEntry | undefined {
    return this.#bySerial.get(serial);
  }

  bySpiffeId(spiffeId: string): Iterable<LedgerEntry> {
    return this.#bySpiffeId.get(spiffeId) ?? [];
  }

  byKeyId(keyId: string): Iterable<LedgerEntry> {
    return this.#byKeyId.get(keyId) ?? [];
  }

  byNode(node: string): Iterable<LedgerEntry> {
    return this.#byNode.get(node) ?? [];
  }

  all(): Iterable<LedgerEntry> {
    return this.#bySerial.values();
  }
}

function addTo(index: Map<string, Set<LedgerEntry>>, key: string, entry: LedgerEntry): void {
  const entries = index.get(key);
  if (entries === undefined) index.set(key, new Set([entry]));
  else entries.add(entry);
}

function deleteFrom(index: Map<string, Set<LedgerEntry>>, key: string, entry: LedgerEntry): void {
  const entries = index.get(key);
  entries?.delete(entry);
  if (entries?.size === 0) index.delete(key);
}
