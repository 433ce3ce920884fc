// A sidecar's ledger: who spoke to this pod and to whom it spoke, how, and when first and last; in bounded memory, whatever comes in.

import { randomUUID } from 'node:crypto';
import { BoundedEntries } from './bounded-entries.ts';
import { entryKey, isUnproven, type LedgerEntry, type LedgerFacts, tierOf } from './ledger-entry.ts';
import { counted, NO_TOTALS, type Totals } from './totals.ts';
import { Tripwire } from './tripwire.ts';

/** One connection, as far as it has come. `ownId` and `expected` are no part of the entry: `expected` says that plaintext is what this port's switch asks for. */
export interface Sighting {
  readonly facts: LedgerFacts;
  readonly ownId: string;
  readonly expected: boolean;
}

/** What a ledger says upwards. `revision` grows with each change of anything. */
export interface LedgerView {
  readonly instance: string;
  /** Unix milliseconds. */
  readonly observedSince: number;
  readonly dropped: number;
  readonly forgotten: number;
  /** Of the whole run, whatever became of its entries. */
  readonly inboundTotals: Totals;
  readonly outboundTotals: Totals;
  readonly revision: number;
  /** The entries that have changed since that revision; all of them since -1. */
  changedAfter(revision: number): readonly LedgerEntry[];
}

/** Pino's logger fits. */
interface TripwireLog {
  warn(fields: object, message: string): void;
}

/** Whom the pod itself calls must never crowd out who comes in. */
const MAX_INBOUND = 4_000;
const MAX_OUTBOUND = 1_000;

interface Counted {
  readonly facts: LedgerFacts;
  readonly firstSeen: number;
  connections: number;
  open: number;
  lastSeen: number;
  tripwire: boolean;
  revision: number;
}

/** A connection that is noted as open. */
export interface OpenConnection {
  readonly key: string;
  /** It has ended: by itself, or it was cut, which is an entry of its own. */
  end(cut?: Sighting): void;
}

/** Where connections are noted. */
export interface SightingSink {
  /** One that is being joined. */
  join(sighting: Sighting): OpenConnection;
  /** One that has ended before it was joined: refused, failed or cut. */
  note(sighting: Sighting): void;
}

export class Ledger implements LedgerView, SightingSink {
  readonly instance = randomUUID();
  readonly observedSince: number;
  readonly #log: TripwireLog;
  readonly #now: () => number;
  readonly #inbound: BoundedEntries<Counted>;
  readonly #outbound: BoundedEntries<Counted>;
  readonly #tripwire = new Tripwire();
  #inboundTotals = NO_TOTALS;
  #outboundTotals = NO_TOTALS;
  #dropped = 0;
  #forgotten = 0;
  #tripped = 0;
  #revision = 0;

  constructor(options: { log: TripwireLog; now: () => number; max?: { inbound: number; outbound: number } }) {
    this.#log = options.log;
    this.#now = options.now;
    this.observedSince = options.now();
    const { inbound, outbound } = options.max ?? { inbound: MAX_INBOUND, outbound: MAX_OUTBOUND };
    const onEvicted = (entry: Counted) => this.#lose(entry.facts, entry.connections);
    this.#inbound = new BoundedEntries(inbound, onEvicted);
    this.#outbound = new BoundedEntries(outbound, onEvicted);
  }

  /** Connections that were let in unproven and found no room. */
  get dropped(): number {
    return this.#dropped;
  }

  /** All others that found none, or made room. */
  get forgotten(): number {
    return this.#forgotten;
  }

  /** Connections that tripped the wire, of the whole run. */
  get tripped(): number {
    return this.#tripped;
  }

  get inboundTotals(): Totals {
    return this.#inboundTotals;
  }

  get outboundTotals(): Totals {
    return this.#outboundTotals;
  }

  get revision(): number {
    return this.#revision;
  }

  join(sighting: Sighting): OpenConnection {
    const key = entryKey(sighting.facts);
    const entry = this.#count(key, sighting, false);
    entry.open++;
    return {
      key,
      end: (cut) => {
        entry.open--;
        entry.lastSeen = this.#now();
        entry.revision = ++this.#revision;
        if (cut !== undefined) this.#count(entryKey(cut.facts), cut, true);
      },
    };
  }

  note(sighting: Sighting): void {
    this.#count(entryKey(sighting.facts), sighting, false);
  }

  changedAfter(revision: number): readonly LedgerEntry[] {
    const changed: LedgerEntry[] = [];
    for (const entries of [this.#inbound, this.#outbound]) {
      for (const { facts, revision: changedAt, ...counts } of entries.values())
        if (changedAt > revision) changed.push({ ...facts, ...counts });
    }
    return changed;
  }

  #count(key: string, sighting: Sighting, joinedBefore: boolean): Counted {
    const { facts } = sighting;
    const inbound = facts.direction === 'inbound';
    const entries = inbound ? this.#inbound : this.#outbound;
    if (inbound) this.#inboundTotals = counted(this.#inboundTotals, facts, joinedBefore);
    else this.#outboundTotals = counted(this.#outboundTotals, facts, joinedBefore);
    const tier = tierOf(facts);
    const now = this.#now();
    const entry = entries.get(key, tier) ?? { facts, firstSeen: now, connections: 0, open: 0, lastSeen: now, tripwire: false, revision: 0 };
    entry.connections++;
    entry.lastSeen = now;
    entry.revision = ++this.#revision;
    if (this.#trips(sighting, now)) {
      entry.tripwire = true;
      this.#tripped++;
    }
    if (!entries.put(key, entry, tier)) this.#lose(facts, 1);
    return entry;
  }

  #trips({ facts, ownId, expected }: Sighting, now: number): boolean {
    const { direction, transport, outcome, port, peerId, peerRegisteredId, peerAddress } = facts;
    if (direction !== 'inbound') return false;
    if (transport === 'mtls' && outcome === 'allowed') this.#tripwire.spokeMtls({ id: peerId, port });
    if (transport !== 'plaintext' || expected || peerRegisteredId === '') return false;
    const { tripped, say } = this.#tripwire.spokePlaintext({ id: peerRegisteredId, port }, now);
    if (say) {
      const client = { address: peerAddress, workload: facts.peerWorkload, registeredId: peerRegisteredId };
      this.#log.warn(
        { client, server: { spiffeId: ownId, address: facts.ownAddress, port }, outcome },
        'tripwire: plaintext from a workload that has spoken mTLS to this port before',
      );
    }
    return tripped;
  }

  #lose(facts: LedgerFacts, connections: number): void {
    if (isUnproven(facts)) this.#dropped += connections;
    else this.#forgotten += connections;
    this.#revision++;
  }
}
