// How many streams one peer may open and hold on the agent's socket, and how many refused tokens it may present.

import { HandfastError } from '../errors.ts';
import { KeyedLimits } from '../rate-limit.ts';

/** A pod that restarts all its programs opens a few streams; a node's bench opens thousands. */
const STREAMS = { burst: 4_096, perSecond: 100 };
/** At once: whoever opens them slowly enough would fill our memory all the same. */
const MAX_OPEN = 10_000;
/** Each refused token costs the CA a signature check: whoever presents many is made to wait before it is asked again. */
const REFUSALS = { burst: 20, perSecond: 1 };

export class StreamLimits {
  readonly #streams = new KeyedLimits(STREAMS);
  readonly #refusals = new KeyedLimits(REFUSALS);
  readonly #open = new Map<string, number>();

  /** Counts a stream; call the answer once when it has ended. Throws RATE_LIMITED. */
  open(key: string): () => void {
    const open = this.#open.get(key) ?? 0;
    if (open >= MAX_OPEN) throw new HandfastError('RATE_LIMITED', `${open} streams are open: end one first`);
    const waitMs = this.#streams.take(key);
    if (waitMs > 0) throw new HandfastError('RATE_LIMITED', `too many streams; the next one in ${Math.ceil(waitMs / 1000)} s`);
    const refusedMs = this.#refusals.look(key);
    if (refusedMs > 0) throw new HandfastError('RATE_LIMITED', `too many refused tokens; the next try in ${Math.ceil(refusedMs / 1000)} s`);
    this.#open.set(key, open + 1);
    return () => {
      const left = (this.#open.get(key) ?? 1) - 1;
      if (left === 0) this.#open.delete(key);
      else this.#open.set(key, left);
    };
  }

  /** Counts a refused proof. Whether the peer is turned away from now on. */
  refused(key: string): boolean {
    this.#refusals.take(key);
    return this.#refusals.look(key) > 0;
  }
}
