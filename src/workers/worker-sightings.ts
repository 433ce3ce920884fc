// What one worker has seen, in the one ledger of the pod: counted as if it had been seen here, and closed when the worker is gone.

import type { OpenConnection, SightingSink } from '../observe/ledger.ts';
import type { Seen } from './messages.ts';
import { seenKey } from './sighting-feed.ts';

export class WorkerSightings {
  readonly #ledger: SightingSink;
  /** Those of one key are alike: whichever is ended, the count is right. */
  readonly #open = new Map<string, OpenConnection[]>();

  constructor(ledger: SightingSink) {
    this.#ledger = ledger;
  }

  take(all: readonly Seen[]): void {
    for (const { sighting, noted, joined, ended, cuts } of all) {
      for (let times = 0; times < noted; times++) this.#ledger.note(sighting);
      if (joined + ended + cuts.length === 0) continue;
      const key = seenKey(sighting);
      const open = this.#open.get(key) ?? [];
      for (let times = 0; times < joined; times++) open.push(this.#ledger.join(sighting));
      for (let times = 0; times < ended; times++) open.pop()?.end();
      for (const cut of cuts) open.pop()?.end(cut);
      if (open.length > 0) this.#open.set(key, open);
      else this.#open.delete(key);
    }
  }

  /** The worker is gone, and its connections with it. */
  end(): void {
    for (const open of this.#open.values()) for (const connection of open) connection.end();
    this.#open.clear();
  }
}
