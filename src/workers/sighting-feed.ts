// A worker's half of the pod's ledger: gathers what it sees of connections, and says it a few times a second; whoever STRICT would refuse, at once.

import type { OpenConnection, Sighting, SightingSink } from '../observe/ledger.ts';
import { entryKey, isUnproven } from '../observe/ledger-entry.ts';
import type { Seen } from './messages.ts';

const EVERY_MS = 250;

export class SightingFeed implements SightingSink {
  readonly #send: (seen: readonly Seen[]) => void;
  readonly #timer: NodeJS.Timeout;
  #gathered = new Map<string, Seen>();
  #isHurrying = false;

  constructor(send: (seen: readonly Seen[]) => void) {
    this.#send = send;
    this.#timer = setInterval(() => this.flush(), EVERY_MS).unref();
  }

  join(sighting: Sighting): OpenConnection {
    const key = seenKey(sighting);
    this.#of(key, sighting).joined++;
    return {
      key,
      end: (cut) => {
        const seen = this.#of(key, sighting);
        if (cut === undefined) seen.ended++;
        else seen.cuts.push(cut);
      },
    };
  }

  note(sighting: Sighting): void {
    this.#of(seenKey(sighting), sighting).noted++;
  }

  flush(): void {
    if (this.#gathered.size === 0) return;
    const seen = [...this.#gathered.values()];
    this.#gathered = new Map();
    this.#send(seen);
  }

  close(): void {
    clearInterval(this.#timer);
    this.flush();
  }

  #of(key: string, sighting: Sighting): Seen {
    const seen = this.#gathered.get(key) ?? { sighting, noted: 0, joined: 0, ended: 0, cuts: [] };
    this.#gathered.set(key, seen);
    // A worker that dies takes with it what it has not said: never the evidence against STRICT.
    if (isUnproven(sighting.facts)) this.#hurry();
    return seen;
  }

  #hurry(): void {
    if (this.#isHurrying) return;
    this.#isHurrying = true;
    setImmediate(() => {
      this.#isHurrying = false;
      this.flush();
    });
  }
}

/** Equal for sightings that a ledger treats alike. */
export function seenKey({ facts, ownId, expected }: Sighting): string {
  return `${entryKey(facts)}\n${expected}\n${ownId}`;
}
