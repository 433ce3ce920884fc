// How many names all streams of a server may ask for together, and those of one workload: whoever opens many streams must fill neither its memory nor the others' place in it.

import { status } from '@grpc/grpc-js';
import { statusError } from '../wire/grpc.ts';

export interface NameBounds {
  readonly all: number;
  /** Of one workload, and never more than it leaves to others. */
  readonly each: number;
}

/** Some hundred megabytes at most; a full node needs a tenth of it. */
const OF_A_NODE: NameBounds = { all: 262_144, each: 131_072 };
/** All sidecars of a mesh without agents share it, and there the pods of one workload may be a thousand. */
export const NAMES_OF_A_MESH: NameBounds = { all: 16 * OF_A_NODE.all, each: 2 * OF_A_NODE.all };
/** Of one stream, which nobody else can take away: more than most pods speak to. */
const OWN_NAMES = 64;

export class NameBudget {
  readonly #bounds: NameBounds;
  readonly #ofWorkload = new Map<string, number>();
  #taken = 0;

  constructor(bounds: NameBounds = OF_A_NODE) {
    this.#bounds = bounds;
  }

  /** For one stream of the workload. */
  open(workload: string): StreamNames {
    return new StreamNames({
      take: (isOwn) => this.#take(workload, isOwn),
      give: (count) => this.#give(workload, count),
    });
  }

  #take(workload: string, isOwn: boolean): void {
    const has = this.#ofWorkload.get(workload) ?? 0;
    const { all, each } = this.#bounds;
    // So the next one finds as much as he has, and however many take all they can get, something is left.
    if (!isOwn && has >= Math.min(each, all - this.#taken))
      throw statusError(
        status.RESOURCE_EXHAUSTED,
        `the streams of this workload ask for ${has} names, and all together for ${this.#taken}: no more are taken`,
      );
    this.#ofWorkload.set(workload, has + 1);
    this.#taken++;
  }

  #give(workload: string, count: number): void {
    const left = (this.#ofWorkload.get(workload) ?? 0) - count;
    if (left > 0) this.#ofWorkload.set(workload, left);
    else this.#ofWorkload.delete(workload);
    this.#taken -= count;
  }
}

/** The names of one stream, whatever their types. */
export class StreamNames {
  readonly #budget: { take(isOwn: boolean): void; give(count: number): void };
  #count = 0;

  constructor(budget: { take(isOwn: boolean): void; give(count: number): void }) {
    this.#budget = budget;
  }

  get count(): number {
    return this.#count;
  }

  /** One more. Throws the status to end the stream with. */
  take(): void {
    this.#budget.take(this.#count < OWN_NAMES);
    this.#count++;
  }

  give(count: number): void {
    this.#budget.give(count);
    this.#count -= count;
  }
}
