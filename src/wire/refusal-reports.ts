// Which refusals are worth a line in the log: whoever is refused as often as it likes must not write it full.

import { type MonotonicClock, type Rate, TokenBucket } from '../rate-limit.ts';

const RATE: Rate = { burst: 20, perSecond: 1 };

/** Kinds are ours (codes, and who was refused), so that there are few of them; a flood of one does not silence another. */
export class RefusalReports {
  readonly #rate: Rate;
  readonly #now: MonotonicClock | undefined;
  readonly #kinds = new Map<string, { bucket: TokenBucket; suppressed: number }>();

  constructor(options: { rate?: Rate; now?: MonotonicClock | undefined } = {}) {
    this.#rate = options.rate ?? RATE;
    this.#now = options.now;
  }

  /** How many of this kind went unreported since the last report, or undefined when this one is to go unreported, too. */
  take(kind: string): number | undefined {
    const known = this.#kinds.get(kind) ?? { bucket: new TokenBucket(this.#rate, this.#now), suppressed: 0 };
    this.#kinds.set(kind, known);
    if (known.bucket.take() > 0) {
      known.suppressed++;
      return undefined;
    }
    const { suppressed } = known;
    known.suppressed = 0;
    return suppressed;
  }
}
