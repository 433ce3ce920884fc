// How many streams one peer and one workload may open and hold on the agent's socket, and how many refused tokens a peer may present.

import { HandfastError } from '../errors.ts';
import { KeyedLimits } from '../rate-limit.ts';

export interface StreamCounts {
  /** At once, of one peer: whoever opens them slowly enough would fill our memory all the same. */
  readonly ofPeer: number;
  /** At once, of one SPIFFE ID. */
  readonly ofWorkload: number;
}

/** A node has some 110 pods, and all of them may be replicas of one workload, whose sidecars hold eight streams each. */
const COUNTS: StreamCounts = { ofPeer: 4_096, ofWorkload: 1_024 };
/** A pod that restarts all its programs opens a few streams; a node's bench opens thousands. */
const STREAMS = { burst: 4_096, perSecond: 100 };
/** Each refused token costs the CA a signature check: whoever presents many is made to wait before it is asked again. */
const REFUSALS = { burst: 20, perSecond: 1 };

export class StreamLimits {
  readonly #counts: StreamCounts;
  readonly #streams = new KeyedLimits(STREAMS);
  readonly #refusals = new KeyedLimits(REFUSALS);
  readonly #ofPeer = new Map<string, number>();
  readonly #ofWorkload = new Map<string, number>();

  constructor(counts: Partial<StreamCounts> = {}) {
    this.#counts = { ...COUNTS, ...counts };
  }

  /** Counts a peer's stream, whoever it will prove to be; call the answer once when it has ended. Throws RATE_LIMITED. */
  open(peer: string): () => void {
    refuseMore(this.#ofPeer, peer, { max: this.#counts.ofPeer, whose: "of this process's user" });
    const waitMs = this.#streams.take(peer);
    if (waitMs > 0) throw new HandfastError('RATE_LIMITED', `too many streams; the next one in ${Math.ceil(waitMs / 1000)} s`);
    const refusedMs = this.#refusals.look(peer);
    if (refusedMs > 0) throw new HandfastError('RATE_LIMITED', `too many refused tokens; the next try in ${Math.ceil(refusedMs / 1000)} s`);
    return count(this.#ofPeer, peer);
  }

  /** Counts a stream of the workload that it has proven to be; call the answer once when it has ended. Throws RATE_LIMITED. */
  prove(spiffeId: string): () => void {
    refuseMore(this.#ofWorkload, spiffeId, { max: this.#counts.ofWorkload, whose: `of ${spiffeId}` });
    return count(this.#ofWorkload, spiffeId);
  }

  /** Counts a refused proof. Whether the peer is turned away from now on. */
  refused(peer: string): boolean {
    this.#refusals.take(peer);
    return this.#refusals.look(peer) > 0;
  }
}

function refuseMore(counts: ReadonlyMap<string, number>, key: string, { max, whose }: { max: number; whose: string }): void {
  const open = counts.get(key) ?? 0;
  if (open >= max) throw new HandfastError('RATE_LIMITED', `${open} streams ${whose} are open: end one first`);
}

function count(counts: Map<string, number>, key: string): () => void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
  return () => {
    const left = (counts.get(key) ?? 1) - 1;
    if (left === 0) counts.delete(key);
    else counts.set(key, left);
  };
}
